"""The stock replica on the same backlog: its SQL threads alone, with the whole relay log on disk before they start.

That is in its favour: the applier's time includes fetching the log.
"""

from __future__ import annotations

import time

from applier.bench.backlog import Backlog, executed
from applier.errors import DataError, UnexpectedFailure
from applier.events.gtid import GtidSet
from applier.sandbox import Server
from applier.sandbox.replication import ACCOUNT, account_password

RECEIVE_SECONDS = 600.0
APPLY_SECONDS = 3600.0
POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0  # between looks at a replica that applies, whether it has failed


def point(target: Server, source: Server, workers: int, password: str) -> None:
    """Makes `target` a replica of `source`, whose threads do not run yet."""
    target.execute("SET GLOBAL replica_parallel_workers = %s", (workers,))
    target.execute("SET GLOBAL replica_preserve_commit_order = ON")
    target.execute(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, SOURCE_PASSWORD = %s,"
        " SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
        (source.host, source.port, ACCOUNT, password),
    )


def receive(target: Server, backlog: Backlog, workers: int) -> None:
    """Fetches the whole backlog into the target's relay log. Raises UnexpectedFailure."""
    point(target, backlog.source, workers, account_password(backlog.sandbox.directory))
    target.execute("START REPLICA IO_THREAD")
    deadline = time.monotonic() + RECEIVE_SECONDS
    while not backlog.end_gtids <= _received(target):
        ((failure, state),) = target.execute(
            "SELECT last_error_message, service_state FROM performance_schema.replication_connection_status"
        )
        if failure or time.monotonic() > deadline:
            raise UnexpectedFailure(
                detail=f"the stock replica does not receive the backlog ({state}): {failure}"
            )
        time.sleep(POLL_SECONDS)
    target.execute("STOP REPLICA IO_THREAD")


def _received(target: Server) -> GtidSet:
    ((received,),) = target.execute(
        "SELECT received_transaction_set FROM performance_schema.replication_connection_status"
    )
    return GtidSet.parse(executed(target)) | GtidSet.parse(str(received))


def apply(target: Server, end_gtids: str) -> float:
    """Starts the SQL threads and waits until `end_gtids` are executed; the seconds that took. Raises DataError when
    the replica stops."""
    connection = target.connect()
    try:
        with connection.cursor() as cursor:
            started = time.perf_counter()
            cursor.execute("START REPLICA SQL_THREAD")
            while True:
                cursor.execute("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (end_gtids, LOOK_SECONDS))
                row = cursor.fetchone()
                if row is not None and row[0] == 0:
                    return time.perf_counter() - started
                raise_on_failure(target)
                if time.perf_counter() - started > APPLY_SECONDS:
                    raise UnexpectedFailure(
                        detail=f"the stock replica is not through after {APPLY_SECONDS:.0f} s"
                    )
    finally:
        connection.close()


def raise_on_failure(target: Server) -> None:
    """Raises DataError when a thread of the replica has stopped on an error."""
    failures = target.execute(
        "SELECT last_error_message FROM performance_schema.replication_applier_status_by_worker"
        " WHERE last_error_number <> 0"
    )
    if failures:
        raise DataError(detail=f"the stock replica: {failures[0][0]}")
