"""`applier deploy`: prints what runs the applier as a service."""

from __future__ import annotations

from importlib.resources import files

import click


@click.group()
def deploy() -> None:
    """Print a systemd unit or a Dockerfile for `applier run`."""


@deploy.command()
def systemd() -> None:
    """A unit with readiness, a watchdog that proves progress, credentials and hardening."""
    click.echo(_text("applier.service"), nl=False)


@deploy.command()
def docker() -> None:
    """A Dockerfile; build it in a checkout of the project."""
    click.echo(_text("Dockerfile"), nl=False)


def _text(name: str) -> str:
    return (files("applier.deploy") / name).read_text(encoding="utf-8")
