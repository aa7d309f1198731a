"""Compressed transactions become the events inside them, within limits."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.errors import ApplierError, CorruptEvent, UnsupportedEvent
from applier.events.batch import Batch
from applier.events.payload import inflate
from applier.events.transaction import TransactionFlag
from tests import binlog_bytes as log
from tests.binlog_bytes import (
    EVERY_KIND,
    event,
    format_event,
    gtid_event,
    of_events,
    of_file,
    query_event,
    rows_event,
    seen_in,
    table_map_event,
    take_all,
    xid_event,
)

BEGIN = query_event("BEGIN", checksum=False)
TABLE = table_map_event(checksum=False)
ROW = rows_event(b"values", checksum=False)
XID = xid_event(checksum=False)
ZSTD, NONE = b"\0", b"\xfc\xff\0"


def number(value: int) -> bytes:
    return b"\xfe" + value.to_bytes(8, "little")


def field(kind: int, value: bytes) -> bytes:
    return bytes([kind, len(value)]) + value


def payload_body(inner: bytes, *, announced: int | None = None, compression: bytes = ZSTD) -> bytes:
    packed = zstandard.compress(inner) if compression == ZSTD else inner
    size = len(inner) if announced is None else announced
    return field(2, compression) + field(1, number(len(packed))) + field(3, number(size)) + b"\0" + packed


def batch_of(body: bytes) -> Batch:
    (batch,) = take_all(of_events([format_event(), gtid_event(1), event(log.PAYLOAD, body)]))
    if batch.failure is not None:  # a header that cannot be read is found before
        raise batch.failure
    return batch


def inflated(*inner: bytes) -> Batch:
    batch = batch_of(payload_body(b"".join(inner)))
    inflate(batch, 0)
    return batch


def test_a_real_compressed_transaction_becomes_its_rows() -> None:
    (batch,) = [batch for batch in take_all(of_file(EVERY_KIND)) if len(batch) == 7]
    for i in range(len(batch)):
        inflate(batch, i)
    seen = list(seen_in(batch))[5]
    assert seen.types == [19, 30, 19, 30]
    assert seen.flags == (
        TransactionFlag.ROWS
        | TransactionFlag.COMPRESSED
        | TransactionFlag.FIRST_PART
        | TransactionFlag.LAST_PART
    )
    assert b"c" * 100 in seen.events[1][1]
    info = batch.transaction(5)
    assert info.byte_count == sum(len(data) for _, data in seen.events)
    assert [len(one.events) for one in seen_in(batch)][:5] == [2, 7, 2, 2, 0]


def test_inflating_twice_changes_nothing() -> None:
    batch = inflated(BEGIN, TABLE, ROW, XID)
    before = list(seen_in(batch))
    inflate(batch, 0)
    assert list(seen_in(batch)) == before


def test_statements_inside_make_a_barrier_and_are_kept() -> None:
    (seen,) = seen_in(inflated(BEGIN, TABLE, ROW, query_event("SAVEPOINT `a`", checksum=False), XID))
    assert seen.types == [2, 19, 30, 2, 16]
    assert TransactionFlag.STATEMENTS | TransactionFlag.BARRIER in seen.flags
    assert TransactionFlag.SCHEMA not in seen.flags
    (create,) = seen_in(inflated(BEGIN, query_event("CREATE TABLE t (a int)", checksum=False), XID))
    assert TransactionFlag.SCHEMA in create.flags


def test_a_payload_without_compression_is_read_too() -> None:
    inner = BEGIN + TABLE + ROW + XID
    for body in (payload_body(inner, compression=NONE), field(1, number(len(inner))) + b"\0" + inner):
        batch = batch_of(body)
        inflate(batch, 0)
        assert [seen.types for seen in seen_in(batch)] == [[19, 30]]


def test_several_frames_are_one_payload() -> None:
    inner = BEGIN + TABLE + ROW + XID
    packed = zstandard.compress(inner[:50]) + zstandard.compress(inner[50:])
    batch = batch_of(field(2, ZSTD) + field(3, number(len(inner))) + b"\0" + packed)
    inflate(batch, 0)
    assert [seen.types for seen in seen_in(batch)] == [[19, 30]]


def test_payloads_of_many_megabytes_are_inflated_whole() -> None:
    rows = [rows_event(bytes([i]) * 700_000, checksum=False) for i in range(10)]
    batch = inflated(BEGIN, TABLE, *rows, XID)
    (seen,) = seen_in(batch)
    assert [data for _, data in seen.events[1:]] == rows
    assert batch.memory_bytes > 7_000_000


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (BEGIN + TABLE, "ends before its transaction"),
        (b"", "ends before its transaction"),
        (TABLE + ROW + XID, "out of place"),
        (BEGIN + BEGIN + XID, "out of place"),
        (BEGIN + XID + XID, "out of place"),
        (BEGIN + gtid_event(1, checksum=False), "out of place"),
        (BEGIN + event(log.PAYLOAD, b"", checksum=False), "out of place"),
        (BEGIN + XID[:-1], "contradicts"),
        (BEGIN + b"\0" * 9 + b"\5\0\0\0" + bytes(20), "contradicts"),
        (BEGIN + b"short", "contradicts"),
    ],
)
def test_inner_events_that_contradict_the_rules_are_refused(inner: bytes, words: str) -> None:
    batch = batch_of(payload_body(inner))
    before = list(seen_in(batch))
    with pytest.raises(CorruptEvent, match=words):
        inflate(batch, 0)
    assert list(seen_in(batch)) == before
    assert batch.event_total == 1


def test_unknown_inner_events_are_refused() -> None:
    batch = batch_of(payload_body(BEGIN + event(200, checksum=False) + XID))
    with pytest.raises(UnsupportedEvent, match="200"):
        inflate(batch, 0)


@pytest.mark.parametrize("announced", [0, 10, 500])
def test_a_payload_must_have_the_size_that_it_announces(announced: int) -> None:
    batch = batch_of(payload_body(BEGIN + TABLE + ROW + XID, announced=announced))
    with pytest.raises(CorruptEvent, match="announces"):
        inflate(batch, 0)


def test_a_payload_larger_than_allowed_is_refused_before_it_is_inflated() -> None:
    batch = batch_of(payload_body(bytes(5_000_000)))
    with pytest.raises(CorruptEvent, match="larger than the 4000000 allowed"):
        inflate(batch, 0, 4_000_000)


def test_a_window_larger_than_any_of_zstd_s_is_refused_before_it_is_allocated() -> None:
    """The frame's head asks for half a gigabyte: a single segment of that size."""
    head = b"\x28\xb5\x2f\xfd" + b"\xa0" + (539_820_027).to_bytes(4, "little")
    packed = head + bytes(40)
    body = field(2, ZSTD) + field(1, number(len(packed))) + field(3, number(100)) + b"\0" + packed
    with pytest.raises(CorruptEvent, match="window of 539820027 bytes"):
        inflate(batch_of(body), 0)


