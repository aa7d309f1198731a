"""What the target has of the source, kept so that a crash at any moment loses nothing and doubles nothing.

`KEPT`: each transaction commits under its source's GTID; the target's gtid_executed is the checkpoint.

`PURGED` and `OWN`: a progress row is written in each group's own transaction, just before COMMIT and at its turn, so
that it never blocks the next group. With PURGED the sessions write no binary log, and the GTIDs join the target's by
`SET GLOBAL gtid_purged = '+…'`, at most once a second, at drain, and at the next start after a crash; with OWN the
target's binary log has the changes under GTIDs of its own.

One applier a channel: a user-level lock on the target keeps a second one out, and the `owner` number in the progress
row fences off one that was stalled and comes back: its commit fails, because its number is not the row's any more.
DDL cannot share a transaction with the row; it always runs under its own gtid_next, so that gtid_executed tells
whether it ran.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import pymysql

from applier.address import ServerAddress
from applier.connection import Connection, connect, connection_error, error_code
from applier.errors import LinkLost, PreflightFailed, UsageError
from applier.events.batch import Batch
from applier.events.gtid import GtidSet
from applier.events.scheduling import gtid_ranges
from applier.target import retry
from applier.target.leftovers import end_earlier_sessions, take_channel
from applier.target.session import LINK_ERRORS, query_packet
from scheduler.grouping import Unit

log = logging.getLogger(__name__)

SCHEMA: Final = "applier"
SKIPPED_MAX: Final = 10_000  # one empty transaction each
COMMIT_REPLIES: Final = 2
FENCED_CODE: Final = 1048  # column 'owner' cannot be null

CREATE: Final = (
    f"CREATE DATABASE IF NOT EXISTS {SCHEMA}",
    f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.progress (
  channel VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  owner BIGINT UNSIGNED NOT NULL COMMENT 'which run of the applier may write; a newer one counts it up',
  executed LONGTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'GTID set of the source that is applied',
  file VARCHAR(512) NOT NULL COMMENT 'binary log of the source',
  position BIGINT UNSIGNED NOT NULL COMMENT 'end of the last applied transaction in it',
  updated TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)
) COMMENT 'progress of the applier, written with the changes themselves'""",
)


class GtidMode(enum.Enum):
    """What becomes of the source's GTIDs on the target."""

    KEPT = "kept"
    PURGED = "purged"
    OWN = "own"


