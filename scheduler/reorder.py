"""Puts what parallel stages finished out of order back into order."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from scheduler.queues import QueueAborted

Item = TypeVar("Item")


class Reorder(Generic[Item]):
    """Items are numbered 0, 1, 2 … without gaps; `get` gives them in that order.

    `put` blocks while more than `bytes_max` wait, but never the item that is next: it is what the others wait for.
    An item may come in pieces, one behind the other."""

    def __init__(self, *, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._next = 0
        self._items: dict[int, deque[tuple[Item, int, bool]]] = {}
        self._total: int | None = None
        self._aborted = False
        lock = threading.Lock()
        self._next_ready = threading.Condition(lock)
        self._not_full = threading.Condition(lock)

    def __len__(self) -> int:
        return len(self._items)

    def put(self, number: int, item: Item, size_bytes: int, *, last: bool = True) -> None:
        """`last`: no more pieces of it come. Raises QueueAborted."""
        with self._not_full:
            while self.bytes + size_bytes > self.bytes_max and number != self._next and not self._aborted:
                self._not_full.wait()
            if self._aborted:
                raise QueueAborted
            self._items.setdefault(number, deque()).append((item, size_bytes, last))
            self.bytes += size_bytes
            if number == self._next:
                self._next_ready.notify()

    def get(self) -> Item | None:
        """The next item in order; None once all that were announced by `close` have been given out."""
        with self._next_ready:
            while self._next not in self._items and self._next != self._total and not self._aborted:
                self._next_ready.wait()
            if self._aborted:
                raise QueueAborted
            if self._next == self._total:
                return None
            pieces = self._items[self._next]
            item, size_bytes, last = pieces.popleft()
            self.bytes -= size_bytes
            if not pieces:
                del self._items[self._next]
            if last:
                self._next += 1
            self._not_full.notify_all()
            return item

    def close(self, total: int) -> None:
        """`total` items will have come in all."""
        with self._next_ready:
            self._total = total
            self._next_ready.notify_all()

    def abort(self) -> None:
        with self._next_ready:
            self._aborted = True
            self._next_ready.notify_all()
            self._not_full.notify_all()
