"""One session on the target: sends framed statements, counts their replies, and carries out commit decisions.

PyMySQL does the handshake; after that statements go over its socket directly, because its own reader believes the
"more results" flag, which BINLOG does not set reliably. Over a plain socket the worker that commits just before us
sends our COMMIT. A TLS connection must not be used by two threads at once, so there we are woken to send it ourselves.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pymysql

from applier.address import ServerAddress
from applier.connection import CONNECT_TIMEOUT_SECONDS, connect, error_code, error_message, raw_socket
from applier.errors import ApplierError
from applier.events.statement import encode_format_description, frame_packet
from applier.target import wire
from applier.target.wire import ReplyCounter, ServerReplied, WireLost, WireSilent
from scheduler.clock import Decision

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 60.0  # without an answer for so long, we ask the server whether it still works on it

LATE_SECONDS: Final = 1.0  # for an answer that was sent while we asked

LINK_ERRORS: Final = frozenset({0, 2006, 2013, 2014, 2055})  # of the client library: nothing the server said

SESSION_VARIABLES: Final[dict[str, str]] = {
    "autocommit": "1",
    "transaction_isolation": "'READ-COMMITTED'",  # leaves few gap locks
    "sql_mode": "'STRICT_TRANS_TABLES'",  # the fence of the progress row needs errors, not warnings
    "time_zone": "'+00:00'",
    "wait_timeout": "31536000",
    "net_write_timeout": "3600",
    "net_read_timeout": "3600",
    "session_track_schema": "0",  # keeps the replies small
    "session_track_system_variables": "''",
    "session_track_state_change": "0",
    "max_execution_time": "0",
    "character_set_client": "utf8mb4",
    "collation_connection": "utf8mb4_0900_ai_ci",
    "foreign_key_checks": "1",
    "unique_checks": "1",
    "sql_auto_is_null": "0",
}


def query_packet(statements: str | bytes) -> bytes:
    """A framed COM_QUERY."""
    text = statements.encode() if isinstance(statements, str) else statements
    return frame_packet(b"\x03" + text)


COMMIT_PACKET: Final = query_packet("COMMIT")
# As many replies as the commit packet that it replaces, so that the worker need not know which was sent.
ROLLBACK_PACKET: Final = {owed: query_packet("ROLLBACK" + ";DO 0" * (owed - 1)) for owed in range(1, 5)}


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """PyMySQL's errors as ours: what the server said, or a lost link."""
    try:
        yield
    except pymysql.err.MySQLError as error:
        code = error_code(error)
        if code in LINK_ERRORS:
            raise WireLost(str(error)) from error
        raise ServerReplied(code, "HY000", error_message(error), 0) from error
    except OSError as error:
        raise WireLost(str(error)) from error


