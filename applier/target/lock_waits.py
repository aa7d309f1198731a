"""Lock waits that InnoDB cannot see.

A unit that has executed and waits for its commit turn, or for rows of an earlier group, keeps its locks. An earlier
unit may need one of them although no key is in both: a gap beside an equal unique value that was deleted, the
parent row of a foreign key. Then the earlier one waits for the later one's lock, and the later one for the earlier
one's commit. The server knows the first wait only, so its deadlock detection finds nothing, and both would wait until
innodb_lock_wait_timeout. Here one thread looks for such waits and has the later unit rolled back and run again.

Where the account may not see who waits for whom, everything behind the oldest unit is rolled back when that one
has been executing for long while sessions wait for row locks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import pymysql

from applier.address import ServerAddress
from applier.errors import ApplierError
from applier.events.batch import Batch
from applier.target.data_locks import DataLocks, Lock, Wait
from applier.target.session import Session
from applier.target.worker_state import WorkerState
from scheduler.clock import Clock
from scheduler.grouping import Unit

log = logging.getLogger(__name__)

EXECUTING: Final = "executing"
HOLDS_LOCKS: Final = frozenset({"waiting for its commit turn", "waiting for rows of an earlier group"})

IDLE_SECONDS: Final = 0.1  # between two glances at the workers when none has a unit
GLANCE_SECONDS_MAX: Final = 0.01  # … when all is well
GLANCE_SECONDS_MIN: Final = 0.002  # … where waits come one after the other
SLOWER: Final = 1.1  # each glance that finds nothing makes the next pause longer
LONG_SECONDS: Final = 0.25  # of executing, and between looks then: somebody else may hold a lock
LOOK_SHARE: Final = 4  # looks that find nothing take at most a fifth of the time
LOOK_PAUSE_SECONDS_MAX: Final = 0.05  # … but a busy machine alone makes them slow
PATIENCE_SECONDS_MAX: Final = 0.5  # before units are rolled back on suspicion, when that did not help
METADATA_SECONDS: Final = 0.25  # of executing before we ask for a metadata lock wait
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.02, 10.0  # between attempts to reach the target
LOG_SECONDS: Final = 5.0  # at most one line of a kind in so long; the others are for debugging

OUTSIDE: Final = 0  # among the sequence numbers of units: all sessions that are not ours

Edges = dict[int, dict[int, Wait]]  # waiter → blocker → wait; units by their first sequence number


class WatchedWorker(Protocol):
    """What is looked at of a worker."""

    state: WorkerState
    session: Session


@dataclass(frozen=True, slots=True)
class Running:
    """A worker and the unit it had at one moment."""

    worker: WatchedWorker
    unit: Unit[Batch]
    connection_id: int
    executing: bool
    holds_locks: bool
    since: float  # when that activity began, monotonic seconds

    @property
    def still(self) -> bool:
        """Whether the worker has the same unit now."""
        return self.worker.state.unit is self.unit


class LockWaits(threading.Thread):
    """Watches the workers of one pipeline. Its counters are written by its own thread only.

    It never fails the flow: while it cannot reach the target, waits end with innodb_lock_wait_timeout.
    """

    def __init__(
        self,
        address: ServerAddress,
        workers: Sequence[WatchedWorker],
        clock: Clock,
        gtid: Callable[[Unit[Batch]], str],
    ) -> None:
        """`gtid` names a unit in messages."""
        super().__init__(name="lock-waits", daemon=True)
        self.resolved = 0  # waits of an earlier unit for later ones, seen and ended
        self.rolled_back = 0  # units, for these
        self.fallback = 0  # times that everything behind the oldest unit was rolled back on suspicion
        self.metadata = 0  # the same when it waited for a metadata lock
        self.outside = 0  # waits for locks of other clients: nothing is done about them
        self.looks = 0  # questions to the target
        self._workers = workers
        self._states = [worker.state for worker in workers]
        self._clock = clock
        self._gtid = gtid
        self._locks = DataLocks(address)
        self._stopping = threading.Event()
        self._pause = GLANCE_SECONDS_MAX
        self._patience = GLANCE_SECONDS_MIN
        self._suspected = 0  # sequence number of the unit for which all later ones were rolled back
        self._suspected_at = 0.0
        self._metadata_asked = (0, 0.0)  # sequence number of the unit, and when
        self._outside_seen: set[tuple[int, int]] = set()  # unit, thread
        self._looked_at = self._look_again_at = 0.0
        self._look_failures = 0
        self._told_at: dict[str, float] = {}

    def run(self) -> None:
        try:
            while not self._stopping.wait(self._pause):
                self._glance(time.monotonic())
        except Exception:  # the flow goes on without us, only slower where units block each other
            log.exception("lock waits are not watched any more")
        finally:
            self._locks.close()

    def stop(self) -> None:
        """Ends the thread, also in the middle of a question; returns when it has ended."""
        self._stopping.set()
        self._locks.interrupt()
        if self.is_alive():
            self.join()

    # --- when to look ----------------------------------------------------------------------------

    def _glance(self, now: float) -> None:
        """At the workers only. Asks the target when one has been executing for a while before one that holds locks."""
        idle, suspicious = True, False
        last_holder = max((s.sequence_number for s in self._holders()), default=0)
        for state in self._states:
            if state.unit is not None:
                idle = False
                if state.activity == EXECUTING:
                    seconds = now - state.since
                    blocked = state.sequence_number < last_holder and seconds > self._pause / 2
                    suspicious = suspicious or blocked or seconds > LONG_SECONDS < now - self._looked_at
        if idle:
            self._pause = IDLE_SECONDS
        elif suspicious and now >= self._look_again_at:
            if self._look_or_retry(list(self._running()), now):
                self._pause = GLANCE_SECONDS_MIN
            else:
                took = time.monotonic() - now
                self._pause = max(self._slower(), min(LOOK_SHARE * took, LOOK_PAUSE_SECONDS_MAX))
        else:
            self._pause = self._slower()

    def _holders(self) -> Iterator[WorkerState]:
        """Who may block an earlier unit; in relaxed order nobody: they commit at once."""
        if self._clock.ordered:
            yield from (state for state in self._states if state.activity in HOLDS_LOCKS)

    def _slower(self) -> float:
        return min(GLANCE_SECONDS_MAX, self._pause * SLOWER)

    def _running(self) -> Iterator[Running]:
        for worker in self._workers:
            state, connection = worker.state, worker.session.connection
            unit, since, activity = state.unit, state.since, state.activity
            if unit is not None and connection is not None:
                number = connection.thread_id()  # type: ignore[no-untyped-call]
                yield Running(
                    worker, unit, number, activity == EXECUTING, activity in HOLDS_LOCKS, since=since
                )

    def _look_or_retry(self, running: list[Running], now: float) -> bool:
        """Whether somebody was rolled back."""
        self.looks += 1
        self._looked_at = now
        try:
            found = self._look(running, now)
        except (ApplierError, pymysql.MySQLError, OSError) as error:
            self._locks.close()
            self._look_failures += 1
            pause = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2**self._look_failures)
            self._look_again_at = now + pause
            log.debug("lock waits cannot be looked at", extra={"detail": str(error), "again_seconds": pause})
            return False
        self._look_failures = 0
        return found

    def _look(self, running: list[Running], now: float) -> bool:
        visible = self._locks.visible()
        if visible and self._resolve(running):
            return True
        if not self._clock.ordered:
            return False
        return (not visible and self._suspect(running, now)) or self._resolve_metadata(running, now)

    # --- who waits for whom ----------------------------------------------------------------------

    def _resolve(self, running: list[Running]) -> bool:
        """Rolls back whoever holds a lock that an earlier unit waits for, in one step or over others."""
        units = {one.unit.sequence_first: one for one in running}
        edges = self._edges(running)
        self._note_outside(units, edges)
        found = False
        for first in sorted(edges.keys() & units.keys()):
            guilty = [units[one] for one in _reachable(edges, first)]
            if self._clock.ordered and any(one.holds_locks for one in guilty):
                found |= self._roll_back(units[first], guilty, edges[first])
        return found

    def _edges(self, running: list[Running]) -> Edges:
        threads = self._locks.threads(one.connection_id for one in running)
        by_thread = {threads[one.connection_id]: one for one in running if one.connection_id in threads}
        ours = set(threads.values())

        def node(thread: int) -> int | None:
            """None when the worker has another unit by now."""
            one = by_thread.get(thread)
            if one is None:
                return None if thread in ours else OUTSIDE
            return one.unit.sequence_first if one.still else None

        edges: Edges = {}
        for wait in self._locks.waits(by_thread) if by_thread else ():
            waiter, blocker = node(wait.waiter), node(wait.blocker)
            if waiter is not None and blocker is not None:
                edges.setdefault(waiter, {})[blocker] = wait
        return edges

    def _roll_back(self, blocked: Running, guilty: list[Running], waits: dict[int, Wait]) -> bool:
        # Asked before, because afterwards the lock is another's.
        lock = self._locks.lock(next(iter(waits.values())).lock_id) if self._may_tell("resolved") else None
        until = blocked.unit.sequence_last
        rolled_back = [one for one in guilty if self._clock.roll_back(one.unit.sequence_first, until)]
        if not rolled_back:
            return False
        self.resolved += 1
        self.rolled_back += len(rolled_back)
        level = logging.DEBUG if lock is None else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level,
                "rolled back later units for a lock that an earlier one waits for",
                extra={
                    "gtid": self._gtid(blocked.unit),
                    "rolled_back": ",".join(self._gtid(one.unit) for one in rolled_back),
                    **_fields(lock or Lock()),
                    "so_far": self.resolved,
                },
            )
        return True

    def _note_outside(self, units: dict[int, Running], edges: Edges) -> None:
        waits = {
            (first, blockers[OUTSIDE].blocker): blockers[OUTSIDE]
            for first, blockers in edges.items()
            if OUTSIDE in blockers and first in units
        }
        for (first, thread), wait in waits.items():
            if (first, thread) in self._outside_seen:
                continue
            self.outside += 1
            if self._may_tell("outside"):
                log.warning(
                    "waiting for a lock of another client",
                    extra={
                        "gtid": self._gtid(units[first].unit),
                        "held_by": self._locks.session_name(thread),
                        **_fields(self._locks.lock(wait.lock_id)),
                        "so_far": self.outside,
                    },
                )
        self._outside_seen = {seen for seen in self._outside_seen if seen[0] in units} | set(waits)

    # --- on suspicion ----------------------------------------------------------------------------

    def _suspect(self, running: list[Running], now: float) -> bool:
        """Without the privilege: once for each oldest unit, and later the next time when it did not help."""
        oldest = min(running, key=lambda one: one.unit.sequence_first)
        first = oldest.unit.sequence_first
        if first == self._suspected:
            if now - self._suspected_at > GLANCE_SECONDS_MAX:  # it executes still: that was not it
                self._suspected_at = now
                self._patience = min(PATIENCE_SECONDS_MAX, self._patience * 2)
            return False
        if not oldest.executing or now - oldest.since < self._patience or not self._locks.row_lock_waits():
            return False
        self._patience = max(GLANCE_SECONDS_MIN, self._patience * 0.75)
        self._suspected, self._suspected_at = first, now
        found = self._roll_back_all_behind(oldest, "it executes for long, and sessions wait for row locks")
        self.fallback += found
        return found

    def _roll_back_all_behind(self, oldest: Running, why: str) -> bool:
        units = self._clock.roll_back_later_than(oldest.unit.sequence_last)
        self.rolled_back += units
        if units and self._may_tell(why):
            log.info(
                "rolled back all later units for one that seems to wait for their locks",
                extra={"gtid": self._gtid(oldest.unit), "units": units, "why": why},
            )
        return units > 0

    # --- metadata locks --------------------------------------------------------------------------

    def _resolve_metadata(self, running: list[Running], now: float) -> bool:
        """Somebody's ALTER TABLE waits for a later unit that uses the table, and an earlier one queues behind it.

        That would last for lock_wait_timeout, by default a year."""
        oldest = min(running, key=lambda one: one.unit.sequence_first)
        first, (asked_for, asked_at) = oldest.unit.sequence_first, self._metadata_asked
        since = max(oldest.since, asked_at if asked_for == first else 0.0)
        if not oldest.executing or now - since < METADATA_SECONDS:
            return False
        self._metadata_asked = (first, now)
        state = self._locks.state(oldest.connection_id)
        if not (state.startswith("Waiting for ") and state.endswith(" lock")):
            return False
        found = oldest.still and self._roll_back_all_behind(oldest, state)
        self.metadata += found
        return found

    def _may_tell(self, kind: str) -> bool:
        now = time.monotonic()
        if now - self._told_at.get(kind, -LOG_SECONDS) < LOG_SECONDS:
            return False
        self._told_at[kind] = now
        return True


def _reachable(edges: Edges, first: int) -> list[int]:
    """Later units that `first` waits for, in one step or over later units and sessions of others."""
    seen = {first}
    ahead = [first]
    while ahead:
        for blocker in edges.get(ahead.pop(), ()):
            if blocker not in seen and (blocker > first or blocker == OUTSIDE):
                seen.add(blocker)
                ahead.append(blocker)
    return sorted(seen - {first, OUTSIDE})


def _fields(lock: Lock) -> dict[str, str]:
    told = {"table": lock.table, "index": lock.index, "mode": lock.mode}
    return {name: value for name, value in told.items() if value}
