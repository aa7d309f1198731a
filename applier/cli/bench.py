"""`applier bench …`: measurements, each with a table on the terminal and JSON."""

from __future__ import annotations

from typing import Any

import click

from applier.bench.backlog import opened
from applier.bench.balanced import BalancedBench, bench_balanced
from applier.bench.configurations import DEFAULT_NAMES, NAMED, Configuration, built, named, stock
from applier.bench.decode import bench_decode
from applier.bench.index import bench_index
from applier.bench.pipeline import PipelineBench, bench_pipeline
from applier.bench.plots import (
    balanced_figures,
    decode_figures,
    index_figures,
    pipeline_figures,
    replay_figures,
)
from applier.bench.replay import bench_replay
from applier.bench.replay_result import ReplayBench
from applier.bench.replay_tables import replay_tables
from applier.bench.search import SearchRule
from applier.bench.tables import balanced_tables, decode_table, index_table, pipeline_tables
from applier.cli.bench_options import (
    BacklogChoice,
    Outputs,
    backlog_options,
    ended_by_sigterm,
    numbers,
    output_options,
    teller,
)
from applier.errors import DataError, UsageError


@click.group()
def bench() -> None:
    """Measure: replay against the stock replica, balanced speed, the pipeline and its kernels alone.

    Backlogs are made once and kept in the cache folder; figures say on which machine and with which settings they
    were taken."""


# --- replay --------------------------------------------------------------------------------------------


@bench.command()
@backlog_options
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option(
    "--config",
    "names",
    multiple=True,
    metavar="NAME",
    help=f"A configuration by name: {', '.join(NAMED)}, with @N for N workers. Repeatable.  "
    f"[default: {', '.join(DEFAULT_NAMES)}]",
)
@click.option(
    "--group-transactions", type=click.IntRange(1), help="Builds a configuration: transactions a group."
)
@click.option(
    "--net-changes/--no-net-changes", default=None, help="Builds a configuration: fold the rows of a group."
)
@click.option(
    "--target-gtids", type=click.Choice(["preserve", "own"]), help="Builds a configuration: whose GTIDs."
)
@click.option(
    "--workers", type=click.IntRange(1, 256), help="Builds a configuration: sessions on the target."
)
@click.option("--commit-order", type=click.Choice(["strict", "relaxed"]), help="Builds a configuration.")
@click.option(
    "--stock",
    "stock_workers",
    default="4,8,16",
    metavar="N,N,…",
    help="Stock replicas to race against, by their workers; empty for none.",
)
@output_options
def replay(
    *,
    choice: BacklogChoice,
    rounds: int,
    names: tuple[str, ...],
    stock_workers: str,
    outputs: Outputs,
    **options: Any,
) -> None:
    """Drain one backlog with the applier in each configuration and with the stock replica, in turn, on fresh copies
    of the same data, and compare the data afterwards. Exits 4 if they differ.

    The applier's time holds everything from its first connection to its last commit. The stock replica's holds its
    SQL threads only: its relay log is complete before they start."""
    configurations = configurations_of(names, stock_workers, options)
    plan = ReplayBench(choice.spec, configurations, rounds, choice.target_options)
    with ended_by_sigterm():
        result = bench_replay(plan, folder=choice.folder, mysqld=choice.mysqld, say=teller())
    outputs.write("bench replay", result.as_dict(), replay_tables(result), replay_figures)
    if not result.identical:
        differing = sorted({run.name for run in result.runs if not run.identical})
        raise DataError(detail=f"source and target differ after {', '.join(differing)}")


def configurations_of(
    names: tuple[str, ...], stock_workers: str, options: dict[str, Any]
) -> tuple[Configuration, ...]:
    """Those that were named, the one that options build, and the stock replicas. Raises UsageError."""
    chosen = [named(name) for name in names]
    if given := {name: value for name, value in options.items() if value is not None}:
        chosen.append(built(**given))
    if not chosen:
        chosen = [named(name) for name in DEFAULT_NAMES]
    chosen += [stock(workers) for workers in numbers("--stock", stock_workers)]
    return tuple(dict.fromkeys(chosen))


# --- balanced ------------------------------------------------------------------------------------------


