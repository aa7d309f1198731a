"""Bytes of a binary log become the same whole transactions, however they arrive."""

from __future__ import annotations

import random
import time

import pytest

from applier.errors import CorruptEvent, DataError, SourceError, UnsupportedEvent
from applier.events.assembler import StreamAssembler
from applier.events.gtid import GtidSet
from applier.events.transaction import TransactionFlag
from tests import binlog_bytes as log
from tests.binlog_bytes import (
    EVERY_KIND,
    MANY_ROW_EVENTS,
    SOURCE_UUID,
    Seen,
    event,
    events_of,
    format_event,
    gtid_event,
    of_events,
    of_file,
    query_event,
    rows_event,
    seen_by,
    seen_in,
    table_map_event,
    take_all,
    transaction,
    xid_event,
)

WHOLE = TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART
ROWS = TransactionFlag.ROWS | WHOLE
STATEMENTS = TransactionFlag.STATEMENTS | TransactionFlag.BARRIER | WHOLE
DDL = STATEMENTS | TransactionFlag.DDL | TransactionFlag.SCHEMA
XA = STATEMENTS | TransactionFlag.XA


def failure_of(assembler: StreamAssembler) -> Exception | None:
    batches = take_all(assembler)
    return batches[-1].failure if batches else None


# --- cutting -------------------------------------------------------------------------------------------


def test_each_kind_of_transaction_is_cut_and_classified() -> None:
    assembler = of_file(EVERY_KIND)
    found = [
        (seen.gtid.removeprefix(SOURCE_UUID + ":"), seen.flags, seen.types) for seen in seen_by(assembler)
    ]
    assert found == [
        ("1", DDL, [2]),  # DROP DATABASE
        ("2", DDL, [2]),
        ("3", DDL, [2]),
        ("4", ROWS, [19, 30]),
        ("5", STATEMENTS, [2, 19, 31, 2, 19, 32, 16]),  # SAVEPOINT
        ("tag_one:1", ROWS, [19, 30]),
        ("tag_one:2", ROWS, [19, 30]),
        ("77777", ROWS, []),  # an empty transaction keeps its GTID
        ("6", TransactionFlag.COMPRESSED | WHOLE, [40]),
        ("7", STATEMENTS | TransactionFlag.SCHEMA, [2, 2, 19, 30, 16]),  # CREATE TABLE … SELECT
        ("8", STATEMENTS, [2, 5, 2, 16]),  # statement format
        ("9", XA, [2, 19, 30, 2, 38]),
        ("10", STATEMENTS | TransactionFlag.DDL, [2]),  # XA COMMIT
        ("11", XA, [2, 19, 30, 2, 38]),  # one phase
        ("12", ROWS, [19, 30]),  # with ROWS_QUERY
    ]
    assert assembler.transactions == 15
    assert assembler.file == "binlog.000002"
    assert assembler.finish() == 0
    assert not assembler.in_transaction


def test_numbers_are_ours_without_gaps_and_the_source_s_are_kept() -> None:
    seen = seen_by(of_file(EVERY_KIND, first_sequence_number=100))
    assert [one.sequence_number for one in seen] == list(range(100, 115))
    assert [one.source_sequence_number for one in seen] == list(range(1, 16))
    assert seen[5].source_last_committed == 3  # the tagged ones have another layout
    assert seen[-1].end_log_pos == 4847


def test_commit_times_are_read_from_both_layouts_of_gtid_events() -> None:
    (infos,) = [
        [b.transaction(i) for i in range(len(b))] for b in take_all(of_file(EVERY_KIND)) if len(b) == 7
    ]
    untagged, tagged = infos[0], infos[2]
    assert untagged.original_commit_microseconds == untagged.immediate_commit_microseconds == 1795222438179976
    assert tagged.original_commit_microseconds == tagged.immediate_commit_microseconds == 1795222438181010


def test_a_batch_ends_behind_what_may_change_the_schema() -> None:
    for batch in take_all(of_file(EVERY_KIND)):
        flags = [batch.transaction(i).flags for i in range(len(batch))]
        assert not any(flag & (TransactionFlag.DDL | TransactionFlag.SCHEMA) for flag in flags[:-1])


