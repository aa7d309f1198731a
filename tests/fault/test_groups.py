"""Commit groups under faults: exactly once, whatever is killed and when."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from applier.errors import ApplyError, ChannelTaken, Fenced, PreflightFailed, TargetLost, UsageError
from applier.pipeline import PipelineSettings
from applier.replay import Replay
from applier.sandbox import Server
from applier.settings import RunSettings
from applier.source.relay.session import RelaySettings
from applier.target import keeper
from applier.verify import VerifyOptions, verify
from scheduler.grouping import GroupLimits
from tests.proxy import FaultProxy
from tests.replaying import Running, address, executed
from tests.waiting import wait_until

Gtids = Literal["preserve", "own"]
ROUNDS = 4


def settings(source: Server, target: Server, gtids: Gtids, **changes: object) -> RunSettings:
    pipeline = PipelineSettings(workers=3, group=GroupLimits(50), target_gtids=gtids, net_changes=True)
    chosen = RunSettings(
        address(source, "source"), address(target, "target"), pipeline=pipeline, stop_at_end=True, check=False
    )
    return dataclasses.replace(chosen, **changes)


def write(source: Server, transactions: int, seed: int) -> None:
    """Updates of few rows, and one line each in a log without any key, where doubling would show."""
    chance = random.Random(seed)
    source.execute("CREATE DATABASE IF NOT EXISTS d")
    source.execute("CREATE TABLE IF NOT EXISTS d.rows (id INT PRIMARY KEY, v INT NOT NULL, u INT UNIQUE)")
    source.execute("CREATE TABLE IF NOT EXISTS d.log (line INT NOT NULL)")
    source.execute("INSERT IGNORE INTO d.rows VALUES " + ",".join(f"({i},0,{i})" for i in range(40)))
    with source.connect() as connection, connection.cursor() as cursor:
        for number in range(transactions):
            row = chance.randrange(40)
            cursor.execute("BEGIN")
            cursor.execute(f"UPDATE d.rows SET v = v + 1, u = NULL WHERE id = {row}")
            if chance.random() < 0.3:
                cursor.execute(f"DELETE FROM d.rows WHERE id = {row}")
                cursor.execute(f"INSERT INTO d.rows VALUES ({row}, 1, NULL)")
            cursor.execute(f"INSERT INTO d.log VALUES ({seed * 100_000 + number})")
            cursor.execute("COMMIT")


@contextlib.contextmanager
def writing(source: Server) -> Iterator[None]:
    """Writes go on while the block runs."""
    enough = threading.Event()

    def load() -> None:
        for seed in itertools.count(1):
            if enough.is_set():
                return
            write(source, 50, seed)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def assert_same_rows(source: Server, target: Server) -> None:
    report = verify(address(source, "source"), address(target, "target"), VerifyOptions(assume_quiesced=True))
    assert report.differences == ()
    lines = "SELECT COUNT(*), COUNT(DISTINCT line) FROM d.log"
    assert target.execute(lines) == source.execute(lines)


@contextlib.contextmanager
def command(source: Server, target: Server, gtids: Gtids) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "applier", "run", "--source", source.url, "--target", target.url),
            *("--workers", "3", "--group-transactions", "50", "--target-gtids", gtids, "--no-check"),
        ],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("gtids", ["preserve", "own"])
def test_killed_applier_goes_on_without_loss_or_doubling(
    source: Server, target: Server, gtids: Gtids
) -> None:
    chance = random.Random(f"kill {gtids}")
    write(source, 300, seed=0)
    with writing(source):
        for _ in range(ROUNDS):
            with command(source, target, gtids) as process:
                seen = target.execute("SELECT @@GLOBAL.gtid_executed")
                wait_until(lambda seen=seen: target.execute("SELECT @@GLOBAL.gtid_executed") != seen)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0, 0.4))
                process.send_signal(signal.SIGKILL)
    Replay(settings(source, target, gtids)).run()
    assert_same_rows(source, target)
    if gtids == "preserve":
        assert executed(target) == executed(source)


@pytest.mark.parametrize("gtids", ["preserve", "own"])
def test_killed_target_goes_on_without_loss_or_doubling(source: Server, target: Server, gtids: Gtids) -> None:
    write(source, 800, seed=1)
    running = Running(Replay(settings(source, target, gtids)))
    wait_until(lambda: running.replay.progress().transactions > 50)
    target.kill()
    target.start()
    running.end()
    assert_same_rows(source, target)
    if gtids == "preserve":
        assert executed(target) == executed(source)


@pytest.mark.parametrize("relayed", [False, True], ids=["live", "relay log"])
def test_a_delay_makes_groups_where_there_is_no_backlog(
    source: Server, target: Server, relayed: bool, tmp_path: Path
) -> None:
    pipeline = PipelineSettings(workers=3, group=GroupLimits(1000, delay_seconds=0.5), net_changes=True)
    wanted = settings(
        source,
        target,
        "preserve",
        stop_at_end=False,
        pipeline=pipeline,
        relay_log=RelaySettings(tmp_path / "relay") if relayed else None,
    )
    running = Running(Replay(wanted))
    for seed in range(2):
        write(source, 150, seed)
        running.wait_for(source, target)
    workers = running.replay.pipeline.workers if running.replay.pipeline else []
    running.finish()
    assert sum(worker.state.transactions for worker in workers) >= 300
    assert sum(worker.state.units for worker in workers) < 60
    assert_same_rows(source, target)


def test_second_applier_on_a_channel_is_refused(source: Server, target: Server) -> None:
    write(source, 5, seed=1)
    running = Running(Replay(settings(source, target, "own", stop_at_end=False)))
    wait_until(lambda: running.replay.progress().transactions > 0)
    with pytest.raises(ChannelTaken, match="channel"):
        Replay(settings(source, target, "own")).run()
    write(source, 5, seed=2)
    running.finish()


def test_a_drain_that_cannot_tell_the_target_its_gtids_says_so(
    source: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stock replica that took over then would apply the last groups again."""
    monkeypatch.setattr(keeper, "PERIOD_SECONDS", 3600.0)
    write(source, 20, seed=1)
    with FaultProxy(target.port) as proxy:
        through = dataclasses.replace(
            settings(source, target, "preserve", stop_at_end=False),
            target=address(target, "target", port=proxy.port),
        )
        running = Running(Replay(through))
        wanted = executed(source).count
        wait_until(lambda: running.replay.progress().transactions == wanted)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(TargetLost, match="start once more") as lost:
            running.finish()
    assert lost.value.exit_code == 75
    assert executed(target) != executed(source)
    Replay(settings(source, target, "preserve")).run()
    assert executed(target) == executed(source)
    assert_same_rows(source, target)


