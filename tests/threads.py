"""Threads that tests start, and how to know that one waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.waiting import wait_until

JOIN_SECONDS = 10.0


def started(call: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    """Whether it ends soon."""
    thread.join(JOIN_SECONDS)
    return not thread.is_alive()


def wait_for_waiters(condition: threading.Condition, count: int = 1) -> None:
    """Until `count` threads wait in it."""
    wait_until(lambda: len(condition._waiters) >= count)  # type: ignore[attr-defined]