def test_a_batch_ends_when_it_is_large_enough() -> None:
    events = [format_event()]
    for gno in range(1, 101):
        events += transaction(gno, bytes(1000))
    assembler = of_events(events, batch_bytes_max=10_000)
    full = take_all(assembler, flush=False)
    assert {len(batch) for batch in full} == {9}
    assert sum(len(batch) for batch in full + take_all(assembler)) == 100
    assert [batch.number for batch in full] == list(range(len(full)))


def test_nothing_leaves_without_flush_until_a_batch_is_full() -> None:
    assembler = of_events([format_event(), *transaction(1)])
    assert assembler.take() is None
    assert [len(batch) for batch in take_all(assembler)] == [1]
    assert assembler.take(flush=True) is None


def test_events_without_gtid_make_anonymous_transactions() -> None:
    events = [data for data in events_of(EVERY_KIND) if data[4] not in (log.GTID, log.GTID_TAGGED)]
    with_gtid = seen_by(of_file(EVERY_KIND))
    anonymous = seen_by(of_file(log.MAGIC + b"".join(events)))
    assert [seen.events for seen in anonymous] == [seen.events for seen in with_gtid]
    for one, other in zip(anonymous, with_gtid, strict=True):
        assert one.gtid == ""
        assert one.flags == other.flags | TransactionFlag.ANONYMOUS


def test_a_transaction_ends_with_rollback_of_what_could_not_be_rolled_back() -> None:
    events = [gtid_event(1), query_event("BEGIN"), table_map_event(), rows_event(), query_event("ROLLBACK")]
    (seen,) = seen_by(of_events([format_event(), *events]))
    assert seen.flags == STATEMENTS | TransactionFlag.ROLLBACK
    assert seen.types == [2, 19, 30, 2]


def test_rollback_to_a_savepoint_ends_nothing() -> None:
    events = [gtid_event(1), query_event("BEGIN"), query_event("ROLLBACK TO `a`"), xid_event()]
    (seen,) = seen_by(of_events([format_event(), *events]))
    assert seen.types == [2, 2, 16]


# --- arriving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [EVERY_KIND, MANY_ROW_EVENTS], ids=["every kind", "many row events"])
def test_where_the_bytes_are_split_makes_no_difference(content: bytes) -> None:
    expected = seen_by(of_file(content, part_bytes_max=700))
    for at in range(len(content)):
        assembler = StreamAssembler(packets=False, part_bytes_max=700)
        assembler.begin_file("binlog.000001")
        assembler.feed(content[:at])
        seen = seen_by(assembler)
        assembler.feed(content[at:])
        seen += seen_by(assembler)
        assert seen == expected, at


@pytest.mark.parametrize("buffer_bytes", [64, 200, 1000, 4096])
@pytest.mark.parametrize("chunk", [1, 3, 19, 100])
def test_small_buffers_and_small_chunks_make_no_difference(buffer_bytes: int, chunk: int) -> None:
    expected = seen_by(of_file(MANY_ROW_EVENTS))
    stream = log.packets(events_of(MANY_ROW_EVENTS))
    assembler = StreamAssembler(buffer_bytes=buffer_bytes)
    batches = []
    for at in range(0, len(stream), chunk):
        assembler.feed(stream[at : at + chunk])
        batches += take_all(assembler, flush=at % 2 == 0)
    batches += take_all(assembler)
    # Only now are the batches looked into: their bytes must have stayed where they were.
    assert [seen for batch in batches for seen in seen_in(batch)] == expected


def test_packets_and_files_give_the_same() -> None:
    assert seen_by(of_events(events_of(EVERY_KIND))) == seen_by(of_file(EVERY_KIND))


@pytest.mark.parametrize("size", [0xFFFFFF - 70, 0xFFFFFF - 30, 0xFFFFFF, 2 * 0xFFFFFF, 40_000_000])
def test_an_event_beyond_16_mb_comes_in_several_packets(size: int) -> None:
    content = random.Random(size).randbytes(size)
    events = [format_event(), *transaction(1, content), *transaction(2)]
    first, second = seen_by(of_events(events, part_bytes_max=1 << 30))
    assert first.events[1][1][29:] == content
    assert second.gtid.endswith(":2")


