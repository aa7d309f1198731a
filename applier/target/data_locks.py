"""What the target tells about lock waits: who waits for whom, and for which lock."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pymysql

from applier.address import ServerAddress
from applier.connection import Connection, connect, drop, error_code, raw_socket

log = logging.getLogger(__name__)

# Longer than any answer takes that is still of use: the lock wait itself ends after a second.
ANSWER_SECONDS: Final = 2.0

# Not allowed to look, or no such table.
NOT_TO_BE_SEEN: Final = frozenset({1044, 1142, 1143, 1146, 1227})

# A look takes 0.1 ms on 9.7 with nobody waiting, also beside a transaction that holds 150,000 locks, and 0.3 ms beside
# 140 sessions that wait for one row. Without the condition the latter takes 50 ms: each of them waits for all before.
# https://dev.mysql.com/doc/refman/9.7/en/performance-schema-data-lock-waits-table.html
WAITS: Final = (
    "SELECT requesting_engine_transaction_id, blocking_engine_transaction_id, requesting_engine_lock_id"
    " FROM performance_schema.data_lock_waits WHERE {column} IN ({numbers}) LIMIT 1000"
)
# Whose a transaction is. Not the thread that data_lock_waits names, which is the one that made the lock: whoever comes
# to wait for a row just inserted makes the inserter's lock, and purge makes all locks of a row anew that it moves.
# The lock on a table is always the holder's own, and it is found first (0.2 ms, also with 150,000 others).
HOLDER: Final = (
    "(SELECT engine_transaction_id, thread_id FROM performance_schema.data_locks"
    " WHERE engine_transaction_id = {transaction} AND lock_type = 'TABLE' LIMIT 1)"
)
BACKGROUND: Final = "SELECT thread_id FROM performance_schema.threads WHERE type = 'BACKGROUND'"
HOLDERS_MAX: Final = 64  # asked for in one look
STEPS_MAX: Final = 4  # from one of ours over sessions of others to one of ours
LOCK: Final = (
    "SELECT object_schema, object_name, index_name, lock_mode FROM performance_schema.data_locks"
    " WHERE engine_lock_id = %s AND engine = 'INNODB'"
)
SESSION: Final = (
    "SELECT processlist_id, processlist_user, processlist_host"
    " FROM performance_schema.threads WHERE thread_id = %s"
)


@dataclass(frozen=True, slots=True)
class Wait:
    """One session waits for a lock that another one holds, or asked for before it."""

    waiter: int  # thread ids of the performance schema
    blocker: int
    lock_id: str  # of the lock that is waited for


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock by name, without any row data; empty where the account may not see it."""

    table: str = ""
    index: str = ""
    mode: str = ""


class DataLocks:
    """A connection to the target, made when it is first needed. For one thread, but for `interrupt`.

    Every method raises what PyMySQL and `applier.connection.connect` raise, and OSError; call `close` then.
    """

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._connection: Connection[Any] | None = None
        self._threads: dict[int, int] = {}  # connection id → thread id
        self._background: list[int] = []  # threads of the server
        self._visible = False

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._threads.clear()
        if connection is not None:
            drop(connection)

    def interrupt(self) -> None:
        """From another thread: ends a call that waits for an answer."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                raw_socket(connection).shutdown(socket.SHUT_RDWR)

    def visible(self) -> bool:
        """Whether the target shows who waits for whom: with the privilege for it, and a performance schema."""
        self._connected()
        return self._visible

    def threads(self, connection_ids: Iterable[int]) -> dict[int, int]:
        """Thread ids by connection id, of those that there are; needs no privilege."""
        missing = [one for one in connection_ids if one not in self._threads]
        if missing:
            columns = ", ".join(f"PS_THREAD_ID({one})" for one in missing)
            (threads,) = self._query(f"SELECT {columns}")
            found = zip(missing, threads, strict=True)
            self._threads |= {number: thread for number, thread in found if thread is not None}
        return self._threads

    def waits(self, threads: Collection[int]) -> list[Wait]:
        """Waits of these threads, and of the other sessions that they wait for."""
        found: list[Wait] = []
        column, numbers = "requesting_thread_id", {*threads, *self._background}
        asked: set[int] = set()
        for _ in range(STEPS_MAX):
            rows = self._query(WAITS.format(column=column, numbers=_listed(numbers)))
            holders = self._holders(one for waiting, blocking, _ in rows for one in (waiting, blocking))
            found += [
                Wait(holders[a], holders[b], lock) for a, b, lock in rows if a in holders and b in holders
            ]
            others = {b for _, b, _ in rows if b in holders and holders[b] not in threads} - asked
            if not others:
                break
            asked |= others
            column, numbers = "requesting_engine_transaction_id", others
        return found

    def _holders(self, transactions: Iterable[int]) -> dict[int, int]:
        """Threads by transaction, of those that there still are."""
        some = sorted(set(transactions))[:HOLDERS_MAX]
        return (
            dict(self._query(" UNION ALL ".join(HOLDER.format(transaction=one) for one in some)))
            if some
            else {}
        )

    def lock(self, lock_id: str) -> Lock:
        """What can be told of a lock, if it is still there."""
        rows = self._query_if_allowed(LOCK, lock_id)
        if not rows:
            return Lock()
        schema, table, index, mode = rows[0]
        return Lock(f"{schema}.{table}", index or "", mode)

    def session_name(self, thread: int) -> str:
        """Connection id and account of a session that is not ours."""
        rows = self._query_if_allowed(SESSION, thread)
        if not rows or rows[0][0] is None:
            return f"thread {thread}"
        connection_id, user, host = rows[0]
        return f"connection {connection_id} of {user}@{host}"

    def row_lock_waits(self) -> int:
        """Sessions, of whomever, that wait for a row lock now; needs no privilege."""
        rows = self._query("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        return int(rows[0][1]) if rows else 0

    def state(self, connection_id: int) -> str:
        """What a session of our account does, in the server's words; needs no privilege."""
        rows = self._query("SHOW PROCESSLIST")
        return next((str(state) for number, *_, state, _ in rows if number == connection_id), "")

    def _query_if_allowed(self, statement: str, argument: object) -> list[tuple[Any, ...]]:
        try:
            return self._query(statement, argument)
        except pymysql.MySQLError as error:
            if error_code(error) in NOT_TO_BE_SEEN:
                return []
            raise

    def _query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self._connected().cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return list(cursor.fetchall())

    def _connected(self) -> Connection[Any]:
        if self._connection is None:
            connection = connect(
                self._address,
                connect_timeout_seconds=ANSWER_SECONDS,
                read_timeout_seconds=ANSWER_SECONDS,
                write_timeout_seconds=ANSWER_SECONDS,
            )
            self._connection = connection
            self._visible = self._find_out()
            if not self._visible:
                log.info("the target does not show lock waits: later units are rolled back on suspicion")
        return self._connection

    def _find_out(self) -> bool:
        ((instrumented,),) = self._query("SELECT @@GLOBAL.performance_schema")
        if not instrumented:
            return False
        try:
            self._query(WAITS.format(column="requesting_thread_id", numbers=0))
            self._query(HOLDER.format(transaction=0))
            self._background = [thread for (thread,) in self._query(BACKGROUND)]
        except pymysql.MySQLError as error:
            if error_code(error) in NOT_TO_BE_SEEN:
                return False
            raise
        return True


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
