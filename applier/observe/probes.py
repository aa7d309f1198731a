"""Connections beside the flow, to both servers: round trips, clocks, positions, and locks when a worker is stuck.

They only ask, and never fail the run: what a server does not answer is None.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import pymysql

from applier.address import ServerAddress
from applier.connection import Connection, connect, drop
from applier.errors import ApplierError
from applier.events.gtid import GtidSet
from applier.target.checkpoint import SCHEMA
from applier.target.data_locks import DataLocks

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 5.0
PING_SECONDS: Final = 0.25
POSITION_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 2.0
PINGS_KEPT: Final = 8  # the shortest counts: a busy server answers late, a long way is long always
LOCK_LOOK_SECONDS: Final = 0.1
LOCK_SEEN_SECONDS: Final = 0.5  # how long a look counts
TABLES_MAX: Final = 1024

FAILURES: Final = (ApplierError, pymysql.MySQLError, OSError)


class Probe(threading.Thread):
    """Asks one server again and again; connects again when it must. `round_trip_seconds`: the shortest of late."""

    pause_seconds = POSITION_SECONDS

    def __init__(self, name: str, address: Callable[[], ServerAddress]) -> None:
        super().__init__(name=name, daemon=True)
        self.connected = False
        self.version: str | None = None
        self.server_uuid: str | None = None
        self.server_id: int | None = None
        self.executed: GtidSet | None = None
        self._address = address
        self._at: ServerAddress | None = None
        self._connection: Connection[Any] | None = None
        self._pings: deque[float] = deque(maxlen=PINGS_KEPT)
        self._ending = threading.Event()
        self._wake = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._wake.set()
        self.join(2 * ANSWER_SECONDS)

    @property
    def round_trip_seconds(self) -> float | None:
        return min(tuple(self._pings), default=None)

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self.ask()
                pause = self.pause_seconds
            except FAILURES as error:
                log.debug("a probe has no answer", extra={"probe": self.name, "detail": str(error)})
                self.forget()
                pause = RETRY_SECONDS
            self._wake.wait(pause)
            self._wake.clear()
        self.forget()

    def ask(self) -> None:
        """One round of questions."""
        raise NotImplementedError

    def forget(self) -> None:
        """Nothing is known any more; the next question connects again."""
        self.connected = False
        self._pings.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            drop(connection)

    def rows(self, sql: str, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Raises what PyMySQL and `connect` raise."""
        with self._open().cursor() as cursor:
            cursor.execute(sql, tuple(arguments) or None)
            return list(cursor.fetchall())

    def ping(self) -> None:
        connection = self._open()
        begin = time.monotonic()
        connection.ping(reconnect=False)
        self._pings.append(time.monotonic() - begin)

    def ask_position(self) -> None:
        ((executed,),) = self.rows("SELECT @@GLOBAL.gtid_executed")
        self.executed = GtidSet.parse(executed)

    def _open(self) -> Connection[Any]:
        address = self._address()
        if self._connection is not None and address == self._at:
            return self._connection
        self.forget()
        self._connection = connection = connect(
            address,
            connect_timeout_seconds=ANSWER_SECONDS,
            read_timeout_seconds=ANSWER_SECONDS,
            write_timeout_seconds=ANSWER_SECONDS,
        )
        self._at = address
        with connection.cursor() as cursor:
            cursor.execute("SELECT VERSION(), @@GLOBAL.server_uuid, @@GLOBAL.server_id")
            ((self.version, self.server_uuid, number),) = cursor.fetchall()
        self.server_id = int(number)
        self.connected = True
        return connection


class SourceProbe(Probe):
    """`clock_offset_seconds`: the source's clock minus ours, by the quickest of the last questions: its error is
    at most half of that round trip."""

    def __init__(self, address: Callable[[], ServerAddress]) -> None:
        super().__init__("source-probe", address)
        self._offsets: deque[tuple[float, float]] = deque(maxlen=PINGS_KEPT)  # round trip, offset

    @property
    def clock_offset_seconds(self) -> float | None:
        return min(tuple(self._offsets), default=(0.0, None))[1]

    def ask(self) -> None:
        self.ping()
        begin = time.time(), time.monotonic()
        ((now,),) = self.rows("SELECT UTC_TIMESTAMP(6)")
        took = time.monotonic() - begin[1]
        theirs = now.replace(tzinfo=datetime.UTC).timestamp()
        self._offsets.append((took, theirs - (begin[0] + took / 2)))
        self.ask_position()

    def forget(self) -> None:
        super().forget()
        self._offsets.clear()