def test_an_event_that_fills_its_packets_exactly_ends_with_an_empty_packet() -> None:
    overhead = len(rows_event()) + 1
    events = [format_event(), *transaction(1, bytes(0xFFFFFF - overhead)), *transaction(2)]
    seen = seen_by(of_events(events, part_bytes_max=1 << 30))
    assert [one.types for one in seen] == [[19, 30], [19, 30]]


def test_the_end_packet_hands_out_what_is_left() -> None:
    assembler = StreamAssembler()
    events = [format_event(), *transaction(1)]
    assembler.feed(log.frame([b"\0" + data for data in events] + [b"\xfe\0\0\2\0"]))
    batch = assembler.take()
    assert batch is not None
    assert len(batch) == 1
    assert assembler.ended


def test_an_error_packet_comes_behind_the_transactions_before_it() -> None:
    events = [format_event(), *transaction(1)]
    payload = b"\xff" + (1236).to_bytes(2, "little") + b"#HY000could not find next log"
    assembler = StreamAssembler()
    assembler.feed(log.frame([b"\0" + data for data in events] + [payload]))
    batch = assembler.take()
    assert batch is not None
    assert len(batch) == 1
    assert isinstance(batch.failure, SourceError)
    assert (batch.failure.code, batch.failure.sqlstate) == (1236, "HY000")  # type: ignore[attr-defined]
    assert "could not find next log" in str(batch.failure)
    assert assembler.take(flush=True) is None


def test_more_bytes_than_there_was_room_for_are_refused() -> None:
    assembler = StreamAssembler()
    with pytest.raises(ValueError, match="room"):
        assembler.received(len(assembler.writable()) + 1)


# --- the stream around transactions --------------------------------------------------------------------


def test_rotation_names_the_file_and_begins_an_epoch() -> None:
    artificial = log.rotate_event("binlog.000007", 157, flags=log.ARTIFICIAL)
    rotate = log.rotate_event("binlog.000008")
    assembler = of_events(
        [artificial, format_event(log_pos=0), *transaction(1), rotate, format_event(), *transaction(2)]
    )
    first, second = take_all(assembler)
    assert (first.file, second.file) == ("binlog.000007", "binlog.000008")
    assert [batch.transaction(0).source_epoch for batch in (first, second)] == [1, 2]
    assert assembler.file == "binlog.000008"


def test_positions_go_beyond_what_the_header_can_hold() -> None:
    positions = [0xFFFFFF00, 0xFFFFFFF0, 100, 200]
    events = [event(log.XID, bytes(8), log_pos=position) for position in positions]
    stream = [format_event()]
    for gno, xid in enumerate(events, 1):
        stream += [gtid_event(gno), query_event("BEGIN"), xid]
    seen = seen_by(of_events(stream))
    assert [one.end_log_pos for one in seen] == [0xFFFFFF00, 0xFFFFFFF0, (1 << 32) + 100, (1 << 32) + 200]


def test_heartbeats_of_both_forms_are_counted_and_tell_the_position() -> None:
    first = event(log.HEARTBEAT, b"binlog.000003", log_pos=500)
    second = event(log.HEARTBEAT_V2, b"\1\x0dbinlog.000003" + b"\2\3\xfc\x58\x02" + b"\0")
    assembler = of_events([format_event(), first])
    before = time.monotonic()
    assert take_all(assembler) == []
    assert assembler.heartbeat_position == 500
    assert assembler.heartbeat_monotonic_seconds >= before
    assembler.feed(log.packets([second], 3))
    assert take_all(assembler) == []
    assert (assembler.heartbeats, assembler.heartbeat_position) == (2, 600)


def test_executed_transactions_are_dropped_and_get_no_number() -> None:
    executed = GtidSet.parse(f"{SOURCE_UUID}:1-4:8-1000:tag_one:1")
    assembler = of_file(EVERY_KIND, executed=executed)
    seen = seen_by(assembler)
    assert [one.gtid.removeprefix(SOURCE_UUID + ":") for one in seen] == ["5", "tag_one:2", "77777", "6", "7"]
    assert [one.sequence_number for one in seen] == [1, 2, 3, 4, 5]
    assert (assembler.skipped, assembler.transactions) == (10, 5)


