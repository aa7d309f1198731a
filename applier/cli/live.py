"""Progress of a replay: a live line on a terminal, a log line every 10 seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from applier.replay import Progress

log = logging.getLogger(__name__)

LINE_SECONDS = 0.5
LOG_SECONDS = 10.0


def line(now: Progress, rate: float) -> str:
    """What an operator wants on one line."""
    return (
        f"{now.transactions:,} transactions  {rate:,.0f}/s  lag {now.lag_seconds:.1f} s ({now.transactions_behind:,} "
        f"transactions)  queue {now.queue_fill:.0%}  workers {now.workers_busy}/{now.workers} busy"
    )


@contextmanager
def report_progress(progress: Callable[[], Progress]) -> Iterator[None]:
    """Reports until the block ends, from a thread of its own."""
    stop = threading.Event()
    on_terminal = sys.stderr.isatty()
    thread = threading.Thread(
        target=_live if on_terminal else _log, args=(progress, stop), name="progress", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class _Rate:
    """Transactions a second since the last call."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._count = 0

    def __call__(self, count: int) -> float:
        now = time.monotonic()
        rate = (count - self._count) / max(now - self._at, 1e-9)
        self._at, self._count = now, count
        return rate


def _live(progress: Callable[[], Progress], stop: threading.Event) -> None:
    rate = _Rate()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while not stop.wait(LINE_SECONDS):
            now = progress()
            live.update(Text(line(now, rate(now.transactions))), refresh=True)


def _log(progress: Callable[[], Progress], stop: threading.Event) -> None:
    rate = _Rate()
    while not stop.wait(LOG_SECONDS):
        now = progress()
        log.info(
            "progress",
            extra={
                "transactions": now.transactions,
                "transactions_per_second": round(rate(now.transactions)),
                "lag_seconds": round(now.lag_seconds, 1),
                "transactions_behind": now.transactions_behind,
                "queue_fill": round(now.queue_fill, 2),
                "workers_busy": now.workers_busy,
            },
        )
