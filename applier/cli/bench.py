"""`applier bench …`: measurements, each with a table on the terminal and JSON."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console

from applier.bench.backlog import BacklogSpec, Say
from applier.bench.configurations import DEFAULT_NAMES, DEFAULT_WORKERS, Configuration, built, named, stock
from applier.bench.output import console, replay_tables, write_json
from applier.bench.replay import ReplayBench, bench_replay
from applier.errors import DataError, UsageError
from applier.sandbox.options import normalised, parse_settings
from applier.workload import WORKLOADS, parameters_from_text

Command = TypeVar("Command", bound=Callable[..., Any])

# A size that fits a small machine and still has the contention of several warehouses.
DEFAULT_PARAMETERS: dict[str, dict[str, Any]] = {"tpcc": {"warehouses": 4, "scale": 0.2}}


@click.group()
def bench() -> None:
    """Measure: replay against the stock replica, balanced speed, the pipeline and its kernels alone."""


def backlog_options(command: Command) -> Command:
    """What a backlog is made of, and where it is kept."""
    options = [
        click.option("--workload", "workload_name", type=click.Choice(WORKLOADS), default="tpcc"),
        click.option("--transactions", type=click.IntRange(1), default=30_000,
                     help="Of the workload; those that only read are not in the backlog."),
        click.option("--warehouses", type=int, help="Warehouses of TPC-C.  [default: 4]"),
        click.option("--scale", type=float, help="Fraction of the full size of the tables.  [default: 0.2 for TPC-C]"),
        click.option("--seed", type=int, help="Same seed, same rows.  [default: 1]"),
        click.option("--set", "texts", multiple=True, metavar="PARAMETER=VALUE",
                     help="Another parameter of the workload, such as rows-per-transaction=500. Repeatable."),
        click.option("--server-set", "server_texts", multiple=True, metavar="SERVER.OPTION=VALUE",
                     help="An option for mysqld: of source, target or all. Repeatable."),
        click.option("--keep", type=click.Path(file_okay=False, path_type=Path),
                     help="Folder of kept backlogs.  [default: in the user's cache folder]"),
        click.option("--mysqld", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                     envvar="APPLIER_MYSQLD", show_envvar=True, help="The server to use; found or fetched otherwise."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def output_options(command: Command) -> Command:
    """Where results go, besides the terminal."""
    return click.option("--json", "json_place", metavar="FILE", help="Results as JSON; - is stdout.")(command)


def spec_of(
    workload_name: str,
    transactions: int,
    texts: tuple[str, ...],
    server_options: dict[str, dict[str, str]],
    **given: Any,
) -> BacklogSpec:
    """Raises UsageError."""
    typed = {}
    for text in texts:
        parameter, equals, value = text.partition("=")
        if not equals:
            raise UsageError(detail=f"--set takes PARAMETER=VALUE, not {text!r}")
        typed[parameter] = value
    parameters = DEFAULT_PARAMETERS.get(workload_name, {}) | parameters_from_text(workload_name, typed)
    parameters |= {name: value for name, value in given.items() if value is not None}
    spec = BacklogSpec(workload_name, transactions, parameters, server_options.get("source", {}))
    spec.made()
    return spec


def server_options_of(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """For `source` and `target`. Raises UsageError."""
    options = parse_settings(texts)
    if unknown := set(options) - {"source", "target", "all"}:
        raise UsageError(detail=f"--server-set: the servers are source and target, not {unknown.pop()}")
    both = options.get("all", {})
    return {name: normalised({**both, **options.get(name, {})}) for name in ("source", "target")}


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as ^C does, so that servers are stopped and half-made folders deleted."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def teller() -> Say:
    """Progress goes to stderr."""
    screen = Console(stderr=True)
    return lambda text: screen.print(text, highlight=False, markup=False)


# --- replay --------------------------------------------------------------------------------------------


@bench.command()
@backlog_options
@click.option("--rounds", type=click.IntRange(1), default=3)
@click.option("--config", "names", multiple=True, metavar="NAME",
              help="A configuration by name: strict-1, relaxed-1, group-100, group-1000, net-100, net-1000, "
                   f"net-1000-own. Repeatable.  [default: {', '.join(DEFAULT_NAMES)}]")
@click.option("--group-transactions", type=click.IntRange(1), help="Builds a configuration: transactions a group.")
@click.option("--net-changes/--no-net-changes", default=None, help="Builds a configuration: fold the rows of a group.")
@click.option("--target-gtids", type=click.Choice(["preserve", "own"]), help="Builds a configuration: whose GTIDs.")
@click.option("--workers", type=click.IntRange(1, 256), help="Builds a configuration: sessions on the target.")
@click.option("--commit-order", type=click.Choice(["strict", "relaxed"]), help="Builds a configuration.")
@click.option("--stock", "stock_workers", default="4,8,16", metavar="N,N,…",
              help="Stock replicas to race against, by their workers; empty for none.")
@output_options
def replay(
    *,
    workload_name: str,
    transactions: int,
    texts: tuple[str, ...],
    server_texts: tuple[str, ...],
    keep: Path | None,
    mysqld: Path | None,
    rounds: int,
    names: tuple[str, ...],
    stock_workers: str,
    json_place: str | None,
    **options: Any,
) -> None:
    """Drain one backlog with the applier in each configuration and with the stock replica, in turn, on fresh copies
    of the same data, and compare the data afterwards. Exits 4 if they differ.

    The applier's time holds everything from its first connection to its last commit. The stock replica's holds its
    SQL threads only: its relay log is complete before they start."""
    server_options = server_options_of(server_texts)
    given = {name: options.pop(name) for name in ("warehouses", "scale", "seed")}
    spec = spec_of(workload_name, transactions, texts, server_options, **given)
    plan = ReplayBench(spec, configurations_of(names, stock_workers, options), rounds, server_options["target"])
    with ended_by_sigterm():
        result = bench_replay(plan, folder=keep, mysqld=mysqld, say=teller())
    screen = console(json_place)
    for table in replay_tables(result):
        screen.print(table)
    if json_place is not None:
        write_json(result.as_dict(), json_place)
    if not result.identical:
        differing = sorted({run.name for run in result.runs if not run.identical})
        raise DataError(detail=f"source and target differ after {', '.join(differing)}")


def configurations_of(
    names: tuple[str, ...], stock_workers: str, options: dict[str, Any]
) -> tuple[Configuration, ...]:
    """Those that were named, the one that options build, and the stock replicas. Raises UsageError."""
    chosen = [named(name) for name in names]
    given = {name: value for name, value in options.items() if value is not None}
    if given:
        defaults: dict[str, Any] = {
            "group_transactions": 1,
            "net_changes": False,
            "target_gtids": "preserve",
            "workers": DEFAULT_WORKERS,
            "commit_order": "strict",
        }
        chosen.append(built(**defaults | given))
    if not chosen:
        chosen = [named(name) for name in DEFAULT_NAMES]
    try:
        chosen += [stock(int(workers)) for workers in stock_workers.split(",") if workers.strip()]
    except ValueError:
        raise UsageError(detail=f"--stock takes numbers of workers, not {stock_workers!r}") from None
    return tuple(dict.fromkeys(chosen))