def test_a_stream_that_only_skips_holds_no_memory() -> None:
    assembler = StreamAssembler(GtidSet.parse(f"{SOURCE_UUID}:1-1000"), buffer_bytes=1000)
    assembler.feed(log.packets([format_event()]))
    number = 2
    for gno in range(1, 1001):
        events = transaction(gno, bytes(500))
        assembler.feed(log.packets(events, number))
        number += len(events)
        assert assembler.take() is None
    assembler.feed(log.packets(transaction(1001), number))
    (batch,) = take_all(assembler)
    assert sum(len(buffer) for buffer in batch.buffers) <= 8000


def test_a_transaction_is_forgotten_when_its_file_begins_again() -> None:
    torn = transaction(1)[:-1]
    assembler = of_events([format_event(), *torn, format_event(), *transaction(1), *transaction(2)])
    assert [seen.gtid[-2:] for seen in seen_by(assembler)] == [":1", ":2"]
    assert assembler.abandoned == 1


def test_a_relay_log_s_own_events_end_no_transaction_and_move_no_position() -> None:
    head, tail = transaction(1)[:3], transaction(1)[3:]
    relay = [
        format_event(flags=log.RELAY_LOG, log_pos=999_999),
        log.rotate_event("relay.000002", flags=log.RELAY_LOG),
    ]
    assembler = of_events([log.rotate_event("binlog.000001"), format_event(), *head, *relay, *tail])
    (seen,) = seen_by(assembler)
    assert seen.types == [19, 30]
    assert assembler.file == "binlog.000001"
    assert assembler.position < 999_999


def test_a_relay_log_goes_on_in_the_next_file() -> None:
    head, tail = transaction(1)[:3], transaction(1)[3:]
    assembler = StreamAssembler(packets=False, file="binlog.000001")
    assembler.begin_file()
    assembler.feed(log.MAGIC + b"".join([format_event(), *head]))
    assert take_all(assembler) == []
    assembler.begin_file()
    assembler.feed(log.MAGIC + b"".join([format_event(flags=log.RELAY_LOG), *tail]))
    assert [seen.types for seen in seen_by(assembler)] == [[19, 30]]


def test_a_file_is_read_from_an_offset() -> None:
    everything = seen_by(of_file(EVERY_KIND))
    assembler = StreamAssembler(packets=False)
    assembler.begin_file("binlog.000001", start_offset=1016)
    assembler.feed(EVERY_KIND)
    assert [seen.gtid for seen in seen_by(assembler)] == [seen.gtid for seen in everything[4:]]


def test_an_offset_inside_an_event_is_refused() -> None:
    assembler = StreamAssembler(packets=False)
    assembler.begin_file("binlog.000001", start_offset=1017)
    assembler.feed(EVERY_KIND)
    assert "start position" in str(failure_of(assembler))


def test_a_truncated_file_says_where_its_last_transaction_ends() -> None:
    assembler = of_file(EVERY_KIND[:4800])
    seen = seen_by(assembler)
    assert assembler.transaction_end_offset == seen[-1].end_log_pos == 4512
    assert assembler.in_transaction
    assert assembler.finish() > 0


def test_bare_events_need_no_magic_number() -> None:
    assembler = StreamAssembler(packets=False, file="binlog.000001")
    assembler.feed(EVERY_KIND[4:])
    assert seen_by(assembler) == seen_by(of_file(EVERY_KIND))


# --- large transactions in parts -----------------------------------------------------------------------


def rejoined(parts: list[Seen]) -> list[tuple[int, bytes]]:
    """The events of all parts, less the table maps that were repeated."""
    events: list[tuple[int, bytes]] = []
    for part in parts:
        kept = list(part.events)
        if events and events[-1][0] in (30, 31, 32) and not events[-1][1][25] & log.STATEMENT_END:
            while kept and kept[0][0] == log.TABLE_MAP:
                kept.pop(0)
        events += kept
    return events


