"""`applier sandbox start|stop|status`: throw-away MySQL servers that live until they are stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from applier.cli.options import environment_option
from applier.errors import PreflightFailed
from applier.sandbox import Sandbox, Server
from applier.sandbox.options import parse_settings

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="APPLIER_SANDBOX_DIR",
    show_envvar=True,
    help="Folder of the sandbox: data, logs, sockets.",
)
_as_json = click.option(
    "--json", "as_json", is_flag=True, help="One JSON array on stdout, an object per server."
)


@click.group()
def sandbox() -> None:
    """Throw-away MySQL servers on loopback, for trying things out."""


def _show(servers: Iterable[Server], *, as_json: bool) -> None:
    rows = [
        {
            "name": server.name,
            "status": server.status,
            "url": server.url,
            "socket": server.socket,
            "port": server.port,
            "pid": server.pid,
            "version": server.version,
        }
        for server in servers
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        pid = f"pid {row['pid']}" if row["pid"] else row["status"]
        click.echo(f"{row['name']:<10} {row['url']:<32} {row['version']:<10} {pid:<14} {row['socket']}")


@sandbox.command()
@_directory
@click.option(
    "--servers",
    default="source,target",
    show_default=True,
    help="Names, separated by commas. `replica` becomes a stock MySQL replica of `source`.",
)
@environment_option(
    "--mysqld",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The mysqld to run; else the one on PATH; else MySQL is fetched into the cache folder.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SERVER.OPTION=VALUE",
    help="An option for mysqld, for one server or for `all`. Repeatable.",
)
@_as_json
def start(
    directory: Path, servers: str, mysqld: Path | None, settings: tuple[str, ...], as_json: bool
) -> None:
    """Start the servers that are not running, and leave them running."""
    names = [name.strip() for name in servers.split(",") if name.strip()]
    box = Sandbox(directory, names, options=parse_settings(settings), mysqld=mysqld, detached=True)
    box.start()
    _show(box, as_json=as_json)


@sandbox.command()
@_directory
@click.option("--delete", is_flag=True, help="Kill the servers and delete their folders.")
@_as_json
def stop(directory: Path, delete: bool, as_json: bool) -> None:
    """Stop all servers of the folder; their data stay."""
    box = Sandbox.attach(directory)
    servers = list(box)
    box.stop(delete=delete)
    _show(servers, as_json=as_json)


@sandbox.command()
@_directory
@_as_json
def status(directory: Path, as_json: bool) -> None:
    """Show the servers. Ends with 0 only when all are running, else with 3."""
    box = Sandbox.attach(directory)
    _show(box, as_json=as_json)
    down = [f"{server.name} ({server.status})" for server in box if not server.running]
    if down:
        raise PreflightFailed(detail=f"not running: {', '.join(down)}")
