"""What a RelayScanner hands out."""

from __future__ import annotations

from dataclasses import dataclass

from applier.errors import ApplierError

GtidRange = tuple[bytes, str, int, int]
"""16 bytes of UUID, tag, first number, last number."""


@dataclass(frozen=True, slots=True)
class RelayChunk:
    """Consecutive events of the source's log.

    data:       the events, each with its CRC32; good until the next chunk is taken
    whole:      bytes of `data` up to the last place where no transaction is open; -1: all of it is inside one
    position:   of that place, in the source's binary log file
    gtids:      of the transactions that end in `data`, consecutive ones joined
    control:    the event that follows `data` and that the writer has to treat itself, or empty: a format description
                event as it came, or a rotate event without checksum
    failure:    why nothing comes after this chunk, or None
    """

    data: memoryview
    whole: int
    position: int
    gtids: list[GtidRange]
    control: bytes
    failure: ApplierError | None
