"""Several connections that work at once, interleaved statement by statement, and the same way for the same seed.

A statement that has been sent ends, or it comes to wait for a lock. Before the next one is chosen every connection is
in one of these two states, so what happens does not depend on how fast anything is. Nor may it depend on how far InnoDB
has purged deleted rows: a snapshot keeps all of them.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Generator, Sequence
from random import Random
from typing import Any

import pymysql
from pymysql.connections import Connection
from pymysql.constants import COMMAND

from applier.sandbox import Server

Life = Generator[str, int, None]  # gives statements, is told the error code of each, 0 when it was well
LINK_LOST = frozenset({2006, 2013})
SETTLE_SECONDS = 30.0
QUICK_SECONDS = 0.002  # what takes longer may be waiting for a lock
STUCK_SECONDS = (
    0.1  # who waits longer, with nobody else to go on, waits in a circle that the server does not see
)

# How many statements wait for a row or a table. The threads of row locks are not told reliably: a lock that InnoDB has
# moved to another page belongs to the thread that made it move.
WAITING = """
SELECT (SELECT COUNT(DISTINCT requesting_engine_transaction_id) FROM performance_schema.data_lock_waits)
     + (SELECT COUNT(DISTINCT owner_thread_id) FROM performance_schema.metadata_locks WHERE lock_status = 'PENDING')
"""


class Actor:
    """One connection and what it wants to do."""

    def __init__(self, server: Server, life: Life) -> None:
        self.busy = False
        self.ended = False
        self._life = life
        self._connection: Connection[Any] = server.connect()
        with self._connection.cursor() as cursor:
            # Nothing may depend on how much time passes.
            cursor.execute(
                "SET SESSION sql_mode = '', innodb_lock_wait_timeout = 600, lock_wait_timeout = 600"
            )
        self._next = next(life)

    @property
    def connection_id(self) -> int:
        return int(self._connection.thread_id())  # type: ignore[no-untyped-call]

    def fileno(self) -> int:
        """For select."""
        return int(self._connection._sock.fileno())  # type: ignore[attr-defined]

    def close(self) -> None:
        with contextlib.suppress(pymysql.err.MySQLError):
            self._connection.close()

    def send(self) -> None:
        """Sends the next statement."""
        assert not self.busy
        self._connection._execute_command(COMMAND.COM_QUERY, self._next)  # type: ignore[attr-defined]
        self.busy = True

    def take_answer(self) -> None:
        """Waits for it."""
        code = 0
        try:
            self._connection._read_query_result()  # type: ignore[attr-defined]
        except pymysql.err.MySQLError as error:
            code = int(error.args[0])
            if code in LINK_LOST:
                raise
        self.busy = False
        try:
            self._next = self._life.send(code)
        except StopIteration:
            self.ended = True


class Stage:
    """Lets actors take turns in an order that a seed decides."""

    def __init__(self, server: Server, chance: Random) -> None:
        self._server = server
        self._chance = chance

    def play(self, lives: Sequence[Life]) -> None:
        """Until every life has ended."""
        with contextlib.ExitStack() as stack:
            keeper = stack.enter_context(self._server.connect())
            keeper.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            watcher = stack.enter_context(self._server.connect()).cursor()
            actors = [Actor(self._server, life) for life in lives]
            for actor in actors:
                stack.callback(actor.close)
            while any(not actor.ended for actor in actors):
                free = [actor for actor in actors if not actor.busy and not actor.ended]
                if free:
                    self._chance.choice(free).send()
                elif not _take_answers(actors, STUCK_SECONDS):
                    stuck = self._chance.choice([actor for actor in actors if actor.busy])
                    watcher.execute(f"KILL QUERY {stuck.connection_id}")
                self._settle(actors, watcher)

    def _settle(self, actors: Sequence[Actor], watcher: Any) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while busy := sum(actor.busy for actor in actors):
            if _take_answers(actors, QUICK_SECONDS):
                continue
            watcher.execute(WAITING)
            if watcher.fetchone()[0] >= busy and not _take_answers(actors, 0.0):
                return
            assert time.monotonic() < deadline, f"{busy} statements do not end"


def _take_answers(actors: Sequence[Actor], seconds: float) -> bool:
    """False when there was none."""
    answered, _, _ = select.select([actor for actor in actors if actor.busy], [], [], seconds)
    for actor in answered:
        actor.take_answer()
    return bool(answered)
