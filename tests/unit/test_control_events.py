"""Events that steer the stream: format description, rotation, heartbeats, incidents, errors."""

from __future__ import annotations

import struct
import zlib

import pytest

from applier.errors import CorruptEvent
from applier.events.control import (
    Heartbeat,
    Rotate,
    length_encoded,
    parse_error_packet,
    parse_format_description,
    parse_heartbeat,
    parse_heartbeat_v2,
    parse_incident,
    parse_rotate,
)
from applier.events.framing import crc32, crc32_by_tables
from applier.events.gtid import GtidSet
from applier.events.headers import EventHeader
from tests import binlog_bytes as log
from tests.binlog_bytes import EVERY_KIND, MANY_ROW_EVENTS, event, events_of, format_event

REAL_FORMAT = events_of(EVERY_KIND)[0]


def test_the_format_of_a_real_file_has_checksums() -> None:
    description = parse_format_description(REAL_FORMAT)
    assert description.server_version == "9.7.4-2"
    assert description.has_checksums


def test_the_format_for_binlog_has_checksums_off_and_no_times() -> None:
    plain = parse_format_description(REAL_FORMAT).for_binlog
    assert len(plain) == len(REAL_FORMAT)
    assert plain[-5:] == bytes(5)
    assert plain[:4] == bytes(4)
    assert plain[19 + 2 :].startswith(b"9.7.4-2\0")
    assert plain[19 + 52 : 19 + 56] == bytes(4)
    assert not parse_format_description(plain).has_checksums


def test_equal_formats_of_different_files_compare_equal() -> None:
    other = events_of(MANY_ROW_EVENTS)[0]
    assert other != REAL_FORMAT
    assert parse_format_description(other).for_binlog == parse_format_description(REAL_FORMAT).for_binlog


def test_the_flag_of_a_file_in_use_is_outside_of_the_checksum() -> None:
    data = bytearray(REAL_FORMAT)
    data[17] ^= 1
    assert parse_format_description(bytes(data)).has_checksums


@pytest.mark.parametrize("at", [19, 19 + 2, 40, 19 + 56, 100, -5, -1])
def test_a_damaged_format_description_is_refused(at: int) -> None:
    data = bytearray(REAL_FORMAT)
    data[at] ^= 0x10
    with pytest.raises(CorruptEvent):
        parse_format_description(bytes(data))


def test_a_format_without_checksums_is_accepted() -> None:
    assert not parse_format_description(format_event(checksum=False)).has_checksums


def test_a_rotation_names_the_next_file() -> None:
    assert parse_rotate(log.rotate_event("binlog.000042", 4, checksum=False)) == Rotate("binlog.000042", 4)


def test_the_real_file_ends_with_a_rotation_to_the_next() -> None:
    assert parse_rotate(events_of(EVERY_KIND)[-1][:-4]) == Rotate("binlog.000002", 4)


def test_heartbeats_of_both_forms() -> None:
    old = event(log.HEARTBEAT, b"binlog.000003", log_pos=1234, checksum=False)
    assert parse_heartbeat(old) == Heartbeat("binlog.000003", 1234)
    position = b"\2\x09\xfe" + struct.pack("<Q", 1 << 40)
    new = event(log.HEARTBEAT_V2, b"\1\2b1" + position + b"\x09\1x" + b"\0", checksum=False)
    assert parse_heartbeat_v2(new) == Heartbeat("b1", 1 << 40)


@pytest.mark.parametrize("body", [b"\1", b"\1\7b1", b"\2\1", b"\xfc\1"])
def test_a_heartbeat_cut_short_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptEvent, match="ends too early"):
        parse_heartbeat_v2(event(log.HEARTBEAT_V2, body, checksum=False))


def test_an_incident_becomes_an_error_with_its_message() -> None:
    error = parse_incident(event(log.INCIDENT, struct.pack("<HB", 1, 4) + b"lost", checksum=False))
    assert "incident 1 (lost)" in str(error)
    with pytest.raises(CorruptEvent, match="incident event ends too early"):
        parse_incident(event(log.INCIDENT, b"\1", checksum=False))


@pytest.mark.parametrize(
    ("payload", "code", "sqlstate", "message"),
    [
        (b"\xff\xd4\x04#HY000gone", 1236, "HY000", "gone"),
        (b"\xff\x15\x04Access denied", 1045, "", "Access denied"),
        (b"\xff", 0, "", ""),
    ],
)
def test_an_error_packet_becomes_an_error_with_its_facts(
    payload: bytes, code: int, sqlstate: str, message: str
) -> None:
    error = parse_error_packet(payload)
    assert error.facts | {"detail": ""} == {
        "detail": "", "code": code, "sqlstate": sqlstate, "message": message,
    }  # fmt: skip


def test_length_encoded_integers() -> None:
    assert length_encoded(b"\x05", 0) == (5, 1)
    assert length_encoded(b"x\xfc\x01\x02", 1) == (0x0201, 4)
    assert length_encoded(b"\xfd\x01\x00\x01", 0) == (0x010001, 4)
    assert length_encoded(b"\xfe" + struct.pack("<Q", 1 << 60), 0) == (1 << 60, 9)
    for bad in (b"", b"\xfb", b"\xff", b"\xfc\1", b"\xfe" + bytes(7)):
        with pytest.raises(IndexError):
            length_encoded(bad, 0)


def test_the_header_of_a_real_event() -> None:
    header = EventHeader.parse(REAL_FORMAT)
    assert (header.type, header.server_id, header.length) == (log.FORMAT, 77, len(REAL_FORMAT))
    assert header.pack() == REAL_FORMAT[:19]
    with pytest.raises(CorruptEvent):
        EventHeader.parse(REAL_FORMAT[:18])


def test_previous_gtids_of_a_real_file_decode_and_encode_to_the_same_bytes() -> None:
    (body,) = [data[19:-4] for data in events_of(MANY_ROW_EVENTS) if data[4] == 35]
    decoded = GtidSet.decode(body)
    assert str(decoded).endswith(":1-19:77777:tag_one:1-2")
    assert decoded.encode() == body


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 79, 80, 127, 128, 129, 1000, 100_003])
def test_the_checksum_is_that_of_zlib(size: int) -> None:
    data = bytes((i * 131 + size) & 255 for i in range(size))
    assert crc32(data) == crc32_by_tables(data) == zlib.crc32(data)
