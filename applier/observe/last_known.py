"""What the target tells of an applier without asking the applier: who runs, where, and how far it has come.

The run's session that holds the channel's lock says in its connection attributes who it is and where it listens, so
there is nothing to be kept or to become stale: with the process both are gone. The position is what a next start would
read: the progress row, or gtid_executed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pymysql

from applier.address import ServerAddress
from applier.connection import Connection, connect
from applier.errors import LinkLost
from applier.events.gtid import GtidSet
from applier.observe.replica_status import Value, timestamp
from applier.target.checkpoint import SCHEMA

ANSWER_SECONDS: Final = 10.0
HTTP_ATTRIBUTE: Final = "applier_http"
HOST_ATTRIBUTE: Final = "applier_host"
PID_ATTRIBUTE: Final = "_pid"


@dataclass(frozen=True, slots=True)
class LastKnown:
    """`running`: the channel's lock is held. `updated`: of the progress row, seconds since the epoch."""

    running: bool
    channel: str
    executed: GtidSet
    http: str | None = None
    host: str | None = None
    pid: int | None = None
    file: str = ""
    position: int = 0
    updated: float | None = None
    behind: int | None = None  # transactions; None without a source to ask
    source: ServerAddress | None = None

    def replica_status(self) -> dict[str, Value]:
        """Under the names of SHOW REPLICA STATUS, as far as it is known."""
        source = self.source
        return {
            "Source_Host": None if source is None else source.host,
            "Source_Port": None if source is None else source.port,
            "Relay_Source_Log_File": self.file,
            "Replica_IO_Running": "Yes" if self.running else "No",
            "Replica_SQL_Running": "Yes" if self.running else "No",
            "Exec_Source_Log_Pos": self.position,
            "Seconds_Behind_Source": None,
            "Executed_Gtid_Set": str(self.executed).replace("\n", ""),
            "Auto_Position": 1,
            "Channel_Name": self.channel,
        }

    def summary(self) -> str:
        """One line for people."""
        where = f" on {self.host}, pid {self.pid}" if self.host else ""
        text = f"running{where}" if self.running else "not running; last known state from the target"
        if self.updated is not None:
            text += f"; last commit {timestamp(self.updated)} UTC"
        return text if self.behind is None else f"{text}; {self.behind} transactions behind"


def last_known(target: ServerAddress, channel: str, source: ServerAddress | None = None) -> LastKnown:
    """Asks the target, and the source if there is one. Raises what `connect` raises, LinkLost."""
    with _asking(target) as connection:
        holder = _row(connection, "SELECT IS_USED_LOCK(%s)", f"applier:{channel}")[0]
        attributes = {} if holder is None else _attributes(connection, holder)
        executed = GtidSet.parse(_row(connection, "SELECT @@GLOBAL.gtid_executed")[0])
        progress = _progress(connection, channel)
    if progress is not None:
        executed.update(GtidSet.parse(progress[0]))
    behind = None
    if source is not None:
        with _asking(source) as connection:
            theirs = GtidSet.parse(_row(connection, "SELECT @@GLOBAL.gtid_executed")[0])
            behind = (theirs - executed).count
    pid = attributes.get(PID_ATTRIBUTE)
    return LastKnown(
        running=holder is not None,
        channel=channel,
        executed=executed,
        http=attributes.get(HTTP_ATTRIBUTE),
        host=attributes.get(HOST_ATTRIBUTE),
        pid=None if pid is None else int(pid),
        file="" if progress is None else progress[1],
        position=0 if progress is None else progress[2],
        updated=None if progress is None else progress[3],
        behind=behind,
        source=source,
    )


@contextlib.contextmanager
def _asking(address: ServerAddress) -> Any:
    connection = connect(address, read_timeout_seconds=ANSWER_SECONDS, write_timeout_seconds=ANSWER_SECONDS)
    try:
        yield connection
    except (pymysql.err.OperationalError, OSError) as error:
        raise LinkLost(role=address.role, detail=str(error)) from error
    finally:
        with contextlib.suppress(pymysql.err.MySQLError, OSError):
            connection.close()


def _row(connection: Connection[Any], sql: str, *arguments: object) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        row: tuple[Any, ...] = cursor.fetchone()
        return row


def _attributes(connection: Connection[Any], session: int) -> Mapping[str, str]:
    """Of a session of our account; everybody may ask for those."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attr_name, attr_value FROM performance_schema.session_account_connect_attrs"
            " WHERE processlist_id = %s",
            (session,),
        )
        return dict(cursor.fetchall())


def _progress(connection: Connection[Any], channel: str) -> tuple[str, str, int, float] | None:
    """(GTID set, file, position, when) of the channel's progress row, if it has one that we may read."""
    with contextlib.suppress(pymysql.err.ProgrammingError, pymysql.err.OperationalError):
        row = _row(
            connection,
            f"SELECT executed, file, position, UNIX_TIMESTAMP(updated) FROM {SCHEMA}.progress WHERE channel = %s",
            channel,
        )
        if row is not None:
            return str(row[0]), str(row[1]), int(row[2]), float(row[3])
    return None
