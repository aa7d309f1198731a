"""A circle of waiting that no server sees, when all writes are to stop at once.

`SET GLOBAL super_read_only = ON` and `FLUSH TABLES WITH READ LOCK` wait for the statements that are writing, and those
that begin meanwhile wait for them. So when a transaction's next statement waits, and a running statement waits for a
row that this transaction has locked, nobody goes on before a time-out: rows are the engine's, the other lock is the
server's, and neither looks at both.

Found here within some hundredths of a second, our statement is taken back; the clients go on, and it can be tried
again.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import pymysql

from applier.address import ServerAddress
from applier.connection import connect
from applier.errors import ApplierError
from applier.verify.definitions import Session, query

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.03
ANSWER_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.02, 0.1  # for clients to go on
# The holder by its transaction: the thread that data_lock_waits names may be another one.
CIRCLE: Final = """SELECT 1 FROM performance_schema.data_lock_waits waits
JOIN information_schema.innodb_trx holder ON holder.trx_id = waits.blocking_engine_transaction_id
JOIN information_schema.processlist session ON session.id = holder.trx_mysql_thread_id
WHERE session.state = 'Waiting for global read lock' LIMIT 1"""


class CircleBreaker:
    """For a statement of session `number`, which is taken back while it is part of such a circle.

    Without the privileges to look (PROCESS, SELECT on performance_schema) it does nothing. Raises what `connect`
    raises.
    """

    def __init__(self, address: ServerAddress, number: int) -> None:
        # Whoever waits for us may hold all writes.
        self._session: Session = connect(address, read_timeout_seconds=ANSWER_SECONDS)
        self._number = number
        self._broken = False

    def close(self) -> None:
        with contextlib.suppress(pymysql.MySQLError, OSError):
            self._session.close()

    def run(self, statement: Callable[[], object], seconds: float) -> float:
        """Calls it, and again when a circle was broken, for that long; the monotonic time at which the last call
        began. Raises what the call raises."""
        deadline = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            try:
                with self._watching():
                    statement()
                return began
            except (ApplierError, pymysql.MySQLError):
                if not self._broken or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(*PAUSE_SECONDS))

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        # Joined: afterwards nothing of ours is on its way to the session any more.
        self._broken = False
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ended,), name="lock-circle", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, ended: threading.Event) -> None:
        try:
            while not ended.wait(LOOK_SECONDS):
                if query(self._session, CIRCLE):
                    self._broken = True
                    query(self._session, f"KILL QUERY {self._number}")
                    return
        except (pymysql.MySQLError, OSError) as error:
            log.warning("circles of locks cannot be seen", extra={"detail": str(error)})
