"""`bench replay`: the same backlog drained by the applier in each configuration and by the stock replica, in turn.

Each run gets a server just started on a fresh copy of the same data. Before the clock starts all tables are read once
(that warms the buffer pool and shows that the copy is right) and dirty pages of the copying are written out. After it
all tables are compared with the source's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from applier.bench import stock
from applier.bench.backlog import (
    Backlog,
    BacklogFacts,
    BacklogSpec,
    Say,
    binlog_files,
    checksums,
    opened,
    tables,
)
from applier.bench.configurations import Configuration
from applier.bench.drain import DrainRequest, DrainResult, drain_apart
from applier.bench.machine import cpu_seconds, machine, peak_rss_bytes, server_settings
from applier.bench.sampling import Attribution
from applier.bench.statistics import best, ratios, spread
from applier.errors import DataError, UsageError
from applier.sandbox import Server


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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "workload": self.bench.backlog.workload,
            "parameters": dict(self.bench.backlog.parameters),
            "transactions": self.backlog.transactions,
            "rows": self.backlog.rows,
            "bytes": self.backlog.bytes,
            "rounds": self.bench.rounds,
            "runs": [run.as_dict() for run in self.runs],
            "best_stock": self.best_stock,
            "ratios": self.ratios,
            "medians": {name: spread(rates) for name, rates in self.rates().items()},
            "identical": self.identical,
            "machine": self.machine,
            "mysql_version": self.backlog.mysql_version,
            "settings": self.settings,
        }


def bench_replay(
    bench: ReplayBench,
    *,
    folder: Path | None = None,
    mysqld: Path | None = None,
    say: Say = lambda text: None,
) -> ReplayResult:
    """Raises UsageError, PreflightFailed, and DataError when a replay stops on the data. A replay that ends with
    other data than the source's is told by `identical`."""
    runs: list[Run] = []
    settings: dict[str, dict[str, str]] = {}
    with opened(bench.backlog, folder, mysqld=mysqld, say=say) as backlog:
        settings["source"] = server_settings(backlog.source)
        for number in range(1, bench.rounds + 1):
            for configuration in in_turn(bench.configurations, number):
                with backlog.fresh("target", bench.target_options) as target:
                    settings["target"] = server_settings(target)
                    run = _run(backlog, target, configuration, number)
                say(
                    f"round {number}: {run.name:<24} {run.transactions_per_second:>9,.0f} transactions/s"
                    f"{'' if run.identical else '  DATA DIFFER'}"
                )
                runs.append(run)
        return ReplayResult(bench, backlog.facts, machine(), settings, tuple(runs))


def in_turn(configurations: Sequence[Configuration], number: int) -> list[Configuration]:
    """Each round begins with another one: whoever comes first after a pause has no lasting advantage."""
    first = (number - 1) % len(configurations)
    return [*configurations[first:], *configurations[:first]]


def _run(backlog: Backlog, target: Server, configuration: Configuration, number: int) -> Run:
    _require_start(backlog, target)
    if configuration.kind == "stock":
        stock.receive(target, backlog, configuration.workers)
    os.sync()
    source_pid, target_pid = _pid(backlog.source), _pid(target)
    binlog_before = _binlog_bytes(target)
    source_cpu, target_cpu = cpu_seconds(source_pid), cpu_seconds(target_pid)
    drained = _replay(backlog, target, configuration)
    source_cpu, target_cpu = cpu_seconds(source_pid) - source_cpu, cpu_seconds(target_pid) - target_cpu
    commits = commit_milliseconds(target)
    server_rss = peak_rss_bytes(target_pid)
    ours = configuration.kind == "applier"
    return Run(
        **{name: value for name, value in asdict(configuration).items() if name != "decoders"},
        round=number,
        seconds=drained.seconds,
        transactions=backlog.facts.transactions,
        rows=backlog.facts.rows,
        server_cpu_seconds=target_cpu,
        source_cpu_seconds=source_cpu,
        applier_cpu_seconds=drained.cpu_seconds,
        peak_rss_bytes=drained.peak_rss_bytes if ours else server_rss,
        server_peak_rss_bytes=server_rss,
        binlog_bytes_written=_binlog_bytes(target) - binlog_before,
        commit_milliseconds=commits if ours else {},
        identical=backlog.is_replayed(target),
        retries=drained.retries,
        rolled_back_for_others=drained.rolled_back_for_others,
        bytes_read=drained.bytes_read,
        attribution=drained.attribution if ours else None,
    )


def _require_start(backlog: Backlog, target: Server) -> None:
    if not any(value for value in checksums(target, tables(target)).values()):
        raise DataError(detail="the copy of the starting data holds no rows; delete the kept backlog")


def _replay(backlog: Backlog, target: Server, configuration: Configuration) -> DrainResult:
    end = backlog.facts.end_gtids
    if configuration.kind == "stock":
        return DrainResult(
            stock.apply(target, end), 0.0, 0, backlog.facts.transactions, 0, 0, 0, 0, Attribution()
        )
    return drain_apart(DrainRequest(backlog.source.url, target.url, end, configuration))


def _pid(server: Server) -> int:
    if server.pid is None:
        raise DataError(detail=f"the server {server.name} has died; see {server.error_log}")
    return server.pid


def _binlog_bytes(server: Server) -> int:
    return sum((server.datadir / name).stat().st_size for name in binlog_files(server))


def commit_milliseconds(server: Server) -> dict[str, float]:
    """How long COMMIT took in the server since its start, by the server's own histogram; empty if there was none.

    The stock replica's commits are no statements, so this does not see them.
    """
    rows = server.execute(
        "SELECT count_star, avg_timer_wait, quantile_95, quantile_99, max_timer_wait"
        " FROM performance_schema.events_statements_summary_by_digest WHERE digest_text = 'COMMIT'"
    )
    if not rows:
        return {}
    count, *picoseconds = rows[0]
    names = ("mean", "p95", "p99", "max")
    return {"count": float(count)} | {
        name: round(float(value) / 1e9, 3) for name, value in zip(names, picoseconds, strict=True)
    }
