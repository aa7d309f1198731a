"""What a killed applier leaves on the target: the next start gets rid of it by itself, and says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from applier.errors import ChannelTaken
from applier.replay import Replay
from applier.sandbox import Server
from applier.target import leftovers
from scheduler.grouping import GroupLimits
from tests.fault.test_kills import MODES as OPTIONS
from tests.proxy import FaultProxy
from tests.replaying import (
    Mode,
    Running,
    assert_same_data,
    command,
    replay,
    replaying,
    run_all,
    session,
    settings,
)
from tests.waiting import wait_until

GROUPS = {"group": GroupLimits(50), "net_changes": True}
MODES: dict[str, Mode] = {
    "one by one": {},
    "groups, GTIDs preserved": GROUPS,
    "groups, own GTIDs": GROUPS | {"target_gtids": "own"},
}


@pytest.fixture
def proxy(target: Server) -> Iterator[FaultProxy]:
    with FaultProxy(target.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SILENT_SECONDS_MAX", 4)
    monkeypatch.setattr(leftovers, "LOCK_WAIT_SECONDS", 3.0)


@pytest.fixture
def rows(source: Server) -> None:
    run_all(
        source,
        [
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)",
            "INSERT INTO d.t VALUES (1, 0)",
        ],
    )


@pytest.mark.parametrize(
    "mode",
    [mode if mode != "groups, own GTIDs" else pytest.param(mode, marks=pytest.mark.long) for mode in MODES],
)
@pytest.mark.usefixtures("rows")
def test_sessions_whose_machine_vanished_are_ended(
    source: Server, target: Server, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """The target does not know that the applier has gone: its sessions hold the channel, and the lock of a row."""
    replay(source, target, **MODES[mode])
    through = target.url.replace(str(target.port), str(proxy.port))
    with session(target, "BEGIN", "SELECT * FROM d.t FOR UPDATE") as holder:
        with command(source, through, "--no-check", *OPTIONS[mode]) as run:
            run_all(source, ["UPDATE d.t SET v = v + 1"])
            wait_until(lambda: waits_for_a_lock(target))
            proxy.stall()
            run.process.kill()
            run.wait()
        holder("ROLLBACK")
    wait_until(lambda: len(sessions_of_ours(target)) > 1 and not waits_for_a_lock(target))
    left = sessions_of_ours(target)
    with caplog.at_level(logging.WARNING):
        replay(source, target, **MODES[mode])
    assert_same_data(source, target, gtids="own" not in mode)
    assert not left & sessions_of_ours(target)
    messages = {record.message for record in caplog.records}
    assert "ended the session of an applier that has gone" in messages
    assert "ended a session that an earlier run has left" in messages


@pytest.mark.usefixtures("rows")
def test_an_applier_that_lives_keeps_its_channel(source: Server, target: Server) -> None:
    with replaying(source, target) as running:
        running.wait_for(source, target)
        mine = sessions_of_ours(target)
        with pytest.raises(ChannelTaken):
            replay(source, target)
        assert sessions_of_ours(target) == mine
        run_all(source, ["UPDATE d.t SET v = v + 1"])
        running.wait_for(source, target)
    assert_same_data(source, target)


@pytest.mark.usefixtures("rows")
def test_a_channel_does_not_touch_the_sessions_of_another(source: Server, target: Server) -> None:
    with replaying(source, target, channel="first") as running:
        running.wait_for(source, target)
        mine = sessions_of_ours(target)
        replay(source, target, channel="second")
        assert mine <= sessions_of_ours(target)


@pytest.mark.usefixtures("rows")
def test_an_applier_whose_channel_session_was_killed_takes_it_again(source: Server, target: Server) -> None:
    with replaying(source, target) as running:
        running.wait_for(source, target)
        ((holder,),) = target.execute("SELECT IS_USED_LOCK('applier:applier')")
        target.execute(f"KILL {holder}")
        wait_until(
            lambda: target.execute("SELECT IS_USED_LOCK('applier:applier')") not in (((holder,),), ((None,),))
        )
        run_all(source, ["UPDATE d.t SET v = v + 1"])
        running.wait_for(source, target)
    assert_same_data(source, target)


@pytest.mark.usefixtures("rows")
def test_a_progress_row_that_is_locked_is_waited_for(
    source: Server, target: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """By the last commit of an earlier run, for example, while the target does not get it to the disk."""
    replay(source, target, **GROUPS)
    run_all(source, ["UPDATE d.t SET v = v + 1"])
    target.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
    with session(target, "BEGIN", "SELECT * FROM applier.progress FOR UPDATE") as holder:
        running = Running(Replay(settings(source, target, **GROUPS)))
        wait_until(lambda: "target link lost" in caplog.text or running.failure is not None)
        holder("ROLLBACK")
    running.end()
    assert_same_data(source, target)


@pytest.mark.usefixtures("rows")
def test_orphaned_xa_transaction_is_rolled_back(
    source: Server, target: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Prepared on the target, but its GTID is not there: what a crash between the two leaves."""
    replay(source, target)
    with session(target, "SET sql_log_bin = 0") as run:
        for statement in (
            "XA START 'x','y',7",
            "UPDATE d.t SET v = 99",
            "XA END 'x','y',7",
            "XA PREPARE 'x','y',7",
        ):
            run(statement)
    run_all(
        source,
        ["XA START 'x','y',7", "UPDATE d.t SET v = 5", "XA END 'x','y',7", "XA PREPARE 'x','y',7"],
    )
    with caplog.at_level(logging.WARNING):
        replay(source, target)
    assert "rolled back a prepared transaction that an earlier run has left" in caplog.text
    run_all(source, ["XA COMMIT 'x','y',7"])
    replay(source, target)
    assert target.execute("SELECT v FROM d.t") == ((5,),)
    assert_same_data(source, target)


def waits_for_a_lock(target: Server) -> bool:
    return bool(target.execute("SELECT 1 FROM performance_schema.data_lock_waits"))


def sessions_of_ours(target: Server) -> set[int]:
    rows = target.execute(
        "SELECT processlist_id FROM performance_schema.session_connect_attrs WHERE attr_name = 'applier_channel'"
    )
    return {number for (number,) in rows}
