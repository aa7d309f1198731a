"""Each cause of lag, provoked on purpose: a run that is watched names it, and the row, table or lock with it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from applier.observe.observer import Observer
from applier.observe.snapshot import snapshot
from applier.observe.status import Cause, Status
from applier.replay import Replay
from applier.sandbox import Sandbox, Server
from tests.proxy import FaultProxy
from tests.replaying import Running, address, run_all, session, settings
from tests.slow_disk import SLOW_WHILE, slow_fsync_library
from tests.waiting import wait_until

# What does not wait for the disk, so that something else is the slowest.
NO_FSYNC = ("SET GLOBAL sync_binlog = 0", "SET GLOBAL innodb_flush_log_at_trx_commit = 2")


@contextlib.contextmanager
def watched(source: Server, target: Server, /, **changes: Any) -> Iterator[tuple[Observer, Running]]:
    """A replay that is watched, until the block ends."""
    replay = Replay(settings(source, target, **({"stop_at_end": False} | changes)))
    with Observer(replay) as observer:
        running = Running(replay)
        try:
            yield observer, running
        except BaseException:
            replay.abort()
            raise
        running.finish()


def status_after(source: Server, target: Server, /, **changes: Any) -> Status:
    """Of a run that has applied all that the source has."""
    with watched(source, target, **changes) as (observer, running):
        running.wait_for(source, target)
        observer.sampler.close_slice()
        return snapshot(observer)


def largest(status: Status) -> tuple[Cause, str]:
    """The largest cause of the run that is not idleness, and what is told of it."""
    share = next(share for share in status.lag.run_causes if share.cause is not Cause.IDLE)
    return share.cause, share.detail


def independent_rows(source: Server, count: int) -> None:
    """`count` transactions that have nothing to do with each other."""
    run_all(
        source,
        [
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)",
            *(f"INSERT INTO d.t VALUES ({number}, 0)" for number in range(count)),
        ],
    )


@pytest.mark.parametrize("ordered", [True, False], ids=["strict", "relaxed"])
def test_hot_row(source: Server, target: Server, ordered: bool) -> None:
    """Every transaction changes one row of all, and does much else: many indexes, little log."""
    run_all(target, NO_FSYNC)
    indexed = [f"k{number} INT, KEY (k{number})" for number in range(8)]
    with session(
        source,
        "CREATE DATABASE d",
        "CREATE TABLE d.hot (id INT PRIMARY KEY, n INT)",
        f"CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, {', '.join(indexed)})",
        "INSERT INTO d.hot VALUES (1, 0), (7, 0)",
    ) as run:
        for number in range(250):
            run("BEGIN")
            run("UPDATE d.hot SET n = n + 1 WHERE id = 7")
            rows = (f"(NULL{f', {number * row * 7919 % 99991}' * 8})" for row in range(100))
            run(f"INSERT INTO d.t VALUES {', '.join(rows)}")
            run("COMMIT")
    status = status_after(source, target, ordered=ordered)
    assert largest(status) == (Cause.HOT_KEY, "d.hot (id=7)"), status.lag.run_causes
    assert [(key.table, key.key) for key in status.hot_keys] == [("d.hot", "id=7")]


def test_table_without_primary_key(source: Server, target: Server) -> None:
    run_all(target, NO_FSYNC)
    with session(
        source,
        "CREATE DATABASE d",
        "CREATE TABLE d.log (a INT, b INT)",
        "INSERT INTO d.log VALUES " + ", ".join(f"({number}, 0)" for number in range(20_000)),
    ) as run:
        for number in range(200):
            run(f"UPDATE d.log SET b = 1 WHERE a = {number * 100}")
    status = status_after(source, target)
    assert largest(status) == (Cause.NO_PRIMARY_KEY, "d.log"), status.lag.run_causes


def test_barriers(source: Server, target: Server) -> None:
    run_all(
        source,
        ["CREATE DATABASE d", *(f"CREATE TABLE d.t{number} (id INT PRIMARY KEY)" for number in range(60))],
    )
    cause, detail = largest(status_after(source, target))
    assert cause is Cause.BARRIER
    assert detail == "61 ddl"


def test_lock_of_another_session(source: Server, target: Server) -> None:
    independent_rows(source, 50)
    with watched(source, target) as (observer, running):
        running.wait_for(source, target)
        with session(target, "BEGIN", "SELECT * FROM d.t WHERE id = 7 FOR UPDATE"):
            run_all(source, ["UPDATE d.t SET v = 1 WHERE id = 7"])
            wait_until(lambda: observer.cause() is Cause.LOCK_WAIT, what="the lock is seen")
            wait_until(lambda: observer.lag()[0] > 1.0, what="lag is told")
            # The table of a lock may be told a look later than the lock.
            wait_until(lambda: "d.t, held by" in snapshot(observer).lag.because, what="the lock is named")
            lag = snapshot(observer).lag
        running.wait_for(source, target)
    assert lag.because.startswith("lock_wait")
    assert "d.t, held by connection" in lag.because
    assert lag.transactions == 1


def test_slow_network_to_the_target(source: Server, target: Server) -> None:
    independent_rows(source, 60)
    with FaultProxy(target.port) as proxy:
        proxy.delay(10)
        through = dataclasses.replace(address(target, "target"), port=proxy.port)
        cause, detail = largest(status_after(source, target, target=through))
    assert cause is Cause.NETWORK
    told = re.search(r"target (\d+(?:\.\d+)?) ms", detail)
    assert told is not None, detail
    assert 20.0 <= float(told[1]) < 60.0, detail  # 10 ms each way, and what a busy machine adds


def test_slow_network_from_the_source(source: Server, target: Server) -> None:
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)"])
    with FaultProxy(source.port) as proxy:
        through = dataclasses.replace(address(source, "source"), port=proxy.port)
        with watched(source, target, source=through) as (observer, running):
            running.wait_for(source, target)
            proxy.delay(300)
            numbers = itertools.count()

            def named() -> bool:
                run(f"INSERT INTO d.t VALUES ({next(numbers)}, 0)")
                return observer.cause() is Cause.NETWORK and observer.lag()[0] > 0.25

            with session(source) as run:
                wait_until(named, what="the network is named")
            proxy.delay(0)
            running.wait_for(source, target)
            wait_until(lambda: observer.lag() == (0.0, 0), what="no lag")


@pytest.fixture(scope="module")
def slow_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server whose fsync takes 10 ms longer while the file exists."""
    folder = tmp_path_factory.mktemp("slow")
    slow = folder / "slow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(slow_fsync_library(folder)))
        patch.setenv(SLOW_WHILE, str(slow))
        with Sandbox(servers=("slow",)) as sandbox:
            yield sandbox["slow"], slow


def test_slow_fsync(source: Server, slow_target: tuple[Server, Path]) -> None:
    target, slow = slow_target
    independent_rows(source, 100)
    slow.touch()
    try:
        cause, detail = largest(status_after(source, target))
    finally:
        slow.unlink()
    assert cause is Cause.FSYNC
    assert "commit takes" in detail
