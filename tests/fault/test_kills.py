"""kill -9 at random moments, of the applier and of both servers, while TPC-C runs: nothing lost, nothing doubled.

pytest tests/fault/test_kills.py -k applier --kills 200 --fault-table faults.json
pytest tests/fault/test_kills.py -k "server" --kills 30 --fault-table faults.json
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable

import pymysql
import pytest

from applier.sandbox import Server
from tests.fault.load import lost_and_doubled, under_load
from tests.fault.tally import Tally
from tests.replaying import Command, assert_same_data, command
from tests.waiting import wait_until

MODES = {
    "one by one": ("--workers", "4"),
    "groups, GTIDs preserved": ("--workers", "3", "--group-transactions", "50"),
    "groups, own GTIDs": ("--workers", "3", "--group-transactions", "50", "--target-gtids", "own"),
}
in_every_mode = pytest.mark.parametrize(
    "mode", [mode if mode == "one by one" else pytest.param(mode, marks=pytest.mark.long) for mode in MODES]
)
KILLS = 3
SECONDS_MAX = 0.6  # between the first commit after a start, and the kill
GO_ON_SECONDS_MAX = 90.0
FINISH_SECONDS_MAX = 1800.0  # hundreds of kills leave a backlog


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--kills") or KILLS


def applied(target: Server) -> str:
    """What is committed on the target, in its own words; empty while it is away."""
    with contextlib.suppress(pymysql.err.MySQLError, OSError):
        tables = target.execute("SHOW TABLES IN applier") if has_progress(target) else ()
        if tables:
            return str(target.execute("SELECT executed FROM applier.progress")[0][0])
        return str(target.execute("SELECT @@GLOBAL.gtid_executed")[0][0])
    return ""


def has_progress(target: Server) -> bool:
    return bool(target.execute("SHOW DATABASES LIKE 'applier'"))


def wait_for_more(target: Server, before: str, run: Command) -> float:
    """Until the target has more than `before`; when that was seen, monotonic seconds."""

    def more() -> bool:
        assert run.process.poll() is None, f"the applier has ended by itself: {ended(run)}"
        return applied(target) not in ("", before)

    wait_until(more, GO_ON_SECONDS_MAX)
    return time.monotonic()


def ended(run: Command) -> str:
    run.wait()
    return run.errors


def finish(source: Server, target: Server, options: tuple[str, ...]) -> None:
    """Everything that is left is applied, and the same."""
    with command(source, target, *options, "--stop-at-end", "--no-check") as last:
        assert last.wait(FINISH_SECONDS_MAX) == 0, last.errors
    assert_same_data(source, target, gtids="own" not in options)


@in_every_mode
@pytest.mark.timeout(7200)
def test_applier_killed_at_random_moments(
    source: Server, target: Server, tally: Tally, kills: int, mode: str
) -> None:
    chance, options, fault = random.Random(mode), MODES[mode], f"applier killed, {mode}"
    with under_load(source):
        struck = None
        for _ in range(kills + 1):
            before = applied(target)
            with command(source, target, *options, "--no-check") as run:
                going = wait_for_more(target, before, run)
                if struck is not None:
                    tally.struck(fault, going - struck)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(chance.uniform(0, SECONDS_MAX))
                run.process.send_signal(signal.SIGKILL)
                struck = time.monotonic()
    finish(source, target, options)
    tally.found(fault, *lost_and_doubled(source, target))


def the_target(source: Server, target: Server) -> Server:
    return target


def the_source(source: Server, target: Server) -> Server:
    return source


@pytest.mark.long
@pytest.mark.parametrize("victim", [the_target, the_source])
@pytest.mark.parametrize("mode", ["one by one", "groups, GTIDs preserved"])
@pytest.mark.timeout(7200)
def test_server_killed_at_random_moments(
    source: Server,
    target: Server,
    tally: Tally,
    kills: int,
    mode: str,
    victim: Callable[[Server, Server], Server],
) -> None:
    name = victim.__name__.removeprefix("the_")
    chance, options, fault = random.Random(mode), MODES[mode], f"{name} killed, {mode}"
    server = victim(source, target)
    with (
        under_load(source),
        command(source, target, *options, "--no-check", "--reconnect-attempts", "1000") as run,
    ):
        wait_for_more(target, applied(target), run)
        for _ in range(kills):
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(chance.uniform(0, SECONDS_MAX))
            server.kill()
            struck = time.monotonic()
            server.start()
            before = applied(target)
            tally.struck(fault, wait_for_more(target, before, run) - struck)
        run.terminate()
        assert run.wait() == 0, run.errors
    finish(source, target, options)
    tally.found(fault, *lost_and_doubled(source, target))
