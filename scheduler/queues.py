"""Bounded queues between the stages: bounded in items and in bytes, closed by the producer, aborted by anybody."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class QueueAborted(Exception):
    """The flow was aborted; the item was not taken."""


class BoundedQueue(Generic[Item]):
    """First in, first out. `put` blocks while the queue is full: that is how a slow stage slows the one before it.

    One item is always let in, however large: a limit must never stop the flow for good."""

    def __init__(self, *, items_max: int, bytes_max: int) -> None:
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self._items: deque[tuple[Item, int]] = deque()
        self._closed = False
        self._aborted = False
        lock = threading.Lock()
        self._not_empty = threading.Condition(lock)
        self._not_full = threading.Condition(lock)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def aborted(self) -> bool:
        return self._aborted

    def put(self, item: Item, size_bytes: int) -> None:
        with self._not_full:
            while (
                self._items
                and not self._aborted
                and (len(self._items) >= self.items_max or self.bytes + size_bytes > self.bytes_max)
            ):
                self._not_full.wait()
            if self._aborted:
                raise QueueAborted
            self._items.append((item, size_bytes))
            self.bytes += size_bytes
            self._not_empty.notify()

    def get(self) -> Item | None:
        """The next item; None when the queue is closed and empty."""
        with self._not_empty:
            while not self._items and not self._closed and not self._aborted:
                self._not_empty.wait()
            if self._aborted:
                raise QueueAborted
            if not self._items:
                return None
            item, size_bytes = self._items.popleft()
            self.bytes -= size_bytes
            self._not_full.notify()
            return item

    def close(self) -> None:
        """No more items will come; those inside are still given out."""
        with self._not_empty:
            self._closed = True
            self._not_empty.notify_all()

    def abort(self) -> None:
        """Everybody who waits or comes later gets QueueAborted."""
        with self._not_empty:
            self._aborted = True
            self._not_empty.notify_all()
            self._not_full.notify_all()
