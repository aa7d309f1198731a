"""What the other benches found, as tables. They take what the JSON holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from applier.bench.output import number_table, on_machine

Facts = Mapping[str, Any]


def pipeline_tables(facts: Facts) -> list[Table]:
    speed = number_table(
        f"Flow without servers, {facts['workload']}: {facts['transactions']:,} transactions, {facts['rows']:,} rows",
        "log",
        "group",
        "decoders",
        "trx/s",
        "MB/s",
        "trx/s/core",
        "µs CPU",
        "µs Python",
        caption=on_machine(facts),
    )  # fmt: skip
    for run in facts["runs"]:
        speed.add_row(
            "compressed" if run["compressed"] else "plain",
            f"{run['group_transactions']:,}{' net' if run['net_changes'] else ''}",
            str(run["decoders"]),
            f"{run['transactions_per_second']:,}",
            f"{run['bytes_per_second'] / 1e6:,.0f}",
            f"{run['transactions_per_second_per_core']:,}",
            f"{run['nanoseconds_per_transaction'] / 1000:.1f}",
            f"{run['python_microseconds_per_transaction']:.1f}",
        )
    stages = number_table(
        "Its stages, in groups", "stage", "ns a transaction", "transactions/s a core", "busy", "was the limit"
    )
    for name, stage in facts["stages"].items():
        stages.add_row(
            name,
            f"{stage['nanoseconds_per_transaction']:,}",
            f"{stage['transactions_per_second_per_core'] or 0:,}",
            f"{stage['busy_share']:.0%}",
            f"{stage['limit_share']:.0%}",
        )
    return [speed, stages]


def decode_table(facts: Facts) -> Table:
    table = number_table(
        f"Decoding on one core, {facts['workload']}: {facts['rows']:,} rows, {facts['bytes'] / 1e6:,.0f} MB",
        "what", "rows/s", "MB/s", "ratio",
        caption=on_machine(facts),
    )  # fmt: skip
    library = facts["mysql_replication_rows_per_second"]
    with_framing = facts["rows_per_second_with_framing"]
    bytes_per_row = facts["bytes"] / facts["rows"]
    for name, rate in (
        ("keys and spans", facts["rows_per_second"]),
        ("with framing and checksums", with_framing),
        ("mysql-replication", library),
    ):
        table.add_row(name, f"{rate:,}", f"{rate * bytes_per_row / 1e6:,.1f}", f"{rate / library:,.0f} x")
    return table


def index_table(facts: Facts) -> Table:
    table = number_table(
        f"Index of last writers, {facts['keys']:,} keys",
        "keys", "layout", "ns a key", "MiB", "checkpoints", "checkpoint µs",
        caption=on_machine(facts),
    )  # fmt: skip
    for keys, one in ((facts["workload"], facts), ("random", facts["random"])):
        for layout, prefix in (("ours", ""), ("study", "study_layout_")):
            table.add_row(
                keys,
                layout,
                f"{one[f'{prefix}ns_per_key']:.1f}",
                f"{one[f'{prefix}bytes'] / 2**20:,.1f}",
                f"{one[f'{prefix}checkpoints']:,}",
                f"{one[f'{prefix}checkpoint_microseconds']:,.1f}",
            )
        table.add_row(
            keys, "Python dict", f"{one['dict_ns_per_key']:.1f}", f"{one['dict_bytes'] / 2**20:,.1f}", "", ""
        )
    return table


def balanced_tables(facts: Facts) -> list[Table]:
    return [_balanced_rates(facts), _balanced_processor_time(facts)]


def _balanced_rates(facts: Facts) -> Table:
    ratio = "" if facts["ratio"] is None else f", ratio {facts['ratio']:.2f}"
    if len(facts["rounds"]) > 1 and facts["ratios"]:
        ratio += f" ({facts['ratios']['min']:.2f} … {facts['ratios']['max']:.2f})"
    table = number_table(
        f"Balanced replay speed, {facts['workload']}{ratio}",
        "who",
        "trx/s",
        "workload's trx/s",
        "tpmC",
        "held",
        "failed at",
        "limit",
        caption=f"{facts['rule']}\n{on_machine(facts)}",
    )
    for side in ("applier", "stock"):
        one = facts[side]
        table.add_row(
            one["name"],
            f"{one['transactions_per_second']:,.0f}",
            f"{one['workload_transactions_per_second']:,.0f}",
            f"{one['tpmc']:,.0f}",
            f"{one['confirmed']['held']} of {one['confirmed']['of']}",
            f"{one['failed_at']:,.0f}" if one["failed_at"] else "",
            one["saturated"]["stage"] if one["saturated"] else "",
        )
    return table


def _balanced_processor_time(facts: Facts) -> Table:
    names = ("source", "target", "applier", "load")
    table = number_table("Processor time, µs a transaction of the workload", "who", *names, "all")
    for side in ("applier", "stock"):
        used = facts[side]["cpu_microseconds_per_transaction"]
        cells = [f"{used[name]:,}" if name in used else "" for name in names]
        table.add_row(facts[side]["name"], *cells, f"{sum(used.values()):,}")
    return table
