"""What signals do to a replay."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from applier.replay import Replay


@contextmanager
def drained_by_signals(replay: Replay) -> Iterator[None]:
    """First SIGTERM or SIGINT: drain. Second: abort. Handlers only start a thread: draining takes locks that the
    interrupted main thread may hold."""
    received = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        threading.Thread(target=replay.drain if received == 1 else replay.abort, daemon=True).start()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
