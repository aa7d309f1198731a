"""`bench decode`: framing and row walking alone, on one core, and the library mysql-replication on the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from applier.bench.backlog import Backlog
from applier.bench.log_files import Plans, inflate_all, plans_of, read_batches
from applier.bench.machine import machine
from applier.errors import UnexpectedFailure, UsageError
from applier.events.batch import Batch
from applier.events.rows import RowDecoder

LIBRARY_ROWS_MAX = 20_000  # it takes its time, and its speed does not change
TABLE_MAP = 19
ROW_EVENTS = frozenset({23, 24, 25, 30, 31, 32, 39})


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over the backlog: processor time of this thread by stage."""

    transactions: int
    rows: int
    bytes: int
    assemble_seconds: float  # read, frame, check CRCs, cut into transactions
    inflate_seconds: float
    decode_seconds: float  # rows, spans of their columns, hashes of their keys


def one_pass(backlog: Backlog, plans: Plans) -> Pass:
    """Raises CorruptEvent."""
    decoder = RowDecoder()
    batches = read_batches(backlog.files, backlog.start_gtids)
    transactions = rows = size = 0
    assemble = inflate = decode = 0.0
    while True:
        started = time.thread_time()
        batch = next(batches, None)
        assembled = time.thread_time()
        assemble += assembled - started
        if batch is None:
            return Pass(transactions, rows, size, assemble, inflate, decode)
        inflate_all(batch)
        inflated = time.thread_time()
        decoder.decode(batch, plans)
        decode += time.thread_time() - inflated
        inflate += inflated - assembled
        if batch.failure is not None:
            raise batch.failure
        transactions += len(batch)
        rows += batch.row_total
        size += batch.byte_count


def bench_decode(backlog: Backlog, rounds: int = 3) -> dict[str, Any]:
    """Medians of `rounds` passes. Raises UsageError when mysql-replication is not installed."""
    with plans_of(backlog.source) as plans:
        one_pass(backlog, plans)  # plans are read, files are cached
        passes = [one_pass(backlog, plans) for _ in range(rounds)]
    decode = median(one.decode_seconds for one in passes)
    whole = median(one.assemble_seconds + one.inflate_seconds + one.decode_seconds for one in passes)
    first = passes[0]
    library = library_rows_per_second(backlog)
    return {
        **backlog.described(),
        "rows_per_second": round(first.rows / decode),
        "bytes_per_second": round(first.bytes / decode),
        "transactions_per_second": round(first.transactions / decode),
        "ns_per_row": round(decode * 1e9 / first.rows, 1),
        "rows_per_second_with_framing": round(first.rows / whole),
        "mysql_replication_rows_per_second": round(library),
        "ratio_to_mysql_replication": round(first.rows / decode / library, 1),
        "stages": {
            "assemble": _stage(first, median(one.assemble_seconds for one in passes)),
            "inflate": _stage(first, median(one.inflate_seconds for one in passes)),
            "decode": _stage(first, decode),
        },
        "rounds": rounds,
        "machine": machine(),
    }


def _stage(one: Pass, seconds: float) -> dict[str, float]:
    return {
        "ns_per_transaction": round(seconds * 1e9 / one.transactions, 1),
        "bytes_per_second": round(one.bytes / seconds) if seconds else 0,
    }


# --- the library ---------------------------------------------------------------------------------------


def library_rows_per_second(backlog: Backlog) -> float:
    """Rows that mysql-replication decodes in a second of processor time, from events that are in memory already.

    It gets the names of the columns from a cache, as it would in a long run. Raises UsageError, UnexpectedFailure.
    """
    events, rows_expected = _first_events(backlog)
    with _library_parser(backlog) as parse:
        started = time.thread_time()
        rows = sum(parse(event) for event in events)
        seconds = time.thread_time() - started
    if rows != rows_expected:
        raise UnexpectedFailure(detail=f"mysql-replication found {rows} rows where we found {rows_expected}")
    return rows / seconds


def _first_events(backlog: Backlog) -> tuple[list[bytes], int]:
    decoder = RowDecoder()
    events: list[bytes] = []
    rows = 0
    with plans_of(backlog.source) as plans:
        for batch in read_batches(backlog.files, backlog.start_gtids):
            inflate_all(batch)
            decoder.decode(batch, plans)
            events += _row_events(batch)
            rows += batch.row_total
            if rows >= LIBRARY_ROWS_MAX:
                break
    return events, rows


def _row_events(batch: Batch) -> Iterator[bytes]:
    for number in range(batch.event_total):
        kind, data = batch.event(number)
        if kind == TABLE_MAP or kind in ROW_EVENTS:
            yield data


class _Connection:
    """What the library asks a connection for."""

    charset = "utf8mb4"

    def __init__(self, cursor: Callable[[], Any]) -> None:
        self.cursor = cursor

    def _get_dbms(self) -> str:
        return "mysql"


@contextmanager
def _library_parser(backlog: Backlog) -> Iterator[Callable[[bytes], int]]:
    """A function from an event to the number of rows decoded from it."""
    try:
        from pymysql.protocol import MysqlPacket
        from pymysqlreplication import row_event  # type: ignore[import-untyped]
        from pymysqlreplication.packet import BinLogPacketWrapper  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            detail=f"bench decode compares with the library mysql-replication: install applier[bench] ({error})"
        ) from error
    tables: dict[int, Any] = {}
    allowed = frozenset(
        {
            row_event.TableMapEvent,
            row_event.WriteRowsEvent,
            row_event.UpdateRowsEvent,
            row_event.DeleteRowsEvent,
            row_event.PartialUpdateRowsEvent,
        }
    )
    numbers = tuple(int(number) for number in backlog.source.version.split("."))
    connection = backlog.source.connect()
    asked = _Connection(connection.cursor)

    def parse(event: bytes) -> int:
        packet = MysqlPacket(b"\x00" + event, "utf8")
        # Checksums are off: ours has cut them off and corrected the length.
        wrapper = BinLogPacketWrapper(
            packet, tables, asked, numbers, False, allowed, None, None, None, None,
            False, False, False, True, False, use_column_name_cache=True,
        )  # fmt: skip
        parsed = wrapper.event
        if event[4] == TABLE_MAP:
            tables[parsed.table_id] = parsed.get_table()
            return 0
        return len(parsed.rows)

    try:
        yield parse
    finally:
        connection.close()
