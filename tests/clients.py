"""Clients that write all the time, wherever they are let, and count what was acknowledged."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Sequence

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from applier.sandbox import Server
from tests.waiting import wait_until

ACCOUNT = "app"
RETRY_SECONDS = 0.005


class Client(threading.Thread):
    """Inserts `first`, `first` + 1 … under its number, one transaction each.

    `acknowledged`: those that the server has answered for."""

    def __init__(self, number: int, servers: Sequence[Server], stop: threading.Event, first: int = 0) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number = number
        self._first = first
        self.acknowledged: list[int] = []
        self.where: Server = servers[0]
        self.written_to: Server | None = None
        self.longest_pause_seconds = 0.0
        self._servers = itertools.cycle(servers)
        self._stop_asked = stop
        self._connection: Connection[Cursor] | None = None

    def run(self) -> None:
        self._next_server()
        try:
            self._write_on()
        finally:
            self._disconnect()

    def _write_on(self) -> None:
        last = time.monotonic()
        for value in itertools.count(self._first):
            while not self._write(value):
                if self._stop_asked.wait(RETRY_SECONDS):
                    return
            now = time.monotonic()
            self.longest_pause_seconds = max(self.longest_pause_seconds, now - last)
            last = now
            self.acknowledged.append(value)
            self.written_to = self.where
            if self._stop_asked.is_set():
                return

    def _write(self, value: int) -> bool:
        try:
            if self._connection is None:
                self._connection = self.where.connect(user=ACCOUNT, connect_timeout=5, read_timeout=60)
            with self._connection.cursor() as cursor:
                # Sent again after a lost link, it may be there already.
                cursor.execute(
                    "INSERT IGNORE INTO shop.written VALUES (%s, %s, NOW(6))", (self.number, value)
                )
                cursor.execute("UPDATE shop.totals SET n = n + 1 WHERE client = %s", (self.number,))
            return True
        except pymysql.MySQLError:
            self._next_server()
            return False

    def _next_server(self) -> None:
        self.where = next(self._servers)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(pymysql.MySQLError, OSError):
                self._connection.close()
        self._connection = None


def prepare(source: Server, target: Server, clients: int = 4) -> None:
    """The clients' table on the source, their account on both; the target lets nobody in."""
    for server in (source, target):
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET sql_log_bin = 0")
            cursor.execute(f"CREATE USER {ACCOUNT}@'%'")
            cursor.execute(f"GRANT ALL ON shop.* TO {ACCOUNT}@'%'")
    source.execute("CREATE DATABASE shop")
    source.execute(
        "CREATE TABLE shop.written (client INT, n INT, at DATETIME(6), PRIMARY KEY (client, n)) COMMENT 'appended to'"
    )
    source.execute("CREATE TABLE shop.totals (client INT PRIMARY KEY, n INT)")
    rows = ", ".join(f"({number}, 0)" for number in range(clients))
    source.execute(f"INSERT INTO shop.totals VALUES {rows}")
    target.execute("SET GLOBAL read_only = ON")


@contextlib.contextmanager
def writing(*servers: Server, clients: int = 4, first: int = 0) -> Iterator[list[Client]]:
    """Clients that write until the block ends, numbers from `first` on; each has written something when it begins."""
    stop = threading.Event()
    running = [Client(number, servers, stop, first) for number in range(clients)]
    for client in running:
        client.start()
    try:
        wait_until(lambda: all(client.acknowledged for client in running), what="every client has written")
        yield running
    finally:
        stop.set()
        for client in running:
            client.join(60)


def wait_for_move(clients: Sequence[Client], to: Server) -> None:
    """Until every client writes there."""
    wait_until(lambda: all(client.written_to is to for client in clients), what=f"clients write to {to}")


def assert_nothing_lost(server: Server, clients: Sequence[Client]) -> None:
    """Everything acknowledged is there."""
    for client in clients:
        rows = server.execute("SELECT n FROM shop.written WHERE client = %s", (client.number,))
        missing = set(client.acknowledged) - {n for (n,) in rows}
        assert not missing, (
            f"client {client.number} lost {sorted(missing)[:10]} of {len(client.acknowledged)}"
        )
