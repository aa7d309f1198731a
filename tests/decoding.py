"""From the bytes of a binary log to decoded batches, with plans made up by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.payload import inflate
from applier.events.rows import RowDecoder
from applier.events.table_map import TableMap
from applier.events.transaction import TransactionFlag
from applier.events.values import RowChange, row_change
from writeset.definitions import KeyColumnDefinition, KeyDefinition, TableDefinition
from writeset.hashing import TablePlan

Plans = Callable[[TableMap, int], TablePlan]


def plan_over(table_map: TableMap, keys: Iterable[Sequence[int]] = ((0,),)) -> TablePlan:
    """A plan whose keys are over these columns, as they are; the first is the identity."""
    definitions = tuple(
        KeyDefinition(
            (table_map.schema, table_map.table, f"key{number}"),
            tuple(KeyColumnDefinition(position=position) for position in positions),
        )
        for number, positions in enumerate(keys)
    )
    return TablePlan(
        TableDefinition(
            table_map.schema,
            table_map.table,
            len(table_map.columns),
            keys=definitions,
            has_identity=bool(definitions),
        )
    )


def first_column_is_key(table_map: TableMap, sequence_number: int) -> TablePlan:
    return plan_over(table_map)


def batches_of(log: bytes, **options: Any) -> list[Batch]:
    """The batches of a binlog file, compressed transactions inflated."""
    assembler = StreamAssembler(packets=False, file="binlog.000001", **options)
    assembler.begin_file()
    assembler.feed(log)
    assembler.finish()
    batches = []
    while (batch := assembler.take(flush=True)) is not None:
        for i in range(len(batch)):
            if batch.transaction(i).flags & TransactionFlag.COMPRESSED:
                inflate(batch, i)
        batches.append(batch)
    return batches


def decoded(batches: Iterable[Batch], plans: Plans = first_column_is_key) -> list[Batch]:
    """The batches after one decoder; a failure is raised."""
    decoder = RowDecoder()
    done = list(batches)
    for batch in done:
        decoder.decode(batch, plans)
        if batch.failure is not None:
            raise batch.failure
    return done


def changes_of(batches: Iterable[Batch]) -> list[RowChange]:
    return [row_change(batch, i) for batch in batches for i in range(batch.row_total)]
