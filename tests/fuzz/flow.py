"""The way of a transaction through the program, on hostile bytes: from the stream to the packets for the target."""

from __future__ import annotations

import re

from applier.errors import ApplierError
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.ddl import changed_tables
from applier.events.gtid import GtidSet
from applier.events.hand_off import split
from applier.events.net_changes import fold
from applier.events.net_events import EVERYTHING, HELD, READY, folded_batch, folded_packets
from applier.events.payload import inflate
from applier.events.query import (
    parse_integer_variable,
    parse_query,
    parse_random_seeds,
    parse_user_variable,
    parse_xa_prepare,
)
from applier.events.rows import RowDecoder
from applier.events.schedule_record import held_rows, transaction_records
from applier.events.scheduling import Dependencies, compressed, cut, gtid_ranges, is_rows, tables_of
from applier.events.statement import rows_packets, transaction_packets
from applier.events.transaction import TransactionFlag
from applier.events.values import row_change
from applier.selection import Schemas
from tests.fuzz import guard, records
from tests.fuzz.plans import Plans
from writeset.buckets import BucketIndex

EXECUTED = GtidSet.parse("f4389e8f-e545-11f1-b20b-02fc00000001:3:8-9:a:1-5")
GTID = re.compile(r"([0-9a-f-]{36}:([a-z_][a-z0-9_]{0,31}:)?[0-9]{1,19})?")
PAYLOAD_BYTES_MAX = 1 << 20
PARTS_BYTES_MAX = 1 << 16
"""Of a payload that is inflated in parts, which may be as small as an event."""
ROWS_SHOWN_MAX = 2
ROWS = int(TransactionFlag.ROWS | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART)
STATEMENT_PARSERS = {
    2: parse_query,
    5: parse_integer_variable,
    13: parse_random_seeds,
    14: parse_user_variable,
    38: parse_xa_prepare,
}
NEW_TRANSACTION = 0
"""Kind of a record that begins the next transaction of `rows`."""


def feed(assembler: StreamAssembler, data: bytes, chunk_bytes: int) -> list[Batch]:
    """Everything that comes out; what has not arrived yet must not be read."""
    batches: list[Batch] = []
    at = 0
    while at < len(data) and not (batches and batches[-1].failure):
        view = assembler.writable()
        count = min(len(view), len(data) - at, chunk_bytes)
        view[:count] = data[at : at + count]
        at += count
        assembler.received(count)
        guard.active.close(view[count:])
        while (batch := assembler.take(flush=chunk_bytes % 2 == 0)) is not None:
            batches.append(batch)
        guard.active.open(view[count:])
    if not (batches and batches[-1].failure) and (last := assembler.take(flush=True)) is not None:
        batches.append(last)
    capacity = assembler.writable().obj.capacity  # type: ignore[attr-defined]
    assert capacity <= 4 * (len(data) + 4096), f"a buffer of {capacity} bytes for {len(data)}"
    return batches


def replay(batches: list[Batch], plans: Plans) -> None:
    """What decoders, scheduler, workers and messages do with batches."""
    decoder = RowDecoder()
    dependencies = Dependencies(BucketIndex(bucket_bits=2), row_by_row=plans.number % 2 == 0)
    for batch in batches:
        assert batch.failure is None or isinstance(batch.failure, ApplierError)
        try:
            for index in compressed(batch):
                inflate(batch, index, PAYLOAD_BYTES_MAX)
        except ApplierError:
            return
        guard.active.isolate(batch)
        if plans.number % 8 == 1 and not selected(batch):
            return
        rest: Batch | None = batch
        while rest is not None:
            piece = rest
            rest = decoder.decode(piece, plans, 0, plans.number % 5)
            if len(piece):
                apply(piece, dependencies, plans)


def apply(batch: Batch, dependencies: Dependencies, plans: Plans) -> None:
    """What happens to a decoded batch."""
    dependencies.schedule(batch, batch.first_sequence_number - 1)
    for index in range(len(batch)):
        info = batch.transaction(index)
        assert info.last_committed < info.sequence_number
        assert GTID.fullmatch(info.gtid), f"{info.gtid!r} would get into a statement"
    if plans.number % 4 == 0:
        look_at(batch)
    send(batch, plans)


def selected(batch: Batch) -> bool:
    """Leaves out what is not of one schema; false when the replay would stop at it."""
    try:
        Schemas(["types"]).select(batch, {})
    except ApplierError:
        return False
    return True


def look_at(batch: Batch) -> None:
    """Messages, positions, and parsers of statements."""
    gtid_ranges(batch)
    for index in range(len(batch)):
        info = batch.transaction(index)
        tables_of(batch, index)
        for number in range(info.event_first, info.event_first + info.event_count):
            kind, data = batch.event(number)
            statement(kind, data)
    for row in range(min(batch.row_total, ROWS_SHOWN_MAX)):
        str(row_change(batch, row))


def statement(kind: int, data: bytes) -> None:
    """An event of a transaction that is not made of rows."""
    parser = STATEMENT_PARSERS.get(kind)
    if parser is None:
        return
    try:
        parsed = parser(data)  # type: ignore[operator]
    except ApplierError:
        return
    if kind == 2:
        changed_tables(parsed.text.decode("utf-8", "replace"), parsed.database)


def send(batch: Batch, plans: Plans) -> None:
    """Packets for each transaction and for groups, folded and not, whole and in two parts."""
    packet_bytes_max = 300 if plans.number % 3 == 0 else 64 << 20
    start = 0
    while start < len(batch):
        if not is_rows(batch, start):
            start += 1
            continue
        transaction_packets(batch, start, packet_bytes_max=packet_bytes_max)
        end = max(start + 1, cut(batch, start, 8, 1 << 20, 0).end)
        while end > start + 1 and not all(is_rows(batch, index) for index in range(start, end)):
            end -= 1
        rows_packets([(batch, start, end)], packet_bytes_max=packet_bytes_max)
        fold_group(batch, start, end, packet_bytes_max, hash_bits=4 if plans.number % 5 == 0 else 64)
        start = end


def fold_group(batch: Batch, start: int, end: int, packet_bytes_max: int, *, hash_bits: int) -> None:
    group = fold([(batch, start, end)], hash_bits=hash_bits)
    folded_packets(group, packet_bytes_max=packet_bytes_max)
    split(group, batch.first_sequence_number - 1)
    held = held_rows(group)
    transaction_records(batch, start, end, held[0] if held else None)
    rows = 0
    for part in (READY, HELD, EVERYTHING):
        written = folded_batch(group, packet_bytes_max, part=part)
        rows += 0 if part == EVERYTHING else _rows_of(written, batch)
    assert group.rows_out == rows, f"{group.rows_out} rows told, {rows} written"


def _rows_of(written: Batch, batch: Batch) -> int:
    """Rows in events that net changes have written: a decoder must understand them."""
    decoder = RowDecoder()
    tables = {table_map.content: plan for table_map, plan in batch.tables}
    decoder.decode(written, lambda table_map, _: tables[table_map.content])
    if written.failure is not None:
        raise AssertionError("net changes that cannot be read") from written.failure
    return written.row_total


def batch_of(pieces: list[records.Record]) -> Batch:
    """Row transactions without any framing."""
    batch = Batch(0, "binlog.000001")
    events: list[bytes] = []
    number = 1
    for piece in pieces:
        if piece.kind == NEW_TRANSACTION:
            batch.append_transaction(events, ROWS, number)
            events = []
            number += 1
        else:
            events.append(piece.event(checksum=False))
    batch.append_transaction(events, ROWS, number)
    return batch
