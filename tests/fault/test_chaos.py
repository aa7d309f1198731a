"""Links that misbehave at random, and a target that does: every transaction arrives once.

pytest -m "long or not long" tests/fault/test_chaos.py --minutes 5 --fault-table faults.json
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator

import pymysql
import pytest

from applier.errors import ApplyError
from applier.replay import Replay
from applier.sandbox import Server
from scheduler.grouping import GroupLimits
from tests.fault.load import lost_and_doubled, under_load
from tests.fault.tally import Tally
from tests.proxy import FaultProxy
from tests.replaying import (
    Mode,
    Running,
    address,
    assert_same_data,
    executed,
    replay,
    replaying,
    run_all,
    session,
    settings,
)
from tests.waiting import wait_until

SECONDS = 8.0
GROUPS = {"group": GroupLimits(50), "net_changes": True}
MODES: dict[str, Mode] = {
    "one by one": {},
    "groups, GTIDs preserved": GROUPS,
    "groups, own GTIDs": GROUPS | {"target_gtids": "own"},
}
QUIET_SECONDS_MAX = 120.0

Fault = Callable[[FaultProxy, random.Random, threading.Event], None]


# --- what a link may do ------------------------------------------------------------------------------


def cut(proxy: FaultProxy, chance: random.Random, stop: threading.Event) -> None:
    proxy.cut()


def reset_in_a_packet(proxy: FaultProxy, chance: random.Random, stop: threading.Event) -> None:
    seen = proxy.bytes_to_client
    proxy.cut_after(length := chance.randint(1, 3000))
    with contextlib.suppress(TimeoutError):
        proxy.wait_until(lambda proxy: proxy.bytes_to_client >= seen + length, 1.0)


def stall(proxy: FaultProxy, chance: random.Random, stop: threading.Event) -> None:
    proxy.stall()
    stop.wait(chance.uniform(0.1, 2.0))


def half_close(proxy: FaultProxy, chance: random.Random, stop: threading.Event) -> None:
    proxy.half_close()


def byte_by_byte(proxy: FaultProxy, chance: random.Random, stop: threading.Event) -> None:
    proxy.throttle(1)
    stop.wait(1.0)


def delay(proxy: FaultProxy, chance: random.Random, stop: threading.Event) -> None:
    proxy.delay(200)
    stop.wait(2.0)


def refuse(proxy: FaultProxy, chance: random.Random, stop: threading.Event) -> None:
    proxy.refuse()
    proxy.cut()
    stop.wait(chance.uniform(0.1, 1.0))


FAULTS: tuple[Fault, ...] = (cut, reset_in_a_packet, stall, half_close, byte_by_byte, delay, refuse)


class Trouble:
    """Faults at random on both links until it is told to stop, with some quiet in between, and each one's recovery."""

    def __init__(self, links: dict[str, FaultProxy], target: Server, tally: Tally, seed: object) -> None:
        self._links = links
        self._target = target
        self._tally = tally
        self._chance = random.Random(str(seed))
        self.names: set[str] = set()

    def make(self, seconds: float) -> None:
        stop = threading.Event()  # never set: it is what faults wait with
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            role, proxy = self._chance.choice(list(self._links.items()))
            fault = self._chance.choice(FAULTS)
            fault(proxy, self._chance, stop)
            proxy.reset()
            over = time.monotonic()
            before = progress_of(self._target)
            wait_until(
                lambda before=before: progress_of(self._target) != before, QUIET_SECONDS_MAX, fault.__name__
            )
            name = f"link to the {role}: {fault.__name__.replace('_', ' ')}"
            self._tally.struck(name, time.monotonic() - over)
            self.names.add(name)


def progress_of(target: Server) -> str:
    with contextlib.suppress(pymysql.err.MySQLError):
        return str(target.execute("SELECT executed FROM applier.progress"))
    return str(executed(target))


