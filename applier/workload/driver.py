"""Drives a scenario: creates and fills its tables, runs its terminals."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial

from applier.errors import UsageError
from applier.workload.model import (
    NEW_ORDER,
    NEW_ORDER_ROLLED_BACK,
    ConnectionFactory,
    Counters,
    Load,
    Progress,
    Scenario,
    Settings,
    TerminalCounters,
    WorkloadResult,
    require_positive,
)
from applier.workload.pacing import Schedule, share
from applier.workload.session import Session
from applier.workload.terminal import Limits, Terminal

PROGRESS_INTERVAL_SECONDS = 0.5


class DrivenWorkload:
    """A `Workload` made of a `Scenario`."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.counters = Counters()
        self.runs = 0

    @property
    def name(self) -> str:
        """As in `workload_named`."""
        return self.scenario.name

    @property
    def settings(self) -> Settings:
        """Settings, fixed."""
        return self.scenario.settings

    def prepare(
        self,
        connection_factory: ConnectionFactory,
        *,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> None:
        """See `Workload.prepare`."""
        settings = self.settings
        with Session(connection_factory) as session:
            _create(session, self.scenario)
        stop = stop or threading.Event()
        self.counters = Counters(tuple(TerminalCounters() for _ in range(settings.loaders)))
        for phase in self.scenario.loads():
            self._fill(connection_factory, phase, stop, progress)

    def run(
        self,
        connection_factory: ConnectionFactory,
        *,
        seconds: float | None = None,
        transactions: int | None = None,
        rate: float | None = None,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> WorkloadResult:
        """See `Workload.run`."""
        for name, value in (("seconds", seconds), ("transactions", transactions), ("rate", rate)):
            if value is not None:
                require_positive(name, value)
        settings = self.settings
        self.runs += 1
        self.counters = Counters(tuple(TerminalCounters() for _ in range(settings.terminals)))
        limits = Limits(
            schedule=Schedule(rate, settings.terminals),
            seconds=seconds,
            stop=stop or threading.Event(),
            abort=threading.Event(),
        )
        sessions: list[Session] = []
        try:
            # Before the clock starts: a run is not to be measured with its handshakes.
            for _ in range(settings.terminals):
                sessions.append(Session(connection_factory, database=settings.database))
            terminals = [
                self._terminal(number, session, limits, transactions)
                for number, session in enumerate(sessions)
            ]
            started = time.perf_counter()
            self._in_threads(
                [partial(terminal.run, started) for terminal in terminals], limits.abort, progress
            )
            return self._result(time.perf_counter() - started)
        finally:
            for session in sessions:
                session.close()

    def _terminal(self, number: int, session: Session, limits: Limits, transactions: int | None) -> Terminal:
        settings = self.settings
        return Terminal(
            number=number,
            session=session,
            calls=self.scenario.calls(number, self.runs),
            limits=limits,
            counters=self.counters.terminals[number],
            calls_per_packet=settings.calls_per_packet,
            transactions=None if transactions is None else share(transactions, number, settings.terminals),
        )

    def _fill(
        self,
        connection_factory: ConnectionFactory,
        loads: Sequence[Load],
        stop: threading.Event,
        progress: Progress | None,
    ) -> None:
        """One phase of the load: `loaders` connections take the loads in turn."""
        abort = threading.Event()
        waiting: queue.SimpleQueue[Load] = queue.SimpleQueue()
        for load in loads:
            waiting.put(load)

        def work(counters: TerminalCounters) -> None:
            with Session(connection_factory, database=self.settings.database) as session:
                while not (stop.is_set() or abort.is_set()):
                    try:
                        load = waiting.get_nowait()
                    except queue.Empty:
                        return
                    for statement in load:
                        counters.rows_loaded += session.execute(statement)
                        if stop.is_set() or abort.is_set():
                            return

        loaders = self.counters.terminals[: len(loads)]
        self._in_threads([partial(work, counters) for counters in loaders], abort, progress)

    def _in_threads(
        self, tasks: Sequence[Callable[[], None]], abort: threading.Event, progress: Progress | None
    ) -> None:
        """Runs the tasks side by side, reports progress meanwhile, raises the first error of any of them."""
        with ThreadPoolExecutor(len(tasks), thread_name_prefix=f"workload-{self.name}") as pool:
            pending: set[Future[None]] = {pool.submit(task) for task in tasks}
            try:
                while pending:
                    done, pending = wait(pending, PROGRESS_INTERVAL_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    if progress is not None:
                        progress(self.counters)
            finally:
                abort.set()  # of no effect when all have ended; else the others stop after their transaction

    def _result(self, seconds: float) -> WorkloadResult:
        by_kind = self.counters.by_kind
        rolled_back = by_kind.get(NEW_ORDER_ROLLED_BACK, 0)
        return WorkloadResult(
            workload=self.name,
            seconds=seconds,
            transactions=self.counters.transactions,
            new_orders=by_kind.get(NEW_ORDER, 0) + rolled_back,
            rolled_back=rolled_back,
            retries=self.counters.retries,
            by_kind=by_kind,
            latency_milliseconds=self.counters.latency().milliseconds(),
        )


def _create(session: Session, scenario: Scenario) -> None:
    """The empty tables and the procedures."""
    database, tables = scenario.settings.database, scenario.tables()
    session.execute(f"CREATE DATABASE IF NOT EXISTS `{database}`")
    session.use(database)
    present = session.existing_tables(database, tables)
    if present and not scenario.settings.replace:
        raise UsageError(
            detail=f"the database {database} of the source already has the table {present[0]}: choose "
            f"another database, or pass --replace to drop the tables of the workload {scenario.name} first"
        )
    if present:
        session.execute("DROP TABLE " + ", ".join(f"`{table}`" for table in present))
    for statement in scenario.definitions():
        session.execute(statement)
    for name, statement in scenario.procedures().items():
        session.execute(f"DROP PROCEDURE IF EXISTS `{name}`")
        session.execute(statement)
