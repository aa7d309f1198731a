"""Events that steer the stream instead of changing data: rare, so parsed in plain Python.

Every parser takes the whole event, header included, without checksum unless said otherwise, and raises
CorruptEvent when the bytes end too early.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from applier.errors import CorruptEvent, DataError, SourceError
from applier.events.headers import CHECKSUM_BYTES, HEADER_BYTES

_P = ParamSpec("_P")
_R = TypeVar("_R")

_IN_USE = 0x01
_FLAGS_OFFSET = 17
_CHECKSUM_OFF, _CHECKSUM_CRC32 = 0, 1
_FIRST_VERSION_WITH_CHECKSUM = (5, 6, 1)


def _bounds_checked(parse: Callable[_P, _R]) -> Callable[_P, _R]:
    @wraps(parse)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return parse(*args, **kwargs)
        except (struct.error, IndexError):
            what = parse.__name__.removeprefix("parse_").replace("_", " ")
            raise CorruptEvent(place="the stream", detail=f"a {what} event ends too early") from None

    return checked


@dataclass(frozen=True, slots=True)
class FormatDescription:
    """What the format description event (15) says of the events after it."""

    server_version: str
    has_checksums: bool
    for_binlog: bytes
    """The event to send in a BINLOG statement: checksum off, times zeroed so that equal ones compare equal.

    The four bytes of the checksum are there, as zeros: BINLOG refuses the event without them (seen with 9.7).
    """


@_bounds_checked
def parse_format_description(data: bytes) -> FormatDescription:
    """Of the whole event with its checksum; verifies that. Raises CorruptEvent.

    Layout behind the header: version u16 (4), server version 50 bytes, creation time u32, header length
    u8 (19), one post-header length per event type, checksum algorithm u8 and, whatever that is, 4 bytes of
    checksum. The last two came with 5.6.1; older servers are refused.
    """
    version, raw_server_version, _, header_length = struct.unpack_from("<H50sIB", data, HEADER_BYTES)
    server_version = raw_server_version.split(b"\0")[0].decode("latin-1")
    if version != 4 or header_length != HEADER_BYTES:
        raise _bad_format(f"binary log version {version}, {header_length} bytes of header, is not supported")
    if _version_numbers(server_version) < _FIRST_VERSION_WITH_CHECKSUM:
        raise _bad_format(f"it is from server version {server_version!r}, which is too old")
    plain = bytearray(data)
    plain[0:4] = bytes(4)  # timestamp
    plain[13:17] = bytes(4)  # log_pos
    plain[_FLAGS_OFFSET : _FLAGS_OFFSET + 2] = bytes(2)
    # A creation time makes the server that gets it in BINLOG drop temporary tables, as after a restart.
    plain[HEADER_BYTES + 52 : HEADER_BYTES + 56] = bytes(4)
    algorithm = data[-CHECKSUM_BYTES - 1]
    if algorithm == _CHECKSUM_CRC32:
        _verify(data)
    elif algorithm != _CHECKSUM_OFF:
        raise _bad_format(f"checksum algorithm {algorithm} is not known")
    plain[-CHECKSUM_BYTES - 1] = _CHECKSUM_OFF
    plain[-CHECKSUM_BYTES:] = bytes(CHECKSUM_BYTES)
    return FormatDescription(server_version, algorithm == _CHECKSUM_CRC32, bytes(plain))


def _verify(data: bytes) -> None:
    """The flag that the file is in use was set after the checksum was computed."""
    covered = bytearray(data[:-CHECKSUM_BYTES])
    covered[_FLAGS_OFFSET] &= ~_IN_USE
    (found,) = struct.unpack("<I", data[-CHECKSUM_BYTES:])
    expected = zlib.crc32(covered)
    if found != expected:
        raise _bad_format(f"its checksum is {found:08x}, its bytes have {expected:08x}")


def _bad_format(detail: str) -> CorruptEvent:
    return CorruptEvent(place="the format description event", detail=detail)


def _version_numbers(text: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(number) for number in match.groups()) if match else (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Rotate:
    """The stream goes on in `file` at `position`."""

    file: str
    position: int


@_bounds_checked
def parse_rotate(data: bytes) -> Rotate:
    (position,) = struct.unpack_from("<Q", data, HEADER_BYTES)
    return Rotate(_file_name(data[HEADER_BYTES + 8 :]), position)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The source is alive and has nothing to send; it stands at `position` of `file`."""

    file: str
    position: int


@_bounds_checked
def parse_heartbeat(data: bytes) -> Heartbeat:
    """The first form (27): position in the header, 32 bits; the file name is the body."""
    (position,) = struct.unpack_from("<I", data, 13)
    return Heartbeat(_file_name(data[HEADER_BYTES:]), position)


@_bounds_checked
def parse_heartbeat_v2(data: bytes) -> Heartbeat:
    """The second form (41): fields of type, length, value; 1 the file name, 2 the position; type 0 ends."""
    file, position, at = "", 0, HEADER_BYTES
    while at < len(data):
        field, at = length_encoded(data, at)
        if field == 0:
            break
        size, at = length_encoded(data, at)
        if size > len(data) - at:
            raise IndexError
        if field == 1:
            file = _file_name(data[at : at + size])
        elif field == 2:
            position, _ = length_encoded(data, at)
        at += size
    return Heartbeat(file, position)


@_bounds_checked
def parse_incident(data: bytes) -> DataError:
    """The source says that changes are missing from its log (26): the error to stop with."""
    number, size = struct.unpack_from("<HB", data, HEADER_BYTES)
    message = data[HEADER_BYTES + 3 : HEADER_BYTES + 3 + size].decode("utf-8", "replace")
    return DataError(
        detail=f"the source logged incident {number} ({message}): changes are missing from its binary log. "
        "Copy the data again (applier migrate)"
    )


def parse_error_packet(payload: bytes) -> SourceError:
    """An error packet (0xFF, code u16, '#' and SQL state, message) as the error to stop with.

    The error has the attributes `code`, `sqlstate` and `message`.
    """
    code = int.from_bytes(payload[1:3], "little")
    sqlstate, text = "", payload[3:]
    if text[:1] == b"#":
        sqlstate, text = text[1:6].decode("latin-1"), text[6:]
    message = text.decode("utf-8", "replace")
    return SourceError(detail=f"{message} ({code})", code=code, sqlstate=sqlstate, message=message)


def length_encoded(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A length-encoded integer of the protocol at `at`, and where it ends. Raises IndexError."""
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if size is None or at + 1 + size > len(data):
        raise IndexError
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def _file_name(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")
