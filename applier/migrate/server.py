"""A server in a switch of roles: who may write there, what is under way, its events and counters."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pymysql

from applier.address import ServerAddress
from applier.connection import connect, error_code, error_message
from applier.errors import DataError, LinkLost, Refused
from applier.verify.definitions import Selection, Session, query, quoted, text_of
from applier.verify.lock_circle import CircleBreaker
from applier.verify.position import executed

log = logging.getLogger(__name__)

LOCK_WAIT_TIMEOUT: Final = 1205
DDL_WAIT_SECONDS: Final = 10
LINK_CODES: Final = frozenset({0, 2006, 2013, 2014, 1053, 3169, 4031})
NOT_ALLOWED: Final = frozenset({1227, 1044, 1142, 3630})
NO_SUCH_THREAD: Final = 1094
INTERRUPTED: Final = 1317
MORE_TRIES: Final = (
    4  # times the seconds: with writers killed, or when it is no single statement that does not end
)
# Needed to set read_only, to write in spite of it, and to leave our own statements out of the binary log.
PRIVILEGES: Final = "SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, SESSION_VARIABLES_ADMIN"


@dataclass(frozen=True, slots=True)
class Settings:
    """Global variables that a switch changes."""

    read_only: bool
    super_read_only: bool
    event_scheduler: str

    @property
    def writable(self) -> bool:
        return not (self.read_only or self.super_read_only)


@dataclass(frozen=True, slots=True)
class Event:
    """A scheduled event; `definer` quoted."""

    schema: str
    name: str
    definer: str
    status: str
    sql_mode: str
    time_zone: str

    @property
    def key(self) -> tuple[str, str]:
        return self.schema, self.name


@dataclass(frozen=True, slots=True)
class Stopped:
    """Writes have stopped, by the statement that was sent at `began_monotonic`; with it these sessions were killed."""

    began_monotonic: float
    killed: list[int]


class Server:
    """One session, in autocommit mode, whose statements are not in the binary log."""

    def __init__(self, address: ServerAddress, selection: Selection) -> None:
        self.address = address
        self.role = address.role
        self._selection = selection
        self._session: Session = connect(address, read_timeout_seconds=120.0, write_timeout_seconds=120.0)
        self.run("SET SESSION sql_log_bin = 0, information_schema_stats_expiry = 0, wait_timeout = 31536000")
        self.run("SET SESSION time_zone = '+00:00', sql_mode = '', foreign_key_checks = 0")
        # Somebody's open transaction may hold the table of an ALTER, behind which all others then wait.
        self.run(f"SET SESSION lock_wait_timeout = {DDL_WAIT_SECONDS}")

    def close(self) -> None:
        with contextlib.suppress(pymysql.MySQLError, OSError):
            self._session.close()

    def run(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """All rows. Raises LinkLost, DataError."""
        try:
            return query(self._session, statement, arguments)
        except (pymysql.err.InterfaceError, OSError) as error:
            raise LinkLost(role=self.role, detail=str(error)) from error
        except pymysql.MySQLError as error:
            if error_code(error) in LINK_CODES:
                raise LinkLost(role=self.role, detail=error_message(error)) from error
            raise Refused(role=self.role, code=error_code(error), detail=error_message(error)) from error

    # --- position --------------------------------------------------------------------------------------

    def executed(self) -> str:
        """gtid_executed."""
        return executed(self._session)

    # --- who may write ---------------------------------------------------------------------------------

    def settings(self) -> Settings:
        ((read_only, super_read_only, scheduler),) = self.run(
            "SELECT @@GLOBAL.read_only, @@GLOBAL.super_read_only, @@GLOBAL.event_scheduler"
        )
        return Settings(bool(read_only), bool(super_read_only), str(scheduler))

    def stop_writes(self, seconds: float, *, kill: bool) -> Stopped:
        """super_read_only = ON. Statements that write have `seconds` to end, then they are killed if `kill`.

        Raises DataError when writes go on.
        """
        killed: list[int] = []
        deadline = time.monotonic() + (1 + MORE_TRIES) * seconds
        self.run(f"SET SESSION lock_wait_timeout = {max(1, int(seconds))}")
        number = int(self._session.thread_id())  # type: ignore[no-untyped-call]
        with contextlib.closing(CircleBreaker(self.address, number)) as breaker:
            while True:
                try:
                    began = breaker.run(
                        lambda: self.run("SET GLOBAL super_read_only = ON"), MORE_TRIES * seconds
                    )
                    return Stopped(began, killed)
                except Refused as error:
                    if error.facts["code"] not in (LOCK_WAIT_TIMEOUT, INTERRUPTED):
                        raise
                    if not kill or time.monotonic() > deadline:
                        writers = ", ".join(map(str, self.writers())) or "not to be seen"
                        raise DataError(
                            detail=f"writes on the {self.role} did not end within {seconds:g} s (sessions {writers}): "
                            "end them, or let them be killed with --kill-writers"
                        ) from error
                    killed += self.kill(self.writers())

    def stay_read_only(self, *, super_read_only: bool) -> None:
        """read_only, over a restart too; with `super_read_only` for privileged accounts as well."""
        wanted = "ON" if super_read_only else "OFF"
        self.run(f"SET GLOBAL super_read_only = {wanted}")
        self._persist("read_only", "ON")
        self._persist("super_read_only", wanted)

    def come_up_read_only(self) -> None:
        """After a restart; read_only is on already."""
        self._persist("read_only", "ON")

    def allow_writes(self) -> None:
        """As for a primary, over a restart too."""
        self.run("SET GLOBAL super_read_only = OFF")
        self.run("SET GLOBAL read_only = OFF")
        for name in ("super_read_only", "read_only"):
            with contextlib.suppress(Refused):
                self.run(f"RESET PERSIST IF EXISTS {name}")

    def restore(self, before: Settings) -> None:
        """As it was."""
        self.allow_writes()
        if before.read_only:
            self.run("SET GLOBAL read_only = ON")
        if before.super_read_only:
            self.run("SET GLOBAL super_read_only = ON")
        self.set_event_scheduler(before.event_scheduler)

    def restore_super_read_only(self, before: Settings) -> None:
        """As it was, where it was on."""
        if before.super_read_only:
            self.run("SET GLOBAL super_read_only = ON")

    def open_for_replay(self) -> None:
        """Privileged accounts may write; others only where they could before."""
        if self.settings().super_read_only:
            self.run("SET GLOBAL super_read_only = OFF")

    def _persist(self, name: str, value: str) -> None:
        try:
            self.run(f"SET PERSIST {name} = {value}")
        except Refused as error:
            self.run(f"SET GLOBAL {name} = {value}")
            log.warning(
                "not persisted: set it in the server's option file",
                extra={"server": self.role, "variable": name, "detail": str(error)},
            )

    def may_switch(self) -> str:
        """Why this account may not do what a switch does; empty when it may. Changes nothing."""
        now = self.settings()
        try:
            self.run(f"SET GLOBAL super_read_only = {'ON' if now.super_read_only else 'OFF'}")
        except Refused as error:
            return f"{error.facts['detail']}; it needs {PRIVILEGES}"
        return ""

    # --- what is under way -----------------------------------------------------------------------------

    def writers(self) -> list[int]:
        """Sessions that have changed something and not committed it yet."""
        rows = self.run(
            "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_rows_modified > 0"
            " AND trx_mysql_thread_id <> 0 UNION SELECT id FROM information_schema.processlist"
            " WHERE command = 'Query' AND id <> CONNECTION_ID() AND user NOT IN ('system user', 'event_scheduler')"
            " AND time >= 1 AND info NOT LIKE 'SELECT%%' AND info NOT LIKE 'SET GLOBAL%%'"
        )
        return [int(number) for (number,) in rows]

    def kill(self, sessions: Sequence[int]) -> list[int]:
        """Gives those that were still there."""
        killed = []
        for number in sessions:
            try:
                self.run(f"KILL {number}")
                killed.append(number)
            except Refused as error:
                if error.facts["code"] != NO_SUCH_THREAD:
                    raise
        return killed

    # --- events ----------------------------------------------------------------------------------------

    def set_event_scheduler(self, value: str) -> None:
        """ON or OFF, the latter over a restart too. DISABLED at the start cannot be changed, and nothing runs then."""
        if self.settings().event_scheduler in ("DISABLED", value):
            return
        if value == "OFF":
            self._persist("event_scheduler", value)
        else:
            self.run(f"SET GLOBAL event_scheduler = {value}")
            with contextlib.suppress(Refused):
                self.run("RESET PERSIST IF EXISTS event_scheduler")

    def events(self) -> list[Event]:
        condition, arguments = self._selection.condition("event_schema")
        rows = self.run(
            "SELECT event_schema, event_name, definer, status, sql_mode, time_zone FROM information_schema.events"
            f" WHERE {condition} ORDER BY 1, 2",
            *arguments,
        )
        return [Event(str(s), text_of(n), account(text_of(d)), text_of(st), text_of(m), text_of(z))
                for s, n, d, st, m, z in rows]  # fmt: skip

    def set_event(self, event: Event, status: str) -> None:
        """ENABLE or DISABLE ON REPLICA. Whoever alters an event would become its definer, and its sql_mode and time
        zone would be the session's."""
        self.run("SET SESSION sql_mode = %s, time_zone = %s", event.sql_mode, event.time_zone)
        try:
            self.run(
                f"ALTER DEFINER = {event.definer} EVENT {quoted(event.schema)}.{quoted(event.name)} {status}"
            )
        finally:
            self.run("SET SESSION sql_mode = '', time_zone = '+00:00'")

    # --- counters --------------------------------------------------------------------------------------

    def counters(self) -> dict[tuple[str, str], int]:
        """The next AUTO_INCREMENT value of each table that has one."""
        condition, arguments = self._selection.condition("table_schema")
        rows = self.run(
            "SELECT table_schema, table_name, auto_increment FROM information_schema.tables"
            f" WHERE auto_increment IS NOT NULL AND {condition}",
            *arguments,
        )
        return {(str(schema), str(table)): int(value) for schema, table, value in rows}

    def set_counter(self, schema: str, table: str, value: int) -> None:
        self.run(f"ALTER TABLE {quoted(schema)}.{quoted(table)} AUTO_INCREMENT = {value}")


def account(definer: str) -> str:
    """`user@host` as information_schema shows it, quoted."""
    user, _, host = definer.rpartition("@")
    return f"{quoted(user)}@{quoted(host)}"


@contextlib.contextmanager
def opened(*servers: Server) -> Iterator[None]:
    """Closes them at the end."""
    try:
        yield
    finally:
        for server in servers:
            server.close()
