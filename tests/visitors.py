"""Clients of a database: they send its transactions to whichever server takes writes, as fast as it answers."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from applier.sandbox import Server
from tests.clients import ACCOUNT
from tests.databases import Database
from tests.waiting import wait_until

RETRY_SECONDS = 0.01
UNDONE = frozenset({1205, 1213, 1020})  # by a lock: once more, on the same server
# What the server refuses for its content, not for where it is: the next transaction.
REFUSED = pymysql.err.IntegrityError, pymysql.err.DataError


class Visitor(threading.Thread):
    """`committed`: transactions by server. `failure`: what it did not expect."""

    def __init__(
        self, database: Database, number: int, servers: Sequence[Server], stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self.committed: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self._transactions = database.transactions(number)
        self._schema = database.schemas[0]
        self._servers = itertools.cycle(servers)
        self._where = next(self._servers)
        self._stop_asked = stop
        self._connection: Connection[Cursor] | None = None

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                transaction = next(self._transactions)
                while not self._execute(transaction):
                    if self._stop_asked.wait(RETRY_SECONDS):
                        return
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            self.failure = error
        finally:
            self._close()

    def _execute(self, transaction: tuple[str, ...]) -> bool:
        """Whether it is done with."""
        try:
            if self._connection is None:
                self._connection = self._where.connect(
                    user=ACCOUNT, database=self._schema, connect_timeout=5, read_timeout=60
                )
            with self._connection.cursor() as cursor:
                cursor.execute("BEGIN")
                for statement in transaction:
                    cursor.execute(statement)
                cursor.execute("COMMIT")
            self.committed[self._where.name] += 1
            return True
        except REFUSED:
            self._roll_back()
            return True
        except pymysql.err.ProgrammingError:
            raise
        except (pymysql.MySQLError, OSError) as error:
            if error.args[0] in UNDONE:
                self._roll_back()
                return False
            self._close()
            self._where = next(self._servers)
            return False

    def _roll_back(self) -> None:
        assert self._connection is not None
        with contextlib.suppress(pymysql.MySQLError, OSError):
            self._connection.rollback()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(pymysql.MySQLError, OSError):
                connection.close()


@contextlib.contextmanager
def visiting(
    database: Database, *servers: Server, visitors: int = 4, first: int = 0
) -> Iterator[Counter[str]]:
    """Visitors until the block ends; gives a count of committed transactions by server, there when it has ended."""
    stop = threading.Event()
    running = [Visitor(database, first + number, servers, stop) for number in range(visitors)]
    for visitor in running:
        visitor.start()
    total: Counter[str] = Counter()
    try:
        wait_until(
            lambda: all(visitor.committed or visitor.failure for visitor in running),
            what="every visitor has written",
        )
        yield total
    finally:
        stop.set()
        for visitor in running:
            visitor.join(60)
            total.update(visitor.committed)
    for visitor in running:
        if visitor.failure is not None:
            raise visitor.failure
