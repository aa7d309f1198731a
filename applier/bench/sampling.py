"""Where the time of a replay goes, by looking at it a hundred times a second.

Looking costs the flow nothing but the look: workers write what they are doing anyway. A share is the share of looks,
so it is good to a per cent or so for a replay of some seconds.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from applier.pipeline import Pipeline

SAMPLE_SECONDS = 0.01
ENDED = "stopped"
DEPENDENCY_WAITS = ("waiting for a dependency", "waiting for rows of an earlier group")


@dataclass(frozen=True, slots=True)
class Attribution:
    """Shares from 0 to 1.

    workers: of the workers' time, by activity. stages: of the flow's time, by the stage that limited it.
    waits: how often a worker was seen waiting for a dependency of the transaction with that sequence number.
    """

    samples: int = 0
    workers: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)


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


class Sampler:
    """Samples the pipeline that `current` gives, from a thread of its own, while the block runs."""

    def __init__(self, current: Callable[[], Pipeline | None], seconds: float = SAMPLE_SECONDS) -> None:
        self._current = current
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._activities: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._waits: Counter[int] = Counter()
        self._pipelines: list[Pipeline] = []
        self.samples = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def rolled_back_for_others(self) -> int:
        """Units that had to give way to an earlier one, of all pipelines seen."""
        return sum(worker.state.rolled_back_for_others for flow in self._pipelines for worker in flow.workers)

    def attribution(self) -> Attribution:
        """Of the samples taken so far, or since the last `restart`."""
        return Attribution(
            self.samples,
            shares(self._activities),
            shares(self._stages),
            {str(number): count for number, count in self._waits.most_common(1000)},
        )

    def restart(self) -> None:
        """Forgets the samples. A sample that is being taken meanwhile may be split."""
        self.samples = 0
        for counts in (self._activities, self._stages, self._waits):
            counts.clear()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            pipeline = self._current()
            if pipeline is not None:
                self._look_at(pipeline)

    def _look_at(self, pipeline: Pipeline) -> None:
        if not self._pipelines or self._pipelines[-1] is not pipeline:
            self._pipelines.append(pipeline)
        self.samples += 1
        self._stages[limiting_stage(pipeline)] += 1
        for worker in pipeline.workers:
            state = worker.state
            activity = state.activity
            if activity != ENDED:
                self._activities[activity] += 1
            if activity in DEPENDENCY_WAITS:
                self._waits[state.sequence_number] += 1


def shares(counts: Counter[str]) -> dict[str, float]:
    """From 0 to 1, the largest first."""
    total = counts.total()
    return {name: round(count / total, 4) for name, count in counts.most_common()}
