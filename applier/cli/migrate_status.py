"""`applier migrate status`, and how a plan looks on a terminal."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from applier.address import ServerAddress
from applier.cli.options import address_option, defaults_file_option
from applier.migrate.overview import Overview, overview
from applier.migrate.plan import Plan
from applier.migrate.state import State

WATCH_SECONDS = 1.0


def show_plan(plan: Plan) -> None:
    """Findings that are not ok, tables, sums."""
    for finding in plan.report.findings:
        if finding.level != "ok" or finding.name.startswith("migrate."):
            remedy = f"  [{finding.remedy}]" if finding.remedy else ""
            click.echo(f"{finding.level:<8} {finding.name}: {finding.detail}{remedy}")
    shown = Table("table", "rows", "MB", "copied", "after the rows", box=None, pad_edge=False)
    for one in plan.tables:
        size = (one.data_bytes + one.index_bytes) / 1e6
        later = f"{one.later} indexes and foreign keys" if one.later else ""
        shown.add_row(f"{one.schema}.{one.table}", f"~{one.rows:,}", f"{size:,.1f}", one.how, later)
    Console().print(shown)
    verdict = "cannot start" if plan.report.failures else "can start"
    click.echo(
        f"a migration {verdict}: {len(plan.tables)} tables, about {plan.rows:,} rows, {plan.bytes / 1e6:,.0f} MB, "
        f"some {plan.seconds} s on a slow pair; nothing was written",
        err=True,
    )


@click.command()
@defaults_file_option
@address_option("target")
@click.option("--name", default="default", help="Of the migration.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
@click.option("--watch", is_flag=True, help="Again every second, until interrupted.")
def status(defaults_file: Path | None, target: ServerAddress, name: str, as_json: bool, watch: bool) -> None:
    """Phase, progress of each table, rates, and what is waited for; from any terminal, after a crash too."""
    with State(target, name) as state:
        while True:
            found = overview(state)
            if as_json:
                click.echo(json.dumps(_as_dict(found), ensure_ascii=False))
            else:
                show_overview(found)
            if not watch:
                return
            time.sleep(WATCH_SECONDS)


def _as_dict(found: Overview) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(found), default=str))  # type: ignore[no-any-return]


def show_overview(found: Overview) -> None:
    console = Console(file=sys.stdout)
    working = "a process works on it" if found.working else "no process works on it"
    console.print(Text(f"migration {found.name}: phase {found.phase}, {working}"))
    if found.error:
        console.print(Text(f"last error: {found.error}"))
    shown = Table("table", "state", "rows", "of about", "MB", "failed", box=None, pad_edge=False)
    for one in found.tables:
        shown.add_row(
            f"{one.schema}.{one.table}",
            one.state,
            f"{one.rows_copied:,}",
            f"{max(one.rows_estimated, one.rows_copied):,}",
            f"{one.bytes_copied / 1e6:,.1f}",
            f"{one.chunks_failed or ''}",
        )
    console.print(shown)
    line = f"copied {found.rows_copied:,} rows, {found.rows_per_second:,.0f} rows/s lately"
    if found.eta_seconds is not None:
        line += f", about {found.eta_seconds:,.0f} s to go"
    console.print(Text(line))
    if found.held:
        console.print(Text(f"held on the source: {found.held}"))
    if found.applied_seconds_ago is not None:
        console.print(Text(f"follows the source: last commit {found.applied_seconds_ago:.1f} s ago"))
    if found.waits_for:
        console.print(Text(f"waits for: {found.waits_for}"))