def test_a_channel_may_have_any_ascii_name(source: Server, target: Server) -> None:
    write(source, 5, seed=1)
    Replay(settings(source, target, "own", channel="it's a \\")).run()
    assert_same_rows(source, target)
    for channel in ("", "x" * 57, "kanal-ä"):
        with pytest.raises(UsageError, match="--channel"):
            settings(source, target, "own", channel=channel)


def test_stalled_applier_cannot_commit_after_another_took_over(source: Server, target: Server) -> None:
    write(source, 20, seed=1)
    running = Running(Replay(settings(source, target, "own", stop_at_end=False)))
    wanted = executed(source).count
    wait_until(lambda: running.replay.progress().transactions == wanted)
    # What a second applier does once the first one's lock is gone, as after a partition.
    target.execute("UPDATE applier.progress SET owner = owner + 1")
    write(source, 5, seed=2)
    with pytest.raises(Fenced, match="taken over"):
        running.end()
    assert target.execute("SELECT COUNT(*) FROM d.log WHERE line >= 200000") == ((0,),)


def test_what_groups_have_applied_is_not_applied_again_one_by_one(source: Server, target: Server) -> None:
    """Nor without the check before the start, which does not hold the channel yet."""
    write(source, 20, seed=1)
    Replay(settings(source, target, "own")).run()
    write(source, 5, seed=2)
    one_by_one = settings(source, target, "preserve", pipeline=PipelineSettings(workers=3))
    with pytest.raises(PreflightFailed, match="would apply them again"):
        Replay(one_by_one).run()
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT GTID_SUBTRACT(executed, @@GLOBAL.gtid_executed) FROM applier.progress")
        cursor.execute("SET GLOBAL gtid_purged = %s", ("+" + cursor.fetchall()[0][0],))
    Replay(one_by_one).run()
    assert_same_rows(source, target)


