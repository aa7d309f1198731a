"""A few bytes of log that grow into much memory: it is charged to the budget, and comes in pieces that fit."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import zstandard

from applier.errors import CorruptEvent, TooLargeForMemory
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.payload import inflate
from applier.events.rows import RowDecoder
from applier.events.scheduling import compressed
from applier.events.transaction import TransactionFlag
from scheduler.budget import MemoryBudget
from tests import binlog_bytes as log
from tests.binlog_bytes import (
    Seen,
    format_event,
    gtid_event,
    of_events,
    query_event,
    seen_by,
    seen_in,
    xid_event,
)
from tests.decoding import first_column_is_key
from tests.unit.test_payload import ZSTD, field, number, payload_body
from tests.unit.test_table_map import enum_table

MIB = 1 << 20
EVENT_ROWS = 8000
TABLE_ID = (7).to_bytes(6, "little")


def table_map(columns: int = 1, name: bytes = b"t", *, checksum: bool = True) -> bytes:
    count = bytes([columns]) if columns < 251 else b"\xfc" + columns.to_bytes(2, "little")
    nullable = b"\xff" * ((columns + 7) // 8)
    names = b"\1d\0" + bytes([len(name)]) + name + b"\0"
    body = TABLE_ID + bytes(2) + names + count + b"\3" * columns + b"\0" + nullable
    return log.event(log.TABLE_MAP, body, checksum=checksum)


def null_rows(rows: int, *, end: bool = False, checksum: bool = True) -> bytes:
    """Rows of one column that is NULL: a byte each."""
    body = TABLE_ID + bytes([end, 0]) + b"\2\0" + b"\1" + b"\1" + b"\xff" * rows
    return log.event(log.WRITE_ROWS, body, checksum=checksum)


def null_transaction(events: int, *, checksum: bool = True) -> list[bytes]:
    rows = [null_rows(EVENT_ROWS, end=i == events - 1, checksum=checksum) for i in range(events)]
    begin, end = query_event("BEGIN", checksum=checksum), xid_event(checksum=checksum)
    return [begin, table_map(checksum=checksum), *rows, end]


def pieces_of(batch: Batch, bytes_max: int) -> list[Batch]:
    decoder, pieces = RowDecoder(), []
    rest: Batch | None = batch
    while rest is not None:
        batch = rest
        rest = decoder.decode(batch, first_column_is_key, 0, bytes_max)
        if batch.failure is not None:
            raise batch.failure
        pieces.append(batch)
    return pieces


def batch_of(events: list[bytes], budget: MemoryBudget) -> Batch:
    assembler = StreamAssembler(packets=False, budget=budget, batch_bytes_max=16 * MIB)
    assembler.begin_file("binlog.000001")
    assembler.feed(log.MAGIC + b"".join([format_event(), *events]))
    batch = assembler.take(flush=True)
    assert batch is not None
    assert batch.failure is None
    return batch


# --- rows ------------------------------------------------------------------------------------------------------


def test_rows_of_a_byte_are_decoded_piece_by_piece() -> None:
    budget = MemoryBudget(64 * MIB)
    small = [gtid_event(1), *null_transaction(1)]
    batch = batch_of(
        [*small, gtid_event(2), *null_transaction(100), gtid_event(3), *null_transaction(1)], budget
    )
    pieces = pieces_of(batch, 4 * MIB)
    assert sum(piece.row_total for piece in pieces) == 102 * EVENT_ROWS
    assert all(piece.row_total <= 20 * EVENT_ROWS for piece in pieces)
    assert [piece.piece for piece in pieces] == list(range(len(pieces)))
    assert {piece.number for piece in pieces} == {0}
    parts = [piece.transaction(i) for piece in pieces for i in range(len(piece))]
    assert [part.sequence_number for part in parts] == [1, *[2] * (len(parts) - 2), 3]
    assert [TransactionFlag.FIRST_PART in part.flags for part in parts] == [
        True,
        True,
        *[False] * (len(parts) - 3),
        True,
    ]
    assert [TransactionFlag.LAST_PART in part.flags for part in parts] == [
        True,
        *[False] * (len(parts) - 3),
        True,
        True,
    ]
    for piece in pieces:
        for i in range(len(piece)):
            info = piece.transaction(i)
            types = [piece.event(info.event_first + n)[0] for n in range(info.event_count)]
            assert types == [log.TABLE_MAP, *[log.WRITE_ROWS] * (info.event_count - 1)]
    assert budget.used >= sum(piece.row_total for piece in pieces) * 48


def test_a_batch_that_fits_is_not_taken_apart() -> None:
    batch = batch_of([gtid_event(1), *null_transaction(3)], MemoryBudget(64 * MIB))
    assert pieces_of(batch, 1 << 40) == [batch]


def test_the_failure_of_a_batch_goes_with_its_last_piece() -> None:
    budget = MemoryBudget(64 * MIB)
    assembler = StreamAssembler(packets=False, budget=budget, batch_bytes_max=16 * MIB)
    assembler.begin_file("binlog.000001")
    assembler.feed(log.MAGIC + b"".join([format_event(), gtid_event(1), *null_transaction(20)]) + bytes(100))
    batch = assembler.take(flush=True)
    assert batch is not None
    assert batch.failure is not None
    failure, decoder = batch.failure, RowDecoder()
    rest = decoder.decode(batch, first_column_is_key, 0, MIB)
    assert batch.failure is None
    assert rest is not None
    assert rest.failure is failure


def test_a_compressed_transaction_before_the_place_of_the_cut_keeps_its_events() -> None:
    """Inflated events lie behind all that came in the log."""
    statements = [*null_transaction(1, checksum=False)[:-1], query_event("SAVEPOINT `a`", checksum=False)]
    inner = b"".join([*statements, xid_event(checksum=False)])
    payload = log.event(log.PAYLOAD, payload_body(inner))
    batch = batch_of([gtid_event(1), payload, gtid_event(2), *null_transaction(20)], MemoryBudget(64 * MIB))
    inflate(batch, 0)
    pieces = pieces_of(batch, MIB)
    assert len(pieces) > 2
    assert [next(seen_in(piece)).sequence_number for piece in pieces] == [1, *[2] * (len(pieces) - 1)]
    assert next(seen_in(pieces[0])).types == [log.QUERY, log.TABLE_MAP, log.WRITE_ROWS, log.QUERY, log.XID]


def test_one_event_of_more_rows_than_the_memory_holds_is_a_clear_error() -> None:
    events = [gtid_event(1), query_event("BEGIN"), table_map(), null_rows(1_000_000, end=True), xid_event()]
    with pytest.raises(TooLargeForMemory, match="rows of an event"):
        pieces_of(batch_of(events, MemoryBudget(32 * MIB)), MIB)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_process_stays_within_what_is_charged(compressed: bool) -> None:
    """8 million rows of a byte, or a bomb of them; measured in a process of its own."""
    program = f"""
