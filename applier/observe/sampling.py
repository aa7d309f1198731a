"""Where the time of a replay goes, by looking at it many times a second.

Looking costs the flow nothing but the look: workers write what they are doing anyway. A share is the share of looks,
so it is good to a per cent or so for some seconds of replay.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Protocol, Self

from applier.observe.blame import DEPENDENCY_WAITS, EXECUTING, TURN, Blame, Front, Held, hold_ups
from applier.observe.causes import SLICE_SECONDS, CauseTimes, Parts, Spent, by_cause, parts_of
from applier.observe.hot_keys import HotKeys
from applier.observe.status import Cause
from applier.pipeline import Pipeline
from applier.target.worker_state import WorkerState

SAMPLE_SECONDS: Final = 0.02
ENDED: Final = "stopped"
STUCK_SECONDS: Final = 0.05  # so long in one place, and it is worth asking the target for locks
LATE_SECONDS: Final = 0.1  # a transaction that is read so long after its commit came late


class TargetSight(Protocol):
    """What is known of the target beside the flow: see `probes.TargetProbe`."""

    @property
    def round_trip_seconds(self) -> float | None: ...

    @property
    def durable(self) -> bool:
        """A commit waits for the disk."""

    def look_for_locks(self, connection_id: int) -> None:
        """A worker is in one place for long: find out whether it waits for a lock."""

    def locked(self, connection_id: int) -> bool:
        """Whether it was seen waiting for one just now."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """Shares from 0 to 1.

    workers: of the workers' time, by activity. stages: of the flow's time, by the stage that limited it.
    causes: of the flow's time, by cause. rows: of the waits for rows, by row.
    """

    samples: int = 0
    workers: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    causes: dict[str, float] = field(default_factory=dict)
    rows: dict[str, float] = field(default_factory=dict)


def limiting_stage(pipeline: Pipeline) -> str:
    """The stage that the others wait for now: the last one with work waiting before it, else the source."""
    if pipeline.work.transactions:
        return "workers"
    if len(pipeline.decoded):
        return "scheduler"
    if len(pipeline.undecoded):
        return "decoders"
    if all(worker.state.activity in ("idle", ENDED) for worker in pipeline.workers):
        return "reader"
    return "workers"


def front_of(pipeline: Pipeline) -> Front:
    reader = pipeline.reader
    in_flight = reader.next_sequence_number - 1 > pipeline.clock.low_water_mark
    late_seconds = LATE_SECONDS + reader.delay_seconds  # that much is on purpose
    late = reader.marks.recent and reader.marks.read_delay_seconds > late_seconds
    return Front(in_flight, late, reader.waiting)


class Sampler:
    """Samples the pipeline that `current` gives, from a thread of its own, while the block runs."""

    def __init__(
        self,
        current: Callable[[], Pipeline | None],
        seconds: float = SAMPLE_SECONDS,
        *,
        target: TargetSight | None = None,
        hot_keys: HotKeys | None = None,
    ) -> None:
        self._current = current
        self._seconds = seconds
        self._target = target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._activities: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._pipeline: Pipeline | None = (
            None  # the last one seen: an earlier one would keep its index and buffers
        )
        self._gave_way_earlier = 0
        self._looked_at: float | None = None
        self._slice: dict[Blame, float] = defaultdict(float)
        self._slice_began = 0.0
        self._spent = Spent()
        self._stretch: tuple[int, Blame, float] = (0, Blame.IDLE, 0.0)  # unit, blame, seconds in this slice
        self.parts = Parts()
        self.hot_keys = HotKeys() if hot_keys is None else hot_keys
        self.causes = CauseTimes()
        self.samples = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.close_slice()

    @property
    def rolled_back_for_others(self) -> int:
        """Units that had to give way to an earlier one, of all pipelines seen."""
        return self._gave_way_earlier + gave_way(self._pipeline)

    def attribution(self) -> Attribution:
        """Of the samples taken so far, or since the last `restart`."""
        rows = {
            f"{row.table}({row.key})" if row.key else row.table: row.share
            for row in self.hot_keys.top_of_run(5)
        }
        causes = {str(cause): seconds for cause, seconds in self.causes.run.items()}
        return Attribution(self.samples, shares(self._activities), shares(self._stages), shares(causes), rows)

    def restart(self) -> None:
        """Forgets the samples. A sample that is being taken meanwhile may be split."""
        self.samples = 0
        self.causes.clear()
        self.hot_keys.run.clear()
        for counts in (self._activities, self._stages):
            counts.clear()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            pipeline = self._current()
            now = time.monotonic()
            if pipeline is not None:
                self._look_at(pipeline, now)
            self._looked_at = now

    def _look_at(self, pipeline: Pipeline, now: float) -> None:
        if self._pipeline is not pipeline:
            self._gave_way_earlier += gave_way(self._pipeline)
            self._pipeline = pipeline
            self._spent = Spent()
        self.samples += 1
        self._stages[limiting_stage(pipeline)] += 1
        states = [worker.state for worker in pipeline.workers]
        for state in states:
            if state.activity != ENDED:
                self._activities[state.activity] += 1
        self.hot_keys.look(states, now)
        self._charge(pipeline, states, now)
        if now - self._slice_began >= SLICE_SECONDS:
            self.close_slice()
            self._slice_began = now

    # --- causes ----------------------------------------------------------------------------------

    def _charge(self, pipeline: Pipeline, states: list[WorkerState], now: float) -> None:
        elapsed = self._seconds if self._looked_at is None else now - self._looked_at
        ordered = pipeline.clock.ordered
        for held in hold_ups(states, pipeline.clock.low_water_mark, front_of(pipeline), now, ordered=ordered):
            self._slice[self._told_apart(pipeline, held, elapsed * held.share, now)] += elapsed * held.share

    def _told_apart(self, pipeline: Pipeline, held: Held, elapsed: float, now: float) -> Blame:
        """The blame, once the target was asked for locks where a unit is in one place for long."""
        state, target = held.worker, self._target
        if state is None or target is None or state.activity not in (EXECUTING, TURN):
            return held.blame
        if now - state.since < STUCK_SECONDS:
            return held.blame
        connection = pipeline.workers[state.number].session.connection
        if connection is None:
            return held.blame
        connection_id = connection.thread_id()  # type: ignore[no-untyped-call]
        target.look_for_locks(connection_id)
        number, blame, seconds = self._stretch
        if target.locked(connection_id):
            if number == state.sequence_number and seconds:  # it was one all the time
                self._slice[blame] -= seconds
                self._slice[Blame.LOCK_WAIT] += seconds
            self._stretch = (state.sequence_number, Blame.LOCK_WAIT, 0.0)
            return Blame.LOCK_WAIT
        if (number, blame) != (state.sequence_number, held.blame):
            seconds = 0.0
        self._stretch = (state.sequence_number, held.blame, seconds + elapsed)
        return held.blame

    def close_slice(self) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            return
        spent = Spent.by(worker.state for worker in pipeline.workers)
        target = self._target
        round_trip = (target.round_trip_seconds if target is not None else None) or 0.0
        before = replace(self.parts, durable=target is None or target.durable)
        parts = parts_of(spent.since(self._spent), round_trip, ordered=pipeline.clock.ordered, before=before)
        self._spent = spent
        self.parts = with_dependencies(parts, self.hot_keys.restart_causes())
        raw, self._slice = self._slice, defaultdict(float)
        number, blame, _ = self._stretch
        self._stretch = (number, blame, 0.0)
        self.causes.add(by_cause(raw, self.parts))


def gave_way(pipeline: Pipeline | None) -> int:
    """Units of it that had to give way to an earlier one."""
    return 0 if pipeline is None else sum(worker.state.rolled_back_for_others for worker in pipeline.workers)


def with_dependencies(parts: Parts, counted: Counter[Cause]) -> Parts:
    """`parts` with what the waits were for, where some were seen."""
    total = counted.total()
    if not total:
        return parts
    return replace(
        parts,
        keyless=counted[Cause.NO_PRIMARY_KEY] / total,
        barrier=counted[Cause.BARRIER] / total,
    )


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """From 0 to 1, the largest first."""
    total = sum(counts.values())
    largest_first = sorted(counts.items(), key=lambda item: -item[1])
    return {name: round(count / total, 4) for name, count in largest_first if total}


__all__ = ["DEPENDENCY_WAITS", "Attribution", "Sampler", "front_of", "limiting_stage", "shares"]
