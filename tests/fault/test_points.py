"""Struck at exactly one point of a transaction's way: the link cut, the reply lost, or the applier killed there."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from applier.replay import Replay
from applier.sandbox import Server
from scheduler.grouping import GroupLimits
from tests.fault.load import LOG, lost_and_doubled
from tests.fault.tally import Tally
from tests.proxy import FaultProxy
from tests.replaying import (
    Mode,
    Running,
    address,
    assert_same_data,
    command,
    run_all,
    session,
    settings,
)
from tests.waiting import wait_until

GROUPS = {"group": GroupLimits(50), "net_changes": True}
MODES: dict[str, Mode] = {
    "one by one": {},
    "relaxed": {"ordered": False},
    "groups, GTIDs preserved": GROUPS,
    "groups, own GTIDs": GROUPS | {"target_gtids": "own"},
}
OPTIONS = {
    "one by one": (),
    "groups, GTIDs preserved": ("--group-transactions", "50"),
    "groups, own GTIDs": ("--group-transactions", "50", "--target-gtids", "own"),
}
POINTS = {
    "execute": b"BINLOG '",
    "commit": b"COMMIT",
    "statement that commits by itself": b"ALTER TABLE attack.changing",
    "gtid_purged": b"SET GLOBAL gtid_purged",
}
TRANSACTIONS = 30


def only_long(modes: Iterable[str], *names: str) -> list[Any]:
    """Modes as parameters, these with the long tests only."""
    return [pytest.param(mode, marks=pytest.mark.long) if mode in names else mode for mode in modes]


@pytest.fixture
def proxy(target: Server) -> Iterator[FaultProxy]:
    with FaultProxy(target.port) as proxy:
        yield proxy


@pytest.fixture
def writer(source: Server) -> Iterator[Callable[[], None]]:
    """Each call writes some transactions: a line of the log and a hot row in each, and one DDL."""
    run_all(
        source,
        [
            "CREATE DATABASE attack",
            f"CREATE TABLE {LOG} (line INT NOT NULL)",
            "CREATE TABLE attack.hot (id INT PRIMARY KEY, n INT)",
            "CREATE TABLE attack.changing (id INT PRIMARY KEY)",
            "INSERT INTO attack.hot VALUES (1, 0), (2, 0)",
        ],
    )
    lines, columns = itertools.count(), itertools.count()
    with session(source) as run:

        def write() -> None:
            for number in range(TRANSACTIONS):
                line = next(lines)
                run("BEGIN")
                run(f"UPDATE attack.hot SET n = n + 1 WHERE id = {1 + line % 2}")
                run(f"INSERT INTO {LOG} VALUES ({line})")
                run("COMMIT")
                if number == TRANSACTIONS // 2:
                    run(f"ALTER TABLE attack.changing ADD c{next(columns)} INT")

        yield write


def struck_at(mode: str, point: str) -> bool:
    return point != "gtid_purged" or mode == "groups, GTIDs preserved"


@pytest.mark.parametrize("mode", only_long(MODES, "relaxed", "groups, own GTIDs"))
def test_link_broken_at(
    source: Server,
    target: Server,
    proxy: FaultProxy,
    writer: Callable[[], None],
    tally: Tally,
    mode: str,
) -> None:
    """Before the statement has arrived, and before its reply has; several times each."""
    through = address(target, "target", port=proxy.port)
    struck: list[float] = []

    def note_time() -> None:
        struck.append(time.monotonic())

    running = Running(Replay(settings(source, target, stop_at_end=False, target=through, **MODES[mode])))
    try:
        for point, reply_lost in itertools.product(POINTS, (False, True)):
            if not struck_at(mode, point):
                continue
            seen = proxy.trapped
            proxy.trap(POINTS[point], reply_lost=reply_lost, strike=note_time)
            writer()
            wait_until(lambda seen=seen: proxy.trapped > seen, what=f"{point}, {reply_lost=}")
            wanted = lines(source)
            wait_until(lambda wanted=wanted: lines(target) == wanted)
            name = f"{'reply lost' if reply_lost else 'link cut'}: {point}"
            tally.struck(name, time.monotonic() - struck[-1])
            tally.found(name, *lost_and_doubled(source, target))
    finally:
        running.finish()
    assert_same_data(source, target, gtids="own" not in mode)


def lines(server: Server) -> int:
    if not server.execute("SHOW DATABASES LIKE 'attack'"):
        return -1
    if not server.execute("SHOW TABLES IN attack LIKE 'log'"):
        return -1
    return int(server.execute(f"SELECT COUNT(*) FROM {LOG}")[0][0])


@pytest.mark.parametrize("mode", only_long(OPTIONS, "one by one", "groups, own GTIDs"))
def test_applier_killed_at(
    source: Server,
    target: Server,
    proxy: FaultProxy,
    writer: Callable[[], None],
    tally: Tally,
    mode: str,
) -> None:
    """kill -9 with the statement on its way, and with its reply on its way."""
    options = ("--no-check", "--workers", "3", *OPTIONS[mode])
    through = target.url.replace(str(target.port), str(proxy.port))
    for point, reply_lost in itertools.product(POINTS, (False, True)):
        if not struck_at(mode, point):
            continue
        with command(source, through, *options) as run:
            killed = threading.Event()

            def kill(pid: int = run.process.pid, killed: threading.Event = killed) -> None:
                os.kill(pid, signal.SIGKILL)
                killed.set()

            proxy.trap(POINTS[point], reply_lost=reply_lost, strike=kill)
            writer()
            wait_until(killed.is_set, what=f"{point}, {reply_lost=}")
            run.wait()
        tally.struck(f"applier killed at: {point}")
    with command(source, target, *options, "--stop-at-end") as last:
        assert last.wait() == 0, last.errors
    assert_same_data(source, target, gtids="own" not in mode)
    for point in POINTS:
        if struck_at(mode, point):
            tally.found(f"applier killed at: {point}", *lost_and_doubled(source, target))


@pytest.mark.parametrize("mode", only_long(OPTIONS, "groups, GTIDs preserved", "groups, own GTIDs"))
def test_applier_killed_while_it_drains(
    source: Server,
    target: Server,
    proxy: FaultProxy,
    writer: Callable[[], None],
    tally: Tally,
    mode: str,
) -> None:
    """SIGTERM, and then kill -9 with a COMMIT on its way that the drain waits for."""
    options = ("--no-check", "--workers", "3", *OPTIONS[mode])
    through = target.url.replace(str(target.port), str(proxy.port))
    writer()
    with session(target) as run_on_target, command(source, through, *options) as run:
        wait_until(lambda: lines(target) == lines(source))
        run_on_target("BEGIN")
        run_on_target("SELECT * FROM attack.hot FOR UPDATE")
        writer()
        wait_until(lambda: target.execute("SELECT 1 FROM performance_schema.data_lock_waits"))
        killed = threading.Event()
        run.terminate()

        def kill() -> None:
            run.process.kill()
            killed.set()

        proxy.trap(POINTS["commit"], strike=kill)
        run_on_target("ROLLBACK")
        wait_until(killed.is_set)
        run.wait()
    with command(source, target, *options, "--stop-at-end") as last:
        assert last.wait() == 0, last.errors
    assert_same_data(source, target, gtids="own" not in mode)
    tally.struck("applier killed while it drains")
    tally.found("applier killed while it drains", *lost_and_doubled(source, target))
