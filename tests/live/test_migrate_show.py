"""Whole migrations as an operator does them, by the command line, while clients write to whichever server takes it.

There: plan, copy, following, verify, cut-over; nobody's write is lost, both sides are identical. Back: new writes,
rollback; likewise. `pytest -m long -s tests/live/test_migrate_show.py` prints rates and times.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from applier.migrate.settings import MigrateSettings
from applier.migrate.state import Phase, State
from applier.sandbox import Server
from tests.clients import ACCOUNT, Client, assert_nothing_lost, prepare, wait_for_move, writing
from tests.databases import Database
from tests.databases.employees import staff
from tests.databases.narrow import narrow
from tests.databases.tpcc import tpcc
from tests.databases.web import web
from tests.migrating import assert_same, left_writable, migration
from tests.replaying import Command, run_all
from tests.visitors import visiting
from tests.waiting import wait_until

SECONDS_MAX = 3000.0
LATER = 10_000_000  # the first number of the second round's clients
NEW_WRITES = 100

SHOWN = [
    pytest.param(web(200), id="web-small"),
    pytest.param(tpcc(4), id="tpcc", marks=pytest.mark.long),
    pytest.param(staff(80_000), id="staff", marks=pytest.mark.long),
    pytest.param(web(20_000), id="web", marks=pytest.mark.long),
    pytest.param(narrow(10_000_000), id="narrow", marks=pytest.mark.long),
]


class Migrating:
    """One migration by the command line. `figures`: what is reported of it."""

    def __init__(self, source: Server, target: Server, database: Database) -> None:
        self.schemas = ("shop", *database.schemas)
        self.settings: MigrateSettings = migration(source, target, *self.schemas)
        self.figures: dict[str, Any] = {}
        self._urls = ("--source", source.url, "--target", target.url)

    def command(self, name: str, *options: str) -> Command:
        return Command("--log-level", "warning", "migrate", name, *self._urls, *options)

    def following(self, *options: str) -> Command:
        return self.command("run", "--schemas", ",".join(self.schemas), *options)

    def finished(self, name: str, *options: str) -> str:
        """What the command prints; its seconds are a figure."""
        began = time.monotonic()
        with self.command(name, *options) as process:
            assert process.wait(SECONDS_MAX) == 0, process.errors
        self.figures[f"{name}_seconds"] = round(time.monotonic() - began, 2)
        return process.output

    def wait_until_following(self, process: Command) -> None:
        """Until everything is copied; notes how long each phase took."""
        began = time.monotonic()
        with State(self.settings.target) as state:
            phase = self._next_phase(state, process, None)
            while phase is not Phase.CATCH_UP:
                following = self._next_phase(state, process, phase)
                self.figures[f"{phase}_seconds"] = round(time.monotonic() - began, 2)
                phase, began = following, time.monotonic()
            rows = sum(table.rows_copied for table in state.tables())
        self.figures["rows"] = rows
        self.figures["rows_per_second_copied"] = round(rows / self.figures["copy_seconds"])

    @staticmethod
    def _next_phase(state: State, process: Command, before: Phase | None) -> Phase:
        def another() -> Phase | None:
            assert process.process.poll() is None, process.wait() and process.errors
            found = state.read()
            return None if found is None or found.phase is before else found.phase

        phase = wait_until(another, SECONDS_MAX, f"a phase after {before}")
        assert phase is not None
        return phase

    def verified(self, following: Command) -> None:
        try:
            report = json.loads(self.finished("verify", "--json"))
        except AssertionError:
            assert following.process.poll() is None, following.wait() and following.errors
            raise
        self.figures["rows_per_second_verified"] = round(report["rows"] / self.figures["verify_seconds"])

    def switched(self, process: Command) -> None:
        """Waits for the report of a switch that goes on afterwards."""
        assert process.process.stdout is not None
        line = process.process.stdout.readline()
        assert line, process.wait() and process.errors
        self.figures["cutover_downtime_seconds"] = round(json.loads(line)["write_downtime_seconds"], 3)

    def note_clients(self, way: str, clients: Sequence[Client], committed: Counter[str]) -> None:
        pause = max(client.longest_pause_seconds for client in clients)
        self.figures[f"{way}_longest_pause_seconds"] = round(pause, 3)
        self.figures[f"{way}_transactions"] = dict(committed)


@contextlib.contextmanager
def standing_still(writable: Server) -> Iterator[None]:
    """Events do not run."""
    writable.execute("SET GLOBAL event_scheduler = OFF")
    yield
    writable.execute("SET GLOBAL event_scheduler = ON")


def wait_until_replayed(origin: Server, destination: Server) -> None:
    """Everything that was written so far: the order of commits is kept."""
    origin.execute("REPLACE INTO shop.written VALUES (-1, 0, NOW(6))")
    ((mark,),) = origin.execute("SELECT at FROM shop.written WHERE client = -1")
    wait_until(
        lambda: destination.execute("SELECT at FROM shop.written WHERE client = -1") == ((mark,),),
        600,
        "the mark has come over",
    )


@pytest.fixture
def movable(source: Server, target: Server) -> Iterator[tuple[Server, Server]]:
    prepare(source, target)
    with left_writable(source, target):
        yield source, target


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("database", SHOWN)
def test_a_database_moves_there_and_back_while_clients_write(
    movable: tuple[Server, Server], database: Database
) -> None:
    source, target = movable
    for server in movable:
        grants = (f"GRANT ALL ON {schema}.* TO {ACCOUNT}@'%'" for schema in database.schemas)
        run_all(server, ("SET sql_log_bin = 0", *grants))
    database.fill(source)
    moving = Migrating(source, target, database)
    with contextlib.ExitStack() as processes:
        back = move_there(moving, source, target, database, processes)
        with standing_still(target):
            wait_until_replayed(target, source)
            assert_same(moving.settings)
        move_back(moving, source, target, database, back)
    with standing_still(source):
        moving.finished("catch-up", "--stop-at-end")
        assert_same(moving.settings)
    print(json.dumps(moving.figures, indent=1))


def move_there(
    moving: Migrating, source: Server, target: Server, database: Database, processes: contextlib.ExitStack
) -> Command:
    """Gives the process that replays back."""
    with writing(source, target, clients=2) as clients, visiting(database, source, target) as committed:
        moving.finished("plan", "--schemas", ",".join(moving.schemas))
        with moving.following() as there:
            moving.wait_until_following(there)
            wait_until_replayed(source, target)  # verify is of a target that keeps up
            moving.verified(there)
            back = processes.enter_context(moving.command("cutover", "--reverse", "--json"))
            moving.switched(back)
            assert there.wait() == 0, there.errors
        wait_for_move(clients, target)
    moving.note_clients("there", clients, committed)
    assert all(committed[server.name] for server in (source, target)), committed
    assert_nothing_lost(target, clients)
    return back


def move_back(moving: Migrating, source: Server, target: Server, database: Database, back: Command) -> None:
    with (
        writing(target, source, clients=2, first=LATER) as clients,
        visiting(database, target, source, first=100) as committed,
    ):
        wait_until(lambda: len(clients[0].acknowledged) > NEW_WRITES, 120, "there is something to bring back")
        report = json.loads(moving.finished("rollback", "--json"))
        moving.figures["rollback_downtime_seconds"] = round(report["write_downtime_seconds"], 3)
        assert back.wait() == 0, back.errors
        wait_for_move(clients, source)
    moving.note_clients("back", clients, committed)
    assert all(committed[server.name] for server in (source, target)), committed
    assert_nothing_lost(source, clients)
