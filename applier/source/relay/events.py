"""The events that a relay log has beside those of its source. All end with a CRC32; positions are those of our file."""

from __future__ import annotations

import struct
import time
import zlib

from applier.events.gtid import GtidSet
from applier.events.headers import CHECKSUM_BYTES, HEADER_BYTES, MAGIC, EventHeader

ROTATE_EVENT, PREVIOUS_GTIDS_EVENT = 4, 35
IN_USE, ARTIFICIAL, RELAY_LOG = 0x01, 0x20, 0x40
CHECKSUM_CRC32 = 1
FIRST_POSITION = 4
_CREATED = slice(HEADER_BYTES + 52, HEADER_BYTES + 56)


def file_head(format_description: bytes, previous: GtidSet, source_file: str, source_position: int) -> bytes:
    """What a relay log file begins with: magic number, format, the GTIDs before it, and where in the source's log it
    goes on. `format_description` is the source's event, with checksum."""
    server_id = EventHeader.parse(format_description).server_id
    own = relay_format(format_description)
    end = len(MAGIC) + len(own)
    body = previous.encode()
    end += HEADER_BYTES + len(body) + CHECKSUM_BYTES
    gtids = event(PREVIOUS_GTIDS_EVENT, body, server_id, end, RELAY_LOG)
    return MAGIC + own + gtids + source_rotate(source_file, source_position, server_id)


def relay_format(format_description: bytes) -> bytes:
    """The source's format description as ours: our events look like its events."""
    header = EventHeader.parse(format_description)
    end = len(MAGIC) + len(format_description)
    own = EventHeader(int(time.time()), header.type, header.server_id, header.length, end, RELAY_LOG)
    changed = bytearray(own.pack() + format_description[HEADER_BYTES:-CHECKSUM_BYTES])
    changed[_CREATED] = bytes(4)  # else readers think of a server that has just restarted
    changed[-1] = CHECKSUM_CRC32
    return _checked(bytes(changed))


def source_format(format_description: bytes) -> bytes:
    """The same event in the middle of a file: from here on the numbers of another file of the source."""
    header = EventHeader.parse(format_description)
    flags = header.flags & ~IN_USE
    copied = EventHeader(
        header.timestamp, header.type, header.server_id, header.length, header.log_pos, flags
    )
    return _checked(
        copied.pack() + format_description[HEADER_BYTES : -CHECKSUM_BYTES - 1] + bytes([CHECKSUM_CRC32])
    )


def source_rotate(file: str, position: int, server_id: int) -> bytes:
    """What follows is from `file` of the source, from `position` on."""
    return event(ROTATE_EVENT, struct.pack("<Q", position) + file.encode(), server_id, 0, ARTIFICIAL)


def closing_rotate(next_file: str, position: int, server_id: int) -> bytes:
    """The last event of a file that was ended in good order; `position` is where it begins."""
    body = struct.pack("<Q", FIRST_POSITION) + next_file.encode()
    end = position + HEADER_BYTES + len(body) + CHECKSUM_BYTES
    return event(ROTATE_EVENT, body, server_id, end, RELAY_LOG)


def event(kind: int, body: bytes, server_id: int, log_pos: int, flags: int) -> bytes:
    length = HEADER_BYTES + len(body) + CHECKSUM_BYTES
    header = EventHeader(int(time.time()), kind, server_id, length, log_pos & 0xFFFFFFFF, flags)
    return _checked(header.pack() + body)


def with_checksum(plain: bytes) -> bytes:
    """An event of the source from which the checksum was taken off, its length field corrected to that."""
    header = EventHeader.parse(plain)
    whole = EventHeader(
        header.timestamp,
        header.type,
        header.server_id,
        len(plain) + CHECKSUM_BYTES,
        header.log_pos,
        header.flags,
    )
    return _checked(whole.pack() + plain[HEADER_BYTES:])


def _checked(plain: bytes) -> bytes:
    return plain + struct.pack("<I", zlib.crc32(plain))
