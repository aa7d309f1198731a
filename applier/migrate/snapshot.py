"""Sessions on the source that all show one GTID set, and what keeps DDL away while they are read.

MySQL does not tell which GTIDs a consistent snapshot shows, so it is found out from outside, in one of two ways.

*Without a lock*: gtid_executed is read, the snapshots open, and then no GTID is owned by a session and gtid_executed is
still the same. That is exact. A transaction that the snapshots show was committed in the engine before they opened, and
from before that moment until its GTID reaches gtid_executed it is among the owned ones: as none was owned afterwards,
its GTID is in the set. A GTID in the set was there before the snapshots opened, and the engine's commit comes before
that, so they show it. (That an event is in the binary log before its row can be read does no harm: the log is not
asked.) On a busy source that moment may not come.

*With a short lock*: under FLUSH TABLES WITH READ LOCK no commit is under way, so what is in gtid_executed is what the
engine shows. Writers wait from the statement's beginning, when it waits for running statements, until UNLOCK TABLES.

While the copy lasts, LOCK INSTANCE FOR BACKUP keeps DDL waiting, without keeping anyone else. Where the account may
not (BACKUP_ADMIN), our sessions hold every table open in their transactions, so that DDL waits for its metadata lock;
statements on that table then queue up behind the waiting DDL.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pymysql

from applier.address import ServerAddress
from applier.connection import read_ok, send_command
from applier.errors import PreflightFailed
from applier.verify.definitions import Session, Table, qualified, query
from applier.verify.lock_circle import CircleBreaker
from applier.verify.position import executed, release
from applier.verify.sessions import open_session

COM_QUERY = 3
START = b"START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
WITHOUT_LOCK_SECONDS = 1.0  # before a lock is taken
WITHOUT_LOCK_SECONDS_MAX = 60.0  # when none may be taken
NOT_ALLOWED = frozenset({1044, 1045, 1142, 1227, 3555})
LOCK_WAIT_TIMEOUT = 1205
CHANGED = frozenset({1412, 1146, 1054})  # the table is not what it was when the snapshot opened
HOLD_SECONDS_MAX = 5  # for the metadata lock of a table that a DDL is about to change

READING = (
    "SET SESSION character_set_results = NULL",  # values come as they are stored
    "SET SESSION net_write_timeout = 3600, net_read_timeout = 3600, wait_timeout = 604800",
)


@dataclass(frozen=True, slots=True)
class Held:
    """What was held on the source to open the snapshots, for the report; seconds that writers may have waited."""

    gtid_set: str
    how: str
    locked_seconds: float
    waited_seconds: float
    ddl: str

    def __str__(self) -> str:
        return f"{self.how}; {self.ddl}"


class SnapshotLost(Exception):
    """No reader has its snapshot any more, or it does not show the tables: open another one and go on."""


class Snapshot:
    """`sessions` show the rows of the source at `held.gtid_set`. Close it when all is read."""

    def __init__(self, source: ServerAddress, readers: int) -> None:
        """Raises what `connect` raises."""
        self._source = source
        self._opened: list[Session] = []
        self._control = self._open(source)
        self.sessions = [self._open(source) for _ in range(readers)]
        for session in self.sessions:
            for statement in READING:
                query(session, statement)
        self.held = Held("", "", 0.0, 0.0, "")
        self._backup_lock = self._lock_ddl()

    def _open(self, source: ServerAddress) -> Session:
        session = open_session(source)
        self._opened.append(session)
        query(session, "SET SESSION wait_timeout = 604800")
        return session

    @property
    def control(self) -> Session:
        """For questions about the source; it shows no snapshot."""
        return self._control

    def open(self, tables: Sequence[Table], *, allow_lock: bool, lock_seconds_max: int) -> Held:
        """Opens the snapshots. Raises PreflightFailed when no moment and no lock is to be had."""
        members = self.sessions
        patience = WITHOUT_LOCK_SECONDS if allow_lock else WITHOUT_LOCK_SECONDS_MAX
        gtid_set = self._without_lock(members, patience)
        waited = locked = 0.0
        how = "nothing was locked"
        if gtid_set is None:
            gtid_set, waited, locked = self._with_lock(members, lock_seconds_max, allow_lock)
            how = f"FLUSH TABLES WITH READ LOCK: {waited:.3f} s until granted, held for {locked:.3f} s"
        ddl = "DDL waits until the copy is over (LOCK INSTANCE FOR BACKUP)"
        if not self._backup_lock:
            self._hold_tables(tables)
            ddl = "DDL on the copied tables waits until the copy is over, and statements behind it (metadata locks)"
        self.held = Held(gtid_set, how, round(locked, 4), round(waited, 4), ddl)
        return self.held

    def close(self) -> None:
        for session in self._opened:
            with contextlib.suppress(pymysql.MySQLError, OSError):
                session.close()

    # --- snapshots -------------------------------------------------------------------------------------

    def _without_lock(self, members: Sequence[Session], seconds: float) -> str | None:
        deadline = time.monotonic() + seconds
        while True:
            before = executed(self._control)
            _start_all(members)
            ((owned,),) = query(self._control, "SELECT @@GLOBAL.gtid_owned")
            if not owned and executed(self._control) == before:
                return before
            release(members)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)  # between two group commits, not in step with them

    def _with_lock(
        self, members: Sequence[Session], seconds_max: int, allowed: bool
    ) -> tuple[str, float, float]:
        if not allowed:
            raise PreflightFailed(
                detail="the source is too busy to open snapshots at one GTID set without a lock: allow a short one "
                "(leave --no-lock out), or try at a quieter time"
            )
        try:
            query(self._control, f"SET SESSION lock_wait_timeout = {seconds_max}")
            number = int(self._control.thread_id())  # type: ignore[no-untyped-call]
            with contextlib.closing(CircleBreaker(self._source, number)) as breaker:
                begun = breaker.run(lambda: query(self._control, "FLUSH TABLES WITH READ LOCK"), seconds_max)
        except pymysql.MySQLError as error:
            if error.args[0] in NOT_ALLOWED:
                remedy = "GRANT RELOAD ON *.* to the source's account, or try at a quieter time"
            else:
                remedy = "a statement runs too long; try at a quieter time, or give a longer --lock-seconds"
            raise PreflightFailed(
                detail=f"the source is too busy for snapshots without a lock, and the lock is not to be had: "
                f"{error.args[-1]}. {remedy}"
            ) from error
        granted = time.monotonic()
        try:
            gtid_set = executed(self._control)
            _start_all(members)
        finally:
            query(self._control, "UNLOCK TABLES")
        return gtid_set, granted - begun, time.monotonic() - granted

    # --- DDL -------------------------------------------------------------------------------------------

    def _lock_ddl(self) -> bool:
        try:
            query(self._control, "LOCK INSTANCE FOR BACKUP")
        except pymysql.MySQLError as error:
            if error.args[0] not in NOT_ALLOWED:
                raise
            return False
        return True

    def _hold_tables(self, tables: Sequence[Table]) -> None:
        # In every session: one that came later to a table would queue behind a DDL that waits for the others.
        # A table that was changed since the snapshot opened refuses this (error 1412), so nothing slips between.
        for session in self.sessions:
            query(session, f"SET SESSION lock_wait_timeout = {HOLD_SECONDS_MAX}")
            for table in tables:
                try:
                    query(session, f"SELECT 1 FROM {qualified(table)} LIMIT 1")
                except pymysql.MySQLError as error:
                    if error.args[0] not in CHANGED and error.args[0] != LOCK_WAIT_TIMEOUT:
                        raise
                    raise SnapshotLost(f"{table}: {error.args[-1]}") from error


def _start_all(sessions: Sequence[Session]) -> None:
    """All at once: the statements go out before the first answer is read."""
    for session in sessions:
        send_command(session, COM_QUERY, START)
    for session in sessions:
        read_ok(session)
