"""`applier migrate`: move live schemas to another server, phase by phase or all at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from applier.address import ServerAddress, parse_url
from applier.cli.lazy import LazyGroup
from applier.cli.live import report_progress
from applier.cli.migrate_status import show_plan, status
from applier.cli.options import address_option, defaults_file_option
from applier.cli.signals import drained_by_signals
from applier.migrate import phases
from applier.migrate.following import following
from applier.migrate.plan import make_plan
from applier.migrate.progress import CopyProgress, shown
from applier.migrate.schema_copy import drop_everything
from applier.migrate.settings import MigrateSettings, settings_of
from applier.migrate.state import Phase, State

log = logging.getLogger(__name__)

WHOLE = "run"


SWITCHES = ("verify", "cutover", "reverse", "rollback")


class WithDefault(LazyGroup):
    """A group whose command WHOLE is meant when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = [WHOLE, *args]
        return super().parse_args(ctx, args)


@click.group(cls=WithDefault, modules=dict.fromkeys(SWITCHES, "applier.cli.migrate_cutover"))
def migrate() -> None:
    """Move live schemas to another server: schema, snapshot copy, indexes, and from then on following the source
    until cut-over. Stopped at any moment, the same command goes on where it was.

    `applier migrate --source URL --target URL --schemas a,b` is short for `applier migrate run …`."""


Command = Callable[..., Any]


def addresses(command: Command) -> Command:
    """Both servers, and which migration."""
    named = click.option("--name", default="default", help="Of the migration, when the target takes several.")
    return defaults_file_option(address_option("source")(address_option("target")(named(command))))


