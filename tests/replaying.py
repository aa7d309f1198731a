"""Replays for tests: in this process or as the command, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from applier.address import Role, ServerAddress, parse_url
from applier.events.gtid import GtidSet
from applier.events.query import identifier
from applier.pipeline import PipelineSettings
from applier.replay import Progress, Replay
from applier.sandbox import Server
from applier.settings import RunSettings
from applier.verify import VerifyOptions, verify
from applier.verify.definitions import OWN_SCHEMA
from scheduler.grouping import GroupLimits
from tests.waiting import wait_until

END_SECONDS = 60.0

# Ways of applying that come to the same: pass the value of `mode` on to `replay`.
Mode = dict[str, Any]
MODES: dict[str, Mode] = {
    "one by one": {},
    "relaxed": {"ordered": False, "workers": 8},
    "net changes": {"group": GroupLimits(100), "net_changes": True},
}
in_every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def address(server: Server, role: Role, **changes: Any) -> ServerAddress:
    return dataclasses.replace(parse_url(server.url, role, prompt=False), **changes)


PIPELINE = frozenset(field.name for field in dataclasses.fields(PipelineSettings))


def settings(source: Server, target: Server, /, **changes: Any) -> RunSettings:
    """Settings of a run that ends at the source's end, unless changed: fields of RunSettings or PipelineSettings."""
    pipeline = {"workers": 4} | {name: changes.pop(name) for name in PIPELINE & changes.keys()}
    wanted: dict[str, Any] = {
        "source": address(source, "source"),
        "target": address(target, "target"),
        "pipeline": PipelineSettings(**pipeline),
        "stop_at_end": "until_gtid_set" not in changes,
        "check": False,
    }
    return RunSettings(**(wanted | changes))


def replay(source: Server, target: Server, /, **changes: Any) -> Progress:
    """Applies everything that the source has now. Raises what the run raises."""
    return Replay(settings(source, target, **changes)).run()


class Running:
    """A replay in a thread of its own."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.replay.run()
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            self.failure = error

    def finish(self) -> Progress:
        """Drains, waits, raises what the run raised."""
        self.replay.drain()
        return self.end()

    def end(self) -> Progress:
        """Waits for the end of the run, raises what it raised."""
        self._thread.join(END_SECONDS)
        assert not self._thread.is_alive(), "the replay does not end"
        if self.failure is not None:
            raise self.failure
        return self.replay.progress()

    def wait_for(self, source: Server, target: Server, seconds: float = END_SECONDS) -> None:
        """Until the target has what the source has now."""
        wanted = executed(source)

        def there() -> bool:
            if self.failure is not None:
                raise self.failure
            return wanted <= executed(target)

        wait_until(there, seconds, f"the target has {wanted}")


@contextlib.contextmanager
def replaying(source: Server, target: Server, /, **changes: Any) -> Iterator[Running]:
    """A replay that runs until the block ends."""
    running = Running(Replay(settings(source, target, **({"stop_at_end": False} | changes))))
    try:
        yield running
    except BaseException:
        running.replay.abort()
        raise
    running.finish()


# --- what must hold ----------------------------------------------------------------------------------


def executed(server: Server) -> GtidSet:
    """Of a server that answers; empty while it does not."""
    with contextlib.suppress(Exception):
        return GtidSet.parse(str(server.execute("SELECT @@GLOBAL.gtid_executed")[0][0]))
    return GtidSet()


def base_tables(server: Server) -> list[str]:
    rows = server.execute(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        " AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema', %s) ORDER BY 1, 2",
        (OWN_SCHEMA,),
    )
    return [f"{identifier(schema)}.{identifier(table)}" for schema, table in rows]


def checksums(server: Server) -> dict[str, int]:
    """CHECKSUM TABLE of every table, but for those with a functional index: there it differs from call to call."""
    functional = server.execute(
        "SELECT DISTINCT table_schema, table_name FROM information_schema.statistics WHERE expression IS NOT NULL"
    )
    skipped = {f"{identifier(schema)}.{identifier(table)}" for schema, table in functional}
    return {
        name: server.execute(f"CHECKSUM TABLE {name} EXTENDED")[0][1]
        for name in base_tables(server)
        if name not in skipped
    }


def assert_identical(source: Server, target: Server) -> None:
    """The same transactions, definitions, rows, views, routines, triggers and events."""
    assert_same_data(source, target)


def assert_same_data(source: Server, target: Server, *, gtids: bool = True) -> None:
    """The same; `gtids=False`: the target has GTIDs of its own, and the source is not written to."""
    wanted, found = executed(source), executed(target)
    assert found == wanted or not gtids, f"the target has {found}, the source {wanted}"
    report = verify(
        address(source, "source"), address(target, "target"), VerifyOptions(assume_quiesced=not gtids)
    )
    assert report.differences == (), report.differences
    assert report.warnings == (), report.warnings
    assert report.identical
    ours, theirs = checksums(source), checksums(target)
    assert theirs == ours, f"CHECKSUM TABLE differs: {sorted(set(ours.items()) ^ set(theirs.items()))}"


# --- sessions on the source --------------------------------------------------------------------------


@contextlib.contextmanager
def session(server: Server, *statements: str, **arguments: Any) -> Iterator[Callable[[str], Any]]:
    """A session that has run `statements`; gives a function that runs one more and returns its rows."""
    connection: Connection[Cursor] = server.connect(**arguments)
    with contextlib.closing(connection), connection.cursor() as cursor:

        def run(statement: str) -> Any:
            cursor.execute(statement)
            return cursor.fetchall()

        for statement in statements:
            run(statement)
        yield run


def run_all(server: Server, statements: Iterable[str], **arguments: Any) -> None:
    """The statements in one session."""
    with session(server, **arguments) as run:
        for statement in statements:
            run(statement)


# --- the command -------------------------------------------------------------------------------------


class Command:
    """`applier run` (or another command) as a process of its own."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "applier", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONWARNINGS": "default"} | dict(environment or {}),
            text=True,
        )
        self.output = self.errors = ""

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *ignored: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Exit code; `output` and `errors` are there afterwards."""
        self.output, self.errors = self.process.communicate(timeout=seconds)
        return self.process.returncode

    @property
    def error_lines(self) -> list[str]:
        """What the command says itself on stderr; log lines left out."""
        return [line for line in self.errors.splitlines() if line.startswith("applier: ")]


def command(
    source: Server | str,
    target: Server | str,
    *options: str,
    environment: Mapping[str, str] | None = None,
) -> Command:
    """`applier run` between two servers, or two URLs."""
    urls = [one if isinstance(one, str) else one.url for one in (source, target)]
    return Command("run", "--source", urls[0], "--target", urls[1], *options, environment=environment)


def outcome(source: Server | str, target: Server | str, *options: str, **arguments: Any) -> Command:
    """`applier run`, waited for."""
    with command(source, target, *options, **arguments) as run:
        run.wait()
    return run
