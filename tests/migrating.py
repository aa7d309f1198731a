"""Migrations for tests: the command, or its phases in this process, and data to migrate."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from applier.migrate import phases
from applier.migrate.progress import CopyProgress
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import State
from applier.sandbox import Server
from applier.verify import Selection, VerifyOptions, verify
from tests.replaying import Command, address


def migration(source: Server, target: Server, *schemas: str, **changes: Any) -> MigrateSettings:
    wanted: dict[str, Any] = {"threads": 2, "workers": 2, "chunk_seconds": 0.2}
    return MigrateSettings(
        address(source, "source"), address(target, "target"), schemas or ("shop",), **(wanted | changes)
    )


def copy_all(settings: MigrateSettings, progress: CopyProgress | None = None) -> None:
    """Everything before the catch-up."""
    with State(settings.target, settings.name) as state:
        phases.begin(settings, state)
        phases.copy_rows(settings, state, progress or CopyProgress())
        phases.build(settings, state, lambda name: None)


def caught_up(settings: MigrateSettings) -> None:
    """Replays what the source has now."""
    phases.catch_up(settings, stop_at_end=True).run()


def migrated(settings: MigrateSettings) -> None:
    copy_all(settings)
    caught_up(settings)


def command(source: Server, target: Server, *options: str, schemas: str = "shop") -> Command:
    """`applier migrate`."""
    urls = ("--source", source.url, "--target", target.url)
    return Command("migrate", *urls, "--schemas", schemas, "--chunk-seconds", "0.1", *options)


def assert_same(settings: MigrateSettings, *ignored_columns: str) -> None:
    """Both sides stand still and have the same rows, definitions and code in the migrated schemas."""
    options = VerifyOptions(selection=Selection(schemas=settings.schemas), assume_quiesced=True)
    report = verify(settings.source, settings.target, options)
    found = [
        one for one in report.differences if not (one.columns and set(one.columns) <= set(ignored_columns))
    ]
    assert found == [], found
    assert report.warnings == ()


@contextlib.contextmanager
def account(server: Server, settings: MigrateSettings, role: str, *grants: str) -> Iterator[MigrateSettings]:
    """The settings with an account of its own on one side."""
    server.execute("CREATE USER mover IDENTIFIED BY 'pw'")
    for grant in grants:
        server.execute(f"GRANT {grant} TO mover")
    place = dataclasses.replace(getattr(settings, role), user="mover", password="pw")
    yield dataclasses.replace(settings, **{role: place})


@contextlib.contextmanager
def left_writable(*servers: Server) -> Iterator[None]:
    """Behind the block they run and take writes, whatever a cut-over or a kill has made of them."""
    yield
    for server in servers:
        if not server.running:
            server.start()
        server.execute("SET GLOBAL super_read_only = OFF")
        server.execute("SET GLOBAL read_only = OFF")
        server.execute("RESET PERSIST")
