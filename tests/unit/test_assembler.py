"""Bytes of a binary log become the same whole transactions, however they arrive."""

from __future__ import annotations

import random
import time

import pytest

from applier.errors import SourceError
from applier.events.assembler import StreamAssembler
from applier.events.gtid import GtidSet
from applier.events.transaction import TransactionFlag
from tests import binlog_bytes as log
from tests.binlog_bytes import (
    EVERY_KIND,
    MANY_ROW_EVENTS,
    SOURCE_UUID,
    event,
    events_of,
    failure_of,
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
