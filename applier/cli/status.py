"""`applier status`: how a run is doing, from another terminal; or, when it does not run, how far it has come."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from applier.address import ServerAddress
from applier.cli.options import address_option, defaults_file_option
from applier.errors import ApplierError
from applier.observe.http import parse_listen
from applier.observe.last_known import LastKnown, last_known
from applier.observe.replica_status import replica_status, table, vertical, worker_rows

ANSWER_SECONDS: Final = 5.0
ANSWER_BYTES_MAX: Final = 16 << 20
CLEAR: Final = "\033[2J\033[H"


class NotServed(ApplierError):
    """Nothing answers at http://{http}/status: {detail}. Is that where 'applier run --http' listens?"""

    exit_code = 75


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to ask. `http` is what the user names; else the target tells."""

    http: str | None
    target: ServerAddress | None
    source: ServerAddress | None
    channel: str


@dataclass(frozen=True, slots=True)
class Found:
    """`status`: the run's own words, if it answers; `known`: the target's."""

    status: dict[str, Any] | None = None
    known: LastKnown | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        if self.status is not None:
            return {
                "running": True,
                "replica_status": replica_status(self.status),
                "workers": worker_rows(self.status),
                "lag": self.status["lag"],
                "status": self.status,
            }
        assert self.known is not None
        return {
            "running": self.known.running,
            "replica_status": self.known.replica_status(),
            "workers": [],
            "lag": {"transactions": self.known.behind},
            "status": None,
        }

    def as_text(self) -> str:
        if self.status is not None:
            lag = self.status["lag"]
            head = (
                f"{self.status['state']}; {lag['seconds']:.1f} s, {lag['transactions']} transactions behind; "
                f"{self.status['rates']['transactions']:,.0f} transactions/s; {lag['because']}"
            )
            parts = [head, vertical(replica_status(self.status)), table(worker_rows(self.status))]
        else:
            assert self.known is not None
            parts = [self.known.summary(), vertical(self.known.replica_status())]
        return "\n\n".join(part for part in parts if part)


@click.command()
@defaults_file_option
@address_option("target", required=False)
@address_option("source", required=False)
@click.option(
    "--http",
    metavar="HOST:PORT",
    envvar="APPLIER_HTTP",
    show_envvar=True,
    help="Where the run listens; without it the target is asked who runs, and where it listens.",
)
@click.option("--channel", default="applier", help="Name of the replication on the target.")
@click.option(
    "--watch", type=click.FloatRange(0.1), metavar="SECONDS", help="Again and again, until interrupted."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch a line each time.")
def status(
    defaults_file: Path | None,
    target: ServerAddress | None,
    source: ServerAddress | None,
    http: str | None,
    channel: str,
    watch: float | None,
    as_json: bool,
) -> None:
    """Print what SHOW REPLICA STATUS would, under the same names, and what each worker does.

    The answer comes from the run itself when it serves HTTP (applier run --http); else, and after a crash, from the
    target: its position, and with --source how many transactions are missing. Exit code 0, also when nothing runs."""
    if http is None and target is None:
        raise click.UsageError("give --target, or --http where the run listens")
    asked = Asked(http, target, source, channel)
    while True:
        found = find(asked)
        if as_json:
            print(json.dumps(found.as_dict(), indent=None if watch else 1), flush=True)
        else:
            clear = CLEAR if watch and sys.stdout.isatty() else ""
            click.echo(clear + found.as_text() + ("\n" if watch else ""))
        if watch is None:
            return
        threading.Event().wait(watch)


def find(asked: Asked) -> Found:
    """Raises NotServed, and what asking the target raises."""
    if asked.http is not None:
        host, port = parse_listen(asked.http)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return Found(status=fetch(place))
        except NotServed:
            if asked.target is None:
                raise
    assert asked.target is not None
    known = last_known(asked.target, asked.channel, asked.source)
    if known.http is not None:
        try:
            return Found(status=fetch(known.http))
        except NotServed as error:
            click.echo(f"applier: {error}", err=True)
    return Found(known=known)


def fetch(place: str) -> dict[str, Any]:
    """The JSON of a run's `/status`. Raises NotServed."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{place}/status", timeout=ANSWER_SECONDS) as answer:
            told: dict[str, Any] = json.loads(answer.read(ANSWER_BYTES_MAX))
            return told
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NotServed(http=place, detail=str(reason)) from error
