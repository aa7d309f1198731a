"""Options that the benches share."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from applier.bench import plots
from applier.bench.backlog import BacklogSpec, Say
from applier.bench.output import console, write_json
from applier.bench.page import page
from applier.errors import UsageError
from applier.sandbox.options import normalised, parse_settings
from applier.workload import WORKLOADS, parameters_from_text

Command = TypeVar("Command", bound=Callable[..., Any])

# A size that fits a small machine and still has the contention of several warehouses.
DEFAULT_PARAMETERS: dict[str, dict[str, Any]] = {"tpcc": {"warehouses": 4, "scale": 0.2}}

# Those of the options below that are parameters of the workload.
PARAMETERS = ("warehouses", "scale", "seed")


@dataclass(frozen=True, slots=True)
class BacklogChoice:
    """What `backlog_options` were given, merged and checked. `folder` None: the cache folder's."""

    spec: BacklogSpec
    target_options: Mapping[str, str]
    folder: Path | None
    mysqld: Path | None


def backlog_options(command: Command) -> Command:
    """What a backlog is made of and where it is kept; the command gets a BacklogChoice as `choice`."""

    @functools.wraps(command)
    def chosen(
        *, workload: str, transactions: int, texts: tuple[str, ...], server_texts: tuple[str, ...],
        keep: Path | None, mysqld: Path | None, **others: Any,
    ) -> Any:  # fmt: skip
        servers = server_options(server_texts)
        given = {name: others.pop(name) for name in PARAMETERS}
        parameters = workload_parameters(workload, texts, given)
        spec = BacklogSpec(workload, transactions, parameters, servers["source"])
        spec.made()  # raises UsageError now, not after the servers have started
        return command(choice=BacklogChoice(spec, servers["target"], keep, mysqld), **others)

    options = [
        click.option("--workload", type=click.Choice(WORKLOADS), default="tpcc"),
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
    ]  # fmt: skip
    for option in reversed(options):
        chosen = option(chosen)
    return chosen  # type: ignore[return-value]


def workload_parameters(workload: str, texts: tuple[str, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Our defaults, then `--set`, then options of their own. Raises UsageError."""
    typed = {}
    for text in texts:
        parameter, equals, value = text.partition("=")
        if not equals:
            raise UsageError(detail=f"--set takes PARAMETER=VALUE, not {text!r}")
        typed[parameter] = value
    parameters = DEFAULT_PARAMETERS.get(workload, {}) | parameters_from_text(workload, typed)
    return parameters | {name: value for name, value in given.items() if value is not None}


def server_options(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """For `source` and `target`. Raises UsageError."""
    options = parse_settings(texts)
    if unknown := sorted(set(options) - {"source", "target", "all"}):
        raise UsageError(detail=f"--server-set: the servers are source and target, not {unknown[0]}")
    both = options.get("all", {})
    return {name: normalised({**both, **options.get(name, {})}) for name in ("source", "target")}


def numbers(option: str, text: str) -> tuple[int, ...]:
    """`4,8,16`. Raises UsageError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(detail=f"{option} takes numbers above zero, separated by commas, not {text!r}")
    return tuple(map(int, parts))


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go, besides the terminal. `json`: a file name, or - for stdout."""

    json: str | None = None
    html: Path | None = None
    plot: Path | None = None

    def __post_init__(self) -> None:
        """Raises UsageError now for what could not be written after a long measurement."""
        if self.html is not None or self.plot is not None:
            plots.require_plotting()
        if self.plot is not None and self.plot.suffix not in plots.PLOT_SUFFIXES:
            raise UsageError(detail=f"--plot: the file's name ends in {', '.join(plots.PLOT_SUFFIXES)}")

    def write(
        self, title: str, facts: Mapping[str, Any], tables: Sequence[Table], figures: plots.Figures
    ) -> None:
        """Prints the tables and writes what was asked for. The plot is the first figure."""
        screen = console(self.json)
        for table in tables:
            screen.print(table)
        if self.json is not None:
            write_json(facts, self.json)
        if self.html is not None:
            svgs = [plots.as_svg(figure) for figure in figures(facts)]
            self.html.write_text(page(f"{title}: {facts['workload']}", facts, tables, svgs))
        if self.plot is not None:
            plots.save(figures(facts)[0], self.plot)


def output_options(command: Command) -> Command:
    """`--json`, `--html`, `--plot`; the command gets them as `outputs`."""

    @functools.wraps(command)
    def with_outputs(*, json: str | None, html: Path | None, plot: Path | None, **others: Any) -> Any:
        return command(outputs=Outputs(json, html, plot), **others)

    writable = click.Path(dir_okay=False, path_type=Path)
    options = [
        click.option("--json", metavar="FILE", help="Results as JSON; - is stdout."),
        click.option(
            "--html", type=writable, metavar="FILE", help="Results with plots, as a page of its own."
        ),
        click.option("--plot", type=writable, metavar="FILE", help="The first plot, as .svg, .png or .pdf."),
    ]
    for option in reversed(options):
        with_outputs = option(with_outputs)
    return with_outputs  # type: ignore[return-value]


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
