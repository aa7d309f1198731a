"""What the flow is held up by at one moment, from what its workers say of themselves.

With strict commit order the low-water mark moves only when the *head* commits: the unit right behind the mark. So the
answer is what the head does now, and if it executes: why it did not do so earlier. Without commit order each worker
is a head of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from applier.observe.counting import barrier_reason, searches
from applier.target.worker_state import WorkerState

IDLE: Final = ("idle", "stopped", "starting")
EXECUTING: Final = "executing"
TURN: Final = "waiting for its commit turn"
DEPENDENCY_WAITS: Final = ("waiting for a dependency", "waiting for rows of an earlier group")
MORE: Final = "waiting for more of a large transaction"
LOCK_CODES: Final = frozenset({1205, 1213, 3572})  # lock wait timeout, deadlock, NOWAIT


class Blame(Enum):
    """Raw: what is the server's and what the network's part, and which dependency it was, is told apart later."""

    DEPENDENCY = "dependency"
    BARRIER = "barrier"
    LOCK_WAIT = "lock wait"
    SEARCH = "search"  # for rows of a table without a usable key
    ORDER = "order"  # it executes while later ones wait for their turn
    EXECUTING = "executing"
    COMMITTING = "committing"
    FRONT = "front"
    SOURCE_LINK = "source link"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Front:
    """Before the workers. `in_flight`: something was read that is not committed. `late`: what was read last came
    late and lately; `waiting`: the reader waits for bytes."""

    in_flight: bool
    late: bool = False
    waiting: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """A blame, its share of the moment, and the worker it is about."""

    blame: Blame
    share: float = 1.0
    worker: WorkerState | None = None


def hold_ups(
    states: Sequence[WorkerState], low_water_mark: int, front: Front, now: float, *, ordered: bool
) -> list[Held]:
    """Shares add up to 1. `now`: monotonic seconds."""
    if ordered:
        head = _head(states, low_water_mark)
        if head is not None:
            return [Held(_of_worker(head, states, front, now), 1.0, head)]
    else:
        busy = [state for state in states if state.unit is not None and state.activity not in IDLE]
        if busy:
            share = 1 / len(busy)
            return [Held(_of_worker(state, (), front, now), share, state) for state in busy]
    return [Held(_of_front(front))]


def _head(states: Sequence[WorkerState], low_water_mark: int) -> WorkerState | None:
    for state in states:
        unit = state.unit
        if unit is not None and unit.sequence_first == low_water_mark + 1:
            return state
    return None


def _of_front(front: Front) -> Blame:
    if front.in_flight or (front.late and not front.waiting):
        return Blame.FRONT
    return Blame.SOURCE_LINK if front.late else Blame.IDLE


def _of_worker(state: WorkerState, others: Sequence[WorkerState], front: Front, now: float) -> Blame:
    activity = state.activity
    if activity == TURN:
        return Blame.COMMITTING  # all before it are committed, so its turn has come
    if activity in DEPENDENCY_WAITS:
        return Blame.DEPENDENCY
    if activity == EXECUTING:
        return _of_executing(state, others, now)
    if activity == MORE:
        return Blame.SOURCE_LINK if front.waiting else Blame.FRONT
    return Blame.FRONT  # encoding: the applier's own work


def _of_executing(state: WorkerState, others: Sequence[WorkerState], now: float) -> Blame:
    if state.last_code in LOCK_CODES:
        return Blame.LOCK_WAIT
    if barrier_of(state) is not None:
        return Blame.BARRIER
    if _searches(state):
        return Blame.SEARCH
    if state.waits_for and state.waited_seconds >= now - state.since:
        return Blame.DEPENDENCY  # had it not waited, it would be through with this by now
    if any(other.activity == TURN for other in others if other is not state):
        return Blame.ORDER
    return Blame.EXECUTING


def barrier_of(state: WorkerState) -> str | None:
    """Why the unit of a worker runs alone; None when it does not."""
    unit = state.unit
    if unit is None or not unit.slices:
        return None
    piece = unit.slices[0]
    return barrier_reason(piece.batch, piece.first)


def _searches(state: WorkerState) -> bool:
    unit = state.unit
    return unit is not None and bool(unit.slices) and searches(unit.slices[0].batch, unit.slices[0].first)


def waiting(states: Sequence[WorkerState]) -> Iterator[WorkerState]:
    """Workers that wait for a dependency now."""
    return (state for state in states if state.activity in DEPENDENCY_WAITS)
