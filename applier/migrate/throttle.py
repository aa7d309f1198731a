"""Holds the copy back while the source, or a replica, has enough to do."""

from __future__ import annotations

import contextlib
import logging
import threading
from types import TracebackType
from typing import Any, Self

import pymysql

from applier.connection import Connection, connect
from applier.errors import ApplierError
from applier.migrate.progress import CopyProgress
from applier.migrate.settings import MigrateSettings
from applier.verify.definitions import query

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
WAIT_SECONDS_MAX = 600.0  # then the copy goes on: a stuck replica must not stop it for good


class Throttle:
    """A thread that looks at the servers; `wait` returns when the copy may go on. Without limits it does nothing."""

    def __init__(self, settings: MigrateSettings, progress: CopyProgress) -> None:
        self._settings = settings
        self._progress = progress
        self._go = threading.Event()
        self._go.set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._settings.threads_running_max or self._settings.replica_lag_seconds_max:
            self._thread = threading.Thread(target=self._look, name="throttle", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._go.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        """Before each chunk."""
        if not self._go.is_set():
            self._go.wait(WAIT_SECONDS_MAX)

    def _look(self) -> None:
        limits = self._settings
        with contextlib.ExitStack() as stack:
            while not self._stop.is_set():
                try:
                    source = stack.enter_context(contextlib.closing(connect(limits.source)))
                    replica = None
                    if limits.lag_of is not None:
                        replica = stack.enter_context(contextlib.closing(connect(limits.lag_of)))
                    while not self._stop.wait(LOOK_SECONDS):
                        self._set(self._reason(source, replica))
                except (pymysql.MySQLError, OSError, ApplierError) as error:
                    log.warning("load could not be looked at", extra={"detail": str(error)})
                    self._set("")
                    self._stop.wait(1.0)

    def _reason(self, source: Connection[Any], replica: Connection[Any] | None) -> str:
        running_max = self._settings.threads_running_max
        if running_max:
            ((_, running),) = query(source, "SHOW GLOBAL STATUS LIKE 'Threads_running'")
            # Ours are among them: the readers and this one.
            others = int(running) - self._settings.threads - 1
            if others > running_max:
                return f"the source: {others} threads running"
        if replica is not None and self._settings.replica_lag_seconds_max:
            with replica.cursor(pymysql.cursors.DictCursor) as cursor:
                cursor.execute("SHOW REPLICA STATUS")
                rows = cursor.fetchall()
            lags = [row["Seconds_Behind_Source"] for row in rows]
            if any(lag is None or lag > self._settings.replica_lag_seconds_max for lag in lags):
                return f"a replica: {max((lag or 0) for lag in lags)} s behind"
        return ""

    def _set(self, reason: str) -> None:
        if bool(reason) == self._go.is_set():
            log.info("throttled" if reason else "no longer throttled", extra={"reason": reason})
        self._progress.waiting_for = reason
        self._go.clear() if reason else self._go.set()