@pytest.mark.parametrize("part_bytes_max", [1, 300, 700, 1500])
def test_the_parts_of_a_large_transaction_hold_all_of_it_and_can_be_decoded(part_bytes_max: int) -> None:
    whole = seen_by(of_file(MANY_ROW_EVENTS))
    parts = seen_by(of_file(MANY_ROW_EVENTS, part_bytes_max=part_bytes_max))
    for transaction_ in whole:
        mine = [part for part in parts if part.sequence_number == transaction_.sequence_number]
        first = [TransactionFlag.FIRST_PART in part.flags for part in mine]
        last = [TransactionFlag.LAST_PART in part.flags for part in mine]
        assert first == [True, *[False] * (len(mine) - 1)]
        assert last == first[::-1]
        assert {part.gtid for part in mine} == {transaction_.gtid}
        if transaction_.flags & TransactionFlag.ROWS:
            assert rejoined(mine) == list(transaction_.events)
        for part in mine:
            table_ids = {data[19:25] for kind, data in part.events if kind == log.TABLE_MAP}
            assert all(data[19:25] in table_ids for kind, data in part.events if kind in (30, 31, 32))
    assert len(parts) > len(whole)


def test_a_part_leaves_as_soon_as_it_is_large_enough() -> None:
    assembler = of_events(
        [
            format_event(),
            gtid_event(1),
            query_event("BEGIN"),
            table_map_event(),
            rows_event(bytes(1000), end=False),
        ],
        part_bytes_max=1000,
    )
    batch = assembler.take()
    assert batch is not None
    (part,) = seen_in(batch)
    assert part.flags == TransactionFlag.ROWS | TransactionFlag.FIRST_PART
    assert assembler.next_sequence_number == 1


def test_a_statement_found_late_makes_the_rest_a_barrier() -> None:
    row = rows_event(bytes(1000))
    events = [
        gtid_event(1), query_event("BEGIN"), table_map_event(), row, query_event("SAVEPOINT `a`"),
        table_map_event(), row, xid_event(),
    ]  # fmt: skip
    parts = seen_by(of_events([format_event(), *events], part_bytes_max=1000))
    assert [part.types for part in parts] == [[19, 30], [2, 19, 30], [16]]
    assert [bool(part.flags & TransactionFlag.BARRIER) for part in parts] == [False, True, True]


def test_a_transaction_that_begins_again_after_parts_has_the_same_number() -> None:
    torn = transaction(1, bytes(1000))[:-1]
    assembler = of_events([format_event(), *torn, format_event(), *transaction(1)], part_bytes_max=1000)
    parts = seen_by(assembler)
    assert [part.sequence_number for part in parts] == [1, 1]
    assert [part.flags & WHOLE for part in parts] == [TransactionFlag.FIRST_PART, WHOLE]


# --- what must not be believed -------------------------------------------------------------------------


def test_a_wrong_checksum_stops_behind_the_transactions_before_it() -> None:
    whole = seen_by(of_file(EVERY_KIND))
    bad = bytearray(EVERY_KIND)
    bad[1016 + 60] ^= 1  # inside the fifth transaction
    batches = take_all(of_file(bytes(bad)))
    assert [seen for batch in batches for seen in seen_in(batch)] == whole[:4]
    assert isinstance(batches[-1].failure, CorruptEvent)
    assert "binlog.000001:1016" in str(batches[-1].failure)
    assert "checksum" in str(batches[-1].failure)


def test_every_flipped_bit_is_found_or_leaves_the_file_unfinished() -> None:
    """One bit a byte. The only bit that no checksum covers is the one that says that the file is in use."""
    whole = seen_by(of_file(EVERY_KIND))
    choose = random.Random(1)
    for at in range(len(EVERY_KIND)):
        bad = bytearray(EVERY_KIND)
        bad[at] ^= 1 << choose.randrange(8)
        assembler = of_file(bytes(bad))
        batches = take_all(assembler)
        seen = [one for batch in batches for one in seen_in(batch)]
        assert seen == whole[: len(seen)], at
        if not (batches and batches[-1].failure) and assembler.finish() == 0:
            assert at == 4 + 17


def test_without_verification_a_wrong_checksum_passes() -> None:
    bad = bytearray(EVERY_KIND)
    bad[-1] ^= 1
    assert failure_of(of_file(bytes(bad), verify_checksums=False)) is None


def test_a_stream_without_checksums_is_read() -> None:
    events = [
        format_event(checksum=False), gtid_event(1, checksum=False), query_event("BEGIN", checksum=False),
        table_map_event(checksum=False), rows_event(b"row", checksum=False), xid_event(checksum=False),
    ]  # fmt: skip
    (seen,) = seen_by(of_events(events))
    assert seen.events[1][1].endswith(b"row")


