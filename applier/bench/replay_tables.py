"""What `bench replay` found, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from rich.table import Table

from applier.bench.output import number_table, on_machine
from applier.bench.replay import ReplayResult, Run


def replay_tables(result: ReplayResult) -> list[Table]:
    """Speed; what it cost; why."""
    by_name = _by_name(result.runs)
    return [_speed(result, by_name), _cost(by_name), *([why] if (why := _why(by_name)).row_count else [])]


def _by_name(runs: tuple[Run, ...]) -> dict[str, list[Run]]:
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.name, []).append(run)
    return grouped


def _speed(result: ReplayResult, by_name: Mapping[str, list[Run]]) -> Table:
    facts = result.as_dict()
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
