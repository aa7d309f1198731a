"""The demo: source and target in a sandbox, TPC-C on the source, the applier between them, and a comparison."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from applier.address import ServerAddress, parse_url
from applier.pipeline import PipelineSettings
from applier.replay import Progress, Replay
from applier.sandbox import Sandbox, Server
from applier.settings import RunSettings
from applier.verify import VerifyOptions, verify
from applier.workload import workload_named
from scheduler.grouping import GroupLimits

LAG_SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Size and length of the demo."""

    warehouses: int = 2
    scale: float = 0.1
    seconds: int = 20
    terminals: int = 4
    workers: int = 8
    seed: int = 1
    group_transactions: int = 100
    mysqld: str | None = None


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What came of it. The rates are those of the TPC-C phase; counts include the loading."""

    transactions: int
    rows: int
    source_transactions_per_second: float
    tpmc: float
    replay_transactions_per_second: float
    lag_seconds_max: float
    drain_seconds: float
    tables_compared: int
    rows_compared: int
    identical: bool


class Demo:
    """`run` once; `progress` from another thread meanwhile."""

    def __init__(self, settings: DemoSettings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self._say = say
        self._replay: Replay | None = None
        self._lag_seconds_max = 0.0
        self._failure: BaseException | None = None

    def progress(self) -> Progress:
        return self._replay.progress() if self._replay is not None else Progress()

    def run(self) -> DemoSummary:
        """Raises what any of its parts raises."""
        mysqld = None if self.settings.mysqld is None else Path(self.settings.mysqld)
        self._say("starting a source and a target")
        with Sandbox(servers=("source", "target"), mysqld=mysqld) as sandbox:
            return self._replay_under_load(sandbox["source"], sandbox["target"])

    def _replay_under_load(self, source: Server, target: Server) -> DemoSummary:
        settings = self.settings
        addresses = _address(source, "source"), _address(target, "target")
        pipeline = PipelineSettings(
            workers=settings.workers,
            group=GroupLimits(settings.group_transactions),
            net_changes=settings.group_transactions > 1,
        )
        self._replay = Replay(RunSettings(*addresses, pipeline=pipeline))
        applying = threading.Thread(target=self._apply, args=(self._replay,), name="replay", daemon=True)
        applying.start()
        watching = threading.Event()
        watcher = threading.Thread(target=self._watch_lag, args=(watching,), name="lag", daemon=True)
        watcher.start()
        try:
            workload = workload_named(
                "tpcc",
                warehouses=settings.warehouses,
                scale=settings.scale,
                terminals=settings.terminals,
                seed=settings.seed,
            )
            self._say(
                f"loading TPC-C with {settings.warehouses} warehouses on the source, replaying meanwhile"
            )
            workload.prepare(source.connect)
            self._say(f"running TPC-C for {settings.seconds} s on the source, replaying meanwhile")
            before, started = self.progress(), time.monotonic()
            load = workload.run(source.connect, seconds=settings.seconds)
            under_load = self.progress().transactions - before.transactions
            under_load_seconds = time.monotonic() - started
            self._say("load ended: draining")
            drain_seconds = self._drain(source, target)
            summary = self.progress()
            self._say("comparing source and target")
            report = verify(*addresses, VerifyOptions())
        finally:
            watching.set()
            self._replay.drain()
            applying.join()
            watcher.join()
        if self._failure is not None:
            raise self._failure
        return DemoSummary(
            transactions=summary.transactions,
            rows=summary.rows,
            source_transactions_per_second=load.transactions_per_second,
            tpmc=load.tpmc,
            replay_transactions_per_second=under_load / under_load_seconds,
            lag_seconds_max=self._lag_seconds_max,
            drain_seconds=drain_seconds,
            tables_compared=len(report.tables),
            rows_compared=report.rows,
            identical=report.identical,
        )

    def _apply(self, replay: Replay) -> None:
        try:
            replay.run()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for the replay
            self._failure = error

    def _watch_lag(self, stop: threading.Event) -> None:
        while not stop.wait(LAG_SAMPLE_SECONDS):
            self._lag_seconds_max = max(self._lag_seconds_max, self.progress().lag_seconds)

    def _drain(self, source: Server, target: Server) -> float:
        """Seconds until the target has everything that the source has now."""
        started = time.monotonic()
        ((executed,),) = source.execute("SELECT @@GLOBAL.gtid_executed")
        while self._failure is None:
            ((timed_out,),) = target.execute("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 1)", (executed,))
            if not timed_out:
                break
        if self._failure is not None:
            raise self._failure
        return time.monotonic() - started


def _address(server: Server, role: str) -> ServerAddress:
    return parse_url(server.url, "source" if role == "source" else "target", prompt=False)
