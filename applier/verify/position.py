"""Snapshots of source and target at the same position.

A position is a set of GTIDs. MySQL does not tell which set a consistent snapshot shows, so we find out from
outside: a transaction that the engine has committed is, until its GTID reaches gtid_executed, among the GTIDs
owned (engine commit comes first, then the set). So a snapshot shows exactly gtid_executed when that was the
same before and after it was opened, and no GTID was owned at a moment between the two, after the opening.
On a busy server that moment may not come. Then the snapshot is *inexact*, or, if allowed, commits are held
back with FLUSH TABLES WITH READ LOCK while the snapshots open.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

import pymysql

from applier.address import ServerAddress
from applier.errors import NotComparable
from applier.verify.definitions import OWN_SCHEMA, Session, query
from applier.verify.lock_circle import CircleBreaker

OPEN_ATTEMPTS_MAX = 40
OPEN_PAUSE_SECONDS = 0.005
PAIR_ATTEMPTS_MAX = 5
WAIT_SLICE_SECONDS = 0.05
POLL_SECONDS = 0.01
LOCK_WAIT_SECONDS = 10
NEAR_SECONDS = 0.2
NO_SUCH_TABLE = frozenset({1049, 1146})
NO_PROGRESS = NO_SUCH_TABLE | {1044, 1142}  # or not for us to read


class TargetPosition(Protocol):
    """How to learn which of the source's transactions the target has committed."""

    def wait(self, target: Session, gtid_set: str, seconds: float) -> bool:
        """Wait until the target has committed `gtid_set`; False when the time is over."""

    def of_snapshot(self, target: Session) -> str:
        """The source's transactions that, beyond gtid_executed, this session's open snapshot itself tells of."""