def test_a_bomb_stops_at_what_it_announced() -> None:
    batch = batch_of(payload_body(bytes(50_000_000), announced=1000))
    with pytest.raises(CorruptEvent, match="announces"):
        inflate(batch, 0)
    assert batch.memory_bytes < 2 << 20  # of which half is the read buffer


@pytest.mark.parametrize(
    "body",
    [b"", b"\1", b"\1\7", b"\2\1\7\0", field(2, b"\1") + b"\0", field(2, ZSTD) + b"\0junk",
     field(1, number(9)) + b"\0junk", field(2, ZSTD) + field(3, b"\x04") + b"\0junk", field(1, b"") + b"\0"],
)  # fmt: skip
def test_payload_headers_that_make_no_sense_are_refused(body: bytes) -> None:
    with pytest.raises(CorruptEvent):
        inflate(batch_of(body), 0)


@settings(max_examples=300)
@given(st.data())
def test_damaged_payloads_raise_our_errors_only(data: st.DataObject) -> None:
    body = bytearray(
        payload_body(BEGIN + TABLE + ROW + XID, compression=data.draw(st.sampled_from([ZSTD, NONE])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        batch = batch_of(bytes(body[: data.draw(st.integers(0, len(body)))]))
        inflate(batch, 0, 1 << 20)
    except ApplierError:
        return
    assert len(list(seen_in(batch))) == 1


def test_an_index_beyond_the_batch_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(IndexError):
        inflate(inflated(BEGIN, XID), 1)
