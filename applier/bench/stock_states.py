"""What the threads of a stock replica do, as the server shows it, and which of them is the limit."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

import pymysql

from applier.observe.sampling import Attribution, shares
from applier.sandbox import Server

SAMPLE_SECONDS = 0.1
WORKER_IDLE = "Waiting for an event from Coordinator"

QUERY = (
    "SELECT name, processlist_state FROM performance_schema.threads"
    " WHERE name IN ('thread/sql/replica_sql', 'thread/sql/replica_worker')"
)


class StockStates:
    """Samples a replica while the block runs, over a connection of its own. The names of states are the server's."""

    def __init__(self, replica: Server) -> None:
        self._connection = replica.connect()
        self._workers: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stock-states", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def attribution(self) -> Attribution:
        """Since the last call."""
        workers, self._workers = self._workers, Counter()
        stages, self._stages = self._stages, Counter()
        samples, self._samples = self._samples, 0
        return Attribution(samples, shares(workers), shares(stages))

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(QUERY)
                    self._take(cursor.fetchall())
            except (pymysql.err.MySQLError, OSError):  # the replica is gone: whoever waits for it will say so
                return

    def _take(self, threads: tuple[tuple[str, str | None], ...]) -> None:
        self._samples += 1
        states = [state or "executing" for name, state in threads if name.endswith("worker")]
        self._workers.update(states)
        coordinator = next((state or "" for name, state in threads if name.endswith("sql")), "")
        self._stages[limiting_stage(coordinator, states)] += 1


def limiting_stage(coordinator: str, workers: list[str]) -> str:
    """What the others wait for, by the states of the coordinator and of the workers."""
    if "dependent transaction" in coordinator:
        return "coordinator, waiting for a dependency"
    busy = [state for state in workers if state != WORKER_IDLE]
    if coordinator.startswith("Waiting for replica worker") or (workers and len(busy) == len(workers)):
        return "workers"
    if coordinator.startswith("Replica has read all relay log"):
        return "workers" if busy else "source"
    return "coordinator"
