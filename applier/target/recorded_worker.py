"""A worker that has its schedule recorded. Apart from `Worker`, so that a run without a recording pays nothing."""

from __future__ import annotations

import time
from typing import Any

from applier.events.batch import Batch
from applier.target.worker import Worker
from scheduler.grouping import Unit
from scheduler.recording import RunTimes, ScheduleRecorder


class RecordedWorker(Worker):
    """`Worker`, noting when each unit starts, has executed and is committed."""

    def __init__(self, *arguments: Any, recorder: ScheduleRecorder[Batch], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._recorder = recorder
        self._runs = 0
        self._started = 0
        self._executed = 0

    def _wait_for_dependencies(self, sequence_number: int) -> None:
        super()._wait_for_dependencies(sequence_number)
        self._runs += 1
        self._started = time.monotonic_ns()
        self._executed = 0

    def _commit_in_turn(self, unit: Unit[Batch], *, keeps_gtid: bool = False) -> bool:
        self._executed = time.monotonic_ns()
        return super()._commit_in_turn(unit, keeps_gtid=keeps_gtid)

    def _committed(self, unit: Unit[Batch]) -> None:
        committed = time.monotonic_ns()
        # A statement that commits by itself has no commit turn.
        times = RunTimes(self._started, self._executed or committed, committed, runs=self._runs)
        self._runs = 0
        self._recorder.record(self.state.number, unit, times)
        super()._committed(unit)
