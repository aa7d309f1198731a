"""What the source means when it refuses: its error numbers, turned into our errors."""

from __future__ import annotations

from typing import Any

import pymysql

from applier.connection import Connection, ServerAddress, connect
from applier.errors import (
    ApplierError,
    LinkLost,
    PreflightFailed,
    PurgedTransactions,
    SourceError,
    TargetAhead,
)
from applier.events.gtid import GtidSet

# Server error codes (manual, "Server Error Message Reference").
FATAL_READING_LOG = 1236  # everything that is wrong with the place from where we want to read
# 1045 is the answer to a registration without the privilege; a wrong password has been told when connecting.
MISSING_PRIVILEGE = frozenset({1044, 1045, 1142, 1227})
CLIENT_LOST = frozenset({2006, 2013})  # PyMySQL's own: the link broke under a command
# Shutting down, dump killed, killed while idle, connection ended by the server: come back later.
COME_BACK = frozenset({1053, 1077, 1317, 1927, 3169, 4031, *CLIENT_LOST})


def source_error(address: ServerAddress, code: int, message: str) -> ApplierError:
    """The error that an error packet of the source stands for, as far as its number tells."""
    if code in MISSING_PRIVILEGE:
        return PreflightFailed(
            detail=f"user {address.user} lacks a privilege on the source {address.place} ({message}). On the "
            f"source: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {account(address)}"
        )
    if code in COME_BACK:
        return LinkLost(role="source", detail=message)
    return SourceError(detail=f"{message} (error {code})")


def account(address: ServerAddress) -> str:
    """The user as a GRANT names it; the host part is a guess that the reader can see."""
    return "'{}'@'%'".format(address.user.replace("'", "''"))


def explain_start(address: ServerAddress, code: int, message: str, executed: GtidSet | None) -> ApplierError:
    """`source_error`, but for error 1236 ask the source what exactly is missing.

    The source's own words differ from version to version; its GTID sets do not. `executed` is what we asked
    to leave out, None when we asked by file and position. Opens a connection of its own: the one of the
    dump is used up.
    """
    if code != FATAL_READING_LOG:
        return source_error(address, code, message)
    try:
        with connect(address, read_timeout_seconds=10.0) as connection:
            if executed is None:
                return _explain_file(connection, message)
            return _explain_gtids(connection, message, executed)
    except (pymysql.err.MySQLError, ApplierError):
        return SourceError(detail=message)  # the source is gone: its own words have to do


def _explain_gtids(connection: Connection[Any], message: str, executed: GtidSet) -> ApplierError:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT GTID_SUBTRACT(@@global.gtid_purged, %s), "
            "GTID_SUBTRACT(%s, @@global.gtid_executed), @@global.server_uuid",
            (str(executed), str(executed)),
        )
        row = cursor.fetchone()
    assert row is not None
    missing, ahead, server_uuid = (_one_line(value) for value in row)
    if missing:
        return PurgedTransactions(detail=f"transactions {missing}", missing=missing)
    if server_uuid in ahead:
        return TargetAhead(detail=f"transactions {ahead}", ahead=ahead)
    return SourceError(detail=message)


def _explain_file(connection: Connection[Any], message: str) -> ApplierError:
    with connection.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        files = [str(row[0]) for row in cursor.fetchall()]
    have = f"its binary logs are {files[0]} to {files[-1]}" if files else "it has no binary logs"
    return SourceError(detail=f"{message}; {have}")


def _one_line(value: object) -> str:
    return str(value).replace("\n", "")
