"""`applier plan`: how parallel a binary log is."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console

from applier.address import ServerAddress, parse_url
from applier.cli.options import defaults_file_option
from applier.errors import UsageError
from applier.plan.html import page
from applier.plan.keys import PlanKeys
from applier.plan.log import batches_of_files, batches_of_source, first
from applier.plan.planning import PlanOptions, make_plan
from applier.plan.report import Plan
from applier.plan.terminal import show

STDOUT = "-"
PLAIN_WIDTH = 160
"""Columns of the tables where there is no terminal."""


@click.command()
@defaults_file_option
@click.argument("binlogs", metavar="[BINLOG]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--source",
    "source_url",
    metavar="URL",
    envvar="APPLIER_SOURCE",
    show_envvar=True,
    help="Read the binary logs of this server: mysql://user@host:port. Its password comes from "
    "APPLIER_SOURCE_PASSWORD, MYSQL_PWD, an option file or a prompt.",
)
@click.option(
    "--schema-from",
    "schema_url",
    metavar="URL",
    help="A server that has the tables: their keys are read there. With --source it is the source itself.",
)
@click.option(
    "--start-file", metavar="NAME", help="With --source: the binary log to begin with.  [default: the oldest]"
)
@click.option(
    "--transactions", "transactions_max", type=click.IntRange(1), help="Look at the first so many only."
)
@click.option(
    "--transaction-cost",
    type=click.FloatRange(0),
    default=1.0,
    help="What a transaction costs besides its rows, in rows.",
)
@click.option("--hot-keys", type=click.IntRange(0, 64), default=20, help="Keys to name.")
@click.option("--barriers", type=click.IntRange(0), default=20, help="Barriers to list of each kind.")
@click.option("--json", "json_place", metavar="FILE", help="The plan as JSON; - is stdout.")
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="A page with plots."
)
@click.pass_context
def plan(
    context: click.Context,
    *,
    defaults_file: Path | None,
    binlogs: tuple[Path, ...],
    source_url: str | None,
    schema_url: str | None,
    start_file: str | None,
    transactions_max: int | None,
    transaction_cost: float,
    hot_keys: int,
    barriers: int,
    json_place: str | None,
    html_file: Path | None,
) -> None:
    """How parallel is a log? Reads binary log files (or an index file that names them, or relay logs), or what a
    source has now, and tells how much faster N workers could replay it than one, what stands in the way, and
    why. Writes to no server.

    The speed-up is told for three ways of ordering transactions: by the source's own last_committed, by ours, and by
    ours row by row, where only those rows of a transaction wait whose last writer has not committed. It follows
    from a model: a transaction costs its rows and a constant, workers take transactions in log order and commit in log
    order, and nothing else costs time.

    Keys come from the schema of --source or --schema-from as it is now, else from the log, which names primary keys
    only, and only with binlog_row_metadata=FULL. Exit code 4 when the log is damaged."""
    if binlogs and context.get_parameter_source("source_url") is ParameterSource.ENVIRONMENT:
        source_url = None
    if bool(binlogs) == (source_url is not None):
        raise click.UsageError("give either binary log files or --source")
    if start_file is not None and source_url is None:
        raise click.UsageError("--start-file needs --source")
    source, schema_from = (_server(url, defaults_file) for url in (source_url, schema_url))
    batches = batches_of_files(binlogs) if source is None else batches_of_source(source, start_file)
    if transactions_max is not None:
        batches = first(batches, transactions_max)
    with _progress() as say:
        made = make_plan(
            batches, PlanKeys(schema_from or source), PlanOptions(transaction_cost, hot_keys, barriers), say
        )
    if not made.transactions:
        raise UsageError(detail="there are no transactions in the log")
    _write(made, json_place, html_file, _title(binlogs, source))
    if json_place != STDOUT:
        show(made, Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH))


def _server(url: str | None, defaults_file: Path | None) -> ServerAddress | None:
    return None if url is None else parse_url(url, "source", defaults_file=defaults_file)


def _title(binlogs: tuple[Path, ...], source: ServerAddress | None) -> str:
    if source is not None:
        return f"Plan of the log of {source.place}"
    names = [path.name for path in binlogs]
    return f"Plan of {names[0]}" + (f" … {names[-1]}" if len(names) > 1 else "")


def _write(made: Plan, json_place: str | None, html_file: Path | None, title: str) -> None:
    if html_file is not None:
        _write_file(html_file, page(made, title))
    if json_place is None:
        return
    text = json.dumps(made.as_dict(), indent=1, ensure_ascii=False) + "\n"
    if json_place == STDOUT:
        sys.stdout.write(text)
    else:
        _write_file(Path(json_place), text)


def _write_file(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(detail=f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None] | None]:
    """On a terminal: how far we are."""
    if not sys.stderr.isatty():
        yield None
        return
    with Console(stderr=True).status("reading") as status:
        yield lambda transactions: status.update(f"{transactions:,} transactions")
