"""Watches one run from beside it: everything that metrics, status, page and summary tell is asked here.

    with Observer(replay) as observer:
        replay.run()
    print(observer.summary())

It owns four threads: two probes, the sampler, and one that notes a point of history every second. None of them can
hold the flow up or fail it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from applier.errors import ApplierError, UnexpectedFailure
from applier.events.batch import Batch
from applier.observe.causes import main_cause, shares_of
from applier.observe.counts import Counts, counts_of
from applier.observe.histogram import LogHistogram
from applier.observe.hot_keys import OTHER_ROWS_TEXT, HotKeys
from applier.observe.last_known import HOST_ATTRIBUTE, HTTP_ATTRIBUTE
from applier.observe.probes import SourceProbe, TargetProbe
from applier.observe.recent import RecentEvents
from applier.observe.sampling import Sampler
from applier.observe.status import Cause, CauseShare, HotKey, Rates, Stage, State
from applier.pipeline import Pipeline
from applier.replay import Replay
from applier.target.checkpoint import GtidMode
from scheduler.grouping import Unit

TICK_SECONDS: Final = 1.0
HISTORY_POINTS: Final = 900
RATE_SECONDS: Final = 5.0
LAG_GROWING_SECONDS: Final = 30.0  # over which lag is compared
LAG_GROWTH: Final = 0.05
LAG_POINTS_MIN: Final = 5
LINK_SILENT_SECONDS: Final = 15.0  # three heartbeats

_MEMORY: Final = re.compile(r"^(VmRSS|VmHWM):\s*(\d+ kB)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Point:
    """A second of history. Counts are of the run so far."""

    at: float  # seconds since the epoch
    monotonic: float
    lag_seconds: float
    lag_transactions: int
    transactions: int
    rows: int
    units: int
    bytes_read: int
    cause: Cause
    queue_fill: float
    workers_busy: int
    resident_bytes: int

    @property
    def of_source(self) -> int:
        """Transactions that the source has committed: those applied and those behind."""
        return self.transactions + self.lag_transactions


class Observer:
    """Made before the run, left after it. All methods may be called from any thread at any time."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.settings = replay.settings
        mode = self.settings.pipeline.gtid_mode
        self.source_probe = SourceProbe(lambda: replay.sources.address)
        self.target_probe = TargetProbe(
            lambda: self.settings.target,
            channel=None if mode is GtidMode.KEPT else self.settings.channel,
        )
        self.hot_keys = HotKeys(self.target_probe.column_names)
        self.sampler = Sampler(lambda: replay.pipeline, target=self.target_probe, hot_keys=self.hot_keys)
        self.recent = RecentEvents()
        self.started = time.time()
        self.http: str | None = None  # HOST:PORT, set by whoever serves
        self.failure: ApplierError | None = None
        self.ended = False
        self.last_progress = self.started  # seconds since the epoch
        self.target_reconnects = 0
        self.last_gtids: dict[int, str] = {}  # by worker: the last transaction that it was seen with
        self.history: deque[Point] = deque(maxlen=HISTORY_POINTS)
        self._seen: Pipeline | None = None
        self._earlier = Counts()
        self._counting = threading.Lock()
        self._unread = 0  # transactions that the source has and we have not read
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick_until_stopped, name="observer", daemon=True)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        root = logging.getLogger()
        root.addHandler(self.recent)
        self._stack.callback(root.removeHandler, self.recent)
        for part in (self.source_probe, self.target_probe, self.sampler):
            self._stack.enter_context(part)
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.note_end(error)
        self._stop.set()
        self._ticker.join()
        self._stack.close()

    def note_end(self, error: BaseException | None = None) -> None:
        """The run has ended, with `error` or as wanted."""
        self.ended = True
        if isinstance(error, ApplierError):
            self.failure = error
        elif isinstance(error, Exception):
            self.failure = UnexpectedFailure(detail=f"{type(error).__name__}: {error}")

    def serves(self, address: str) -> None:
        """It is served over HTTP there: the target's session tells it, for `applier status`."""
        self.http = address
        self.replay.attributes |= {HTTP_ATTRIBUTE: address, HOST_ATTRIBUTE: socket.gethostname()}

    # --- what is asked for -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        if self.failure is not None:
            return State.FAILED
        if self.ended:
            return State.STOPPED
        if self.replay.stopping:
            return State.DRAINING
        pipeline = self.replay.pipeline
        if pipeline is None:
            return State.STARTING if self._seen is None else State.RECONNECTING
        return State.RUNNING if self.source_link()[0] else State.RECONNECTING

    def counts(self) -> Counts:
        """Of the whole run."""
        with self._counting:
            self._follow()
            pipeline = self._seen
            return self._earlier if pipeline is None else self._earlier + counts_of(pipeline)

    @property
    def source_reconnects(self) -> int:
        """Of the whole run."""
        relaying = self.replay.relaying
        if relaying is not None and relaying.receiver is not None:
            return relaying.receiver.reconnects
        return self.counts().source_reconnects

    def _follow(self) -> None:
        """Adds up a pipeline that has ended, and lets go of it."""
        present = self.replay.pipeline
        if self._seen is not None and present is not self._seen:
            self._earlier += counts_of(self._seen)
            self._seen = None
            self.target_reconnects += present is not None
        if present is not None:
            self._seen = present

    def lag(self) -> tuple[float, int]:
        """(seconds, transactions) that the target is behind."""
        pipeline = self.replay.pipeline
        if pipeline is None:
            return self._lag_without_link(), self._unread
        reader, mark = pipeline.reader, pipeline.clock.low_water_mark
        offset = self.source_probe.clock_offset_seconds
        if offset is not None:
            reader.marks.clock_offset_seconds = offset
        seconds = reader.marks.lag_seconds(mark)
        connected, silent = self.source_link()
        if not connected or silent > LINK_SILENT_SECONDS:
            seconds = max(seconds, silent)  # nobody knows what the source has committed since
        in_flight = max(0, reader.next_sequence_number - 1 - mark)
        return seconds, in_flight + self._unread

    def source_link(self) -> tuple[bool, float]:
        """(whether it is there, seconds since the source's last byte; heartbeats count)."""
        relaying, pipeline = self.replay.relaying, self.replay.pipeline
        receiver = None if relaying is None else relaying.receiver
        link = receiver or (None if pipeline is None else pipeline.reader)
        return (False, 0.0) if link is None else (link.connected, time.monotonic() - link.last_read_monotonic)

    def _lag_without_link(self) -> float:
        return 0.0 if self.ended else time.time() - self.last_progress

    def _count_unread(self, pipeline: Pipeline) -> int:
        """What the source had when it was asked last and the reader has not read now."""
        executed = self.source_probe.executed
        if executed is None:
            return 0
        try:
            return (executed - pipeline.reader.received).count
        except RuntimeError:  # changed by the reader while we looked
            return self._unread

    def rates(self) -> Rates:
        """Over the last seconds."""
        points = tuple(self.history)
        recent = [point for point in points if points[-1].monotonic - point.monotonic <= RATE_SECONDS + 0.5]
        if len(recent) < 2:
            return Rates()
        first, last = recent[0], recent[-1]
        seconds = last.monotonic - first.monotonic
        return Rates(
            max(0, last.transactions - first.transactions) / seconds,
            max(0, last.rows - first.rows) / seconds,
            max(0, last.units - first.units) / seconds,
            max(0, last.bytes_read - first.bytes_read) / seconds,
            max(0, last.of_source - first.of_source) / seconds,
        )

    def growing(self) -> bool:
        """Lag has grown by more than a twentieth of the last half minute."""
        points = tuple(self.history)
        recent = [point for point in points if points[-1].at - point.at <= LAG_GROWING_SECONDS]
        if len(recent) < LAG_POINTS_MIN:
            return False
        elapsed = recent[-1].at - recent[0].at
        return recent[-1].lag_seconds - recent[0].lag_seconds > LAG_GROWTH * elapsed

    def causes(self, *, whole_run: bool = False) -> tuple[CauseShare, ...]:
        """What the flow was held up by over the last seconds, the largest first."""
        times = self.sampler.causes
        return shares_of(times.run if whole_run else times.window(), self._details())

    def cause(self, *, whole_run: bool = False) -> Cause:
        """The largest of them."""
        times = self.sampler.causes
        return main_cause(times.run if whole_run else times.window())

    def top_keys(self, count: int = 10) -> tuple[HotKey, ...]:
        return self.hot_keys.top(count, time.monotonic())

    def because(self, *, whole_run: bool = False) -> str:
        """One sentence: "hot_key 72 %: rows of d.stock (s_i_id=3)"."""
        shares = {share.cause: share for share in self.causes(whole_run=whole_run)}
        share = shares.get(self.cause(whole_run=whole_run))
        if share is None:
            return ""
        return f"{share.cause} {share.share:.0%}" + (f": {share.detail}" if share.detail else "")

    def _details(self) -> dict[Cause, str]:
        stages = self.counts().stages
        details = {
            Cause.IDLE: "nothing to do",
            Cause.NO_PRIMARY_KEY: "rows are searched for in a table without a usable key",
            Cause.COMMIT_TURN: "executed transactions wait for an earlier one",
            Cause.EXECUTION: f"the target takes {_milliseconds(stages, Stage.EXECUTE)} for a unit",
            Cause.FSYNC: f"a commit takes the target {_milliseconds(stages, Stage.COMMIT)}",
            Cause.DECODING: "reading, decoding and scheduling",
            Cause.NETWORK: self._network_detail(),
            Cause.LOCK_WAIT: self.target_probe.lock_detail or "a lock on the target",
            Cause.BARRIER: self._barrier_detail(),
        }
        for row in reversed(self.hot_keys.top_of_run(10)):
            keyless = row.key == "" and row.table != OTHER_ROWS_TEXT
            cause = Cause.NO_PRIMARY_KEY if keyless else Cause.HOT_KEY
            details[cause] = f"{row.table} ({row.key})" if row.key else row.table
        return details

    def _network_detail(self) -> str:
        trips = [
            f"{name} {trip * 1000:.1f} ms"
            for name, trip in (
                ("source", self.source_probe.round_trip_seconds),
                ("target", self.target_probe.round_trip_seconds),
            )
            if trip is not None
        ]
        return f"round trips: {', '.join(trips)}" if trips else ""

    def _barrier_detail(self) -> str:
        reasons = self.counts().barriers
        return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3) if count)

    # --- once a second ---------------------------------------------------------------------------

    def _tick_until_stopped(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            self.tick()

    def tick(self) -> None:
        """Notes a point of history."""
        pipeline = self.replay.pipeline
        self._unread = self._count_unread(pipeline) if pipeline is not None else self._unread
        counts = self.counts()
        seconds, transactions = self.lag()
        before = self.history[-1].transactions if self.history else 0
        if counts.transactions > before or transactions == 0:
            self.last_progress = time.time()
        progress = self.replay.progress()
        if pipeline is not None:
            self._note_gtids(pipeline)
        self.history.append(
            Point(
                at=time.time(),
                monotonic=time.monotonic(),
                lag_seconds=seconds,
                lag_transactions=transactions,
                transactions=counts.transactions,
                rows=counts.rows,
                units=counts.units,
                bytes_read=counts.bytes_read,
                cause=self.cause(),
                queue_fill=progress.queue_fill,
                workers_busy=progress.workers_busy,
                resident_bytes=resident_bytes()[0],
            )
        )

    def _note_gtids(self, pipeline: Pipeline) -> None:
        for worker in pipeline.workers:
            if (gtid := unit_gtid(worker.state.unit)) is not None:
                self.last_gtids[worker.state.number] = gtid


def unit_gtid(unit: Unit[Batch] | None) -> str | None:
    """Of the unit's first transaction."""
    if unit is None or not unit.slices:
        return None
    piece = unit.slices[0]
    return piece.batch.transaction(piece.first).gtid or None


def resident_bytes() -> tuple[int, int]:
    """(now, the most so far), from the kernel."""
    facts = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = {name: int(value.split()[0]) * 1024 for name, value in _MEMORY.findall(facts)}
    return found.get("VmRSS", 0), found.get("VmHWM", 0)


def _milliseconds(stages: Mapping[Stage, LogHistogram], stage: Stage) -> str:
    times = stages.get(stage)
    return "no time" if times is None or not times.count else f"{1000 * times.total / times.count:.2g} ms"
