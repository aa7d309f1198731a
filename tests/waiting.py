"""Wait for a condition, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], T], seconds: float = 30.0, what: str = "") -> T:
    """Call `condition` until its answer is true; gives that answer. AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (answer := condition()):
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"not within {seconds:g} s: {name}; last answer: {answer!r}")
        pause.wait(POLL_SECONDS)
    return answer
