"""Counts of a copy while it runs, and what they look like on a terminal or in the log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_SECONDS = 0.5
LOG_SECONDS = 10.0


@dataclass(slots=True)
class CopyProgress:
    """Added to by the copying threads, under `lock`; read by whoever shows it.

    `rows_estimated` is the server's guess, and rises with what is found."""

    rows_estimated: int = 0
    rows: int = 0
    bytes: int = 0
    chunks: int = 0
    chunks_failed: int = 0
    retries: int = 0
    tables: int = 0
    tables_done: int = 0
    waiting_for: str = ""
    what: str = "copy"
    began: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def copied(self, rows: int, size: int) -> None:
        with self.lock:
            self.rows += rows
            self.bytes += size
            self.chunks += 1
            self.rows_estimated = max(self.rows_estimated, self.rows)

    def line(self) -> str:
        """On one line."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        waiting = f", waits for {self.waiting_for}" if self.waiting_for else ""
        return (
            f"{self.what}: {self.tables_done}/{self.tables} tables, {self.rows:,} of about "
            f"{max(self.rows_estimated, self.rows):,} rows, {self.rows / seconds:,.0f} rows/s, "
            f"{self.bytes / seconds / 1e6:.1f} MB/s{waiting}"
        )


@contextmanager
def shown(progress: CopyProgress) -> Iterator[None]:
    """A bar on a terminal, a log line now and then elsewhere, until the block ends."""
    stop = threading.Event()
    show = _bar if sys.stderr.isatty() else _log
    thread = threading.Thread(target=show, args=(progress, stop), name="copy-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _bar(progress: CopyProgress, stop: threading.Event) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task: TaskID = bars.add_task(progress.line(), total=None)
        while not stop.wait(LINE_SECONDS):
            bars.update(
                task,
                description=progress.line(),
                completed=progress.rows,
                total=max(progress.rows_estimated, progress.rows, 1),
            )


def _log(progress: CopyProgress, stop: threading.Event) -> None:
    while not stop.wait(LOG_SECONDS):
        log.info(
            "copying",
            extra={
                "rows": progress.rows,
                "rows_estimated": progress.rows_estimated,
                "bytes": progress.bytes,
                "tables_done": progress.tables_done,
                "tables": progress.tables,
                "seconds": round(time.monotonic() - progress.began, 1),
                "waiting_for": progress.waiting_for,
            },
        )