def _schemas(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


OPTIONS = (
    click.option("--schemas", required=True, metavar="A,B", callback=_schemas, help="What to migrate."),
    click.option("--threads", type=click.IntRange(1, 64), default=4, help="Sessions on each side that copy."),
    click.option(
        "--workers", type=click.IntRange(1, 256), default=3, help="Sessions that follow the source."
    ),
    click.option(
        "--chunk-seconds", type=click.FloatRange(0.05), default=0.7, help="What a chunk is to take."
    ),
    click.option(
        "--target-binlog/--no-target-binlog", default=True, help="Whether the target logs the copied rows."
    ),
    click.option(
        "--threads-running-max",
        type=click.IntRange(0),
        default=0,
        help="The copy pauses while the source runs more threads of others than this; 0: never.",
    ),
    click.option("--lag-of", metavar="URL", help="A replica whose lag counts for --replica-lag-max."),
    click.option(
        "--replica-lag-max",
        "replica_lag_seconds_max",
        type=click.FloatRange(0),
        default=0.0,
        help="The copy pauses while the replica is further behind, in seconds; 0: never.",
    ),
    click.option(
        "--lock/--no-lock",
        "allow_lock",
        default=True,
        help="Whether FLUSH TABLES WITH READ LOCK may be taken while the snapshots open, if it does not work without.",
    ),
    click.option(
        "--lock-seconds",
        "lock_seconds_max",
        type=click.IntRange(1),
        default=10,
        help="How long that lock may have to be waited for.",
    ),
    click.option(
        "--load-data/--no-load-data", default=True, help="LOAD DATA LOCAL, where the target permits."
    ),
    click.option(
        "--defer-indexes/--no-defer-indexes",
        default=True,
        help="Secondary indexes after the rows, but for those of small tables.",
    ),
    click.option("--accounts", is_flag=True, help="Accounts and their privileges too."),
)


def migration_options(command: Command) -> Command:
    """Everything that makes a MigrateSettings."""
    for option in reversed(OPTIONS):
        command = option(command)
    return addresses(command)


def settings_from(defaults_file: Path | None, lag_of: str | None, **fields: Any) -> MigrateSettings:
    replica = parse_url(lag_of, "source", defaults_file=defaults_file) if lag_of else None
    return MigrateSettings(lag_of=replica, **fields)


@migrate.command()
@migration_options
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--stop-at-end", is_flag=True, help="End once the target has what the source had then.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: the plan as JSON.")
def run(dry_run: bool, stop_at_end: bool, as_json: bool, **options: Any) -> None:
    """Everything up to cut-over: plan, schema, copy, indexes, then following the source."""
    settings = settings_from(**options)
    with State(settings.target, settings.name) as state:
        if dry_run:
            _print_plan(settings, state, as_json=as_json)
        _check(settings, state)
        phases.begin(settings, state)
        _until_following(settings, state)
        state.release()
    _follow(settings, stop_at_end=stop_at_end)


@migrate.command()
@migration_options
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def plan(as_json: bool, **options: Any) -> None:
    """Preconditions, tables, rows, bytes and a guess of the time. Writes nothing."""
    settings = settings_from(**options)
    with State(settings.target, settings.name) as state:
        _print_plan(settings, state, as_json=as_json)


def _print_plan(settings: MigrateSettings, state: State, *, as_json: bool) -> None:
    found = make_plan(settings, state)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        show_plan(found)
    click.get_current_context().exit(found.report.exit_code)


@migrate.command()
@migration_options
def schema(**options: Any) -> None:
    """Databases and tables only."""
    settings = settings_from(**options)
    with State(settings.target, settings.name) as state:
        _check(settings, state)
        phases.begin(settings, state)
        phases.copy_schema(settings, state)


@migrate.command()
@addresses
def copy(defaults_file: Path | None, source: ServerAddress, target: ServerAddress, name: str) -> None:
    """The rows, indexes and code of a migration whose schema is there."""
    with State(target, name) as state:
        settings = settings_of(state.require().options, source, target)
        phases.begin(settings, state)
        _until_following(settings, state)


@migrate.command("catch-up")
@addresses
@click.option("--stop-at-end", is_flag=True, help="End once the target has what the source had then.")
def catch_up(
    defaults_file: Path | None, source: ServerAddress, target: ServerAddress, name: str, stop_at_end: bool
) -> None:
    """Follow the source, after the copy."""
    with State(target, name) as state:
        settings = settings_of(state.require().options, source, target)
    _follow(settings, stop_at_end=stop_at_end)


@migrate.command("drop-state")
@defaults_file_option
@address_option("target")
@click.option("--name", default="default", help="Of the migration.")
@click.option("--data", is_flag=True, help="Drop the migrated schemas on the target too.")
@click.confirmation_option(prompt="This forgets the migration. Go on?")
def drop_state(defaults_file: Path | None, target: ServerAddress, name: str, data: bool) -> None:
    """Forget a migration, when it is over or to begin anew."""
    with State(target, name) as state:
        found = state.require()
        state.acquire()
        if data and found.phase.reached(Phase.CUTTING_OVER):
            raise click.UsageError("the target has been cut over to: its data is not a copy any more")
        if data:
            settings = settings_of(found.options, target, target)
            drop_everything(settings.schemas, settings)
        phases.forget_progress(target, found.channel)
        state.remove()


migrate.add_command(status)


def _check(settings: MigrateSettings, state: State) -> None:
    found = make_plan(settings, state)
    for finding in found.report.warnings:
        log.warning("check", extra={"finding": finding.name, "detail": finding.detail})
    found.report.raise_on_failure()


def _until_following(settings: MigrateSettings, state: State) -> None:
    progress = CopyProgress()
    try:
        with shown(progress):
            phases.copy_rows(settings, state, progress)
        if progress.chunks:
            click.echo(progress.line(), err=True)
        held = state.require().facts.get("held")
        if held and progress.chunks:
            click.echo(f"held on the source: {held}", err=True)
        phases.build(settings, state, lambda name: log.info("indexes built", extra={"table": name}))
    except Exception as error:
        state.set_error(str(error))
        raise


def _follow(settings: MigrateSettings, *, stop_at_end: bool) -> None:
    replay = phases.catch_up(settings, stop_at_end=stop_at_end)
    with following(settings, replay), drained_by_signals(replay), report_progress(replay.progress):
        summary = replay.run()
    if replay.aborted:
        raise click.Abort
    click.echo(f"followed the source: {summary.transactions:,} transactions, {summary.rows:,} rows", err=True)
