"""`applier migrate verify`, `cutover`, `reverse` and `rollback`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from applier.address import ServerAddress
from applier.cli.live import report_progress
from applier.cli.options import address_option, defaults_file_option
from applier.cli.signals import drained_by_signals
from applier.cli.verify import show_report, shown_progress
from applier.errors import UsageError
from applier.migrate.abandon import abandon, look
from applier.migrate.cutover import cut_over, roll_back
from applier.migrate.reverse import replaying_back, stock_statements
from applier.migrate.settings import settings_of
from applier.migrate.state import Phase, State
from applier.migrate.switch import SwitchReport, SwitchSettings
from applier.verify import AppliedPosition, VerifyOptions
from applier.verify import verify as compare
from applier.verify.runner import OWN_TRANSACTIONS

Command = Callable[..., Any]


def both_servers(command: Command) -> Command:
    """`--source`, `--target`, and which migration."""
    named = click.option("--name", default="default", help="Of the migration, when the target takes several.")
    return defaults_file_option(address_option("source")(address_option("target")(named(command))))


SWITCH_OPTIONS = (
    click.option(
        "--max-lag",
        "lag_seconds_max",
        type=click.FloatRange(0, min_open=True),
        default=1.0,
        help="Writes are stopped once the replay is not further behind, in seconds.",
    ),
    click.option(
        "--catch-up-seconds", type=click.FloatRange(0), default=600.0, help="How long to wait for that."
    ),
    click.option(
        "--stop-seconds",
        type=click.FloatRange(1),
        default=2.0,
        help="How long statements that are writing may go on.",
    ),
    click.option("--kill-writers", is_flag=True, help="End those that go on longer, instead of giving up."),
    click.option(
        "--drain-seconds",
        type=click.FloatRange(0),
        default=10.0,
        help="With writes stopped: how long the last transactions may take, before everything is undone.",
    ),
    click.option(
        "--compare-seconds",
        type=click.FloatRange(0),
        default=0.5,
        help="With writes stopped: time for the last comparison; 0: none.",
    ),
    click.option(
        "--ignore",
        "ignored",
        multiple=True,
        metavar="CHECK",
        help="Go on although this check failed; the failure names it. Several times.",
    ),
)


def switch_options(command: Command) -> Command:
    """Everything that makes a SwitchSettings."""
    for option in reversed(SWITCH_OPTIONS):
        command = option(command)
    return both_servers(command)


def _switch_settings(options: dict[str, Any]) -> SwitchSettings:
    return SwitchSettings(**(options | {"ignored": frozenset(options["ignored"])}))


def _told(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@both_servers
@click.option("--repair", is_flag=True, help="Copy rows that differ from the source again.")
@click.option("--chunk-rows", type=click.IntRange(1), default=50_000, help="Rows in one statement.")
@click.option("--connections", type=click.IntRange(1, 64), default=4, help="To each side.")
@click.option(
    "--wait-seconds", type=click.FloatRange(0), default=60.0, help="How long the target may take to catch up."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def verify(
    defaults_file: Path | None,
    source: ServerAddress,
    target: ServerAddress,
    name: str,
    repair: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the migrated schemas on both sides while writes go on and the replay follows. `cutover` wants this.

    Exit code 0 when identical or repaired, 4 when different, 75 when they could not be compared."""
    with State(target, name) as state:
        found = state.require()
        if repair:
            # No cut-over meanwhile: what clients then write to the target would be taken for differences.
            state.acquire()
            found = state.require()
        if found.phase is not Phase.CATCH_UP:
            raise UsageError(
                detail=f"migration {name!r} is in phase {found.phase}: the target is compared in catch-up"
            )
        settings = settings_of(found.options, source, target)
        wanted = VerifyOptions(
            selection=settings.selection, repair=repair, log_repairs=settings.target_binlog, **options
        )
        with shown_progress() as progress:
            position = AppliedPosition(settings.channel)
            report = compare(source, target, wanted, position=position, progress=progress)
        state.note_beside(
            verified={
                "at": time.time(),
                "identical": report.exit_code == 0,
                "rows": report.rows,
                "repaired": report.rows_repaired,
            }
        )
    # Those of the copy, and of a replay that makes GTIDs of its own.
    warnings = tuple(one for one in report.warnings if not one.startswith(OWN_TRANSACTIONS))
    report = replace(report, warnings=warnings)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        show_report(report)
    click.get_current_context().exit(report.exit_code)