def test_the_length_in_the_header_leaves_the_checksum_out() -> None:
    for seen in seen_by(of_file(EVERY_KIND)):
        for _, data in seen.events:
            assert int.from_bytes(data[9:13], "little") == len(data)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([gtid_event(1), gtid_event(2)], "before the last one has ended"),
        ([query_event("BEGIN"), query_event("BEGIN")], "inside another"),
        ([rows_event()], "outside of a transaction"),
        ([gtid_event(1), rows_event()], "outside of a transaction"),
        ([xid_event()], "has not begun"),
        ([event(log.GTID, bytes(20))], "GTID cannot be read"),
        ([event(log.GTID_TAGGED, b"\2\x7e")], "GTID cannot be read"),
        ([gtid_event(0)], "GTID cannot be read"),
        ([event(log.QUERY, bytes(5))], "too short"),
        ([query_event("BEGIN"), event(log.TABLE_MAP, b"")], "too short"),
        ([query_event("BEGIN"), event(log.PAYLOAD)], "whole transaction inside another"),
        ([event(log.ROTATE, bytes(3))], "ends too early"),
    ],
)
def test_events_that_contradict_the_rules_stop_with_a_clear_error(events: list[bytes], words: str) -> None:
    failure = failure_of(of_events([format_event(), *transaction(9), *events]))
    assert isinstance(failure, CorruptEvent)
    assert words in str(failure)


def test_an_event_before_any_format_description_is_refused() -> None:
    assert "format description" in str(failure_of(of_events(transaction(1))))


def test_unknown_events_are_skipped_only_when_they_are_flagged_ignorable() -> None:
    ignorable = event(200, b"new", flags=log.IGNORABLE)
    begin, *rest = transaction(1)
    (seen,) = seen_by(of_events([format_event(), begin, ignorable, *rest, ignorable]))
    assert seen.types == [19, 30]
    failure = failure_of(of_events([format_event(), event(200, b"new")]))
    assert isinstance(failure, UnsupportedEvent)
    assert "200" in str(failure)


def test_an_incident_of_the_source_stops_the_stream() -> None:
    failure = failure_of(of_events([format_event(), event(log.INCIDENT, b"\1\0\5oh no")]))
    assert isinstance(failure, DataError)
    assert "oh no" in str(failure)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (
            log.packets([format_event()], 1) + log.packets([xid_event()], 3),
            "packet number 3 came where 2 was due",
        ),
        (log.frame([b""]), "unknown kind"),
        (log.frame([b"\x42hello"]), "unknown kind 0x42"),
        (log.frame([b"\0" + format_event()[:-1]]), "contradicts"),
        (log.frame([b"\0tiny"]), "contradicts"),
    ],
)
def test_packets_that_contradict_the_protocol_are_refused(stream: bytes, words: str) -> None:
    assembler = StreamAssembler()
    assembler.feed(stream)
    failure = failure_of(assembler)
    assert isinstance(failure, CorruptEvent)
    assert words in str(failure)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\x7fELF" + bytes(100), "does not begin"), (b"\xfdbin" + bytes(100), "encrypted"), (b"#!/b", "begin")],
)
def test_files_that_are_no_binary_logs_are_refused(content: bytes, words: str) -> None:
    failure = failure_of(of_file(content))
    assert isinstance(failure, CorruptEvent)
    assert words in str(failure)


def test_memory_follows_the_bytes_that_came_not_the_length_that_is_claimed() -> None:
    huge = (1 << 30).to_bytes(4, "little")
    assembler = of_file(log.MAGIC + format_event() + bytes(9) + huge + bytes(200_000))
    assert take_all(assembler) == []
    assert assembler.writable().obj.capacity <= 1 << 20


def test_lengths_beyond_a_gibibyte_are_refused() -> None:
    failure = failure_of(of_file(log.MAGIC + format_event() + bytes(9) + b"\1\0\0\x40" + bytes(6)))
    assert isinstance(failure, CorruptEvent)
    assert "1073741825" in str(failure)


def test_after_a_failure_nothing_is_kept_and_nothing_given() -> None:
    assembler = of_file(b"#!/bin/sh")
    assert failure_of(assembler) is not None
    for _ in range(10):
        assembler.feed(bytes(1 << 20))
        assert assembler.take(flush=True) is None
    assert assembler.writable().obj.capacity <= 1 << 20