@pytest.mark.parametrize(
    "mode",
    [
        mode if mode == "groups, GTIDs preserved" else pytest.param(mode, marks=pytest.mark.long)
        for mode in MODES
    ],
)
@pytest.mark.timeout(7200)
def test_links_that_misbehave(
    request: pytest.FixtureRequest, source: Server, target: Server, tally: Tally, mode: str
) -> None:
    minutes = request.config.getoption("--minutes")
    with FaultProxy(source.port) as to_source, FaultProxy(target.port) as to_target, under_load(source):
        ends = {
            "source": address(source, "source", port=to_source.port),
            "target": address(target, "target", port=to_target.port),
        }
        run = Running(
            Replay(
                settings(
                    source, target, stop_at_end=False, reconnect_attempts_max=1000, **ends, **MODES[mode]
                )
            )
        )
        trouble = Trouble({"source": to_source, "target": to_target}, target, tally, mode)
        try:
            wait_until(lambda: progress_of(target) != "")
            trouble.make(minutes * 60 if minutes else SECONDS)
        finally:
            run.finish()
    replay(source, target, **MODES[mode])
    assert_same_data(source, target, gtids="own" not in mode)
    for name in trouble.names:
        tally.found(name, *lost_and_doubled(source, target))


# --- a target that misbehaves ------------------------------------------------------------------------


@pytest.fixture
def table(source: Server, target: Server) -> str:
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)"])
    run_all(source, [f"INSERT INTO d.t (v) VALUES {', '.join(['(0)'] * 20)}"])
    replay(source, target)
    return "d.t"


def test_target_becomes_read_only(source: Server, target: Server, table: str, tally: Tally) -> None:
    with replaying(source, target, workers=3) as running:
        run_all(source, ["UPDATE d.t SET v = v + 1 WHERE id = 1"])
        running.wait_for(source, target)
        target.execute("SET GLOBAL super_read_only = ON")
        run_all(source, ["UPDATE d.t SET v = v + 1 WHERE id = 1"])
        with pytest.raises(ApplyError, match=r"1290.*read"):
            running.end()
        running.failure = None
    target.execute("SET GLOBAL super_read_only = OFF")
    replay(source, target)
    assert_same_data(source, target)
    tally.struck("target becomes read-only (stops with exit code 4)")


def test_target_without_a_free_connection_is_waited_for(
    source: Server, target: Server, table: str, tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    with session(target) as run_on_target, replaying(source, target, workers=3) as running:
        running.wait_for(source, target)
        with contextlib.ExitStack() as others:
            for _ in range(12):
                others.enter_context(session(target))
            run_on_target("SET GLOBAL max_connections = 10")
            for (number,) in run_on_target(
                "SELECT processlist_id FROM performance_schema.session_connect_attrs"
                " WHERE attr_name = 'applier_channel'"
            ):
                run_on_target(f"KILL {number}")
            run_all(source, ["UPDATE d.t SET v = v + 1"])
            wait_until(lambda: "Too many connections" in "".join(map(detail, caplog.records)))
        struck = time.monotonic()
        run_on_target("SET GLOBAL max_connections = 151")
        running.wait_for(source, target)
        tally.struck("target out of connections", time.monotonic() - struck)
    assert_same_data(source, target)


def detail(record: logging.LogRecord) -> str:
    return str(getattr(record, "detail", ""))


@contextlib.contextmanager
def lock_waits(target: Server) -> Iterator[None]:
    """Other clients of the target lock rows for moments, and change some without ever committing."""
    enough = threading.Event()

    def lock(seed: int) -> None:
        chance = random.Random(seed)
        while not enough.is_set():
            with contextlib.suppress(pymysql.err.OperationalError), session(target) as run:
                while not enough.is_set():
                    run("BEGIN")
                    run(f"SELECT * FROM d.t WHERE id >= {chance.randint(1, 20)} LIMIT 5 FOR UPDATE")
                    run(f"UPDATE d.t SET v = -1 WHERE id = {chance.randint(1, 20)}")
                    enough.wait(chance.uniform(0, 0.3))
                    run("ROLLBACK")

    threads = [threading.Thread(target=lock, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("mode", ["one by one", "groups, GTIDs preserved"])
def test_lock_waits_of_other_clients_are_sat_out(
    source: Server, target: Server, table: str, tally: Tally, mode: str
) -> None:
    chance = random.Random(mode)
    with replaying(source, target, **MODES[mode]) as running:
        with lock_waits(target):
            for _ in range(15):
                run_all(
                    source,
                    [
                        f"UPDATE d.t SET v = v + 1 WHERE id IN ({chance.randint(1, 20)}, {chance.randint(1, 20)})"
                    ],
                )
        running.wait_for(source, target)
    assert_same_data(source, target)
    tally.struck(f"lock waits of other clients, {mode}")