class TargetProbe(Probe):
    """Also a `sampling.TargetSight`. `progress`: (GTID set, file, position) of the channel's progress row, if it has
    one."""

    pause_seconds = PING_SECONDS

    def __init__(self, address: Callable[[], ServerAddress], *, channel: str | None = None) -> None:
        """`channel`: of the progress row to read; None when the run keeps none."""
        super().__init__("target-probe", address)
        self.progress: tuple[str, str, int] | None = None
        self.lock_detail = ""  # the last lock that a worker was seen waiting for
        self.durable = True  # a commit waits for the disk
        self._channel = channel
        self._position_at = 0.0
        self._locks: DataLocks | None = None
        self._suspect: int | None = None  # connection id of a worker that is stuck
        self._locked: tuple[int, float] = (0, 0.0)  # connection id, when it was seen
        self._looked_at = 0.0
        self._columns: dict[tuple[str, str], list[str]] = {}
        self._columns_wanted: set[tuple[str, str]] = set()

    # --- asked by the sampler --------------------------------------------------------------------

    def look_for_locks(self, connection_id: int) -> None:
        """A worker is in one place for long: find out whether it waits for a lock."""
        if self._suspect is None and time.monotonic() - self._looked_at > LOCK_LOOK_SECONDS:
            self._suspect = connection_id
            self._wake.set()

    def locked(self, connection_id: int) -> bool:
        """Whether it was seen waiting for one just now."""
        seen, at = self._locked
        return seen == connection_id and time.monotonic() - at < LOCK_SEEN_SECONDS

    def column_names(self, schema: str, table: str) -> Sequence[str] | None:
        """In their order; None until they are known."""
        names = self._columns.get((schema, table))
        if names is None and len(self._columns) < TABLES_MAX:
            self._columns_wanted.add((schema, table))
        return names

    # --- its own thread --------------------------------------------------------------------------

    def ask(self) -> None:
        suspect, self._suspect = self._suspect, None
        if suspect is not None:
            self._look(suspect)
        self.ping()
        if self._columns_wanted:
            self._ask_columns(self._columns_wanted.pop())
        if time.monotonic() - self._position_at > POSITION_SECONDS:
            self._position_at = time.monotonic()
            self.ask_position()
            self._ask_progress()
            self._ask_durability()

    def forget(self) -> None:
        super().forget()
        if self._locks is not None:
            self._locks.close()

    def _look(self, connection_id: int) -> None:
        if self._locks is None:
            self._locks = DataLocks(self._address())
        self._looked_at = time.monotonic()
        detail = _lock_wait(self._locks, connection_id)
        if detail is not None:
            self._locked = (connection_id, time.monotonic())
            self.lock_detail = detail

    def _ask_durability(self) -> None:
        ((flush, sync, logs),) = self.rows(
            "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.sync_binlog, @@GLOBAL.log_bin"
        )
        self.durable = int(flush) == 1 or (int(sync) == 1 and bool(int(logs)))

    def _ask_columns(self, name: tuple[str, str]) -> None:
        rows = self.rows(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
            " ORDER BY ordinal_position",
            name,
        )
        self._columns[name] = [str(column) for (column,) in rows]

    def _ask_progress(self) -> None:
        if self._channel is None:
            return
        with contextlib.suppress(pymysql.err.ProgrammingError):  # no such table yet
            rows = self.rows(
                f"SELECT executed, file, position FROM {SCHEMA}.progress WHERE channel = %s", [self._channel]
            )
            if rows:
                executed, file, position = rows[0]
                self.progress = (str(executed), str(file), int(position))


def _lock_wait(locks: DataLocks, connection_id: int) -> str | None:
    """What a session waits for: a table and who holds it, as far as we may see it; None when it waits for no lock."""
    state = locks.state(connection_id)
    if state.startswith("Waiting for ") and state.endswith(" lock"):
        return state[len("Waiting for ") :]
    if not locks.visible():
        return "a row lock" if locks.row_lock_waits() else None
    thread = locks.threads([connection_id])[connection_id]
    waits = [wait for wait in locks.waits([thread]) if wait.waiter == thread]
    if not waits:
        return None
    lock = locks.lock(waits[0].lock_id)
    return f"{lock.table or 'a row lock'}, held by {_named(locks, {wait.blocker for wait in waits})}"


def _named(locks: DataLocks, threads: Iterable[int]) -> str:
    return " and ".join(locks.session_name(thread) for thread in sorted(threads)[:2])
