"""A target that acknowledges everything at once: a session without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from applier.address import ServerAddress
from applier.target.session import ANSWER_SECONDS, COMMIT_PACKET, Session
from scheduler.clock import Decision


class SinkSession(Session):
    """Takes what a worker sends and counts it. All else of the worker is as it is: encoding, waits, commit turns."""

    def __init__(self) -> None:
        super().__init__(ServerAddress())
        self.bytes = 0
        self._released = threading.Lock()
        self._released.acquire()

    def open(self) -> None:
        """There is nothing to connect to."""

    def close(self) -> None:
        pass

    def shutdown(self) -> None:
        self._released.release()

    def execute(
        self, packet: bytes | bytearray | memoryview, owed: int, seconds: float = ANSWER_SECONDS
    ) -> None:
        self.bytes += len(packet)

    def prepare_decision(self, commit: bytes = COMMIT_PACKET, owed: int = 1) -> None:
        self.bytes += len(commit)

    def release(self, decision: Decision) -> None:
        self.released_at = time.monotonic()
        self._released.release()

    def await_decision(self, answered: Callable[[], bool], seconds: float) -> None:
        self._released.acquire()
