"""Parts of work for several threads: a stack, the end of it, and the first error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Work(Generic[T]):
    """What is left to do. Last in, first out: the rest of a large table goes before the next table."""

    def __init__(self, parts: Iterable[T]) -> None:
        self._parts = list(parts)
        self._taken = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def take(self) -> T | None:
        """A part, waiting while others may still add some; None when all is done or one has failed."""
        with self._changed:
            while not self._parts and self._taken and self._error is None:
                self._changed.wait()
            if self._error is not None or not self._parts:
                return None
            self._taken += 1
            return self._parts.pop()

    def add(self, parts: Iterable[T]) -> None:
        with self._changed:
            self._parts += parts
            self._changed.notify_all()

    def done(self) -> None:
        """A part that was taken is finished."""
        with self._changed:
            self._taken -= 1
            if not self._taken:
                self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Everybody stops; the first error is the one that `run` raises."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def run(self, workers: Iterable[Callable[[], None]], on_failure: Callable[[], None]) -> None:
        """Call each worker in a thread of its own until all return; raises the first error of any of them.

        `on_failure` wakes workers that wait for something else than this stack.
        """
        threads = [threading.Thread(target=self._guarded(worker), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as interrupt:
            self.fail(interrupt)
            on_failure()
            for thread in threads:
                thread.join()
            raise
        if self._error is not None:
            raise self._error

    def _guarded(self, worker: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            try:
                worker()
            except BaseException as error:  # noqa: BLE001 - raised again by run()
                self.fail(error)

        return call
