"""From the scheduler to the workers: one queue of decoded batches, from whose head free workers take units."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic

from scheduler.grouping import B, CutFunction, GroupLimits, Slice, Unit
from scheduler.pace import Pace
from scheduler.queues import QueueAborted


class WorkQueue(Generic[B]):
    """Units leave in sequence order, so the oldest one never waits for one that is still in the queue.

    Bounded in bytes: `put` blocks the scheduler, and through it the reader, while the workers are behind.
    The parts of a transaction that is cut into parts all go to the worker that took the first one."""

    def __init__(
        self,
        cut: CutFunction[B],
        *,
        limits: GroupLimits,
        bytes_max: int,
        on_take: Callable[[Unit[B]], None] | None = None,
    ) -> None:
        """`on_take` is called for every unit in log order, before it is given out."""
        self._cut = cut
        self._on_take = on_take
        self.limits = limits
        self.pace = Pace()
        self.bytes_max = bytes_max
        self.bytes = 0
        self.transactions = 0
        self._batches: deque[tuple[B, int]] = deque()  # batch, its size when it was put
        self._cursor = 0  # first transaction of the head batch that was not yet taken
        self._parts_owned = False
        self._closed = False
        self._aborted = False
        lock = threading.Lock()
        self._not_empty = threading.Condition(lock)
        self._part_ready = threading.Condition(lock)
        self._not_full = threading.Condition(lock)

    @property
    def batches(self) -> int:
        """That wait, the one that is being given out included."""
        return len(self._batches)

    def put(self, batch: B) -> None:
        """Raises QueueAborted."""
        size = batch.memory_bytes
        with self._not_full:
            while self._batches and self.bytes + size > self.bytes_max and not self._aborted:
                self._not_full.wait()
            if self._aborted or self._closed:
                raise QueueAborted
            self._batches.append((batch, size))
            self.bytes += size
            self.transactions += len(batch)
            if self._parts_owned:
                self._part_ready.notify()
            else:
                self._not_empty.notify(len(batch))

    def take(self) -> Unit[B] | None:
        """The next unit; None when the queue is closed and empty. Raises QueueAborted."""
        with self._not_empty:
            while (not self._batches or self._parts_owned) and not self._aborted:
                if self._closed and not self._batches:
                    return None
                self._not_empty.wait()
            if self._aborted:
                raise QueueAborted
            unit = self._take_run(self.limits)
            if not unit.last_part:
                self._parts_owned = True
            return unit

    def take_part(self) -> Unit[B]:
        """The next part of the transaction whose earlier part the caller took. Raises QueueAborted."""
        with self._part_ready:
            while not self._batches and not self._aborted and not self._closed:
                self._part_ready.wait()
            if self._aborted or not self._batches:
                raise QueueAborted
            unit = self._take_run(GroupLimits())
            if unit.last_part:
                self._parts_owned = False
                self._not_empty.notify_all()
            return unit

    def _take_run(self, limits: GroupLimits) -> Unit[B]:
        unit: Unit[B] = Unit()
        in_time = self.pace.bytes_in(limits.seconds_max)
        bytes_max = limits.bytes_max if in_time is None else min(limits.bytes_max, in_time)
        while self._batches:
            batch, _ = self._batches[0]
            room = limits.transactions_max - unit.transactions
            bytes_room = bytes_max - unit.size_bytes
            if unit.slices and (room <= 0 or bytes_room <= 0):
                break
            cut = self._cut(batch, self._cursor, room, max(bytes_room, 0), unit.sequence_first)
            if cut.alone and unit.slices:
                break
            unit.add(Slice(batch, self._cursor, cut.end), cut)
            finished = self._advance(cut.end)
            if cut.alone or cut.closes or not finished:
                break
        if self._on_take is not None:
            self._on_take(unit)
        return unit

    def _advance(self, end: int) -> bool:
        """Moves the cursor; True when the head batch is used up."""
        batch, size = self._batches[0]
        self.transactions -= end - self._cursor
        self._cursor = end
        if end < len(batch):
            return False
        self._batches.popleft()
        self._cursor = 0
        self.bytes -= size
        self._not_full.notify()
        return True

    def close(self) -> None:
        with self._not_empty:
            self._closed = True
            self._not_empty.notify_all()
            self._part_ready.notify_all()

    def drain(self) -> None:
        """Gives out nothing more: units that were taken finish, the rest is read again at the next start."""
        with self._not_empty:
            self._closed = True
            self._batches.clear()
            self.bytes = self.transactions = 0
            self._not_empty.notify_all()
            self._part_ready.notify_all()
            self._not_full.notify_all()

    def abort(self) -> None:
        with self._not_empty:
            self._aborted = True
            self._not_empty.notify_all()
            self._part_ready.notify_all()
            self._not_full.notify_all()
