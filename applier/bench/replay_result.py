"""What `bench replay` is asked for and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from applier.bench.backlog import BacklogFacts, BacklogSpec
from applier.bench.configurations import Configuration
from applier.bench.statistics import best, ratios, spread
from applier.bench.why import mean
from applier.errors import UsageError
from applier.observe.sampling import Attribution


@dataclass(frozen=True, slots=True)
class ReplayBench:
    """What to measure."""

    backlog: BacklogSpec
    configurations: tuple[Configuration, ...]
    rounds: int = 3
    target_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [configuration.name for configuration in self.configurations]
        if not names or len(set(names)) < len(names):
            raise UsageError(detail="bench replay needs configurations, each once")
        for configuration in self.configurations:
            if configuration.kind == "applier":
                configuration.pipeline_settings()


@dataclass(frozen=True, slots=True)
class Run:
    """One drain. `peak_rss_bytes` is of the process that applies: ours, or for `stock` the server itself, whose
    processor time holds everything. `commit_milliseconds` is what the server took for COMMIT, where it tells."""

    name: str
    kind: str
    round: int
    workers: int
    group_transactions: int
    net_changes: bool
    target_gtids: str
    commit_order: str
    seconds: float
    transactions: int
    rows: int
    server_cpu_seconds: float
    source_cpu_seconds: float
    applier_cpu_seconds: float
    peak_rss_bytes: int
    server_peak_rss_bytes: int
    binlog_bytes_written: int
    commit_milliseconds: dict[str, float]
    identical: bool
    retries: int = 0
    rolled_back_for_others: int = 0
    bytes_read: int = 0
    attribution: Attribution | None = None
    worker_time: dict[str, float] = field(default_factory=dict)

    @property
    def transactions_per_second(self) -> float:
        return self.transactions / self.seconds

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rates = {
            "transactions_per_second": round(self.transactions_per_second, 1),
            "rows_per_second": round(self.rows_per_second, 1),
        }
        return asdict(self) | rates


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """All runs, in the order in which they were made."""

    bench: ReplayBench
    backlog: BacklogFacts
    machine: dict[str, Any]
    settings: dict[str, dict[str, str]]
    runs: tuple[Run, ...]

    @property
    def identical(self) -> bool:
        return all(run.identical for run in self.runs)

    def rates(self) -> dict[str, list[float]]:
        """Transactions per second of each configuration, round by round."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            found.setdefault(run.name, []).append(run.transactions_per_second)
        return found

    @property
    def best_stock(self) -> str | None:
        """The stock replica with the highest median."""
        stocks = {run.name for run in self.runs if run.kind == "stock"}
        return best({name: rates for name, rates in self.rates().items() if name in stocks})

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Of the applier's configurations to the best stock replica, per round."""
        base = self.best_stock
        ours = {run.name for run in self.runs if run.kind == "applier"}
        if base is None:
            return {}
        return ratios({name: rates for name, rates in self.rates().items() if name in ours | {base}}, base)

    def why(self) -> dict[str, dict[str, Any]]:
        """By configuration: shares of worker time, rows waited for (shares of those waits), limiting stages."""
        found = {}
        for name in self.rates():
            runs = [run for run in self.runs if run.name == name and run.attribution is not None]
            seen = [
                run.attribution.stages
                for run in runs
                if run.attribution is not None and run.attribution.samples
            ]
            if seen:
                found[name] = {
                    "worker_time": mean([run.worker_time for run in runs]),
                    "waited_for": mean([run.attribution.rows for run in runs if run.attribution is not None]),
                    "held_up_by": mean(
                        [run.attribution.causes for run in runs if run.attribution is not None]
                    ),
                    "limiting_stage": mean(seen),
                }
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "workload": self.bench.backlog.workload,
            "parameters": self.bench.backlog.settings(),
            "transactions": self.backlog.transactions,
            "rows": self.backlog.rows,
            "bytes": self.backlog.bytes,
            "rounds": self.bench.rounds,
            "runs": [run.as_dict() for run in self.runs],
            "best_stock": self.best_stock,
            "ratios": self.ratios,
            "medians": {name: spread(rates) for name, rates in self.rates().items()},
            "identical": self.identical,
            "why": self.why(),
            "machine": self.machine,
            "mysql_version": self.backlog.mysql_version,
            "settings": self.settings,
        }