@click.command()
@switch_options
@click.option(
    "--verified-within",
    "verified_seconds_max",
    type=click.FloatRange(0),
    default=86_400.0,
    help="How old the last `applier migrate verify` may be, in seconds.",
)
@click.option(
    "--reverse",
    is_flag=True,
    help="Afterwards stay and replay back to the source, until a rollback or a signal.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def cutover(
    defaults_file: Path | None,
    source: ServerAddress,
    target: ServerAddress,
    name: str,
    reverse: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Let clients write to the target, and no more to the source. Ends the process that follows the source.

    A step that fails undoes those before it. Interrupted at any moment: the same command goes on, `rollback` goes
    back."""
    report = cut_over(source, target, name, _switch_settings(options), _told)
    _show(report, "target", as_json=as_json)
    if reverse:
        _replay_back(source, target, name)


@click.command()
@both_servers
@click.option("--stock", is_flag=True, help="Only print what makes the source a stock replica of the target.")
def reverse(
    defaults_file: Path | None, source: ServerAddress, target: ServerAddress, name: str, stock: bool
) -> None:
    """After a cut-over: replay back to the source, until a rollback or a signal. The source is read_only meanwhile,
    otherwise super_read_only."""
    if stock:
        click.echo(stock_statements(source, target, name))
    else:
        _replay_back(source, target, name)


def _replay_back(source: ServerAddress, target: ServerAddress, name: str) -> None:
    with (
        replaying_back(source, target, name) as replay,
        drained_by_signals(replay),
        report_progress(replay.progress),
    ):
        _told("replaying back to the source")
        summary = replay.run()
    if replay.aborted:
        raise click.Abort
    _told(f"replayed back: {summary.transactions:,} transactions, {summary.rows:,} rows")


@click.command()
@switch_options
@click.option(
    "--abandon-target",
    is_flag=True,
    help="The target is gone for good: open the source with what has come back to it; tells what is lost.",
)
@click.option("--yes", is_flag=True, help="Do not ask before --abandon-target.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def rollback(
    defaults_file: Path | None,
    source: ServerAddress,
    target: ServerAddress,
    name: str,
    abandon_target: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Let clients write to the source again, with everything that they have written to the target. Undoes a cut-over
    that was interrupted before clients were let in.

    The migration is in catch-up afterwards: `applier migrate run` follows the source, and another cut-over may come."""
    if yes and not abandon_target:
        raise click.UsageError("--yes goes with --abandon-target")
    if abandon_target:
        _abandon(source, target, name, _switch_settings(options), yes=yes, as_json=as_json)
        return
    report = roll_back(source, target, name, _switch_settings(options), _told)
    if report is not None:
        _show(report, "source", as_json=as_json)


def _abandon(
    source: ServerAddress,
    target: ServerAddress,
    name: str,
    wanted: SwitchSettings,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    for line in look(source, target, name).lines():
        _told(line)
    if not yes:
        click.confirm("Give the target up and open the source?", abort=True, err=True)
    left = abandon(
        source, target, name, _told, stop_seconds=wanted.stop_seconds, kill_writers=wanted.kill_writers
    )
    if as_json:
        click.echo(json.dumps(left.as_dict(), ensure_ascii=False))
    else:
        click.echo(f"clients write to the source; {'; '.join(left.lines()[:2])}")


def _show(report: SwitchReport, destination: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        click.echo(
            f"clients write to the {destination}; nobody could write for {report.write_downtime_seconds:.3f} s"
        )
