"""BINLOG statements: what is inside them, where they are cut, and how they are framed."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.events.batch import Batch
from applier.events.statement import (
    binlog_statements,
    encode_format_description,
    frame_packet,
    rows_packets,
    transaction_packet,
    transaction_packets,
)
from applier.events.transaction import TransactionFlag
from tests import every_type
from tests.binlog_bytes import EVERY_KIND, MANY_ROW_EVENTS
from tests.decoding import batches_of

TABLE_MAP = 19
ROW_EVENTS = (30, 31, 32, 39)
ROWS = int(TransactionFlag.ROWS | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART)
FLAGS = 25
STATEMENT_END = 1
FRAME_MAX = 0xFFFFFF


def events_in(statement: bytes) -> list[bytes]:
    """The events of a BINLOG statement, decoded by somebody else."""
    match = re.fullmatch(rb"BINLOG '([A-Za-z0-9+/=]+)'", statement)
    assert match
    data = base64.b64decode(match[1], validate=True)
    events, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 9)[0]
        events.append(data[at : at + length])
        at += length
    return events


def events_to_send(batch: Batch, i: int) -> list[bytes]:
    transaction = batch.transaction(i)
    events = [
        batch.event(e)
        for e in range(transaction.event_first, transaction.event_first + transaction.event_count)
    ]
    return [data for kind, data in events if kind == TABLE_MAP or kind in ROW_EVENTS]


def row_transactions(batches: Iterable[Batch]) -> list[tuple[Batch, int]]:
    return [
        (batch, i)
        for batch in batches
        for i in range(len(batch))
        if TransactionFlag.ROWS in batch.transaction(i).flags and events_to_send(batch, i)
    ]


MANY = row_transactions(batches_of(MANY_ROW_EVENTS))
TRANSACTIONS = row_transactions(batches_of(every_type.log("full"))) + MANY
# A statement of eight row events about two tables, then another statement.
LARGEST = max(MANY, key=lambda found: len(events_to_send(*found)))


def test_a_transaction_is_one_statement_of_its_table_maps_and_row_events() -> None:
    for batch, i in TRANSACTIONS:
        (statement,) = binlog_statements(batch, i)
        assert events_in(statement) == events_to_send(batch, i)


def test_encoding_leaves_the_batch_as_it_was() -> None:
    batch, i = LARGEST
    before = [batch.event(e) for e in range(batch.event_total)]
    first = binlog_statements(batch, i, 1000)
    assert binlog_statements(batch, i, 1000) == first
    assert [batch.event(e) for e in range(batch.event_total)] == before


def test_a_transaction_without_rows_has_no_statement() -> None:
    batch = Batch()
    batch.append_transaction([], ROWS, 1)
    assert binlog_statements(batch, 0) == []
    assert transaction_packet(batch, 0, commit=True) == (
        frame_packet(b"\x03SET gtid_next='AUTOMATIC';BEGIN;COMMIT"),
        3,
    )


def test_only_transactions_of_rows_are_encoded() -> None:
    batch = Batch()
    batch.append_transaction([], int(TransactionFlag.STATEMENTS), 1)
    with pytest.raises(ValueError, match="not made of rows only"):
        binlog_statements(batch, 0)
    with pytest.raises(IndexError):
        binlog_statements(batch, 1)


def without_end_flag(event: bytes) -> bytes:
    return event[:FLAGS] + bytes([event[FLAGS] & ~STATEMENT_END]) + event[FLAGS + 1 :]


@settings(max_examples=200)
@given(st.sampled_from(TRANSACTIONS), st.integers(1, 40_000))
def test_a_cut_statement_keeps_every_row_event_and_repeats_the_table_maps(
    transaction: tuple[Batch, int], statement_bytes_max: int
) -> None:
    whole = events_to_send(*transaction)
    statements = binlog_statements(*transaction, statement_bytes_max)
    pieces = [events_in(statement) for statement in statements]
    sent = [without_end_flag(event) for piece in pieces for event in piece if event[4] != TABLE_MAP]
    assert sent == [without_end_flag(event) for event in whole if event[4] != TABLE_MAP]
    for statement, piece in zip(statements, pieces, strict=True):
        rows = [event for event in piece if event[4] != TABLE_MAP]
        assert len(statement) <= statement_bytes_max or len(rows) == 1
        assert piece[-1] is rows[-1]
        assert piece[-1][FLAGS] & STATEMENT_END
        in_force: set[bytes] = set()
        for event in piece:
            if event[4] == TABLE_MAP:
                in_force.add(event[19:25])
            else:
                assert event[19:25] in in_force
                if event[FLAGS] & STATEMENT_END:
                    in_force.clear()


def test_a_cut_inside_one_statement_ends_it_there() -> None:
    whole = events_to_send(*LARGEST)
    assert [event[4] for event in whole[:4]] == [TABLE_MAP, TABLE_MAP, 31, 31]
    assert not whole[2][FLAGS] & STATEMENT_END
    pieces = [events_in(statement) for statement in binlog_statements(*LARGEST, 1000)]
    assert len(pieces) > 2
    assert pieces[0][:2] == pieces[1][:2] == whole[:2]
    assert pieces[0][-1] != whole[len(pieces[0]) - 1]
    assert without_end_flag(pieces[0][-1]) == whole[len(pieces[0]) - 1]


def test_parts_of_a_large_transaction_end_their_statement() -> None:
    parts = row_transactions(batches_of(MANY_ROW_EVENTS, part_bytes_max=600))
    cut = [part for part in parts if TransactionFlag.LAST_PART not in part[0].transaction(part[1]).flags]
    assert cut
    for batch, i in cut:
        for statement in binlog_statements(batch, i):
            assert events_in(statement)[-1][FLAGS] & STATEMENT_END


# --- packets --------------------------------------------------------------------------------------------


def payload_of(packet: bytes) -> bytes:
    """Joins the frames of a packet, checks lengths and sequence ids."""
    frames, at = [], 0
    while at < len(packet):
        length, sequence_id = int.from_bytes(packet[at : at + 3], "little"), packet[at + 3]
        assert sequence_id == len(frames) & 0xFF
        frames.append(packet[at + 4 : at + 4 + length])
        at += 4 + length
        assert (length == FRAME_MAX) == (at < len(packet))
    return b"".join(frames)


def test_a_packet_is_gtid_begin_rows_and_commit() -> None:
    batch, i = row_transactions(batches_of(EVERY_KIND))[0]
    (statement,) = binlog_statements(batch, i)
    gtid = batch.transaction(i).gtid.encode()
    packet, replies = transaction_packet(batch, i, b"DO 1;DO 2", 2, commit=True)
    assert payload_of(packet) == b"\x03DO 1;DO 2;SET gtid_next='%s';BEGIN;%s;COMMIT" % (gtid, statement)
    assert replies == 6
    assert transaction_packet(batch, i) == (
        frame_packet(b"\x03SET gtid_next='%s';BEGIN;%s" % (gtid, statement)),
        3,
    )
    assert transaction_packet(batch, i, gtid=False, begin=False) == (frame_packet(b"\x03" + statement), 1)


def test_gtids_are_printed_as_the_server_prints_them() -> None:
    gtids = set()
    for batch, i in row_transactions(batches_of(EVERY_KIND)):
        info = batch.transaction(i)
        packet, _ = transaction_packet(batch, i)
        expected = info.gtid or "AUTOMATIC"
        assert payload_of(packet).startswith(f"\x03SET gtid_next='{expected}';BEGIN;".encode())
        gtids.add(expected)
    assert any(gtid.count(":") == 2 for gtid in gtids), "a tagged GTID"
    assert any(gtid.count(":") == 1 for gtid in gtids)


def test_a_large_transaction_goes_in_several_packets() -> None:
    batch, i = LARGEST
    packets = transaction_packets(batch, i, commit=True, packet_bytes_max=1000)
    payloads = [payload_of(packet) for packet, _ in packets]
    assert len(packets) > 2
    assert all(len(packet) <= 1000 for packet, _ in packets)
    assert [replies for _, replies in packets] == [3, *[1] * (len(packets) - 2), 2]
    assert payloads[0].startswith(b"\x03SET gtid_next=")
    assert all(payload.startswith(b"\x03BINLOG '") for payload in payloads[1:])
    assert [payload.endswith(b"';COMMIT") for payload in payloads] == [*[False] * (len(packets) - 1), True]


def test_many_transactions_travel_in_one_statement() -> None:
    batch = TRANSACTIONS[0][0]
    (packet, replies), *others = rows_packets(
        [(batch, 0, 20), (batch, 20, 30)], b"BEGIN", 1, b"DO 0;COMMIT", 2
    )
    assert not others
    assert replies == 4
    match = re.fullmatch(rb"\x03BEGIN;(BINLOG '.*');DO 0;COMMIT", payload_of(packet), re.DOTALL)
    assert match
    assert events_in(match[1]) == [event for i in range(30) for event in events_to_send(batch, i)]
    assert rows_packets([]) == []


@pytest.mark.parametrize(
    "length", [0, 1, FRAME_MAX - 1, FRAME_MAX, FRAME_MAX + 1, 2 * FRAME_MAX, 2 * FRAME_MAX + 5]
)
def test_framing_cuts_at_16_megabytes_and_ends_with_a_shorter_frame(length: int) -> None:
    payload = bytes(range(251)) * (length // 251 + 1)
    packet = frame_packet(memoryview(payload)[:length])
    assert payload_of(packet) == payload[:length]
    assert len(packet) == length + 4 * (length // FRAME_MAX + 1)


def test_a_packet_beyond_16_megabytes_is_framed() -> None:
    batch, i = LARGEST
    times = FRAME_MAX // batch.transaction(i).byte_count
    (packet, replies), *others = rows_packets([(batch, i, i + 1)] * times)
    assert not others
    assert replies == 1
    assert len(packet) > FRAME_MAX
    assert events_in(payload_of(packet)[1:]) == events_to_send(batch, i) * times


@given(st.binary(max_size=300))
def test_base64_is_the_standard_one(data: bytes) -> None:
    assert encode_format_description(data) == b"BINLOG '" + base64.b64encode(data) + b"'"