from tests.unit.test_amplification import grow
grow({compressed})
"""
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=100
    ).stdout
    grown, peak, rows = (int(word) for word in told.split())
    assert rows == 1000 * EVENT_ROWS
    assert peak < 40 * MIB
    assert grown < 48 * MIB, f"{grown >> 20} MiB, {peak >> 20} of them charged"


def grow(compressed: bool) -> None:
    """Prints by how much the process has grown, what was charged at most, and the rows seen."""
    budget = MemoryBudget(64 * MIB)
    assembler = StreamAssembler(packets=False, budget=budget, part_bytes_max=2 * MIB)
    assembler.begin_file("binlog.000001")
    decoder, rows = RowDecoder(), 0
    inner = null_transaction(1000, checksum=not compressed)
    events = [log.event(log.PAYLOAD, payload_body(b"".join(inner)))] if compressed else inner
    events = [log.MAGIC + format_event(), gtid_event(1), *events]
    del inner
    begin = resident("VmRSS")
    for data in events:
        assembler.feed(data)
        while (batch := assembler.take(flush=True)) is not None:
            rest: Batch | None = batch
            while rest is not None:
                batch = rest
                rest = decoder.decode(batch, first_column_is_key, 0, budget.limit // 16)
                rows += batch.row_total
                assert batch.failure is None
    print(resident("VmHWM") - begin, budget.peak, rows)


def resident(name: str) -> int:
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name + ":"))


# --- tables ----------------------------------------------------------------------------------------------------


def test_wide_table_maps_are_charged_and_forgotten() -> None:
    budget = MemoryBudget(1 << 30)
    decoder = RowDecoder()
    for n in range(100):
        tables = table_map(4000, b"t%d" % n)
        batch = batch_of([gtid_event(1), query_event("BEGIN"), tables, xid_event()], budget)
        decoder.decode(batch, first_column_is_key)
        assert budget.used > 4000 * 300
        del batch
    assert budget.used < MIB
    assert decoder.tables_learnt == 100


def test_values_of_a_table_map_are_charged_before_they_are_parsed() -> None:
    budget = MemoryBudget(32 * MIB)
    decoder = RowDecoder()
    for n, values in enumerate([60_000, 2_000_000]):
        data = log.event(log.TABLE_MAP, TABLE_ID + enum_table(values, b"v%d" % n))
        batch = batch_of([gtid_event(1), query_event("BEGIN"), data, xid_event()], budget)
        before = budget.used
        decoder.decode(batch, first_column_is_key)
        assert budget.used - before > 20 * 2 * min(values, 60_000)
    assert isinstance(batch.failure, TooLargeForMemory)
    assert decoder.tables_learnt == 1


def test_a_statement_of_too_many_wide_tables_is_a_clear_error() -> None:
    maps = [table_map(4000, b"t%d" % n) for n in range(50)]
    batch = batch_of([gtid_event(1), query_event("BEGIN"), *maps, xid_event()], MemoryBudget(32 * MIB))
    RowDecoder().decode(batch, first_column_is_key)
    assert isinstance(batch.failure, TooLargeForMemory)
    assert len(batch) == 0


def test_parts_hold_more_than_repeated_table_maps() -> None:
    """Table maps larger than a part: not one part for each row event, with all of them again."""
    maps, rows = [table_map(200, b"t%03d" % n) for n in range(10)], [null_rows(10)] * 100
    events = [gtid_event(1), query_event("BEGIN"), *maps, *rows, null_rows(1, end=True), xid_event()]
    parts = seen_by(of_events([format_event(), *events], part_bytes_max=500))
    assert 2 < len(parts) < 20


@pytest.mark.timeout(30)
def test_a_statement_of_many_tables_takes_no_time_squared() -> None:
    """They cannot be forgotten before its end: 12,000 took 27 s while each of them looked for some that could."""
    maps = [table_map(1, b"t%d" % n) for n in range(20_000)]
    batch = batch_of([gtid_event(1), query_event("BEGIN"), *maps, xid_event()], MemoryBudget(1 << 30))
    decoder = RowDecoder()
    decoder.decode(batch, first_column_is_key)
    assert batch.failure is None
    assert decoder.cache.count == 20_000
    decoder.decode(
        batch_of([gtid_event(2), *null_transaction(1)], MemoryBudget(1 << 30)), first_column_is_key
    )
    assert decoder.cache.count == 1


# --- compressed ------------------------------------------------------------------------------------------------

INNER = [
    query_event("BEGIN", checksum=False),
    *[
        data
        for i in range(40)
        for data in (
            log.table_map_event(checksum=False),
            log.rows_event(bytes([i]) * 300, end=False, checksum=False),
            log.rows_event(bytes([i]) * 300, checksum=False),
        )
    ],
    xid_event(checksum=False),
]


def parts_of(inner: bytes, part_bytes_max: int, body: bytes | None = None) -> list[Seen]:
    payload = log.event(log.PAYLOAD, payload_body(inner) if body is None else body)
    events = [format_event(), gtid_event(1), payload, *log.transaction(2)]
    return seen_by(of_events(events, part_bytes_max=part_bytes_max))


def rows_in(parts: list[Seen]) -> list[bytes]:
    return [data for part in parts for kind, data in part.events if kind == log.WRITE_ROWS]


@pytest.mark.parametrize("part_bytes_max", [400, 1000, 5000])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_large_payload_passes_in_parts(part_bytes_max: int, compressed: bool) -> None:
    inner = b"".join(INNER)
    body = None if compressed else field(1, number(len(inner))) + b"\0" + inner
    parts = parts_of(inner, part_bytes_max, body)
    mine = [part for part in parts if part.sequence_number == 1]
    assert len(mine) > 2
    assert rows_in(mine) == [data for data in INNER if data[4] == log.WRITE_ROWS]
    assert all(TransactionFlag.ROWS | TransactionFlag.COMPRESSED in part.flags for part in mine)
    assert TransactionFlag.FIRST_PART in mine[0].flags
    assert TransactionFlag.LAST_PART in mine[-1].flags
    assert len({part.end_log_pos for part in mine}) == 1
    assert [part.gtid[-2:] for part in parts if part.sequence_number == 2] == [":2"] * len(parts[len(mine) :])


def test_a_thread_may_inflate_other_payloads_between_the_parts_of_one() -> None:
    """As `applier plan` does. Payloads whose windows are small shared one decompressor."""
    inner = b"".join(INNER)
    noise = [log.rows_event(random.Random(n).randbytes(3000), end=False, checksum=False) for n in range(700)]
    large = b"".join([*INNER[:2], *noise, xid_event(checksum=False)])
    payloads = [log.event(log.PAYLOAD, payload_body(body)) for body in (inner, large)]
    events = [format_event(), gtid_event(1), payloads[0], gtid_event(2), payloads[1]]
    assembler, parts = of_events(events, part_bytes_max=200_000), []
    while (batch := assembler.take()) is not None:
        assert batch.failure is None
        for index in compressed(batch):
            inflate(batch, index)
        parts += list(seen_in(batch))
    assert rows_in([part for part in parts if part.sequence_number == 2]) == noise


@pytest.mark.parametrize("at", [1, 3, len(INNER)])
def test_events_of_a_payload_that_are_skipped_take_no_memory(at: int) -> None:
    """Some kilobytes of payload may be gigabytes of them."""
    skipped = log.event(200, bytes(1000), flags=log.IGNORABLE, checksum=False) * 50_000
    payload = log.event(log.PAYLOAD, payload_body(b"".join([*INNER[:at], skipped, *INNER[at:]])))
    budget = MemoryBudget(64 * MIB)
    events = [format_event(), gtid_event(1), payload, *log.transaction(2)]
    parts = seen_by(of_events(events, part_bytes_max=5000, budget=budget))
    assert rows_in(parts)[:-1] == [data for data in INNER if data[4] == log.WRITE_ROWS]
    assert budget.peak < 8 * MIB


@pytest.mark.parametrize("kind", [log.TABLE_MAP, log.ROWS_QUERY, log.USER_VAR])
def test_a_payload_without_a_place_to_cut_it_takes_no_more_than_the_memory(kind: int) -> None:
    """Comments are skipped; tables and variables are refused when they are too many."""
    data = INNER[1] if kind == log.TABLE_MAP else log.event(kind, bytes(400), checksum=False)
    inner = b"".join([INNER[0], data * (60 * MIB // len(data)), *INNER[1:]])
    payload = log.event(log.PAYLOAD, payload_body(inner))
    budget = MemoryBudget(16 * MIB)
    assembler = of_events([format_event(), gtid_event(1), payload], part_bytes_max=MIB, budget=budget)
    (batch,) = log.take_all(assembler)
    if kind == log.ROWS_QUERY:
        assert next(seen_in(batch)).types == [data[4] for data in INNER[1:-1]]
    else:
        assert isinstance(batch.failure, TooLargeForMemory)
        assert len(batch) == 0
    assert budget.peak < 24 * MIB


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (INNER[:-1], "ends before"),
        ([*INNER[:-1], xid_event(checksum=False)[:-1]], "contradicts|ends before"),
        (INNER[1:], "out of place"),
        ([INNER[0], *INNER], "out of place"),
        ([*INNER, xid_event(checksum=False)], "out of place"),
        ([*INNER[:-1], gtid_event(3, checksum=False), INNER[-1]], "out of place"),
    ],
)
def test_a_large_payload_that_contradicts_the_rules_ends_the_log(inner: list[bytes], words: str) -> None:
    with pytest.raises(CorruptEvent, match=words):
        fail_of(payload_body(b"".join(inner)))


@pytest.mark.parametrize("part_bytes_max", [1000, 20_000])
@pytest.mark.parametrize("announced", [0, 1])
def test_a_large_payload_with_something_behind_its_end_is_not_handed_on_whole(
    announced: int, part_bytes_max: int
) -> None:
    """A COMMIT is the end only when nothing follows: what is handed on whole will be committed."""
    inner = b"".join([*INNER, b"" if announced else xid_event(checksum=False)])
    payload = log.event(log.PAYLOAD, payload_body(inner, announced=len(inner) + announced))
    assembler = of_events(
        [format_event(), *log.transaction(1), gtid_event(2), payload, *log.transaction(3)],
        part_bytes_max=part_bytes_max,
        batch_bytes_max=2000,
    )
    parts = seen_by(assembler)
    assert [part.sequence_number for part in parts if TransactionFlag.LAST_PART in part.flags] == [1]
    assert len(parts) > 1
    assert (assembler.transactions, assembler.next_sequence_number) == (1, 2)


def test_a_large_payload_must_be_as_large_as_announced() -> None:
    inner = b"".join(INNER)
    for announced in (len(inner) - 1, len(inner) + 1, 1 << 63):
        with pytest.raises(CorruptEvent, match=r"announces|allowed"):
            fail_of(payload_body(inner, announced=announced))


def test_a_header_with_two_sizes_cannot_hide_the_larger() -> None:
    inner = b"".join(INNER)
    packed = zstandard.compress(inner)
    sizes = field(3, b"\1") + field(3, number(len(inner)))
    parts = parts_of(inner, 1000, field(2, ZSTD) + sizes + b"\0" + packed)
    assert len(parts) > 3


def fail_of(body: bytes) -> None:
    assembler = of_events([format_event(), gtid_event(1), log.event(log.PAYLOAD, body)], part_bytes_max=1000)
    while (batch := assembler.take(flush=True)) is not None:
        if batch.failure is not None:
            raise batch.failure
