"""Sessions that read values exactly, and two of them asked at once."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import pymysql

from applier.address import ServerAddress
from applier.connection import connect, raw_socket
from applier.errors import ApplierError, LinkLost, NotComparable
from applier.verify.definitions import Record, Session, query
from applier.verify.position import Sides

T = TypeVar("T")

# Times as UTC, CHAR without padding, keys such as '2023-02-31' as they are stored, no clock on our statements.
SETTINGS = (
    "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', max_execution_time = 0, autocommit = 1,"
    " transaction_isolation = 'REPEATABLE-READ', sql_quote_show_create = 1,"
    " information_schema_stats_expiry = 0"
)
# Not on every version that we support: a generated invisible primary key is a key like others (8.0.30).
OPTIONAL_SETTINGS = ("SET SESSION show_gipk_in_create_table_and_information_schema = ON",)

# A function's result above max_allowed_packet became NULL: a checksum over it says nothing.
PACKET_OVERFLOW = 1301
UNKNOWN_SYSTEM_VARIABLE = 1193


def open_session(address: ServerAddress) -> Session:
    """A session for reading. Raises what `connect` raises."""
    session = connect(address)
    query(session, SETTINGS)
    for statement in OPTIONAL_SETTINGS:
        try:
            query(session, statement)
        except pymysql.MySQLError as error:
            if error.args[0] != UNKNOWN_SYSTEM_VARIABLE:
                raise
    return session


@contextmanager
def open_sides(source: ServerAddress, target: ServerAddress, connections: int) -> Iterator[Sides]:
    """The sessions of a comparison; closed at the end, and cut off if it ends in an error."""
    opened: list[Session] = []

    def one(address: ServerAddress) -> Session:
        opened.append(open_session(address))
        return opened[-1]

    try:
        yield Sides(
            source,
            one(source),
            one(target),
            [one(source) for _ in range(connections)],
            [one(target) for _ in range(connections)],
        )
    finally:
        for session in opened:
            with contextlib.suppress(pymysql.MySQLError, OSError):
                session.close()


def cut_off(sides: Sides) -> None:
    """Wake every thread that waits for an answer: its session is gone."""
    for session in (*sides.sources, *sides.targets):
        with contextlib.suppress(OSError, AttributeError):
            raw_socket(session).shutdown(socket.SHUT_RDWR)


def read(session: Session, statement: str) -> list[Record]:
    """All rows; never from values that the server has cut short."""
    with session.cursor() as cursor:
        cursor.execute(statement)
        rows = list(cursor.fetchall())
        if cursor.warning_count:
            cursor.execute("SHOW WARNINGS")
            for _, code, message in cursor.fetchall():
                if code == PACKET_OVERFLOW:
                    raise NotComparable(detail=f"a value is too long for the server's functions: {message}")
    return rows


@dataclass(frozen=True, slots=True)
class Pair:
    """A session of each side, asked at the same time."""

    source: Session
    target: Session
    executor: Executor

    def both(self, statement: str) -> tuple[list[Record], list[Record]]:
        """The answers of source and target to one statement."""
        theirs = self.executor.submit(read, self.target, statement)
        try:
            ours = read(self.source, statement)
        finally:
            # Not left behind even when ours fails: a session answers one statement at a time.
            found = theirs.exception()
        if found is not None:
            raise found
        return ours, theirs.result()


def link_errors(role: str, call: Callable[[], T]) -> T:
    """`call`, with a lost connection as our own error."""
    try:
        return call()
    except (pymysql.err.OperationalError, pymysql.err.InterfaceError) as error:
        if error.args and error.args[0] in (0, 2006, 2013, 2014):
            raise LinkLost(role=role, detail=str(error.args[-1])) from error
        raise ApplierError(detail=str(error.args[-1])) from error
