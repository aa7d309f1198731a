"""Ways to break the scheduler, each one at a time. The checker has to find every one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any
from unittest import mock

from applier.events.batch import Batch
from applier.events.scheduling import cut
from scheduler.clock import Clock, Decision, Ticket
from scheduler.grouping import Cut, CutFunction
from tests.binlog_bytes import gtid_event
from tests.simulation.execution import Scheduling, Script
from tests.simulation.logs import CHILD, ITEM, PARENT, SimulatedLog, definitions, plans_of, random_log
from writeset.definitions import Access


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    found_as: str  # a rule of the checker; "assertion": the clock itself says so
    scheduling: Callable[[Script, SimulatedLog], Scheduling] = Scheduling
    make_log: Callable[[int], SimulatedLog] = random_log
    patch: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


# --- keys -------------------------------------------------------------------------------------------------


def _with_keys(table: str, *wanted: int, access: Access | None = None) -> Callable[[int], SimulatedLog]:
    """Logs whose decoder knows only these keys of the table."""
    tables = definitions()
    keys = tuple(tables[table].keys[number] for number in wanted)
    if access is not None:
        keys = tuple(replace(key, access=access) for key in keys)
    tables[table] = replace(tables[table], keys=keys)
    return partial(random_log, plans=plans_of(tables))


def _log_with_mixed_up_files(seed: int) -> SimulatedLog:
    """sequence_number is taken to go on where the file before ended, last_committed is not."""
    offset = 0
    highest = 0

    def gtid(gno: int, *, last_committed: int, sequence_number: int, checksum: bool) -> bytes:
        nonlocal offset, highest
        if sequence_number == 1:
            offset = highest
        highest = offset + sequence_number
        return gtid_event(gno, last_committed=last_committed, sequence_number=highest, checksum=checksum)

    return random_log(seed, source_gtid=gtid, rotation=())


# --- dependencies -----------------------------------------------------------------------------------------


class ForgetsAtCheckpoint(Scheduling):
    """The table is cleared when it is full, but nothing is made to wait for what was in it."""

    def schedule(self, batch: Batch) -> None:
        super().schedule(batch)
        if any(self.dependencies.index.checkpoints.values()):
            self.dependencies = self.new_dependencies()


class RetiresTooEarly(Scheduling):
    """What was scheduled counts as committed."""

    scheduled = 0

    def schedule(self, batch: Batch) -> None:
        self.dependencies.schedule(batch, self.scheduled)
        self.scheduled = batch.last_sequence_number - 1


class ChangesCuts(Scheduling):
    """`change` gets what the scheduler cut, and the batch with the index of the first transaction."""

    def change(self, found: Cut, batch: Batch, start: int, unit_first: int) -> Cut:
        raise NotImplementedError

    @property
    def cut(self) -> CutFunction[Batch]:
        def changed(batch: Batch, start: int, transactions_max: int, bytes_max: int, unit_first: int) -> Cut:
            found = cut(batch, start, transactions_max, bytes_max, unit_first)
            return self.change(found, batch, start, unit_first)

        return changed


class OffByOne(ChangesCuts):
    def change(self, found: Cut, batch: Batch, start: int, unit_first: int) -> Cut:
        less = max(found.last_committed - 1, 0)
        return found._replace(last_committed=less, keys_need=max(found.keys_need - 1, 0))


class BarrierDoesNotWait(ChangesCuts):
    def change(self, found: Cut, batch: Batch, start: int, unit_first: int) -> Cut:
        return found._replace(last_committed=0) if found.alone else found


class NobodyWaitsForBarriers(ChangesCuts):
    """The floor that a barrier raises is not part of last_committed."""

    def change(self, found: Cut, batch: Batch, start: int, unit_first: int) -> Cut:
        needs = self.log.needs
        if found.alone or not found.last_committed or not needs[found.last_committed - 1].barrier:
            return found
        return found._replace(last_committed=0, keys_need=0)


class FirstOfUnitOnly(ChangesCuts):
    """A unit waits for what its first transaction needs."""

    def change(self, found: Cut, batch: Batch, start: int, unit_first: int) -> Cut:
        if unit_first:
            return found._replace(last_committed=0, keys_need=0, hidden=False)
        alone = cut(batch, start, 1, 1, 0)
        return found._replace(last_committed=alone.last_committed, keys_need=0, hidden=False)


class HiddenInUnit(ChangesCuts):
    """A dependency inside the unit hides another one outside."""

    def change(self, found: Cut, batch: Batch, start: int, unit_first: int) -> Cut:
        return found._replace(hidden=False)


class LosesOne(ChangesCuts):
    """A transaction falls between two units."""

    def change(self, found: Cut, batch: Batch, start: int, unit_first: int) -> Cut:
        skip = not found.alone and found.sequence_last % 7 == 0 and found.end < len(batch)
        return found._replace(end=found.end + 1) if skip else found


def _split_that_holds_nothing() -> AbstractContextManager[Any]:
    return mock.patch("tests.simulation.execution.split", return_value=0)


# --- the clock --------------------------------------------------------------------------------------------


class LetsGoTooEarly(Clock):
    """Those who wait go on when what they wait for has executed, not when it has committed."""

    def executed(self, ticket: Ticket) -> None:
        before, self.low_water_mark = self.low_water_mark, max(self.low_water_mark, ticket.last)
        for wake in self._due():
            wake.release()
        mark, self.low_water_mark = self.low_water_mark, before
        self.early = max(mark, getattr(self, "early", 0))
        super().executed(ticket)

    def _reached(self, sequence_number: int) -> bool:
        return getattr(self, "early", 0) >= sequence_number or super()._reached(sequence_number)


class NoTurns(Clock):
    """Whoever has executed commits."""

    def executed(self, ticket: Ticket) -> None:
        ticket.release(ticket._decide(Decision.COMMIT).decision or Decision.COMMIT)

    def _advance(self, first: int, last: int) -> None:
        self._done_ahead[first] = last
        while (ahead := self._done_ahead.pop(self.low_water_mark + 1, None)) is not None:
            self.low_water_mark = ahead


class JumpsOverHoles(Clock):
    """Without commit order: the mark is the highest that has committed, not the end of what is complete."""

    def _advance(self, first: int, last: int) -> None:
        self.low_water_mark = max(self.low_water_mark, last)


class CommitsAfterFailure(Clock):
    """What has failed for good is skipped."""

    def fail(self, sequence_number: int) -> None:
        self.committed(sequence_number, sequence_number)


class WakesOneOnly(Clock):
    def _due(self) -> list[Any]:
        return super()._due()[:1]


class NeverRollsBack(Clock):
    """A unit at its turn waits for a lock of one that waits for its own turn behind it."""

    def roll_back_later_than(self, sequence_number: int) -> int:
        return 0


class CommitsWhatWasRolledBack(Clock):
    """A unit that had to give way commits at once instead."""

    def _release_turns(self, after: int, decision: Decision) -> int:
        return super()._release_turns(after, Decision.COMMIT if decision is Decision.ROLLBACK else decision)

    def _advance(self, first: int, last: int) -> None:
        NoTurns._advance(self, first, last)  # type: ignore[arg-type]


def _clock(kind: Callable[..., Clock]) -> Callable[[Script, SimulatedLog], Scheduling]:
    class WithClock(Scheduling):
        def __init__(self, script: Script, log: SimulatedLog) -> None:
            super().__init__(script, log)
            self.clock = kind(ordered=script.ordered)

    return WithClock


# --- the queue --------------------------------------------------------------------------------------------


def _queue_that_gives_a_unit_out_twice() -> AbstractContextManager[Any]:
    from scheduler.dispatch import WorkQueue

    advance = WorkQueue._advance
    calls = count(1)

    def forgetful(self: WorkQueue[Batch], end: int) -> bool:
        if next(calls) % 50:
            return advance(self, end)
        return False  # the cursor stays where it was

    return mock.patch.object(WorkQueue, "_advance", forgetful)


BUGS = [
    Bug("sharers are ignored", "conflict", make_log=_with_keys(PARENT, 0, access=Access.EXCLUSIVE)),
    Bug("the row's identity is not a key", "conflict", make_log=_with_keys(ITEM, 1)),
    Bug("unique keys are not keys", "conflict", make_log=_with_keys(ITEM, 0)),
    Bug("foreign keys are not keys", "conflict", make_log=_with_keys(CHILD, 0)),
    Bug("source bounds are mixed up over files", "conflict", make_log=_log_with_mixed_up_files),
    Bug("a checkpoint is not waited for", "conflict", scheduling=ForgetsAtCheckpoint),
    Bug("keys retire when scheduled", "conflict", scheduling=RetiresTooEarly),
    Bug("last_committed is one too low", "conflict", scheduling=OffByOne),
    Bug("a barrier does not wait", "barrier", scheduling=BarrierDoesNotWait),
    Bug("nobody waits for a barrier", "barrier", scheduling=NobodyWaitsForBarriers),
    Bug("a unit waits for its first transaction only", "conflict", scheduling=FirstOfUnitOnly),
    Bug("a dependency in the unit hides one outside", "conflict", scheduling=HiddenInUnit),
    Bug("a transaction falls between two units", "missing", scheduling=LosesOne),
    Bug("rows are not held for earlier groups", "conflict", patch=_split_that_holds_nothing),
    Bug("executed counts as committed", "conflict", scheduling=_clock(LetsGoTooEarly)),
    Bug("commits in any order", "order", scheduling=_clock(NoTurns)),
    Bug("the mark jumps over holes", "conflict", scheduling=_clock(JumpsOverHoles)),
    Bug("commits go on after a failure", "after failure", scheduling=_clock(CommitsAfterFailure)),
    Bug("only one of several is woken", "deadlock", scheduling=_clock(WakesOneOnly)),
    Bug("later units keep their locks", "livelock", scheduling=_clock(NeverRollsBack)),
    Bug("what had to give way commits", "order", scheduling=_clock(CommitsWhatWasRolledBack)),
    Bug("a unit is given out twice", "assertion", patch=_queue_that_gives_a_unit_out_twice),
]
