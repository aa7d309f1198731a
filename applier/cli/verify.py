"""`applier verify`: have source and target the same rows, at the same position of the log?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from applier.address import ServerAddress
from applier.cli.options import address_option, defaults_file_option
from applier.verify import Difference, Kind, Progress, Selection, VerifyOptions, VerifyReport
from applier.verify import verify as compare
from applier.verify.definitions import TableName
from applier.verify.options import Silent


def _tables(context: click.Context, parameter: click.Parameter, value: str) -> tuple[TableName, ...]:
    names = []
    for item in filter(None, value.split(",")):
        schema, dot, table = item.strip().partition(".")
        if not (schema and dot and table):
            raise click.BadParameter(f"{item.strip()!r} is not of the form schema.table", context, parameter)
        names.append((schema, table))
    return tuple(names)


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command()
@defaults_file_option
@address_option("source")
@address_option("target")
@click.option("--tables", default="", metavar="A.B,C.D", callback=_tables, help="Compare these tables only.")
@click.option("--schemas", default="", metavar="A,B", callback=_names, help="Compare these schemas only.")
@click.option("--ignore-schemas", default="", metavar="A,B", callback=_names, help="Leave these schemas out.")
@click.option("--chunk-rows", type=click.IntRange(1), default=50_000, help="Rows in one statement.")
@click.option(
    "--wait-seconds",
    type=click.FloatRange(0),
    default=60.0,
    help="How long the target may take to reach the source's position.",
)
@click.option("--connections", type=click.IntRange(1, 64), default=2, help="To each side.")
@click.option("--differences", type=click.IntRange(0), default=100, help="Rows listed per table.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Times that moving chunks are read again.")
@click.option(
    "--allow-lock",
    is_flag=True,
    help="When both sides keep moving: hold the source's commits back until the snapshots are open.",
)
@click.option(
    "--assume-quiesced",
    is_flag=True,
    help="Nothing is written on either side: compare what is there, whatever the GTIDs.",
)
@click.option(
    "--row-locks/--no-row-locks",
    default=True,
    help="Settle rows that keep changing under short shared locks on the source's.",
)
@click.option(
    "--lock-seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Longest time that rows of the source stay locked.",
)
@click.option("--repair", is_flag=True, help="Copy rows that differ from the source again.")
@click.option(
    "--log-repairs", is_flag=True, help="Into the target's binary log too, for replicas of the target."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
@click.pass_context
def verify(
    context: click.Context,
    defaults_file: Path | None,
    source: ServerAddress,
    target: ServerAddress,
    tables: tuple[TableName, ...],
    schemas: tuple[str, ...],
    ignore_schemas: tuple[str, ...],
    chunk_rows: int,
    wait_seconds: float,
    connections: int,
    differences: int,
    rounds: int,
    allow_lock: bool,
    assume_quiesced: bool,
    row_locks: bool,
    lock_seconds: float,
    repair: bool,
    log_repairs: bool,
    as_json: bool,
) -> None:
    """Compare the rows of source and target, at the same GTID position, while writes go on. The servers compute
    checksums, chunk by chunk; only rows of chunks that differ are looked at, and listed by key.

    Exit code 0 when identical or repaired, 4 when different, 75 when the two could not be read at the same
    position."""
    if allow_lock and assume_quiesced:
        raise click.UsageError("--allow-lock and --assume-quiesced exclude each other")
    options = VerifyOptions(
        selection=Selection(tables, schemas, ignore_schemas),
        chunk_rows=chunk_rows,
        wait_seconds=wait_seconds,
        connections=connections,
        differences_max=differences,
        rounds_max=rounds,
        allow_lock=allow_lock,
        assume_quiesced=assume_quiesced,
        row_locks=row_locks,
        lock_seconds=lock_seconds,
        repair=repair,
        log_repairs=log_repairs,
    )
    with shown_progress() as progress:
        report = compare(source, target, options, progress=progress)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        show_report(report)
    context.exit(report.exit_code)


class _Bar:
    """The library's progress on a bar. Row counts are the server's estimates until they are known."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("rows", total=None)
        self._rows = 0
        self._total = 0

    def started(self, tables: int, rows_estimated: int) -> None:
        self._total = rows_estimated
        self._bars.update(self._task, total=rows_estimated, description=f"{tables} tables, rows")

    def advanced(self, rows: int) -> None:
        self._rows += rows
        self._bars.update(self._task, completed=self._rows, total=max(self._total, self._rows))


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars)


def show_report(report: VerifyReport) -> None:
    """Differences, and the verdict on one line."""
    for table in report.tables:
        for difference in table.differences:
            click.echo(_line(difference))
        if table.truncated:
            click.echo(f"{table.schema}.{table.table}: more rows differ than are listed")
        if table.repair_error:
            click.echo(f"{table.schema}.{table.table}: not repaired: {table.repair_error}")
        if table.unresolved:
            click.echo(f"{table.schema}.{table.table}: {table.unresolved} part(s) kept changing")
    for warning in report.warnings:
        click.echo(f"warning: {warning}")
    if report.rows_repaired:
        click.echo(f"{report.rows_repaired:,} rows repaired")
    state = {
        0: "identical" if report.identical else "repaired",
        4: "DIFFERENT",
        75: "could not be compared at the same position",
    }
    rate = report.rows / report.seconds if report.seconds else 0.0
    click.echo(
        f"{state[report.exit_code]}: {len(report.tables)} tables, {report.rows:,} rows "
        f"in {report.seconds:.1f} s ({rate:,.0f} rows/s)"
    )


def _line(difference: Difference) -> str:
    where = f"{difference.schema}.{difference.table}"
    if difference.kind in (Kind.MISSING_TABLE, Kind.EXTRA_TABLE, Kind.DEFINITION):
        return f"{where}: {difference.kind}" + (f": {difference.detail}" if difference.detail else "")
    key = ", ".join(f"{name}={value!r}" for name, value in difference.key.items())
    columns = f" in {', '.join(difference.columns)}" if difference.columns else ""
    times = f" ({difference.rows} times)" if difference.rows > 1 else ""
    return f"{where}: {difference.kind}: {key}{columns}{times}"
