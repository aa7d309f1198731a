"""How fast units have been executed lately, to tell how many bytes of the log fit into a time."""

from __future__ import annotations

from typing import Final

WEIGHT: Final = 0.2  # of the newest unit


class Pace:
    """Written by any worker, read by any: a lost update of an average does no harm."""

    def __init__(self) -> None:
        self._seconds_per_byte = 0.0

    def note(self, size_bytes: int, seconds: float) -> None:
        """A unit of so many bytes of events took so long to execute, waits not counted."""
        if size_bytes <= 0 or seconds <= 0:
            return
        newest, known = seconds / size_bytes, self._seconds_per_byte
        self._seconds_per_byte = known + WEIGHT * (newest - known) if known else newest

    def bytes_in(self, seconds: float) -> int | None:
        """What one worker may be expected to execute in this time; None while nothing is known."""
        return int(seconds / self._seconds_per_byte) if self._seconds_per_byte else None
