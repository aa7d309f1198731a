"""The 19 bytes that every event begins with, for slow paths and messages."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from applier.errors import CorruptEvent

HEADER_BYTES = 19
CHECKSUM_BYTES = 4
MAGIC = b"\xfebin"
"""What a binary log or relay log file begins with."""

_HEADER = struct.Struct("<IBIIIH")


@dataclass(frozen=True, slots=True)
class EventHeader:
    """`timestamp`: seconds since the epoch; `length`: with header; `log_pos`: end in the source's file."""

    timestamp: int
    type: int
    server_id: int
    length: int
    log_pos: int
    flags: int

    @classmethod
    def parse(cls, data: bytes | memoryview) -> EventHeader:
        """Raises CorruptEvent when there are fewer than 19 bytes."""
        if len(data) < HEADER_BYTES:
            raise CorruptEvent(place="an event header", detail=f"{len(data)} bytes are too few")
        return cls(*_HEADER.unpack_from(data))

    def pack(self) -> bytes:
        return _HEADER.pack(self.timestamp, self.type, self.server_id, self.length, self.log_pos, self.flags)