@pytest.mark.parametrize("gtids", ["preserve", "own"])
def test_group_that_fails_commits_what_is_before_the_guilty_transaction(
    source: Server, target: Server, gtids: Gtids
) -> None:
    write(source, 10, seed=1)
    Replay(settings(source, target, gtids)).run()
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("INSERT INTO d.rows VALUES (1005, 0, NULL)")
        cursor.execute("COMMIT")
    for number in range(1000, 1010):
        source.execute(f"INSERT INTO d.rows VALUES ({number}, 0, NULL)")
    with pytest.raises(ApplyError, match=r"1062.*d\.rows") as failure:
        Replay(settings(source, target, gtids)).run()
    assert failure.value.exit_code == 4
    assert target.execute("SELECT COUNT(*), MAX(id) FROM d.rows WHERE id >= 1000") == ((6, 1005),)
    assert "id=1005" in str(failure.value).replace("@1=1005", "id=1005")
    # The operator mends the target, and it goes on.
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("DELETE FROM d.rows WHERE id = 1005")
        cursor.execute("COMMIT")
    Replay(settings(source, target, gtids)).run()
    assert_same_rows(source, target)


@pytest.mark.parametrize("mode", ["kept", "preserve", "own"])
def test_transaction_that_cannot_be_applied_is_left_out_on_request(
    source: Server, target: Server, mode: str
) -> None:
    chosen = settings(source, target, "own" if mode == "own" else "preserve")
    if mode == "kept":
        chosen = dataclasses.replace(chosen, pipeline=PipelineSettings(workers=3))
    write(source, 10, seed=1)
    Replay(chosen).run()
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("DELETE FROM d.rows WHERE id = 7")
        cursor.execute("COMMIT")
    source.execute("DELETE FROM d.rows WHERE id = 7")
    source.execute("INSERT INTO d.log VALUES (77)")
    with pytest.raises(ApplyError, match=r"1032.*--skip-gtid") as failure:
        Replay(chosen).run()
    Replay(dataclasses.replace(chosen, skip_gtid_set=str(failure.value.facts["gtid"]))).run()
    assert_same_rows(source, target)


def test_stock_replica_that_fell_behind_is_caught_up_and_goes_on(source: Server, target: Server) -> None:
    make_replica(target, source)
    write(source, 50, seed=1)
    wait_until(lambda: executed(source) <= executed(target))
    target.execute("STOP REPLICA SQL_THREAD")
    write(source, 500, seed=2)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "applier", "run", "--source", source.url, "--target", target.url),
            *("--group-transactions", "100", "--stop-at-end", "--hand-over"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "SOURCE_AUTO_POSITION=1" in done.stdout
    assert executed(target) == executed(source)
    target.execute("START REPLICA")
    write(source, 50, seed=3)
    wait_until(lambda: executed(source) <= executed(target))
    assert executed(target) == executed(source)
    assert_same_rows(source, target)


def make_replica(replica: Server, source: Server) -> None:
    replica.execute(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%s, SOURCE_USER='root',"
        " SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
        (source.port,),
    )
    replica.execute("START REPLICA")
