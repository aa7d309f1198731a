"""Results on the terminal, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from applier.bench.replay import ReplayResult, Run

STDOUT = "-"


def write_json(facts: Mapping[str, Any], place: str) -> None:
    """To a file, or to stdout for `-`."""
    text = json.dumps(facts, indent=1) + "\n"
    if place == STDOUT:
        sys.stdout.write(text)
    else:
        Path(place).write_text(text)


def console(json_place: str | None) -> Console:
    """Where tables go: stdout, unless the JSON goes there."""
    return Console(stderr=json_place == STDOUT)


def on_machine(facts: Mapping[str, Any]) -> str:
    """`2 cores, 23 GiB, MySQL 9.7.4, Python 3.11.2`."""
    machine = facts["machine"]
    mysql = f", MySQL {facts['mysql_version']}" if "mysql_version" in facts else ""
    return f"{machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB{mysql}, Python {machine['python']}"


def replay_tables(result: ReplayResult) -> list[Table]:
    """Speed; what it cost; why."""
    by_name = _by_name(result.runs)
    return [_speed(result, by_name), _cost(by_name), *([why] if (why := _why(by_name)).row_count else [])]


def _by_name(runs: tuple[Run, ...]) -> dict[str, list[Run]]:
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.name, []).append(run)
    return grouped


def _table(title: str, *columns: str, caption: str | None = None) -> Table:
    """The first column holds names, the others numbers."""
    table = Table(title=title, caption=caption)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=number == 0)
    return table


def _speed(result: ReplayResult, by_name: Mapping[str, list[Run]]) -> Table:
    facts = result.as_dict()
    table = _table(
        f"{facts['workload']}: {facts['transactions']:,} transactions, {facts['rows']:,} rows",
        "configuration", "transactions/s", "min … max", "rows/s", "to best stock", "data",
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
    table = _table(
        "Cost: processor time a transaction, memory, commits",
        "configuration", "server µs", "applier µs", "peak MiB", "commits", "COMMIT ms", "binlog MiB",
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


def _why(by_name: Mapping[str, list[Run]]) -> Table:
    """Where the workers' time went, and which stage was the limit."""
    table = Table(title="Why: shares of worker time, and the stage that limited the flow")
    for column in ("configuration", "worker time", "limit"):
        table.add_column(column, no_wrap=column == "configuration")
    for name, runs in by_name.items():
        seen = [run.attribution for run in runs if run.attribution is not None and run.attribution.samples]
        if seen:
            table.add_row(
                name,
                _shares([attribution.workers for attribution in seen]),
                _shares([attribution.stages for attribution in seen]),
            )
    return table


def _shares(many: list[dict[str, float]]) -> str:
    names = {name for one in many for name in one}
    means = {name: sum(one.get(name, 0.0) for one in many) / len(many) for name in names}
    ordered = sorted(means.items(), key=lambda item: -item[1])
    return "; ".join(f"{share:.0%} {name}" for name, share in ordered if share >= 0.01)
