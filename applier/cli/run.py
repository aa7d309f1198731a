"""`applier run`: replay a live source into a target."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from pathlib import Path
from typing import Literal

import click

from applier.address import ServerAddress
from applier.cli.live import report_progress
from applier.cli.observing import Watching, causes_text, lingering, watched, watching_options
from applier.cli.options import address_option, defaults_file_option, environment_option
from applier.cli.signals import drained_by_signals
from applier.deploy.notify import notified
from applier.pipeline import GROUP_WORKERS, WORKERS, PipelineSettings, default_workers
from applier.replay import Replay
from applier.settings import RunSettings
from applier.source.relay.session import RelaySettings
from scheduler.grouping import GroupLimits

log = logging.getLogger(__name__)


@click.command()
@defaults_file_option
@address_option("source", several=True)
@address_option("target")
@environment_option(
    "--workers",
    type=click.IntRange(1, 256),
    help=f"Sessions on the target.  [default: {WORKERS}, with groups {GROUP_WORKERS}]",
)
@environment_option(
    "--decoders",
    type=click.IntRange(1, 64),
    default=4,
    help="Decoding threads.",
)
@environment_option(
    "--commit-order",
    type=click.Choice(["strict", "relaxed"]),
    default="strict",
    help="relaxed: transactions wait for what they depend on only; readers of the target may see states "
    "that the source never had.",
)
@environment_option(
    "--group-transactions",
    type=click.IntRange(1, 100_000),
    default=1,
    help="Most consecutive transactions that share a commit when there is a backlog; 1: each on its own.",
)
@environment_option(
    "--group-bytes",
    type=click.IntRange(1024),
    default=32 << 20,
    help="Most bytes of events that share a commit.",
)
@environment_option(
    "--group-milliseconds",
    type=click.IntRange(1),
    default=1000,
    help="Longest that a group may take to execute, going by the groups before it.",
)
@environment_option(
    "--group-delay-milliseconds",
    type=click.IntRange(0, 10_000),
    default=0,
    help="How long to wait for more transactions once all that the source has sent is read: fewer and larger "
    "groups, less processor time, and that much more lag.",
)
@environment_option(
    "--net-changes/--no-net-changes",
    default=None,
    help="Fold the changes of one row within a group into one; on with groups.",
)
@environment_option(
    "--target-gtids",
    type=click.Choice(["preserve", "own"]),
    default="preserve",
    help="preserve: the target gets the source's GTIDs (with groups: no binary log of the changes); "
    "own: the target logs the changes under its own GTIDs.",
)
@click.option(
    "--skip-gtid", metavar="SET", help="Leave these transactions out for good: they count as applied."
)
@environment_option(
    "--exec-mode",
    type=click.Choice(["strict", "idempotent"]),
    default="strict",
    help="idempotent: a row that is missing or there already is no error; the source's image wins. For repairs only: "
    "it hides differences.",
)
@environment_option(
    "--memory-max",
    type=click.IntRange(64),
    default=512,
    help="Memory in MiB. What queues and buffers hold is measured; when it is used up the reader waits.",
)
@click.option(
    "--channel", default="applier", help="Name of this replication on the target: one applier each."
)
@click.option(
    "--stop-at-end", is_flag=True, help="End when everything that the source had at the start is applied."
)
@click.option(
    "--hand-over",
    is_flag=True,
    help="With --stop-at-end: leave the target ready for stock replication by auto-position, and print how.",
)
@click.option("--until-gtid-set", metavar="SET", help="End when this set is applied.")
@environment_option(
    "--server-id",
    type=click.IntRange(1, 2**32 - 1),
    help="Ours towards the source; a free one is chosen otherwise.",
)
@environment_option(
    "--reconnect-attempts",
    type=click.IntRange(0),
    default=20,
    help="In a row, before giving up with exit code 75.",
)
@click.option("--check/--no-check", "check_first", default=True, help="Check the preconditions first.")
@environment_option(
    "--record-schedule",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write there what ran when and which keys it touched (as hashes), to prove or study the schedule.",
)
@environment_option(
    "--relay-log",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Receive at the source's speed into files there, and apply from them: the source may purge what it has sent.",
)
@environment_option(
    "--relay-log-max-size",
    type=click.IntRange(1),
    default=128,
    help="MiB in a relay log file before the next is begun.",
)
@environment_option(
    "--relay-log-space-limit",
    type=click.IntRange(0),
    default=0,
    help="MiB in all relay log files together before receiving waits for the target; 0: no limit but the disk.",
)
@watching_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
def run(
    defaults_file: str | None,
    source: tuple[ServerAddress, ...],
    target: ServerAddress,
    workers: int | None,
    decoders: int,
    commit_order: str,
    group_transactions: int,
    group_bytes: int,
    group_milliseconds: int,
    group_delay_milliseconds: int,
    net_changes: bool | None,
    target_gtids: Literal["preserve", "own"],
    skip_gtid: str | None,
    exec_mode: str,
    memory_max: int,
    channel: str,
    stop_at_end: bool,
    hand_over: bool,
    until_gtid_set: str | None,
    server_id: int | None,
    reconnect_attempts: int,
    check_first: bool,
    record_schedule: Path | None,
    relay_log: Path | None,
    relay_log_max_size: int,
    relay_log_space_limit: int,
    http: tuple[str, int] | None,
    ready_lag_max: float | None,
    http_linger: float,
    as_json: bool,
) -> None:
    """Replay the source's binary log into the target, from what the target has executed, until stopped.

    The first SIGTERM or SIGINT drains and exits 0: what has begun is committed, the rest is applied at the next start.
    The second aborts, with exit code 1."""
    if stop_at_end and until_gtid_set is not None:
        raise click.UsageError("--stop-at-end and --until-gtid-set exclude each other")
    if hand_over and (not stop_at_end or target_gtids != "preserve"):
        raise click.UsageError("--hand-over needs --stop-at-end and --target-gtids preserve")
    settings = RunSettings(
        source=source[0],
        standby_sources=source[1:],
        target=target,
        pipeline=PipelineSettings(
            workers=workers or default_workers(group_transactions),
            decoders=decoders,
            ordered=commit_order == "strict",
            group=GroupLimits(
                group_transactions, group_bytes, group_milliseconds / 1000, group_delay_milliseconds / 1000
            ),
            target_gtids=target_gtids,
            memory_bytes_max=memory_max << 20,
            idempotent=exec_mode == "idempotent",
            net_changes=group_transactions > 1 if net_changes is None else net_changes,
            record_schedule=record_schedule,
        ),
        channel=channel,
        stop_at_end=stop_at_end,
        until_gtid_set=until_gtid_set,
        skip_gtid_set=skip_gtid,
        server_id=server_id,
        reconnect_attempts_max=reconnect_attempts,
        check=check_first,
        relay_log=None
        if relay_log is None
        else RelaySettings(relay_log, relay_log_max_size << 20, relay_log_space_limit << 20),
    )
    replay = Replay(settings)
    started = time.monotonic()
    with (
        watched(replay, Watching(http, ready_lag_max)) as observer,
        drained_by_signals(replay),
        notified(replay),
        lingering(observer, http_linger),
        report_progress(replay.progress),
    ):
        summary = replay.run()
    if replay.aborted:
        raise click.Abort
    seconds = time.monotonic() - started
    take_over = hand_over_statements(replay.sources.address) if hand_over and replay.reached_the_end else ""
    if as_json:
        causes = [dataclasses.asdict(share) for share in observer.causes(whole_run=True)]
        facts = dataclasses.asdict(summary) | {"seconds": round(seconds, 3), "causes": causes}
        json.dump(facts | ({"hand_over": take_over} if hand_over else {}), sys.stdout)
        print()
    else:
        rate = summary.transactions / seconds if seconds else 0.0
        click.echo(
            f"applied {summary.transactions:,} transactions, {summary.rows:,} rows in {seconds:.1f} s "
            f"({rate:,.0f} transactions/s), {summary.retries} retries, {summary.reconnects} reconnects",
            err=True,
        )
        if held := causes_text(observer):
            click.echo(f"held up by: {held}", err=True)
        if take_over:
            click.echo(take_over)


def hand_over_statements(source: ServerAddress) -> str:
    """What makes the target a stock replica of the source, or makes one go on that was stopped."""
    return (
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{source.host}', SOURCE_PORT={source.port}, "
        "SOURCE_USER='<replication account>', SOURCE_PASSWORD='<its password>', SOURCE_AUTO_POSITION=1;\n"
        "START REPLICA;"
    )