@dataclass(frozen=True, slots=True)
class AppliedPosition:
    """What gtid_executed has, and beyond it the applier's progress rows, if there are any: they are written with
    the changes, so a snapshot tells its own position. Of several channels' rows the union is taken; GTIDs of
    other sources do no harm. With a `channel` only that one's row counts: others may be of the same source, with
    other schemas, and further on."""

    channel: str | None = None

    def wait(self, target: Session, gtid_set: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            told = progress(target, self.channel)
            if not subtract(target, gtid_set, union(executed(target), told)):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if told:  # more than gtid_executed, and nothing waits for it
                threading.Event().wait(POLL_SECONDS)
            else:
                # Not for long: a progress row may come.
                seconds = min(left, WAIT_SLICE_SECONDS)
                query(target, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (gtid_set, seconds))

    def of_snapshot(self, target: Session) -> str:
        return progress(target, self.channel)


@dataclass(frozen=True, slots=True)
class Snapshots:
    """What the open snapshots of one server show: exactly `gtid_set`, or, inexact, at least that."""

    gtid_set: str
    exact: bool


@dataclass(frozen=True, slots=True)
class SamePosition:
    """Both sides have open snapshots. `errant` are GTIDs of the target that the source never had."""

    gtid_set: str
    exact: bool
    errant: str = ""


def executed(session: Session) -> str:
    """gtid_executed, on one line."""
    ((gtid_set,),) = query(session, "SELECT @@GLOBAL.gtid_executed")
    return str(gtid_set).replace("\n", "")


def progress(session: Session, channel: str | None = None) -> str:
    """What the applier's progress rows tell: GTIDs of sources that are applied here, perhaps under others."""
    return union(*(told for name, told in _progress_rows(session) if channel in (None, name)))


def channels(session: Session) -> set[str]:
    """Those that have progress rows on this server. Raises what PyMySQL raises when they are not for us to see."""
    return {name for name, _ in _progress_rows(session, NO_SUCH_TABLE)}


def _progress_rows(session: Session, nothing: frozenset[int] = NO_PROGRESS) -> list[tuple[str, str]]:
    try:
        rows = query(session, f"SELECT channel, executed FROM {OWN_SCHEMA}.progress")
    except pymysql.MySQLError as error:
        if error.args[0] not in nothing:
            raise
        return []
    return [(str(channel), str(executed)) for channel, executed in rows]


def union(*gtid_sets: str) -> str:
    """One set; the parts may overlap, and the server takes it all the same."""
    return ",".join(filter(None, gtid_sets))


def subtract(session: Session, minuend: str, subtrahend: str) -> str:
    """GTIDs in the first set and not in the second; the server's own arithmetic."""
    ((gtid_set,),) = query(session, "SELECT GTID_SUBTRACT(%s, %s)", (minuend, subtrahend))
    return str(gtid_set).replace("\n", "")


def _start(sessions: Sequence[Session]) -> None:
    for session in sessions:
        query(session, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")


def release(sessions: Sequence[Session]) -> None:
    """Close the snapshots."""
    for session in sessions:
        query(session, "ROLLBACK")


def open_snapshots(
    control: Session, sessions: Sequence[Session], attempts_max: int = OPEN_ATTEMPTS_MAX
) -> Snapshots:
    """A snapshot in each session, all at one GTID set if such a moment comes within `attempts_max`."""
    for _ in range(attempts_max):
        before = executed(control)
        _start(sessions)
        ((owned,),) = query(control, "SELECT @@GLOBAL.gtid_owned")
        if not owned and executed(control) == before:
            return Snapshots(before, exact=True)
        release(sessions)
        threading.Event().wait(OPEN_PAUSE_SECONDS)
    before = executed(control)
    _start(sessions)
    return Snapshots(before, exact=False)


@contextmanager
def commits_held(source: ServerAddress, control: Session) -> Iterator[None]:
    """No commits on this server meanwhile. Raises NotComparable when the lock is not to be had."""
    try:
        query(control, f"SET SESSION lock_wait_timeout = {LOCK_WAIT_SECONDS}")
        number = int(control.thread_id())  # type: ignore[no-untyped-call]
        with closing(CircleBreaker(source, number)) as breaker:
            breaker.run(lambda: query(control, "FLUSH TABLES WITH READ LOCK"), LOCK_WAIT_SECONDS)
    except pymysql.MySQLError as error:
        raise NotComparable(detail=f"the source could not be locked: {error.args[-1]}") from error
    try:
        yield
    finally:
        query(control, "UNLOCK TABLES")


@dataclass(frozen=True, slots=True)
class Sides:
    """The sessions of a comparison: one of each side to ask with, the others to read with."""

    source: ServerAddress
    source_control: Session
    target_control: Session
    sources: Sequence[Session]
    targets: Sequence[Session]

    def release(self) -> None:
        release(self.sources)
        release(self.targets)


def same_position(
    sides: Sides,
    position: TargetPosition,
    wait_seconds: float,
    allow_lock: bool = False,
    attempts_max: int = PAIR_ATTEMPTS_MAX,
) -> SamePosition:
    """Open snapshots on both sides, at the same position if that can be had.

    Raises NotComparable when the target does not reach the source's position in `wait_seconds`.
    """
    _come_near(sides, position, wait_seconds)
    deadline = time.monotonic() + wait_seconds
    found = None
    for _ in range(attempts_max):
        if found is not None:
            sides.release()
        found = _attempt(sides, position, deadline)
        if found.exact:
            return found
    assert found is not None
    if not allow_lock:
        return found
    sides.release()
    _await(sides, position, executed(sides.source_control), deadline)
    with commits_held(sides.source, sides.source_control):
        # Nothing new comes in, so the target comes to rest at the source's position.
        return _attempt(sides, position, deadline)


def _come_near(sides: Sides, position: TargetPosition, wait_seconds: float) -> None:
    """Let a target that lags catch up first. Then it takes small steps: one that runs after the source in large ones
    goes far beyond the source's position with the last, and all the rows between differ."""
    deadline = time.monotonic() + wait_seconds
    before = math.inf
    while True:
        began = time.monotonic()
        _await(sides, position, executed(sides.source_control), deadline)
        now = time.monotonic()
        waited = now - began
        # Near, or as near as it comes, or it might not come in time.
        if waited < NEAR_SECONDS or waited > before / 2 or 2 * waited > deadline - now:
            return
        before = waited


def quiesced(sides: Sides) -> SamePosition:
    """Snapshots of two servers that stand still, which the user vouches for and we check where we can."""
    before = executed(sides.source_control), executed(sides.target_control)
    _start(sides.sources)
    _start(sides.targets)
    after = executed(sides.source_control), executed(sides.target_control)
    return SamePosition(before[0], exact=before == after)


def _attempt(sides: Sides, position: TargetPosition, deadline: float) -> SamePosition:
    source = open_snapshots(sides.source_control, sides.sources)
    _await(sides, position, source.gtid_set, deadline)
    # Next to an inexact one it need not be exact either, and the sooner it opens, the fewer rows have changed between.
    attempts_max = OPEN_ATTEMPTS_MAX if source.exact else 0
    target = open_snapshots(sides.target_control, sides.targets, attempts_max)
    told = {position.of_snapshot(session) for session in sides.targets}
    applied = union(target.gtid_set, *told)
    # What the source has not even now is the target's own: no position of the source will ever include it.
    errant = subtract(sides.source_control, applied, executed(sides.source_control))
    ahead = subtract(sides.source_control, applied, source.gtid_set)
    ahead = subtract(sides.source_control, ahead, errant)
    exact = source.exact and target.exact and len(told) == 1 and not ahead
    return SamePosition(source.gtid_set, exact, errant)


def _await(sides: Sides, position: TargetPosition, gtid_set: str, deadline: float) -> None:
    seconds = max(0.1, deadline - time.monotonic())
    if not position.wait(sides.target_control, gtid_set, seconds):
        reached = union(executed(sides.target_control), position.of_snapshot(sides.target_control))
        missing = subtract(sides.source_control, gtid_set, reached)
        raise NotComparable(
            detail=f"the target has not reached the source's position; it lacks {missing}. "
            "Is the applier running? Wait longer with --wait-seconds"
        )
