"""Batches from binary log files: what the kernels are measured on, and how rows are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from applier.address import parse_url
from applier.errors import CorruptEvent
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.gtid import GtidSet
from applier.events.payload import inflate
from applier.events.rows import RowDecoder
from applier.events.scheduling import compressed
from applier.events.table_map import TableMap
from applier.sandbox import Server
from applier.source.files import LogFiles
from applier.target.keys import TargetKeys
from writeset.definitions import TableDefinition
from writeset.hashing import TablePlan

Plans = Callable[[TableMap, int], TablePlan]


def read_batches(files: Iterable[Path], executed: GtidSet | None = None) -> Iterator[Batch]:
    """Batches of the files' transactions, less those in `executed`; payloads not inflated, rows not decoded.

    Raises CorruptEvent, and what `LogFiles` raises.
    """
    with LogFiles(files) as log:
        assembler = StreamAssembler(executed, packets=False)
        chunk = memoryview(bytearray(1 << 20))
        file = ""
        while (count := log.read_into(chunk)) > 0:
            if log.file != file:
                file = log.file
                assembler.begin_file(file)
            assembler.feed(chunk[:count])
            yield from _taken(assembler, flush=False)
        if left := assembler.finish():
            raise CorruptEvent(
                place=f"the end of {file}", detail=f"the last {left} bytes are not a whole event"
            )
        yield from _taken(assembler, flush=True)


def _taken(assembler: StreamAssembler, *, flush: bool) -> Iterator[Batch]:
    while (batch := assembler.take(flush)) is not None:
        if batch.failure is not None:
            raise batch.failure
        if len(batch):
            yield batch


def inflate_all(batch: Batch) -> None:
    """The events of compressed transactions in place of the payloads."""
    for index in compressed(batch):
        inflate(batch, index)


def read_decoded(files: Iterable[Path], plans: Plans, executed: GtidSet | None = None) -> Iterator[Batch]:
    """The same batches, inflated and decoded. Raises CorruptEvent."""
    decoder = RowDecoder()
    for batch in read_batches(files, executed):
        inflate_all(batch)
        decoder.decode(batch, plans)
        if batch.failure is not None:
            raise batch.failure
        yield batch


@contextmanager
def plans_of(server: Server) -> Iterator[Plans]:
    """The keys of the server's tables, each read once."""
    known: dict[tuple[str, str], TablePlan] = {}
    with TargetKeys(parse_url(server.url, "target", prompt=False)) as keys:

        def plan(table_map: TableMap, sequence_number: int) -> TablePlan:
            name = (table_map.schema, table_map.table)
            if name not in known:
                known[name] = keys.read_table(*name)
            return known[name]

        yield plan


def count_rows(files: Iterable[Path], executed: GtidSet | None = None) -> tuple[int, int]:
    """(transactions, rows) in the files, less those in `executed`."""
    transactions = rows = 0
    for batch in read_decoded(files, keyless, executed):
        transactions += len(batch)
        rows += batch.row_total
    return transactions, rows


def keyless(table_map: TableMap, sequence_number: int) -> TablePlan:
    """A plan without keys, where only rows are of interest."""
    return TablePlan(TableDefinition(table_map.schema, table_map.table, len(table_map.columns)))
