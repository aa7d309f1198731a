"""What the source does while servers, links and appliers are attacked: TPC-C, and a log where doubling would show."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator

import pymysql

from applier.errors import ApplierError
from applier.sandbox import Server
from applier.workload.model import Workload
from applier.workload.registry import workload_named
from tests.replaying import run_all

RATE = 100.0  # transactions a second: enough to be hit in the middle of one, little enough to keep up
GONE_SECONDS = 0.2  # between attempts, while the source is away
LOG = "attack.log"


class Load:
    """Runs from `start` to `stop`, whatever becomes of the source meanwhile."""

    def __init__(self, source: Server, *, rate: float = RATE) -> None:
        self.source = source
        self.rate = rate
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.tpcc = workload_named("tpcc", warehouses=1, scale=0.005, terminals=3)

    def prepare(self) -> None:
        self.tpcc.prepare(self.source.connect)
        run_all(self.source, ["CREATE DATABASE attack", f"CREATE TABLE {LOG} (line INT NOT NULL)"])

    def start(self) -> None:
        self._threads = [
            threading.Thread(target=self._drive, args=(self.tpcc,), name="tpcc"),
            threading.Thread(target=self._append, name="append"),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _drive(self, workload: Workload) -> None:
        while not self._stop.is_set():
            try:
                workload.run(self.source.connect, rate=self.rate, stop=self._stop)
            except (ApplierError, pymysql.err.MySQLError, OSError):
                self._stop.wait(GONE_SECONDS)

    def _append(self) -> None:
        """One line a transaction. A line whose commit was not answered may be there or not; the next is another."""
        lines = itertools.count(1)
        while not self._stop.is_set():
            try:
                with self.source.connect() as connection, connection.cursor() as cursor:
                    while not self._stop.wait(1 / self.rate):
                        cursor.execute(f"INSERT INTO {LOG} VALUES ({next(lines)})")
                        connection.commit()
            except (pymysql.err.MySQLError, OSError):
                self._stop.wait(GONE_SECONDS)


@contextlib.contextmanager
def under_load(source: Server, *, rate: float = RATE) -> Iterator[Load]:
    """The tables are filled before the block begins; what the block did is on the source when it has ended."""
    load = Load(source, rate=rate)
    load.prepare()
    load.start()
    try:
        yield load
    finally:
        load.stop()


def lost_and_doubled(source: Server, target: Server) -> tuple[int, int]:
    """Lines of the log that the target lacks, and that it has more than once."""
    (ours,), (theirs, different) = (
        source.execute(f"SELECT COUNT(DISTINCT line) FROM {LOG}")[0],
        target.execute(f"SELECT COUNT(*), COUNT(DISTINCT line) FROM {LOG}")[0],
    )
    return ours - different, theirs - different