class Session:
    """Not thread-safe but for `release`, `shutdown`. `open` again after WireLost."""

    def __init__(
        self, address: ServerAddress, *, lock_wait_seconds: int = 1, variables: dict[str, str] | None = None
    ) -> None:
        self.address = address
        self.variables = (
            SESSION_VARIABLES | {"innodb_lock_wait_timeout": str(lock_wait_seconds)} | (variables or {})
        )
        self.connection: pymysql.Connection[Any] | None = None
        self.replies = ReplyCounter()
        self._socket: socket.socket | None = None
        self._fd = -1
        self._format_description: bytes | None = None
        self._changed_variables: set[str] = set()
        self._closing = threading.Lock()
        self._turn = threading.Lock()
        self._turn.acquire()
        self._commit_packet = COMMIT_PACKET
        self._decision_packet = COMMIT_PACKET
        self.released_at = 0.0  # monotonic seconds; 0 while no decision is being carried out

    # --- connection ------------------------------------------------------------------------------

    def open(self) -> None:
        """Connects and sets the session's variables. Raises what `applier.connection.connect` raises."""
        self.close()
        self.connection = connect(self.address, multi_statements=True)
        self._socket = raw_socket(self.connection)
        self._fd = self._socket.fileno()
        self._format_description = None
        self._changed_variables = set()
        self.execute_sql(
            "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in self.variables.items())
        )

    def close(self) -> None:
        """Closes without waiting for the server: what was not committed is rolled back there."""
        with (
            self._closing
        ):  # so that no late `release` writes to a descriptor that is somebody else's by then
            connection, self.connection = self.connection, None
            self._socket, self._fd = None, -1
        if connection is not None:
            connection._force_close()  # type: ignore[attr-defined]

    def shutdown(self) -> None:
        """From another thread: makes the owner's pending call end with WireLost."""
        current = self._socket
        if current is not None:
            with contextlib.suppress(OSError):
                current.shutdown(socket.SHUT_RDWR)

    # --- statements ------------------------------------------------------------------------------

    def execute(
        self, packet: bytes | bytearray | memoryview, owed: int, seconds: float = ANSWER_SECONDS
    ) -> None:
        """Sends framed statements, waits for `owed` OK replies. Raises ServerReplied, WireLost.

        After `seconds` without an answer we go on waiting as long as the server works on it: changing many rows of a
        table without keys takes hours."""
        current = self._connected()
        try:
            if isinstance(current, ssl.SSLSocket):
                self._exchange_tls(current, packet, owed, seconds)
            else:
                wire.exchange(self._fd, packet, self.replies, owed, seconds)
        except WireSilent:
            self._receive_while_it_works(seconds)

    def execute_sql(self, statements: str | bytes, owed: int = 1, seconds: float = ANSWER_SECONDS) -> None:
        """The same for statement text; `owed` is the number of statements in it."""
        self.execute(query_packet(statements), owed, seconds)

    def statement(self, text: bytes) -> None:
        """One statement of any kind, however long it takes; its result set, if any, is read and dropped.

        Raises ServerReplied, WireLost."""
        connection = self._pymysql()
        with _translated():
            connection.query(text)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """A SELECT, outside the hot path. Raises ServerReplied, WireLost."""
        connection = self._pymysql()
        with _translated(), connection.cursor() as cursor:
            cursor.execute(sql, tuple(parameters) or None)
            return list(cursor.fetchall())

    def set_variables(self, values: Mapping[str, str]) -> None:
        """Sets session variables until `forget_variables`. Values are SQL expressions."""
        self._changed_variables.update(values)
        self.execute_sql("SET " + ",".join(f"SESSION {name}={value}" for name, value in values.items()))

    def forget_variables(self) -> None:
        """Back to the values this session began with."""
        names, self._changed_variables = self._changed_variables, set()
        if names:
            values = (f"SESSION {name}={self.variables.get(name, 'DEFAULT')}" for name in sorted(names))
            self.execute_sql("SET " + ",".join(values))

    def use_format_description(self, format_description: bytes) -> None:
        """Makes BINLOG statements of this format readable; does nothing when it is the one in force."""
        if format_description == self._format_description:
            return
        # The first BINLOG leaves the session where BEGIN fails with error 1782; gtid_next mends that.
        self.execute_sql(
            encode_format_description(format_description) + b";SET gtid_next='AUTOMATIC'", owed=2
        )
        self._format_description = format_description

    def roll_back(self) -> None:
        """Ends the transaction and gives an owned GTID back. Raises ServerReplied, WireLost."""
        self.execute_sql("ROLLBACK;SET gtid_next='AUTOMATIC'", owed=2)

    # --- commit turns ----------------------------------------------------------------------------

    def prepare_decision(self, commit: bytes = COMMIT_PACKET, owed: int = 1) -> None:
        """Call before the ticket is handed in. `commit` is the framed packet that commits, owed `owed` replies."""
        self._commit_packet = commit
        self.released_at = 0.0
        self.replies.expect(owed)

    def release(self, decision: Decision) -> None:
        """Carries out a decision of the clock; called by any thread, once for each `prepare_decision`."""
        self.released_at = time.monotonic()
        packet = self._commit_packet if decision is Decision.COMMIT else ROLLBACK_PACKET[self.replies.owed]
        if isinstance(self._socket, ssl.SSLSocket):
            self._decision_packet = packet
            self._turn.release()
            return
        with self._closing:
            if self._fd >= 0:
                wire.send(self._fd, packet)

    def await_decision(self, answered: Callable[[], bool], seconds: float) -> None:
        """Waits until a released decision has been carried out. Raises ServerReplied, WireLost.

        `answered` tells whether the decision was made: only from then on does silence mean a lost link."""
        current = self._connected()
        if isinstance(current, ssl.SSLSocket):
            self._turn.acquire()
            self.execute(self._decision_packet, self.replies.owed, seconds)
            return
        while True:
            decided = answered()
            try:
                wire.receive(self._fd, self.replies, seconds)
            except WireSilent:
                if decided:
                    self._receive_while_it_works(seconds)
                    return
                if not self._alive():
                    raise
            else:
                return

    def _receive_while_it_works(self, seconds: float) -> None:
        """Waits for the replies that are still owed. Raises ServerReplied, WireLost."""
        works = True
        while works:
            works = self._works()
            with contextlib.suppress(WireSilent):
                self._receive(seconds if works else LATE_SECONDS)
                return
        raise WireLost("no answer in time")

    def _receive(self, seconds: float) -> None:
        current = self._connected()
        if isinstance(current, ssl.SSLSocket):
            self._receive_tls(current, seconds)
        else:
            wire.receive(self._fd, self.replies, seconds)

    def _works(self) -> bool:
        """Whether the server executes what we sent. Asked over another connection, so it tells of a dead link too."""
        try:
            ours = self._pymysql().thread_id()  # type: ignore[no-untyped-call]
            other = connect(self.address, read_timeout_seconds=CONNECT_TIMEOUT_SECONDS)
            with contextlib.closing(other), other.cursor() as cursor:
                cursor.execute("SHOW PROCESSLIST")
                sessions = cursor.fetchall()
        except (ApplierError, pymysql.err.MySQLError, OSError) as error:
            log.debug("no answer, and the server cannot be asked", extra={"detail": str(error)})
            return False
        return any(number == ours and command == "Query" for number, _, _, _, command, *_ in sessions)

    def _alive(self) -> bool:
        """Whether the server has not closed the link; does not wait."""
        current = self._connected()
        ready = select.poll()
        ready.register(current, select.POLLIN)
        try:
            return not ready.poll(0) or current.recv(1, socket.MSG_PEEK) != b""
        except OSError:
            return False

    def _pymysql(self) -> pymysql.Connection[Any]:
        if self.connection is None:
            raise WireLost("not connected")
        return self.connection

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise WireLost("not connected")
        return self._socket

    def _exchange_tls(
        self, tls: ssl.SSLSocket, packet: bytes | bytearray | memoryview, owed: int, seconds: float
    ) -> None:
        try:
            tls.settimeout(None if seconds < 0 else seconds)
            tls.sendall(packet)
        except (OSError, ValueError) as error:
            raise WireLost(str(error)) from error
        self.replies.expect(owed)
        self._receive_tls(tls, seconds)

    def _receive_tls(self, tls: ssl.SSLSocket, seconds: float) -> None:
        try:
            tls.settimeout(None if seconds < 0 else seconds)
            while not self.replies.feed(data := tls.recv(16384)):
                if not data:
                    raise WireLost("connection lost")
        except TimeoutError as error:
            raise WireSilent("no answer in time") from error
        except (OSError, ValueError) as error:
            raise WireLost(str(error)) from error
