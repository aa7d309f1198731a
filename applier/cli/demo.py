"""`applier demo`: the main job on servers of our own, in one command."""

from __future__ import annotations

import dataclasses
import json
import sys

import click
from rich.console import Console
from rich.table import Table

from applier.cli.live import report_progress
from applier.cli.options import environment_option
from applier.demo import Demo, DemoSettings, DemoSummary


@click.command()
@click.option("--warehouses", type=click.IntRange(1, 64), default=2, help="Size of the TPC-C database.")
@click.option(
    "--scale", type=click.FloatRange(0.01, 1.0), default=0.1, help="Share of the spec's rows a warehouse."
)
@click.option("--seconds", type=click.IntRange(1), default=20, help="How long TPC-C runs on the source.")
@click.option(
    "--terminals", type=click.IntRange(1, 64), default=4, help="Connections that put load on the source."
)
@click.option("--workers", type=click.IntRange(1, 64), default=4, help="Sessions on the target.")
@click.option("--seed", type=int, default=1, help="Of the load's random numbers.")
@click.option(
    "--group-transactions",
    type=click.IntRange(1),
    default=100,
    help="Most transactions that share a commit when there is a backlog; 1: each on its own.",
)
@environment_option(
    "--mysqld",
    type=click.Path(exists=True, dir_okay=False),
    help="The server to use; found or fetched otherwise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def demo(
    warehouses: int,
    scale: float,
    seconds: int,
    terminals: int,
    workers: int,
    seed: int,
    group_transactions: int,
    mysqld: str | None,
    as_json: bool,
) -> None:
    """Start a source and a target, load and run TPC-C on the source while the applier replays it into the target,
    then drain and compare both sides. Exits 0 only if the data are identical."""
    settings = DemoSettings(warehouses, scale, seconds, terminals, workers, seed, group_transactions, mysqld)
    console = Console(stderr=True)
    running = Demo(settings, lambda text: console.print(text, highlight=False))
    with report_progress(running.progress):
        summary = running.run()
    if as_json:
        json.dump(dataclasses.asdict(summary), sys.stdout)
        print()
    else:
        _print(summary)
    sys.exit(0 if summary.identical else 4)


def _print(summary: DemoSummary) -> None:
    table = Table(title="applier demo", show_header=False)
    for name, value in (
        ("transactions replayed", f"{summary.transactions:,}"),
        ("rows replayed", f"{summary.rows:,}"),
        (
            "source's rate under TPC-C",
            f"{summary.source_transactions_per_second:,.0f} transactions/s, {summary.tpmc:,.0f} tpmC",
        ),
        ("replay rate under TPC-C", f"{summary.replay_transactions_per_second:,.0f} transactions/s"),
        ("highest lag", f"{summary.lag_seconds_max:.1f} s"),
        ("time to drain", f"{summary.drain_seconds:.1f} s"),
        ("compared", f"{summary.tables_compared} tables, {summary.rows_compared:,} rows"),
        ("identical", "yes" if summary.identical else "NO"),
    ):
        table.add_row(name, value)
    Console().print(table)
