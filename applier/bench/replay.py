"""`bench replay`: the same backlog drained by the applier in each configuration and by the stock replica, in turn.

Each run gets a server just started on a fresh copy of the same data. Before the clock starts all tables are read once
(that warms the buffer pool and shows that the copy is right) and dirty pages of the copying are written out. After it
all tables are compared with the source's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from applier.bench import stock, why
from applier.bench.backlog import Backlog, Say, checksums, opened, tables
from applier.bench.configurations import Configuration
from applier.bench.drain import DrainRequest, DrainResult, drain_apart
from applier.bench.machine import machine, server_settings
from applier.bench.meter import Meter, commit_milliseconds
from applier.bench.replay_result import ReplayBench, ReplayResult, Run
from applier.bench.stock_states import StockStates
from applier.errors import DataError
from applier.sandbox import Server


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


# Of a configuration: the same in all replays, or without effect on a backlog.
UNRECORDED = frozenset({"decoders", "group_delay_milliseconds"})


def in_turn(configurations: Sequence[Configuration], number: int) -> list[Configuration]:
    """Each round begins with another one: whoever comes first after a pause has no lasting advantage."""
    first = (number - 1) % len(configurations)
    return [*configurations[first:], *configurations[:first]]


def _run(backlog: Backlog, target: Server, configuration: Configuration, number: int) -> Run:
    _require_start(backlog, target)
    ours = configuration.kind == "applier"
    if not ours:
        stock.receive(target, backlog, configuration.workers)
    os.sync()
    meter = Meter(backlog.source, target)
    drained = _drain(backlog, target, configuration) if ours else _stock_drain(backlog, target)
    spent = meter.read()
    worker_time = drained.attribution.workers
    if ours:
        worker_time = why.shares(drained.attribution, spent.in_server, configuration.workers, drained.seconds)
    return Run(
        **{name: value for name, value in asdict(configuration).items() if name not in UNRECORDED},
        round=number,
        seconds=drained.seconds,
        transactions=backlog.facts.transactions,
        rows=backlog.facts.rows,
        server_cpu_seconds=spent.target_cpu_seconds,
        source_cpu_seconds=spent.source_cpu_seconds,
        applier_cpu_seconds=drained.cpu_seconds,
        peak_rss_bytes=drained.peak_rss_bytes if ours else spent.target_peak_rss_bytes,
        server_peak_rss_bytes=spent.target_peak_rss_bytes,
        binlog_bytes_written=spent.binlog_bytes,
        commit_milliseconds=commit_milliseconds(target) if ours else {},
        identical=backlog.is_replayed(target),
        retries=drained.retries,
        rolled_back_for_others=drained.rolled_back_for_others,
        bytes_read=drained.bytes_read,
        attribution=drained.attribution,
        worker_time=worker_time,
    )


def _require_start(backlog: Backlog, target: Server) -> None:
    if not any(value for value in checksums(target, tables(target)).values()):
        raise DataError(detail="the copy of the starting data holds no rows; delete the kept backlog")


def _drain(backlog: Backlog, target: Server, configuration: Configuration) -> DrainResult:
    return drain_apart(DrainRequest(backlog.source.url, target.url, backlog.facts.end_gtids, configuration))


def _stock_drain(backlog: Backlog, target: Server) -> DrainResult:
    with StockStates(target) as states:
        seconds = stock.apply(target, backlog.facts.end_gtids)
    return DrainResult(seconds, transactions=backlog.facts.transactions, attribution=states.attribution())
