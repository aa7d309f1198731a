"""What must not be believed: damaged bytes, claims without substance, events out of place."""

from __future__ import annotations

import random

import pytest

from applier.errors import CorruptEvent, DataError, UnsupportedEvent
from applier.events.assembler import StreamAssembler
from tests import binlog_bytes as log
from tests.binlog_bytes import (
    EVERY_KIND,
    event,
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
