"""What `bench replay` found, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from rich.table import Table

from applier.bench.output import number_table, on_machine
from applier.bench.replay_result import ReplayResult, Run
from applier.bench.why import as_text


def replay_tables(result: ReplayResult) -> list[Table]:
    """Speed; what it cost; why."""
    facts, by_name = result.as_dict(), _by_name(result.runs)
    return [_speed(facts, by_name), _cost(by_name), _why(facts)]


def _by_name(runs: tuple[Run, ...]) -> dict[str, list[Run]]:
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.name, []).append(run)
    return grouped


def _speed(facts: Mapping[str, Any], by_name: Mapping[str, list[Run]]) -> Table:
    table = number_table(
        f"{facts['workload']}: {facts['transactions']:,} transactions, {facts['rows']:,} rows",
        "configuration",
        "trx/s",
        "min … max",
        "rows/s",
        "to best stock",
        "data",
        caption=on_machine(facts),
    )
    for name, runs in by_name.items():
        rates = [run.transactions_per_second for run in runs]
        ratio = facts["ratios"].get(name)
        table.add_row(
            name,
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f} … {max(rates):,.0f}",
            f"{median(run.rows_per_second for run in runs):,.0f}",
            f"{ratio['median']:.2f} x" if ratio else ("best" if name == facts["best_stock"] else ""),
            "identical" if all(run.identical for run in runs) else "DIFFERENT",
        )
    return table


def _cost(by_name: Mapping[str, list[Run]]) -> Table:
    table = number_table(
        "Cost: processor time a transaction, memory, commits",
        "configuration",
        "server µs",
        "applier µs",
        "peak MiB",
        "commits",
        "COMMIT ms",
        "binlog MiB",
    )
    for name, runs in by_name.items():
        per_transaction = 1e6 / runs[0].transactions
        ours = runs[0].kind == "applier"
        commits = [run.commit_milliseconds for run in runs if run.commit_milliseconds]
        table.add_row(
            name,
            f"{median(run.server_cpu_seconds for run in runs) * per_transaction:,.0f}",
            f"{median(run.applier_cpu_seconds for run in runs) * per_transaction:,.0f}" if ours else "",
            f"{max(run.peak_rss_bytes for run in runs) / 2**20:,.0f}",
            f"{median(commit['count'] for commit in commits):,.0f}" if commits else "",
            f"{median(commit['mean'] for commit in commits):.2f}" if commits else "",
            f"{median(run.binlog_bytes_written for run in runs) / 2**20:,.1f}",
        )
    return table


def _why(facts: Mapping[str, Any]) -> Table:
    """Where the workers' time went, which rows they waited for, and which stage was the limit."""
    table = Table(
        title="Why: shares of worker time (and of waits, the rows waited for), and the limiting stage"
    )
    for column in ("configuration", "worker time", "held up by", "limit"):
        table.add_column(column, no_wrap=column == "configuration")
    for name, one in facts["why"].items():
        table.add_row(
            name,
            as_text(one["worker_time"], one["waited_for"]),
            as_text(one["held_up_by"]),
            as_text(one["limiting_stage"]),
        )
    return table