class Checkpoint:
    """A connection to the target that holds the channel's lock. Used by one thread at a time, under its own lock."""

    def __init__(
        self,
        address: ServerAddress,
        mode: GtidMode,
        channel: str,
        *,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """`attributes`: what the session that holds the lock tells of itself, see `observe.last_known`."""
        self.address = replace(address, channel=channel)
        self.mode = mode
        self.channel = channel
        self._attributes = attributes
        self.owner = 0
        self._connection: Connection[Any] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Raises ChannelTaken, PreflightFailed, LinkLost."""
        self._connection = connect(
            self.address,
            read_timeout_seconds=60.0,
            write_timeout_seconds=60.0,
            attributes=self._attributes,
        )
        try:
            self._take()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def executed(self) -> GtidSet:
        """Everything of the source that the target has. Raises LinkLost."""
        executed = GtidSet.parse(self._value("SELECT @@GLOBAL.gtid_executed"))
        if self.mode is not GtidMode.KEPT:
            executed.update(GtidSet.parse(self._progress()))
        return executed

    def untold(self) -> GtidSet:
        """What an earlier run in groups has applied and gtid_executed does not tell of. Raises LinkLost.

        Without the table, or the privilege to read it, no run of this account wrote it."""
        try:
            told = GtidSet.parse(self._progress())
        except PreflightFailed:
            return GtidSet()
        return told - GtidSet.parse(self._value("SELECT @@GLOBAL.gtid_executed"))

    def packet_bytes_max(self) -> int:
        """The target's max_allowed_packet. Raises LinkLost."""
        return int(self._value("SELECT @@GLOBAL.max_allowed_packet"))

    def commit_packet(self, executed: GtidSet, file: str, position: int) -> bytes:
        """Framed: progress row and COMMIT, owed COMMIT_REPLIES. Fails with FENCED_CODE when another run took over."""
        return query_packet(
            f"UPDATE {SCHEMA}.progress SET owner=IF(owner={self.owner},owner,NULL),executed='{executed}',"
            f"file={_quoted(file)},position={position} WHERE channel={_quoted(self.channel)};COMMIT"
        )

    def add_gtids(self, executed: GtidSet) -> None:
        """Makes the target's gtid_executed contain `executed`, without a transaction. Raises LinkLost."""
        missing = self._value("SELECT GTID_SUBTRACT(%s, @@GLOBAL.gtid_executed)", str(executed))
        if missing:
            self._value("SET GLOBAL gtid_purged = %s", "+" + missing)

    def start_from(self, gtids: GtidSet) -> None:
        """Makes exactly these count as applied: the target's data is a copy that shows them. For OWN only.

        Raises LinkLost, PreflightFailed."""
        update = (
            f"UPDATE {SCHEMA}.progress SET executed = %s, file = '', position = 0"
            " WHERE channel = %s AND owner = %s"
        )
        self._value(update, str(gtids), self.channel, self.owner)

    def show_life(self) -> None:
        """A session that says nothing for long is taken for one whose applier has gone. Raises LinkLost."""
        self._value("DO 0")

    def skip(self, gtids: GtidSet) -> None:
        """Makes transactions that the target does not have count as applied. Raises LinkLost, PreflightFailed."""
        missing = gtids - self.executed()
        if not missing:
            return
        log.warning("transactions left out on request", extra={"gtids": str(missing)})
        if self.mode is GtidMode.PURGED:
            self.add_gtids(missing)
        elif self.mode is GtidMode.OWN:
            executed = GtidSet.parse(self._progress())
            executed.update(missing)
            update = f"UPDATE {SCHEMA}.progress SET executed = %s WHERE channel = %s AND owner = %s"
            self._value(update, str(executed), self.channel, self.owner)
        else:
            if missing.count > SKIPPED_MAX:
                raise UsageError(
                    detail=f"--skip-gtid names {missing.count} transactions, {SKIPPED_MAX} are allowed"
                )
            for gtid in missing.gtids():
                for statement in (
                    f"SET gtid_next = '{gtid}'",
                    "BEGIN",
                    "COMMIT",
                    "SET gtid_next = 'AUTOMATIC'",
                ):
                    self._value(statement)

    # --- start -----------------------------------------------------------------------------------

    def _take(self) -> None:
        self._value("SET SESSION wait_timeout = 31536000")
        take_channel(self._value, self.channel, self.address.place)
        end_earlier_sessions(self._value, self.channel)
        if self.mode is GtidMode.KEPT:
            return
        if self.mode is GtidMode.PURGED:
            self._value("SET SESSION sql_log_bin = 0")
        for statement in CREATE:
            self._value(statement)
        columns = "channel, owner, executed, file, position"
        self._value(
            f"INSERT IGNORE INTO {SCHEMA}.progress ({columns}) VALUES (%s, 0, '', '', 0)", self.channel
        )
        # Waits for a commit of an earlier run that is under way; after it, that run commits nothing more.
        self._value(f"UPDATE {SCHEMA}.progress SET owner = owner + 1 WHERE channel = %s", self.channel)
        self.owner = int(self._value(f"SELECT owner FROM {SCHEMA}.progress WHERE channel = %s", self.channel))
        if self.mode is GtidMode.PURGED:
            self.add_gtids(GtidSet.parse(self._progress()))

    def _progress(self) -> str:
        executed = self._value(f"SELECT executed FROM {SCHEMA}.progress WHERE channel = %s", self.channel)
        return str(executed or "")

    # --- connection ------------------------------------------------------------------------------

    def _value(self, statement: str, *arguments: object) -> Any:
        """First column of the first row, if any."""
        with self._lock:
            if self._connection is None:
                raise LinkLost(role="target", detail="the checkpoint's connection is closed")
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(statement, arguments or None)
                    row = cursor.fetchone()
                    return row[0] if row else None
            except (pymysql.err.InterfaceError, OSError) as error:
                raise LinkLost(role="target", detail=str(error)) from error
            except pymysql.err.MySQLError as error:
                code = error_code(error)
                if code in LINK_ERRORS or retry.action_for(code) is not retry.Action.STOP:
                    raise LinkLost(role="target", detail=str(error)) from error
                known = connection_error(self.address, error)
                raise PreflightFailed(detail=f"the checkpoint cannot be kept: {known}") from error

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(pymysql.err.MySQLError, OSError):
                    connection.close()


def _quoted(text: str) -> str:
    """For the sql_mode of our sessions, in which a backslash escapes."""
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "''"))


def applied_before(target: Connection[Any], mode: GtidMode, channel: str) -> tuple[GtidSet, GtidSet, UUID]:
    """What the target has, before a Checkpoint is made: everything; what of it never came from a source, beside what
    the target itself makes, now and later; the target's UUID.

    Raises PyMySQL's errors."""
    with target.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.gtid_executed, @@GLOBAL.server_uuid")
        row = cursor.fetchone()
        assert row is not None
        executed, uuid = GtidSet.parse(str(row[0])), UUID(str(row[1]))
        if mode is GtidMode.KEPT:
            return executed, GtidSet(), uuid
        progress = GtidSet()
        with contextlib.suppress(pymysql.err.MySQLError):  # there is no such table before the first run
            cursor.execute(f"SELECT executed FROM {SCHEMA}.progress WHERE channel = %s", (channel,))
            found = cursor.fetchone()
            progress = GtidSet.parse(str(found[0])) if found else progress
    return executed | progress, executed - progress if mode is GtidMode.OWN else GtidSet(), uuid


@dataclass(frozen=True, slots=True)
class Progress:
    """The source's GTIDs that are applied before a unit, and once it has committed. Never changed."""

    before: GtidSet
    after: GtidSet


class ProgressMarker:
    """Gives every unit its Progress as it is taken, in log order."""

    def __init__(self, executed: GtidSet) -> None:
        self._executed = executed

    def mark(self, unit: Unit[Batch]) -> None:
        before = self._executed
        self._executed = after_slices(before, unit)
        unit.progress = Progress(before, self._executed)


def after_slices(before: GtidSet, unit: Unit[Batch]) -> GtidSet:
    """`before` and the GTIDs of a unit."""
    after = before.copy()
    for piece in unit.slices:
        for uuid, tag, first, last in gtid_ranges(piece.batch, piece.first, piece.end):
            after.add_range(uuid, tag, first, last)
    return after
