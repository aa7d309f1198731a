"""How old what the target lacks is, by the source's commit times."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

RECENT_SECONDS: Final = 1.0
MARKS_MAX: Final = 10_000


class CommitTimes:
    """When the transactions that are on their way were committed on the source: one mark for each batch.

    The reader adds, anybody asks. `clock_offset_seconds`: the source's clock minus ours, set by whoever measures it."""

    def __init__(self) -> None:
        self.clock_offset_seconds = 0.0
        self.last_monotonic = 0.0  # when a transaction was read last
        self._delay_seconds = 0.0  # of that one, by the two clocks as they are
        self.applied: tuple[str, int] = (
            "",
            0,
        )  # file and position in the source's log, as of the last question
        # Last sequence number, commit time in microseconds, where it ends.
        self._marks: deque[tuple[int, int, tuple[str, int]]] = deque()
        self._asking = threading.Lock()

    def add(self, sequence_number: int, commit_microseconds: int, end: tuple[str, int]) -> None:
        """A batch has been read that ends there. 0 microseconds: its commit time is not known."""
        self.last_monotonic = time.monotonic()
        self._delay_seconds = time.time() - commit_microseconds / 1e6 if commit_microseconds else 0.0
        with self._asking:
            if len(self._marks) >= MARKS_MAX:  # nobody has asked for long: the last mark goes on to here
                _, commit_microseconds, _ = self._marks.pop()
            self._marks.append((sequence_number, commit_microseconds, end))

    @property
    def read_delay_seconds(self) -> float:
        """How long after its commit the last transaction was read."""
        return max(0.0, self._delay_seconds + self.clock_offset_seconds)

    @property
    def recent(self) -> bool:
        """A transaction was read within the last second."""
        return time.monotonic() - self.last_monotonic < RECENT_SECONDS

    def lag_seconds(self, low_water_mark: int) -> float:
        """Age of the oldest transaction that was read and is not applied.

        When there is none: how late the last one was read if that was just now, else 0.0, as nothing newer came."""
        with self._asking:
            marks = self._marks
            while marks and marks[0][0] <= low_water_mark:
                self.applied = marks.popleft()[2]
            oldest = marks[0][1] if marks else 0
        if oldest:
            return max(0.0, time.time() - oldest / 1e6 + self.clock_offset_seconds)
        return self.read_delay_seconds if not marks and self.recent else 0.0
