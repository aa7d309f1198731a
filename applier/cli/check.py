"""`applier check`: every precondition of a run, on both servers, with nothing written."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from applier.address import ServerAddress
from applier.cli.options import address_option, defaults_file_option
from applier.connection import connect
from applier.preflight import Level, Report, Requirements, preflight
from applier.preflight.facts import GtidUse

READ_TIMEOUT_SECONDS = 60.0
STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILURE: "bold red"}


@click.command()
@defaults_file_option
@address_option("source")
@address_option("target")
@click.option(
    "--gtids",
    type=click.Choice(["kept", "purged", "own"]),
    default="kept",
    help="What becomes of the source's GTIDs: kept one by one, added by gtid_purged, or the target's own.",
)
@click.option(
    "--channel", default="applier", help="Name of the replication on the target, as `run` will have it."
)
@click.option("--verify", is_flag=True, help="The data will be compared: SELECT is required too.")
@click.option("--allow-errant", is_flag=True, help="The target may have transactions of its own.")
@click.option("--allow-downstream", is_flag=True, help="The target may have replicas, whatever they miss.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
@click.pass_context
def check(
    context: click.Context,
    defaults_file: Path | None,
    source: ServerAddress,
    target: ServerAddress,
    gtids: GtidUse,
    channel: str,
    verify: bool,
    allow_errant: bool,
    allow_downstream: bool,
    as_json: bool,
) -> None:
    """Can a run start? Looks at settings, GTIDs, privileges and tables of both servers, and writes nothing.

    Each finding is ok, a warning or a failure, with the statement that mends it. Exit code 0 when there is no
    failure, 3 when there is one."""
    requirements = Requirements(
        gtids=gtids,
        channel=channel,
        verify=verify,
        allow_errant=allow_errant,
        allow_downstream=allow_downstream,
    )
    with (
        contextlib.closing(connect(source, read_timeout_seconds=READ_TIMEOUT_SECONDS)) as source_connection,
        contextlib.closing(connect(target, read_timeout_seconds=READ_TIMEOUT_SECONDS)) as target_connection,
    ):
        report = preflight(source_connection, target_connection, requirements)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    elif sys.stdout.isatty():
        _show(report)
    else:
        for finding in report.findings:
            remedy = f"  [{finding.remedy}]" if finding.remedy else ""
            click.echo(f"{finding.level:<8} {finding.name}: {finding.detail}{remedy}")
    if not as_json:
        click.echo(_verdict(report), err=True)
    context.exit(report.exit_code)


def _show(report: Report) -> None:
    table = Table("", "check", "found", "remedy", box=None, pad_edge=False)
    for finding in report.findings:
        texts = (finding.name, finding.detail, finding.remedy)
        table.add_row(Text(finding.level, STYLES[finding.level]), *map(Text, texts))
    Console().print(table)


def _verdict(report: Report) -> str:
    warnings = f"{len(report.warnings)} warning{'' if len(report.warnings) == 1 else 's'}"
    if report.failures:
        count = len(report.failures)
        return f"a run cannot start: {count} failure{'' if count == 1 else 's'}, {warnings}"
    return f"a run can start ({warnings})"
