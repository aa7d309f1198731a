"""`bench balanced`: the highest rate of a live source at which a replica's lag does not grow.

The applier and the stock replica are measured one after the other, each with a source and a target just started on
fresh copies of the same data, on the same machine as both servers and the load. Between trials the target catches up.
"""

from __future__ import annotations

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
from applier.bench.machine import machine, server_settings
from applier.bench.search import Search, SearchRule, highest_held
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


@dataclass(frozen=True, slots=True)
class BalancedBench:
    """What to measure. Of `backlog` only the starting data are used; its servers' options count."""

    backlog: BacklogSpec
    applier: Configuration
    stock: Configuration
    trial_seconds: float = 20.0
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
    ) -> None:
        self.settings = {"source": server_settings(source), "target": server_settings(target)}
        self._source = source
        self._workload = workload
        self._attribution = attribution
        self._require_running = require_running
        of_source = gtids_of(source)
        self._made = SourceTransactions(source, before, of_source)
        self._applied = SourceTransactions(target, before, of_source)

    def trial(self, rate: float, seconds: float, sample_seconds: float) -> Trial:
        """Raises what workload, applier or replica raise."""
        self._catch_up()
        self._attribution()
        with LagWatcher(self._made, self._applied, sample_seconds) as watcher:
            load = self._workload.run(self._source.connect, seconds=seconds, rate=rate)
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
        )

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
        if configuration.kind == "applier":
            follower = stack.enter_context(following(FollowRequest(source.url, target.url, configuration)))
            attribution, require_running = follower.attribution, follower.require_running
        else:
            stock.point(target, source, configuration.workers, account_password(backlog.sandbox.directory))
            target.execute("START REPLICA")
            attribution = stack.enter_context(StockStates(target)).attribution
            require_running = lambda: stock.raise_on_failure(target)  # noqa: E731
        side = Side(source, target, bench.backlog.made(), backlog.start_gtids, attribution, require_running)
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
    found: dict[str, dict[str, Any]] = {}
    with opened(bench.backlog, folder, mysqld=mysqld, say=say) as backlog:
        for name, configuration in (("applier", bench.applier), ("stock", bench.stock)):
            say(f"{name}: {configuration.name}")
            with _side(backlog, bench, configuration) as side:

                def trial(rate: float, side: Side = side) -> Trial:
                    tried = side.trial(rate, bench.trial_seconds, bench.sample_seconds)
                    say(_line(tried))
                    return tried

                settings = side.settings
                found[name] = _facts(configuration, highest_held(trial, bench.rule))
        version = backlog.facts.mysql_version
    rates = {name: facts["transactions_per_second"] for name, facts in found.items()}
    return {
        "workload": bench.backlog.workload,
        "parameters": bench.backlog.settings(),
        **found,
        "ratio": round(rates["applier"] / rates["stock"], 3) if rates["stock"] else None,
        "rule": RULE,
        "resolution": bench.rule.resolution,
        "trial_seconds": bench.trial_seconds,
        "machine": machine(),
        "mysql_version": version,
        "settings": settings,
    }


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
        "trials": [trial.as_dict() for _, trial in search.trials],
    }


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
