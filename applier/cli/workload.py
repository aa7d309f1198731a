"""`applier workload prepare|run`: load for a source."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.status import Status

from applier.address import ServerAddress
from applier.cli.options import address_option, defaults_file_option
from applier.connection import connect
from applier.errors import UsageError
from applier.workload import (
    WORKLOADS,
    Counters,
    Workload,
    WorkloadResult,
    parameters_from_text,
    workload_named,
)

log = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., Any])

LOG_SECONDS = 10.0
# Options that are parameters of the workload, where it has them.
PARAMETERS = (
    "warehouses",
    "scale",
    "seed",
    "database",
    "foreign_keys",
    "replace",
    "loaders",
    "terminals",
    "calls_per_packet",
)


@click.group()
def workload() -> None:
    """Load for a source: TPC-C, OLTP in sysbench's shapes, and the special cases that hurt replicas."""


def _common(command: Command) -> Command:
    """The options of both commands, in the order in which --help shows them."""
    options = [
        click.option("--workload", "name", type=click.Choice(WORKLOADS), default="tpcc", show_default=True),
        address_option("source"),
        defaults_file_option,
        click.option("--warehouses", type=int, help="Warehouses of TPC-C.  [default: 4]"),
        click.option("--scale", type=float, help="Fraction of the full size of the tables.  [default: 1.0]"),
        click.option("--seed", type=int, help="Same seed, same rows.  [default: 1]"),
        click.option("--database", help="Database of the tables.  [default: the workload's own]"),
        click.option(
            "--set",
            "texts",
            multiple=True,
            metavar="PARAMETER=VALUE",
            help="A parameter of one workload only, such as rows-per-transaction=500. Repeatable.",
        ),
        click.option("--json", "as_json", is_flag=True, help="The result as one JSON object on stdout."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@workload.command()
@_common
@click.option(
    "--foreign-keys", is_flag=True, default=None, help="Give the tables of TPC-C their foreign keys."
)
@click.option("--replace", is_flag=True, default=None, help="Drop the workload's tables where they exist.")
@click.option("--loaders", type=int, help="Connections that fill the tables.  [default: 4]")
def prepare(
    *, source: ServerAddress, name: str, texts: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Create the tables and procedures of a workload and fill them."""
    chosen = _chosen(name, texts, options)
    started = time.perf_counter()
    with _stop_on_signal() as stop, _progress() as progress:
        chosen.prepare(lambda: connect(source), stop=stop, progress=progress)
    if stop.is_set():
        raise click.Abort
    seconds = time.perf_counter() - started
    rows = chosen.counters.rows_loaded
    if as_json:
        click.echo(json.dumps({"workload": name, "rows": rows, "seconds": round(seconds, 3)}))
    else:
        click.echo(f"{name}: {rows:,} rows in {seconds:.1f} s, in the database {chosen.settings.database}")


@workload.command()
@_common
@click.option("--terminals", type=int, help="Connections that send transactions.  [default: 8]")
@click.option("--seconds", type=float, help="End after so many seconds.")
@click.option("--transactions", type=int, help="End after so many transactions.")
@click.option(
    "--rate", type=float, help="Transactions a second, of all terminals.  [default: as fast as can be]"
)
@click.option("--calls-per-packet", type=int, help="Transactions a round trip.  [default: 1]")
def run(
    *,
    source: ServerAddress,
    name: str,
    texts: tuple[str, ...],
    as_json: bool,
    seconds: float | None,
    transactions: int | None,
    rate: float | None,
    **options: Any,
) -> None:
    """Send transactions to tables that `prepare` has made, until a limit is reached or a signal says stop."""
    chosen = _chosen(name, texts, options)
    with _stop_on_signal() as stop, _progress() as progress:
        result = chosen.run(
            lambda: connect(source),
            seconds=seconds,
            transactions=transactions,
            rate=rate,
            stop=stop,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        _print(result)


def _chosen(name: str, texts: tuple[str, ...], options: dict[str, Any]) -> Workload:
    """The workload with the options that were given; the others keep the workload's own defaults."""
    named = {}
    for text in texts:
        parameter, equals, value = text.partition("=")
        if not equals:
            raise UsageError(detail=f"--set takes PARAMETER=VALUE, not {text!r}")
        named[parameter] = value
    given = {parameter: options[parameter] for parameter in PARAMETERS if options.get(parameter) is not None}
    return workload_named(name, **{**parameters_from_text(name, named), **given})


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """The first SIGINT or SIGTERM ends the load after the transactions under way, the second at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, on_signal) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator[Callable[[Counters], None]]:
    """A live line on a terminal, a log line every LOG_SECONDS elsewhere."""
    started = logged = time.monotonic()
    if sys.stderr.isatty():
        with Status("", console=Console(stderr=True)) as status:
            yield lambda counters: status.update(_line(counters, time.monotonic() - started))
        return

    def report(counters: Counters) -> None:
        nonlocal logged
        now = time.monotonic()
        if now - logged >= LOG_SECONDS:
            logged = now
            log.info("%s", _line(counters, now - started))

    yield report


def _line(counters: Counters, seconds: float) -> str:
    count, unit = (
        (counters.transactions, "transactions")
        if counters.transactions
        else (counters.rows_loaded, "rows loaded")
    )
    rate = count / max(seconds, 1e-9)
    return f"{count:,} {unit} in {seconds:.0f} s, {rate:,.0f}/s, {counters.retries:,} retries"


def _print(result: WorkloadResult) -> None:
    milliseconds = ", ".join(f"{name} {value:.1f} ms" for name, value in result.latency_milliseconds.items())
    click.echo(
        f"{result.workload}: {result.transactions:,} transactions in {result.seconds:.1f} s, "
        f"{result.transactions_per_second:,.1f}/s, {result.retries:,} retries"
    )
    if result.new_orders:
        click.echo(
            f"tpmC {result.tpmc:,.0f} ({result.new_orders:,} new orders, {result.rolled_back:,} of them "
            "rolled back)"
        )
    for kind, count in sorted(result.by_kind.items()):
        click.echo(f"  {kind:<24}{count:>10,}")
    click.echo(f"latency {milliseconds}")
