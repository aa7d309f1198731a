"""`bench balanced`: the highest rate of a live source at which a replica's lag does not grow.

The applier and the stock replica are measured in turn, once a round, each with a source and a target just started on
fresh copies of the same data, on the same machine as both servers and the load. Between trials the target catches up.
Machines get faster and slower by the minute: only rates of the same round are compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from applier.bench import stock
from applier.bench.backlog import SOURCE_OPTIONS, Backlog, BacklogSpec, Say, opened
from applier.bench.configurations import Configuration
from applier.bench.follow import FollowRequest, following
from applier.bench.lag import (
    BINS,
    RULE,
    LagSample,
    LagWatcher,
    SourceTransactions,
    grows,
    growth,
    gtids_of,
)
from applier.bench.machine import cpu_seconds, machine, server_settings
from applier.bench.search import Search, SearchRule, highest_held
from applier.bench.statistics import spread
from applier.bench.stock_states import StockStates
from applier.errors import UnexpectedFailure, UsageError
from applier.events.gtid import GtidSet
from applier.observe.sampling import Attribution
from applier.sandbox import Server
from applier.sandbox.replication import account_password
from applier.workload import Workload, WorkloadResult

WARM_UP_SHARE = 0.25
TRIAL_SECONDS_MIN = 1.0
SAMPLE_SECONDS_MAX = 0.2
CATCH_UP_SECONDS = 300.0
POLL_SECONDS = 0.05
SOURCE_SHARE_MIN = 0.95  # a source that reaches less of the wanted rate is at its limit
ROUND_KEYS = ("transactions_per_second", "workload_transactions_per_second", "tpmc", "source_limited")


@dataclass(frozen=True, slots=True)
class BalancedBench:
    """What to measure. Of `backlog` only the starting data are used; its servers' options count."""

    backlog: BacklogSpec
    applier: Configuration
    stock: Configuration
    trial_seconds: float = 20.0
    rounds: int = 1
    rule: SearchRule = SearchRule()
    target_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.applier.pipeline_settings()
        if self.trial_seconds < TRIAL_SECONDS_MIN:
            raise UsageError(
                detail=f"trials of less than {TRIAL_SECONDS_MIN:g} s cannot tell whether lag grows"
            )

    @property
    def sample_seconds(self) -> float:
        """Between samples: three for each mean at least, or the trend would be one of single samples."""
        return min(SAMPLE_SECONDS_MAX, self.trial_seconds * (1 - WARM_UP_SHARE) / (3 * BINS))


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate, tried for a while. `rate` counts the workload's transactions, read-only ones included."""

    rate: float
    load: WorkloadResult
    samples: list[LagSample]
    held: bool
    source_limited: bool
    slope: float
    attribution: Attribution
    cpu_microseconds: Mapping[str, float]
    """Processor time for each transaction of the workload: of source, target, applier, and the load itself."""

    @property
    def replicated_per_second(self) -> float:
        """Transactions that the source wrote to its log."""
        last = self.samples[-1]
        return last.source_transactions / last.seconds

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the samples."""
        return {
            "rate": round(self.rate, 1),
            "held": self.held,
            "source_limited": self.source_limited,
            "workload_transactions_per_second": round(self.load.transactions_per_second, 1),
            "transactions_per_second": round(self.replicated_per_second, 1),
            "tpmc": round(self.load.tpmc, 1),
            "lag_growth_per_second": round(self.slope, 1),
            "lag_seconds_at_end": round(self.samples[-1].lag_seconds, 2),
            "cpu_microseconds_per_transaction": {
                name: round(microseconds) for name, microseconds in self.cpu_microseconds.items()
            },
        }


class Side:
    """A live source and whoever follows it."""

    def __init__(
        self,
        source: Server,
        target: Server,
        workload: Workload,
        before: GtidSet,
        attribution: Callable[[], Attribution],
        require_running: Callable[[], None],
        applier_pid: int | None = None,
    ) -> None:
        self.settings = {"source": server_settings(source), "target": server_settings(target)}
        self._source = source
        self._workload = workload
        self._attribution = attribution
        self._require_running = require_running
        self._pids = {"source": source.pid, "target": target.pid, "applier": applier_pid, "load": os.getpid()}
        of_source = gtids_of(source)
        self._made = SourceTransactions(source, before, of_source)
        self._applied = SourceTransactions(target, before, of_source)

    def trial(self, rate: float, seconds: float, sample_seconds: float) -> Trial:
        """Raises what workload, applier or replica raise."""
        self._catch_up()
        self._attribution()
        before = self._cpu_seconds()
        with LagWatcher(self._made, self._applied, sample_seconds) as watcher:
            load = self._workload.run(self._source.connect, seconds=seconds, rate=rate)
        cpu = {name: after - before[name] for name, after in self._cpu_seconds().items()}
        attribution = self._attribution()
        warm_up = seconds * WARM_UP_SHARE
        made = watcher.samples[-1]
        return Trial(
            rate,
            load,
            watcher.samples,
            held=not grows(watcher.samples, made.source_transactions / made.seconds, warm_up),
            source_limited=load.transactions_per_second < SOURCE_SHARE_MIN * rate,
            slope=growth(watcher.samples, warm_up).slope,
            attribution=attribution,
            cpu_microseconds={name: used * 1e6 / max(1, load.transactions) for name, used in cpu.items()},
        )

    def _cpu_seconds(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._pids.items() if pid is not None}

    def _catch_up(self) -> None:
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while self._applied() < self._made():
            self._require_running()
            if time.monotonic() > deadline:
                raise UnexpectedFailure(
                    detail=f"the target has not caught up within {CATCH_UP_SECONDS:.0f} s"
                )
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        self._made.close()
        self._applied.close()


@contextmanager
def _side(backlog: Backlog, bench: BalancedBench, configuration: Configuration) -> Iterator[Side]:
    with ExitStack() as stack:
        source_options = {**SOURCE_OPTIONS, **bench.backlog.source_options}
        source = stack.enter_context(backlog.fresh("live", source_options))
        target = stack.enter_context(backlog.fresh("target", bench.target_options))
        attribution: Callable[[], Attribution]
        applier_pid = None
        if configuration.kind == "applier":
            follower = stack.enter_context(following(FollowRequest(source.url, target.url, configuration)))
            attribution, require_running = follower.attribution, follower.require_running
            applier_pid = follower.pid
        else:
            stock.point(target, source, configuration.workers, account_password(backlog.sandbox.directory))
            target.execute("START REPLICA")
            attribution = stack.enter_context(StockStates(target)).attribution
            require_running = lambda: stock.raise_on_failure(target)  # noqa: E731
        side = Side(
            source,
            target,
            bench.backlog.made(),
            backlog.start_gtids,
            attribution,
            require_running,
            applier_pid,
        )
        stack.callback(side.close)
        yield side


def bench_balanced(
    bench: BalancedBench,
    *,
    folder: Path | None = None,
    mysqld: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """For JSON. Raises what servers, workload, applier or replica raise."""
    rounds: list[dict[str, Any]] = []
    with opened(bench.backlog, folder, mysqld=mysqld, say=say) as backlog:
        for number in range(1, bench.rounds + 1):
            found: dict[str, Any] = {}
            for name, configuration in (("applier", bench.applier), ("stock", bench.stock)):
                say(f"round {number} of {bench.rounds}, {name}: {configuration.name}")
                with _side(backlog, bench, configuration) as side:
                    found[name] = _searched(side, bench, configuration, say)
                    settings = side.settings
            rounds.append(found | {"ratio": _ratio(found)})
        version = backlog.facts.mysql_version
    ratios = [one["ratio"] for one in rounds if one["ratio"] is not None]
    return {
        "workload": bench.backlog.workload,
        "parameters": bench.backlog.settings(),
        **_median_round(rounds),
        "ratios": spread(ratios) if ratios else None,
        "rounds": [
            {
                "ratio": one["ratio"],
                **{side: {key: one[side][key] for key in ROUND_KEYS} for side in ("applier", "stock")},
            }
            for one in rounds
        ],
        "rule": RULE,
        "resolution": bench.rule.resolution,
        "trial_seconds": bench.trial_seconds,
        "machine": machine(),
        "mysql_version": version,
        "settings": settings,
    }


def _searched(side: Side, bench: BalancedBench, configuration: Configuration, say: Say) -> dict[str, Any]:
    def trial(rate: float) -> Trial:
        tried = side.trial(rate, bench.trial_seconds, bench.sample_seconds)
        say(_line(tried))
        return tried

    return _facts(configuration, highest_held(trial, bench.rule))


def _ratio(found: Mapping[str, Any]) -> float | None:
    stock_rate = found["stock"]["transactions_per_second"]
    return round(found["applier"]["transactions_per_second"] / stock_rate, 3) if stock_rate else None


def _median_round(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The one whose ratio is in the middle: the lower one of two."""
    return sorted(rounds, key=lambda one: one["ratio"] or 0.0)[(len(rounds) - 1) // 2]


def _facts(configuration: Configuration, search: Search[Trial]) -> dict[str, Any]:
    """One side's result. Where nothing held, its rates are 0."""
    held = [trial for trial in search.at(search.rate) if trial.held]
    above = search.at(search.above)
    shown = [*held[-1:], *above[-1:]]
    count, of = search.held
    return {
        "name": configuration.name,
        "workers": configuration.workers,
        "transactions_per_second": round(median(trial.replicated_per_second for trial in held), 1)
        if held
        else 0.0,
        "workload_transactions_per_second": round(search.rate, 1),
        "tpmc": round(median(trial.load.tpmc for trial in held), 1) if held else 0.0,
        "confirmed": {"held": count, "of": of},
        "failed_at": round(search.above, 1) if above else None,
        "source_limited": search.source_limited,
        "saturated": _saturated(shown[-1], search.source_limited) if shown else None,
        "lag": [
            {
                "rate": round(trial.rate, 1),
                "held": trial.held,
                "samples": [one.as_dict() for one in trial.samples],
            }
            for trial in shown
        ],
        "cpu_microseconds_per_transaction": _cpu_of(held),
        "trials": [trial.as_dict() for _, trial in search.trials],
    }


def _cpu_of(trials: list[Trial]) -> dict[str, int]:
    """Medians, by who used it; empty where nothing held."""
    names = trials[0].cpu_microseconds if trials else ()
    return {name: round(median(trial.cpu_microseconds[name] for trial in trials)) for name in names}


def _saturated(trial: Trial, source_limited: bool) -> dict[str, Any]:
    """The stage that limited the highest rate tried, and where the workers' time went there."""
    stages = trial.attribution.stages
    return {
        "stage": "source"
        if source_limited
        else max(stages, key=lambda name: stages[name], default="unknown"),
        "stages": stages,
        "workers": trial.attribution.workers,
    }


def _line(trial: Trial) -> str:
    verdict = "held" if trial.held else "lag grows"
    if trial.source_limited:
        verdict += ", the source is at its limit"
    return (
        f"  {trial.rate:>9,.0f}/s wanted, {trial.load.transactions_per_second:>9,.0f}/s made: {verdict} "
        f"({trial.slope:+,.0f} transactions a second, {trial.samples[-1].lag_seconds:.1f} s behind at the end)"
    )
