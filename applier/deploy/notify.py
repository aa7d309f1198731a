"""What systemd is told: ready, what we are doing, that we make progress, that we stop. Nothing without NOTIFY_SOCKET.

Source: sd_notify(3), systemd.service(5). The watchdog is answered only while the replay moves: while it reads
or commits, while there is nothing to apply, or while the target works on what it was given. Waiting for a lost link is
bounded by the replay itself. What remains, threads that all wait for one another, ends in a restart.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from applier.pipeline import Pipeline
from applier.replay import Replay

log = logging.getLogger(__name__)

STATUS_SECONDS: Final = 5.0
COMMIT_TURN: Final = "waiting for its commit turn"


class Notifier:
    """The socket that systemd listens on. Raises nothing: a service must not end because nobody hears it."""

    def __init__(self, path: str) -> None:
        self._address = f"\0{path[1:]}" if path.startswith("@") else path

    def send(self, **fields: str | int) -> None:
        lines = "\n".join(f"{name.upper()}={value}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(lines.encode(), self._address)
        except OSError as error:
            log.debug("nobody listens on NOTIFY_SOCKET", extra={"detail": str(error)})


@dataclass(slots=True)
class Liveness:
    """Whether a replay moves, asked from time to time."""

    replay: Replay
    _seen: tuple[int, int] = (-1, -1)

    def moves(self) -> bool:
        """Compared with the last time it was asked."""
        pipeline = self.replay.pipeline
        if pipeline is None:
            return True
        progress = self.replay.progress()
        seen = (progress.transactions, progress.bytes_read)
        moved, self._seen = seen != self._seen, seen
        return moved or progress.transactions_behind == 0 or _at_the_server(pipeline)


def _at_the_server(pipeline: Pipeline) -> bool:
    """Whether an answer of the target is outstanding: to rows, or to the COMMIT of the unit whose turn it is."""
    turn = pipeline.clock.low_water_mark + 1
    return any(
        worker.state.activity == "executing"
        or (worker.state.activity == COMMIT_TURN and worker.state.sequence_number == turn)
        for worker in pipeline.workers
    )


@contextlib.contextmanager
def notified(replay: Replay) -> Iterator[None]:
    """Tells systemd of the replay while the block runs."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        yield
        return
    notifier, ended = Notifier(path), threading.Event()
    interval = min(STATUS_SECONDS, watchdog_seconds(os.environ) / 2)
    thread = threading.Thread(
        target=_report, args=(notifier, replay, ended.wait, interval), name="notify", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        notifier.send(stopping=1)


def watchdog_seconds(environment: os._Environ[str] | dict[str, str]) -> float:
    """How often systemd wants to hear of progress; infinite if it does not ask, or asks another process."""
    process, microseconds = environment.get("WATCHDOG_PID"), environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or (process is not None and process != str(os.getpid())):
        return float("inf")
    return int(microseconds) / 1e6


def _report(notifier: Notifier, replay: Replay, wait: Callable[[float], bool], interval: float) -> None:
    liveness, ready = Liveness(replay), False
    while not wait(interval if ready else min(interval, 0.2)):
        if not ready and replay.pipeline is not None:
            ready = True
            notifier.send(ready=1)
        if ready and liveness.moves():
            notifier.send(watchdog=1)
        progress = replay.progress()
        notifier.send(
            status=f"{progress.transactions} transactions applied, {progress.transactions_behind} behind, "
            f"{progress.lag_seconds:.1f} s lag"
        )
