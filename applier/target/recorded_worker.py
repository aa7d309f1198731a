"""A worker that has its schedule recorded. Apart from `Worker`, so that a run without a recording pays nothing."""

from __future__ import annotations

import time
from typing import Any

from applier.events.batch import Batch
from applier.events.net_group import FoldedGroup
from applier.events.schedule_record import held_rows
from applier.target.worker import Worker
from scheduler.grouping import Unit
from scheduler.recording import ScheduleRecorder, UnitRun


class RecordedWorker(Worker):
    """`Worker`, noting when each unit starts, has executed and is committed."""

    def __init__(self, *arguments: Any, recorder: ScheduleRecorder[Batch], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._recorder = recorder
        self._runs = 0
        self._forget_run()

    def _forget_run(self) -> None:
        self._begun = self._held_started = self._executed = self._waited_for = 0
        self._held: list[bytes] | None = None

    def _wait_for_dependencies(self, sequence_number: int) -> None:
        super()._wait_for_dependencies(sequence_number)
        self._runs += 1
        self._forget_run()
        self._begun = time.monotonic_ns()
        self._waited_for = sequence_number

    def _execute_ready(self, unit: Unit[Batch], group: FoldedGroup) -> bool:
        self._runs += 1
        self._forget_run()
        self._begun = time.monotonic_ns()
        self._held = held_rows(group)
        return super()._execute_ready(unit, group)

    def _hold_until(self, unit: Unit[Batch], sequence_number: int) -> bool:
        reached = super()._hold_until(unit, sequence_number)
        self._held_started = time.monotonic_ns()
        self._waited_for = sequence_number
        return reached

    def _commit_in_turn(self, unit: Unit[Batch], *, keeps_gtid: bool = False) -> bool:
        self._executed = time.monotonic_ns()
        return super()._commit_in_turn(unit, keeps_gtid=keeps_gtid)

    def _committed(self, unit: Unit[Batch]) -> None:
        committed = time.monotonic_ns()
        run = UnitRun(
            started=self._begun,
            executed=self._executed or committed,  # what commits by itself has no commit turn
            committed=committed,
            held_started=self._held_started,
            waited_for=self._waited_for,
            runs=self._runs,
        )
        self._runs = 0
        self._recorder.record(self.state.number, unit, run, self._held)
        super()._committed(unit)
