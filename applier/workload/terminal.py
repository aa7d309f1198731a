"""One terminal: a connection that sends transactions, at once or when they are due."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from applier.workload.model import Call, TerminalCounters
from applier.workload.pacing import Schedule
from applier.workload.session import Session

ABORT_CHECK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """When the terminals of a run send, and when they end.

    stop: set by the caller. abort: set when another terminal has failed.
    """

    schedule: Schedule
    seconds: float | None
    stop: threading.Event
    abort: threading.Event

    def ended(self) -> bool:
        """Somebody wants the run to end now."""
        return self.stop.is_set() or self.abort.is_set()

    def wait_until(self, due: float, deadline: float) -> bool:
        """Waits until `due`; False when the run ends before. Both are `time.perf_counter()` seconds."""
        while not self.ended():
            now = time.perf_counter()
            if now >= deadline:
                return False
            if now >= due:
                return True
            self.stop.wait(min(due - now, deadline - now, ABORT_CHECK_SECONDS))
        return False


class Terminal:
    """Sends `calls`, `calls_per_packet` at a time, until a limit is reached."""

    def __init__(
        self,
        *,
        number: int,
        session: Session,
        calls: Iterator[Call],
        limits: Limits,
        counters: TerminalCounters,
        calls_per_packet: int,
        transactions: int | None,
    ) -> None:
        self.number = number
        self.session = session
        self.calls = calls
        self.limits = limits
        self.counters = counters
        self.calls_per_packet = calls_per_packet
        self.transactions = transactions

    def run(self, started: float) -> None:
        """Runs to the end. `started` is the start of the schedule, in `time.perf_counter()` seconds."""
        limits, schedule = self.limits, self.limits.schedule
        deadline = float("inf") if limits.seconds is None else started + limits.seconds
        sent = 0
        while self.transactions is None or sent < self.transactions:
            left = self.calls_per_packet if self.transactions is None else self.transactions - sent
            # A packet is due when its last transaction is: earlier would be faster than the rate.
            packet = min(self.calls_per_packet, left)
            due = started + schedule.due_seconds(self.number, sent + packet - 1)
            if not limits.wait_until(due, deadline):
                return
            self._send(
                list(islice(self.calls, packet)), time.perf_counter() if schedule.rate is None else due
            )
            sent += packet

    def _send(self, calls: list[Call], since: float) -> None:
        """`since`: what the latencies count from."""
        counters = self.counters
        by_kind, record, now = counters.by_kind, counters.latency.record, time.perf_counter

        def answered(index: int) -> None:
            record(int((now() - since) * 1e6))
            kind = calls[index].kind
            by_kind[kind] = by_kind.get(kind, 0) + 1
            counters.transactions += 1

        def retried() -> None:
            counters.retries += 1

        self.session.execute_all([call.sql for call in calls], answered, retried)
