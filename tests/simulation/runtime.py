"""Two ways to run the same threads: in virtual time, one after the other and the same again for the same seed, or as
real threads.

In virtual time every thread is a greenlet, and the scheduler's own code runs unchanged: it finds greenlet locks where
it looks for `threading`. A thread gives way where it blocks, where it sleeps, and now and then before it takes a lock.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

from greenlet import greenlet

PREEMPTIONS = 16  # a thread is interrupted at one lock of so many


class Runtime(Protocol):
    def spawn(self, run: Callable[[], None]) -> None: ...
    def sleep(self, ticks: int) -> None: ...
    def stamp(self) -> int:
        """A number above all stamps that were taken before."""

    def lock(self) -> Any: ...
    def run(self) -> int:
        """Until every thread has ended or none can go on. Returns how many have not."""


class VirtualRuntime:
    """Only one at a time can be in use: see `virtual_time`."""

    def __init__(self, random_source: random.Random) -> None:
        self.now = 0
        self.random = random_source.random
        self._stamp = 0
        self._tie = 0
        self._ready: list[tuple[int, int, greenlet]] = []
        self._spawned = 0
        self._ended = 0
        self._hub = greenlet.getcurrent()
        self.failure: BaseException | None = None

    def spawn(self, run: Callable[[], None]) -> None:
        def body() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 - raised again by `run`
                self.failure = self.failure or error
            self._ended += 1

        self._spawned += 1
        self.ready(greenlet(body, self._hub))

    def ready(self, who: greenlet, ticks: int = 0) -> None:
        self._tie += 1
        heappush(self._ready, (self.now + ticks, self._tie, who))

    def sleep(self, ticks: int) -> None:
        self.ready(greenlet.getcurrent(), ticks)
        self._hub.switch()

    def park(self) -> None:
        """Until somebody makes the caller ready."""
        self._hub.switch()

    def stamp(self) -> int:
        self._stamp += 1
        return self._stamp

    def lock(self) -> VirtualLock:
        return VirtualLock(self)

    def run(self) -> int:
        ready = self._ready
        while ready:
            self.now, _, who = heappop(ready)
            who.switch()
            if self.failure is not None:
                raise self.failure
        return self._spawned - self._ended


class VirtualLock:
    __slots__ = ("_locked", "_runtime", "_waiters")

    def __init__(self, runtime: VirtualRuntime) -> None:
        self._runtime = runtime
        self._locked = False
        self._waiters: deque[greenlet] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        assert blocking
        assert timeout < 0, "nobody gives up in virtual time"
        runtime = self._runtime
        if runtime.random() < 1 / PREEMPTIONS:
            runtime.sleep(1)
        if self._locked:
            self._waiters.append(greenlet.getcurrent())
            runtime.park()  # whoever releases it hands it over
        self._locked = True
        return True

    def release(self) -> None:
        assert self._locked, "released twice"
        if self._waiters:
            self._runtime.ready(self._waiters.popleft())
        else:
            self._locked = False

    __enter__ = acquire

    def __exit__(self, *ignored: object) -> None:
        self.release()


class VirtualCondition:
    __slots__ = ("_lock", "_runtime", "_waiters")

    def __init__(self, lock: VirtualLock) -> None:
        self._lock = lock
        self._runtime = lock._runtime
        self._waiters: deque[greenlet] = deque()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *ignored: object) -> None:
        self._lock.release()

    def wait(self) -> None:
        self._waiters.append(greenlet.getcurrent())
        self._lock.release()
        self._runtime.park()
        self._lock.acquire()

    def notify(self, count: int = 1) -> None:
        for _ in range(min(count, len(self._waiters))):
            self._runtime.ready(self._waiters.popleft())

    def notify_all(self) -> None:
        self.notify(len(self._waiters))


class ThreadRuntime:
    """Real threads; a tick is `tick_seconds`."""

    def __init__(self, tick_seconds: float = 2e-5, seconds_max: float = 30.0) -> None:
        self.tick_seconds = tick_seconds
        self.seconds_max = seconds_max
        self.failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._stamps = itertools.count(1)

    def spawn(self, run: Callable[[], None]) -> None:
        def body() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 - raised again by `run`
                self.failure = self.failure or error

        self._threads.append(threading.Thread(target=body, daemon=True))

    def sleep(self, ticks: int) -> None:
        time.sleep(ticks * self.tick_seconds)

    def stamp(self) -> int:
        return next(self._stamps)

    def lock(self) -> threading.Lock:
        return threading.Lock()

    def run(self) -> int:
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + self.seconds_max
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self.failure is not None:
            raise self.failure
        return sum(thread.is_alive() for thread in self._threads)


@contextlib.contextmanager
def virtual_time() -> Iterator[Callable[[random.Random], VirtualRuntime]]:
    """Clock and work queue made inside the block belong to the runtime that was made last."""
    current: list[VirtualRuntime] = []

    def begin(random_source: random.Random) -> VirtualRuntime:
        current[:] = [VirtualRuntime(random_source)]
        return current[0]

    locks = SimpleNamespace(Lock=lambda: VirtualLock(current[0]), Condition=VirtualCondition)
    with mock.patch("scheduler.clock.threading", locks), mock.patch("scheduler.dispatch.threading", locks):
        yield begin
