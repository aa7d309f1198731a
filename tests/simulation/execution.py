"""One schedule of a log: the real dependencies, work queue, units and clock, with workers that only pretend to execute.

A worker follows the protocol of `applier.target.worker`; what it does on the target takes a random time, meets
deadlocks and locks that units behind it hold, and fails for good at one transaction if the script says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from applier.events.batch import Batch
from applier.events.hand_off import split
from applier.events.net_changes import fold
from applier.events.schedule_record import held_rows
from applier.events.scheduling import Dependencies, cut
from scheduler.clock import Clock, ClockStopped, Decision, Ticket
from scheduler.dispatch import WorkQueue
from scheduler.grouping import CutFunction, GroupLimits, Unit
from scheduler.queues import QueueAborted
from scheduler.recording import HELD, RecordedSection, RecordedTransaction, RecordedUnit, UnitRun
from tests.schedule_checker import Violation, violations
from tests.simulation.logs import Needs, SimulatedLog
from tests.simulation.runtime import Runtime
from writeset.buckets import BucketIndex

ATTEMPTS_MAX = 60
GAPS = 3  # locks that the keys do not tell of


@dataclass(frozen=True, slots=True)
class Script:
    """What happens in one schedule. Times in ticks."""

    seed: int
    workers: int
    ordered: bool
    group: int
    index: tuple[int, int, int]  # bucket bits, bucket entries, keys_max
    source_bounds: bool
    hand_off: bool  # groups are folded; rows that an earlier group holds run in a second step
    queue_bytes_max: int
    slowness: int  # of the slowest execution
    deadlocks: float
    gap_locks: float
    sees_locks: bool  # the target tells who waits for whom
    fail_at: int = 0  # sequence number of a transaction that can never be applied
    drain_at: int = 0
    stop_at: int = 0

    @classmethod
    def random(cls, seed: int, log: SimulatedLog) -> Script:
        dice = random.Random(~seed)
        ordered = dice.random() < 0.8
        total = len(log.needs)
        ending = dice.random()
        trouble = dice.random() < 0.5
        return cls(
            seed=seed,
            workers=dice.choice((1, 2, 3, 5, 8)),
            ordered=ordered,
            group=dice.choice((1, 1, 2, 4, 100)) if ordered else 1,
            index=dice.choice(
                ((16, 511, 1 << 20), (4, 8, 1 << 20), (1, 8, 1 << 20), (2, 3, 1 << 20), (8, 8, 4))
            ),
            source_bounds=dice.random() < 0.6,
            hand_off=log.row_by_row and dice.random() < 0.5,
            queue_bytes_max=dice.choice((1, 2000, 1 << 20)),
            slowness=dice.choice((3, 30, 300)),
            deadlocks=0.1 if trouble else 0.0,
            gap_locks=0.3 if trouble and ordered and not log.large else 0.0,
            sees_locks=seed % 2 == 0,
            fail_at=dice.randint(1, total) if ending < 0.1 and total else 0,
            drain_at=dice.randint(1, 200) if 0.1 <= ending < 0.15 else 0,
            stop_at=dice.randint(1, 200) if 0.15 <= ending < 0.2 else 0,
        )


class Scheduling:
    """Dependencies of a batch, and units of it: what the seeded bugs replace."""

    def __init__(self, script: Script, log: SimulatedLog) -> None:
        self.script = script
        self.log = log
        self.clock = Clock(ordered=script.ordered)
        self.dependencies = self.new_dependencies()

    def new_dependencies(self) -> Dependencies:
        bits, entries, keys_max = self.script.index
        return Dependencies(
            BucketIndex(bits, entries, keys_max),
            use_source_bounds=self.script.source_bounds,
            row_by_row=self.log.row_by_row,
        )

    def schedule(self, batch: Batch) -> None:
        self.dependencies.schedule(batch, self.clock.low_water_mark)

    @property
    def cut(self) -> CutFunction[Batch]:
        return cut


@dataclass(slots=True)
class Outcome:
    section: RecordedSection
    stuck: int  # threads that never ended
    livelocks: list[int] = field(default_factory=list)
    taken: int = 0  # the last sequence number that was given to a worker
    overlapping: int = 0  # units that began before the one before them had committed


class Schedule:
    """One run of a log."""

    def __init__(
        self,
        log: SimulatedLog,
        script: Script,
        runtime: Runtime,
        new_scheduling: Callable[[Script, SimulatedLog], Scheduling] = Scheduling,
    ) -> None:
        self.log = log
        self.script = script
        self.runtime = runtime
        self.scheduling = new_scheduling(script, log)
        self.clock = self.scheduling.clock
        self.work: WorkQueue[Batch] = WorkQueue(
            self.scheduling.cut,
            limits=GroupLimits(script.group),
            bytes_max=script.queue_bytes_max,
            on_take=self._taken,
        )
        self.units: list[RecordedUnit] = []
        self.gaps: dict[int, int] = {}  # lock → first sequence number of the unit that holds it
        self.outcome = Outcome(
            RecordedSection(script.ordered, False, script.workers, self.units, None), stuck=0
        )

    def run(self) -> Outcome:
        runtime, script = self.runtime, self.script
        runtime.spawn(self._schedule)
        for number in range(script.workers):
            runtime.spawn(SimulatedWorker(self, number).run)
        if script.drain_at:
            runtime.spawn(lambda: self._later(script.drain_at, self.work.drain))
        if script.stop_at:
            runtime.spawn(lambda: self._later(script.stop_at, self._stop))
        self.outcome.stuck = runtime.run()
        return self.outcome

    def _later(self, ticks: int, act: Callable[[], None]) -> None:
        self.runtime.sleep(ticks)
        act()

    def _stop(self) -> None:
        self.work.abort()
        self.clock.stop()

    def _taken(self, unit: Unit[Batch]) -> None:
        if unit.last_part:
            self.outcome.taken = max(self.outcome.taken, unit.sequence_last)

    def _schedule(self) -> None:
        dice = random.Random(self.script.seed)
        pace = dice.choice((0, 2, 60))
        try:
            for batch in self.log.batches:
                self.runtime.sleep(dice.randint(0, pace))
                self.scheduling.schedule(batch)
                self.work.put(batch)
            self.work.close()
        except QueueAborted:
            pass


class Failed(Exception):
    """The unit can never be applied."""


class SimulatedWorker:
    def __init__(self, schedule: Schedule, number: int) -> None:
        self.schedule = schedule
        self.number = number
        self.runtime = schedule.runtime
        self.clock = schedule.clock
        self.work = schedule.work
        self.script = schedule.script
        self.random = random.Random(schedule.script.seed * 31 + number)
        self.holds: list[int] = []
        self.runs = 0
        self.begin(0)

    def begin(self, waited_for: int) -> None:
        """A run starts now."""
        self.waited_for = waited_for
        self.started = self.runtime.stamp()
        self.held_started = self.executed = 0
        self.held: list[bytes] | None = None
        self.runs += 1

    def run(self) -> None:
        try:
            while (unit := self.work.take()) is not None:
                if not self._apply_or_fail(unit):
                    return
        except (QueueAborted, ClockStopped):
            pass
        finally:
            self._unlock()  # the session ends

    def _apply_or_fail(self, unit: Unit[Batch]) -> bool:
        try:
            self._apply(unit)
        except Failed:
            if unit.transactions > 1:
                return all(self._apply_or_fail(single) for single in unit.split())
            self.clock.fail(unit.sequence_first)
            self.work.drain()
            return False
        return True

    def _apply(self, unit: Unit[Batch]) -> None:
        self.runs = 0
        while True:
            if self.runs > ATTEMPTS_MAX:
                self.schedule.outcome.livelocks.append(unit.sequence_first)
                raise ClockStopped
            execute = self._execute_folded if self._folds(unit) else self._execute_whole
            if execute(unit) and self._commit_in_turn(unit):
                return
            self._unlock()

    def _folds(self, unit: Unit[Batch]) -> bool:
        needs = self.schedule.log.needs
        return self.script.hand_off and self.script.group > 1 and not needs[unit.sequence_first - 1].barrier

    def _execute_whole(self, unit: Unit[Batch]) -> bool:
        self.clock.wait_for(unit.last_committed)
        self.begin(unit.last_committed)
        return self._execute(unit)

    def _execute_folded(self, unit: Unit[Batch]) -> bool:
        group = fold([(piece.batch, piece.first, piece.end) for piece in unit.slices])
        wait_for = split(group, self.clock.low_water_mark)
        held = held_rows(group)
        if wait_for and any(0 in rows for rows in held):
            self.begin(wait_for)
            self.held = held
            if not self._execute(unit):
                return False
            if not self.clock.wait_holding(unit.sequence_first, wait_for):
                self._unlock()
                self.clock.give_way(unit.sequence_first)
                return False
            self.held_started = self.runtime.stamp()
        else:
            self.clock.wait_for(wait_for)
            self.begin(wait_for)
        return self._execute(unit)

    def _execute(self, unit: Unit[Batch]) -> bool:
        """False when it was rolled back and must run again."""
        self.runtime.sleep(self.random.randint(0, self.script.slowness))
        while not unit.last_part:
            part = self.work.take_part()
            unit.sequence_last, unit.last_part = part.sequence_last, part.last_part
            self.runtime.sleep(self.random.randint(0, self.script.slowness))
        if unit.sequence_first <= self.script.fail_at <= unit.sequence_last:
            self._unlock()
            alone = self.clock.low_water_mark >= unit.sequence_first - 1
            self.clock.wait_for(unit.sequence_first - 1)
            if alone:
                raise Failed
            return False
        if self.random.random() < self.script.deadlocks:
            self.runtime.sleep(self.random.randint(0, 10))
            return False
        return self._lock_gap(unit)

    def _lock_gap(self, unit: Unit[Batch]) -> bool:
        """A unit needs the same lock at every run: waiting does not help, unless whoever holds it gives way."""
        dice = (unit.sequence_first * 0x9E3779B1 ^ self.script.seed * 0x85EBCA6B) >> 7
        gap, gaps = dice % GAPS, self.schedule.gaps
        if dice // GAPS % 100 >= 100 * self.script.gap_locks or gap in self.holds:
            return True
        if gap in gaps and self.script.sees_locks:
            self._watched(unit, gap)
        if gap in gaps:
            self.runtime.sleep(20)  # the lock wait timeout
            if gap in gaps:
                self.clock.roll_back_later_than(unit.sequence_last)
                self.runtime.sleep(self.random.randint(0, 10))
                return False
        gaps[gap] = unit.sequence_first
        self.holds.append(gap)
        return True

    def _watched(self, unit: Unit[Batch], gap: int) -> None:
        """As `applier.target.lock_waits`: a later unit that holds the lock is rolled back in its turn wait."""
        gaps = self.schedule.gaps
        for _ in range(10):
            if gap not in gaps:
                return
            self.clock.roll_back(gaps.get(gap, 0), unit.sequence_last)
            self.runtime.sleep(2)

    def _unlock(self) -> None:
        for gap in self.holds:
            self.schedule.gaps.pop(gap, None)
        self.holds.clear()

    def _commit_in_turn(self, unit: Unit[Batch]) -> bool:
        self.executed = self.runtime.stamp()
        turn = self.runtime.lock()
        turn.acquire()
        ticket = Ticket(unit.sequence_first, unit.sequence_last, lambda decision: turn.release())
        self.clock.executed(ticket)
        turn.acquire()
        if ticket.decision is Decision.ABANDON:
            self._unlock()
            raise ClockStopped
        self.runtime.sleep(self.random.randint(0, 3))
        if ticket.decision is Decision.ROLLBACK:
            self._unlock()
            self.clock.give_way(unit.sequence_first)
            return False
        self._unlock()
        self._record(unit)
        self.clock.committed(unit.sequence_first, unit.sequence_last)
        return True

    def _record(self, unit: Unit[Batch]) -> None:
        run = UnitRun(
            self.started, self.executed, self.runtime.stamp(), self.held_started, self.waited_for, self.runs
        )
        held = b"".join(self.held) if self.held is not None else b""
        transactions = []
        row = 0
        for number in range(unit.sequence_first, unit.sequence_last + 1):
            needs = self.schedule.log.needs[number - 1]
            transactions.append(_recorded(number, needs, held[row : row + needs.row_count]))
            row += needs.row_count
        self.schedule.units.append(
            RecordedUnit(unit.sequence_first, unit.sequence_last, self.number, run, tuple(transactions))
        )


def _recorded(number: int, needs: Needs, held: bytes) -> RecordedTransaction:
    modes = bytes(needs.modes)
    if any(held):
        modes = bytes(mode | HELD * held[row] for mode, row in zip(modes, needs.rows, strict=True))
    return RecordedTransaction(number, 0, 0, 0, 0, needs.barrier, needs.keys, modes)


# --- what must hold ---------------------------------------------------------------------------------------


def faults(log: SimulatedLog, script: Script, outcome: Outcome) -> list[Violation]:
    """Everything that is wrong with a schedule: conflicts, order, and how it ended."""
    found = violations(outcome.section)
    total = len(log.needs)
    committed = {t.sequence_number for unit in outcome.section.units for t in unit.transactions}
    found += [Violation("livelock", first, first) for first in outcome.livelocks]
    if outcome.stuck:
        found.append(Violation("deadlock", len(committed), total, f"{outcome.stuck} threads wait for ever"))
    if script.stop_at:  # anywhere; in strict order what is committed has no gaps, which `violations` has seen
        return found
    wanted = script.fail_at - 1 if script.fail_at else outcome.taken if script.drain_at else total
    missing = set(range(1, wanted + 1)) - committed
    if missing:
        found.append(Violation("missing", min(missing), max(missing)))
    beyond = {number for number in committed if number > wanted}
    if script.fail_at in committed or (beyond and script.ordered):
        found.append(Violation("after failure", script.fail_at, max(committed)))
    return found