@bench.command()
@backlog_options
@click.option(
    "--config",
    "name",
    default="net-1000-delay-50",
    metavar="NAME",
    help=f"One of {', '.join(NAMED)}, with @N for N workers.",
)
@click.option(
    "--stock", "stock_workers", type=click.IntRange(1), default=8, help="Workers of the stock replica."
)
@click.option(
    "--trial-seconds", type=click.FloatRange(min=1), default=20.0, help="How long each rate is tried."
)
@click.option(
    "--start-rate", type=click.FloatRange(min=1), default=500.0, help="The first rate that is tried."
)
@click.option(
    "--resolution",
    type=click.FloatRange(0.01, 1.0),
    default=0.05,
    help="How far the rate that failed may be above the one that held.",
)
@click.option("--confirmations", type=click.IntRange(0), default=2, help="Further trials at the rate found.")
@click.option("--rounds", type=click.IntRange(1), default=1, help="How often both are measured, in turn.")
@output_options
def balanced(
    *,
    choice: BacklogChoice,
    name: str,
    stock_workers: int,
    trial_seconds: float,
    start_rate: float,
    resolution: float,
    confirmations: int,
    rounds: int,
    outputs: Outputs,
) -> None:
    """Find the highest rate of a live source at which the lag of its replica does not grow: for the applier, then for
    the stock replica. Source, target, load and applier share this machine.

    With several rounds the result is the round whose ratio is in the middle, and the spread of all ratios."""
    rule = SearchRule(start_rate, resolution, confirmations)
    plan = BalancedBench(
        choice.spec, named(name), stock(stock_workers), trial_seconds, rounds, rule, choice.target_options
    )
    with ended_by_sigterm():
        facts = bench_balanced(plan, folder=choice.folder, mysqld=choice.mysqld, say=teller())
    outputs.write("bench balanced", facts, balanced_tables(facts), balanced_figures)


# --- the flow and its kernels --------------------------------------------------------------------------


@bench.command()
@backlog_options
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--decoders", default="1,2,4", metavar="N,N,…", help="Decoding threads to try.")
@click.option("--group-transactions", type=click.IntRange(1), default=100, help="Transactions a group.")
@click.option("--workers", type=click.IntRange(1, 256), default=8)
@click.option("--compression/--no-compression", default=True, help="Also measure a compressed log.")
@click.option(
    "--net-changes/--no-net-changes", default=True, help="Also measure groups whose rows are folded."
)
@output_options
def pipeline(
    *,
    choice: BacklogChoice,
    rounds: int,
    decoders: str,
    group_transactions: int,
    workers: int,
    compression: bool,
    net_changes: bool,
    outputs: Outputs,
) -> None:
    """Run a backlog through the applier without servers: recorded bytes at its start, at its end sinks that
    acknowledge at once. One by one, in groups and with net changes; with each number of decoders; of plain and of
    compressed logs."""
    plan = PipelineBench(
        choice.spec,
        numbers("--decoders", decoders),
        group_transactions,
        workers,
        rounds,
        compression,
        net_changes,
    )
    with ended_by_sigterm():
        facts = bench_pipeline(plan, folder=choice.folder, mysqld=choice.mysqld, say=teller())
    outputs.write("bench pipeline", facts, pipeline_tables(facts), pipeline_figures)


@bench.command()
@backlog_options
@click.option("--rounds", type=click.IntRange(1), default=3)
@output_options
def decode(*, choice: BacklogChoice, rounds: int, outputs: Outputs) -> None:
    """Decode a backlog on one core: keys and spans of all rows; and by the library mysql-replication."""
    with (
        ended_by_sigterm(),
        opened(choice.spec, choice.folder, mysqld=choice.mysqld, say=teller()) as backlog,
    ):
        facts = bench_decode(backlog, rounds)
    outputs.write("bench decode", facts, [decode_table(facts)], decode_figures)


@bench.command()
@backlog_options
@click.option("--rounds", type=click.IntRange(1), default=3)
@output_options
def index(*, choice: BacklogChoice, rounds: int, outputs: Outputs) -> None:
    """Look up and record the keys of a backlog, and as many random ones, in the index of last writers, in the layout
    of the study that it comes from, and in a Python dict."""
    with (
        ended_by_sigterm(),
        opened(choice.spec, choice.folder, mysqld=choice.mysqld, say=teller()) as backlog,
    ):
        facts = bench_index(backlog, rounds)
    if not facts["keys"]:
        raise UsageError(detail="the backlog touches no keys")
    outputs.write("bench index", facts, [index_table(facts)], index_figures)
