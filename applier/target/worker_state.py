"""What a worker tells of itself: counters in slots, and what it does now."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from applier.events.batch import Batch
from applier.observe.histogram import LogHistogram
from scheduler.grouping import Unit


@dataclass(slots=True)
class WorkerState:
    """Counters and the present activity; written by the worker only, read by whoever reports."""

    number: int
    activity: str = "starting"
    sequence_number: int = 0
    transactions: int = 0
    rows: int = 0
    units: int = 0
    rows_folded: int = 0  # that went into net changes
    rows_saved: int = 0  # by net changes
    retries: int = 0
    retry_codes: dict[int, int] = field(default_factory=dict)  # how often by the server's error number
    rolled_back_for_others: int = 0
    last_error: str = ""
    since: float = 0.0  # when the activity began, monotonic seconds
    unit: Unit[Batch] | None = None  # that it has taken
    waits_for: int = 0  # the unit's last dependency that was waited for, a sequence number
    waited_seconds: float = 0.0  # for it
    failed_attempts: int = 0  # of the unit
    last_code: int = 0  # the server's error number of the last of them
    exchanges: int = 0  # packets of rows sent and answered
    dependency_wait: LogHistogram = field(default_factory=LogHistogram)
    execute: LogHistogram = field(default_factory=LogHistogram)
    commit_turn: LogHistogram = field(default_factory=LogHistogram)
    commit: LogHistogram = field(default_factory=LogHistogram)
    unit_transactions: LogHistogram = field(default_factory=lambda: LogHistogram(1.0))

    def enter(self, activity: str) -> float:
        """Now, in monotonic seconds."""
        self.activity = activity
        self.since = now = time.monotonic()
        return now

    def take(self, unit: Unit[Batch] | None) -> None:
        """Begins with a unit, or has none any more."""
        self.unit = unit
        self.waits_for = self.failed_attempts = self.last_code = 0
        self.waited_seconds = 0.0
        if unit is not None:
            self.activity = "encoding"
            self.sequence_number = unit.sequence_first

    def waited(self, started: float) -> None:
        """For `waits_for`."""
        self.waited_seconds = seconds = time.monotonic() - started
        self.dependency_wait.observe(seconds)
