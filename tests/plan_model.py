"""What `applier plan` says, computed the slow and plain way: dictionaries, lists and explicit workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.plan_logs import KEYED, Change, Logged

Touch = tuple[object, bool]  # key, shared


def touches_of(change: Change) -> list[Touch]:
    """A keyed row touches its primary key; a row without one the table, which inserts share."""
    if change.table != KEYED:
        return [(change.table, change.before is None)]
    return [((KEYED, image[0]), False) for image in (change.before, change.after) if image is not None]


@dataclass
class Scheduled:
    """One transaction: its rows' waits, and what it waits for as a whole."""

    rows: list[tuple[bool, int]]  # may be handed off alone, sequence number that it waits for
    last_committed: int
    source_last_committed: int
    depth: int
    barrier: bool

    @property
    def cost(self) -> int:
        return max(1, len(self.rows)) + 1


def schedule(log: Sequence[Logged]) -> list[Scheduled]:
    writer: dict[object, int] = {}
    sharer: dict[object, int] = {}
    writer_depth: dict[object, int] = {}
    sharer_depth: dict[object, int] = {}
    done: list[Scheduled] = []
    floor = floor_depth = 0
    for number, logged in enumerate(log, 1):
        source = number - 1 if logged.last_committed is None else logged.last_committed
        if logged.statement:
            floor = number
            floor_depth = 1 + max((one.depth for one in done), default=0)
            done.append(Scheduled([], number - 1, source, floor_depth, True))
            continue
        bound = number if logged.last_committed is None else max(floor, logged.last_committed)
        rows, depth = [], floor_depth
        everything = [touch for change in logged.changes for touch in touches_of(change)]
        for change in logged.changes:
            wait = floor
            for key, shared in touches_of(change):
                wait = max(wait, writer.get(key, 0), 0 if shared else sharer.get(key, 0))
                depth = max(depth, writer_depth.get(key, 0), 0 if shared else sharer_depth.get(key, 0))
            rows.append((change.table == KEYED, min(wait, bound)))
        for key, shared in everything:
            (sharer if shared else writer)[key] = number
            depths = sharer_depth if shared else writer_depth
            depths[key] = max(depths.get(key, 0), depth + 1)
        done.append(Scheduled(rows, max((wait for _, wait in rows), default=floor), source, depth + 1, False))
    return done


def speedup(scheduled: Sequence[Scheduled], workers: int, policy: str) -> float:
    """Each transaction goes to the worker that is free first; commits are in order; a worker is free at its commit."""
    free = [0] * workers
    commits = [0]
    for one in scheduled:
        worker = min(range(workers), key=free.__getitem__)
        end = (
            hand_off(one, free[worker], commits)
            if policy == "handoff"
            else whole(one, free[worker], commits, policy)
        )
        commits.append(max(end, commits[-1]))
        free[worker] = commits[-1]
    return sum(one.cost for one in scheduled) / commits[-1]


def whole(one: Scheduled, free: int, commits: Sequence[int], policy: str) -> int:
    needed = one.source_last_committed if policy == "source" else one.last_committed
    return max(free, commits[needed]) + one.cost


def hand_off(one: Scheduled, free: int, commits: Sequence[int]) -> int:
    """A row after the other, the one that may go first first; rows of a table that keeps its order wait together."""
    if one.barrier:
        return max(free, commits[-1]) + one.cost
    together = max((wait for alone, wait in one.rows if not alone), default=0)
    now = free
    for at in sorted(commits[wait if alone else together] for alone, wait in one.rows):
        now = max(now, at) + 1
    return now + 1
