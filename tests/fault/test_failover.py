"""The source dies and the applier goes on with another one, or says why it cannot."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from applier.errors import LinkLost, SourceDiverged
from applier.events.gtid import GtidSet
from applier.replay import Replay
from applier.sandbox import Sandbox, Server
from applier.sandbox.ports import free_port
from applier.sandbox.replication import account_password, replicate
from applier.source import failover
from applier.source.relay.session import RelaySettings
from tests.proxy import FaultProxy
from tests.replaying import (
    Running,
    address,
    assert_identical,
    assert_same_data,
    command,
    executed,
    replay,
    replaying,
    session,
    settings,
)
from tests.servers import GlobalVariables, global_variables, reset
from tests.waiting import wait_until

RECEIVING = "performance_schema.replication_connection_status"


def create(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.counters (id INT PRIMARY KEY, v INT NOT NULL, u INT UNIQUE)")
    source.execute("CREATE TABLE d.log (line INT NOT NULL AUTO_INCREMENT, text TEXT, KEY (line))")
    source.execute("INSERT INTO d.counters VALUES (1,0,1),(2,0,2),(3,0,3)")


def write(source: Server, transactions: int) -> None:
    with session(source) as run:
        for number in range(transactions):
            run("BEGIN")
            run(f"UPDATE d.counters SET v = v + 1 WHERE id = {number % 3 + 1}")
            run("INSERT INTO d.log (text) VALUES (REPEAT('x', 200))")
            run("COMMIT")


@contextlib.contextmanager
def load(source: Server) -> Iterator[None]:
    """Transactions until the block ends, or until the source is gone."""
    enough = threading.Event()

    def run() -> None:
        with contextlib.suppress(pymysql.err.MySQLError):
            while not enough.is_set():
                write(source, 20)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def promote(standby: Server) -> None:
    """It applies what it had received, and is nobody's replica any more."""
    retrieved = f"SELECT received_transaction_set FROM {RECEIVING}"
    wait_until(
        lambda: (
            standby.execute("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", standby.execute(retrieved)[0])
            == ((1,),)
        )
    )
    standby.execute("STOP REPLICA")
    standby.execute("RESET REPLICA ALL")
    standby.execute("SET GLOBAL super_read_only = OFF")
    standby.execute("SET GLOBAL read_only = OFF")


@pytest.fixture(scope="module")
def replica(sandbox: Sandbox) -> Iterator[tuple[Server, GlobalVariables]]:
    """A server that all tests here share, and its variables."""
    server = sandbox.add("standby", replica_of="source")
    yield server, global_variables(server)
    sandbox.remove("standby")


@pytest.fixture
def standby(sandbox: Sandbox, source: Server, replica: tuple[Server, GlobalVariables]) -> Server:
    """Has what the source has, and follows it."""
    server, baseline = replica
    reset(server, baseline)
    create(source)
    replicate(server, source, account_password(sandbox.directory))
    wait_until(lambda: executed(source) <= executed(server))
    return server


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relay log"])
def test_killed_source_is_followed_by_the_promoted_standby(
    source: Server,
    standby: Server,
    target: Server,
    tmp_path: Path,
    relayed: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    standby.execute("SET GLOBAL binlog_row_image = MINIMAL")  # and so its keys have to be looked at anew
    with FaultProxy(source.port) as proxy:
        near = dataclasses.replace(address(source, "source"), port=proxy.port)
        with replaying(
            source,
            target,
            source=near,
            standby_sources=(address(standby, "source"),),
            relay_log=RelaySettings(tmp_path / "relay") if relayed else None,
        ) as running:
            with load(source):
                wait_until(lambda: running.replay.progress().transactions > 50)
                # We fall behind the standby: what we have when the source dies, it has too.
                proxy.cut_after(1234)
                proxy.refuse()
                wait_until(lambda: proxy.open_links == 0)
                seen = executed(source)
                wait_until(lambda: seen <= executed(standby))
                source.kill()
            promote(standby)
            write(standby, 20)
            running.wait_for(standby, target)
            assert running.replay.sources.failovers == 1
            assert "reading tables again" in caplog.text
    assert_identical(standby, target)


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relay log"])
def test_gtids_that_the_target_makes_itself_are_missed_on_no_source(
    source: Server, standby: Server, target: Server, tmp_path: Path, relayed: bool
) -> None:
    """Not those of an earlier run, nor those of this one before it lost the target and the source."""
    target.execute("CREATE DATABASE of_its_own")
    others = (address(standby, "source"),)
    relay_log = RelaySettings(tmp_path / "relay") if relayed else None
    for _ in range(2):
        write(source, 5)
        replay(source, target, standby_sources=others, relay_log=relay_log, target_gtids="own")
    target.execute("DROP DATABASE of_its_own")
    with replaying(
        source, target, standby_sources=others, relay_log=relay_log, target_gtids="own"
    ) as running:
        wait_until(lambda: running.replay.pipeline is not None)
        target.kill()
        target.start()
        write(source, 5)
        wanted = executed(source)
        wait_until(lambda: wanted <= applied(target) and wanted <= executed(standby))
        source.kill()
        promote(standby)
        write(standby, 5)
        wait_until(lambda: executed(standby) <= applied(target))
        assert running.replay.sources.failovers == 1
    assert_same_data(standby, target, gtids=False)


def applied(target: Server) -> GtidSet:
    """Of what the progress row tells."""
    with contextlib.suppress(pymysql.err.MySQLError):  # it starts
        return GtidSet.parse(str(target.execute("SELECT executed FROM applier.progress")[0][0]))
    return GtidSet()


def test_standby_that_is_behind_is_waited_for(source: Server, standby: Server, target: Server) -> None:
    others = (address(standby, "source"),)
    with replaying(source, target, standby_sources=others) as running:
        running.wait_for(source, target)
        standby.execute("STOP REPLICA SQL_THREAD")
        write(source, 10)
        running.wait_for(source, target)
        wait_until(
            lambda: (
                standby.execute("SELECT service_state FROM performance_schema.replication_connection_status")
                == (("ON",),)
            )
        )
        wanted = executed(source)
        has = f"SELECT GTID_SUBSET('{wanted}', received_transaction_set) FROM {RECEIVING}"
        wait_until(lambda: standby.execute(has) == ((1,),))
        source.kill()
        assert running.replay.sources.failovers == 0
        standby.execute("START REPLICA SQL_THREAD")
        wait_until(lambda: running.replay.sources.failovers == 1)
        promote(standby)
        write(standby, 10)
        running.wait_for(standby, target)
    assert_identical(standby, target)


def test_standby_that_lost_transactions_is_refused(
    source: Server, standby: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "REFUSE_AFTER_SECONDS", 0.5)
    running = Running(
        Replay(settings(source, target, standby_sources=(address(standby, "source"),), stop_at_end=False))
    )
    running.wait_for(source, target)
    promote(standby)
    write(source, 5)
    running.wait_for(source, target)
    source.kill()
    write(standby, 5)
    with pytest.raises(SourceDiverged, match=r"cannot take over.*lacks transactions.*:\d+-\d+") as refused:
        running.end()
    assert refused.value.exit_code == 3


def test_source_that_comes_back_makes_it_no_matter_that_the_standby_does_not_fit(
    source: Server, standby: Server, target: Server
) -> None:
    with replaying(source, target, standby_sources=(address(standby, "source"),)) as running:
        running.wait_for(source, target)
        promote(standby)
        write(source, 5)
        running.wait_for(source, target)
        source.kill()
        source.start()
        write(source, 5)
        running.wait_for(source, target)
        assert running.replay.sources.failovers == 0


def test_standby_that_purged_what_is_needed_is_refused(
    source: Server, standby: Server, target: Server
) -> None:
    promote(standby)
    source.kill()
    write(standby, 5)
    standby.execute("FLUSH BINARY LOGS")
    standby.execute("PURGE BINARY LOGS TO %s", (standby.execute("SHOW BINARY LOGS")[-1][0],))
    run = command(source, target, "--source", standby.url)
    with run:
        assert run.wait() == 3
    (message,) = run.error_lines
    assert "has purged binary logs" in message
    assert standby.url.rpartition("@")[2] in message


def test_no_source_can_be_reached(source: Server, target: Server) -> None:
    nobody = dataclasses.replace(address(source, "source"), port=free_port())
    with pytest.raises(LinkLost, match=r"cannot be reached.*cannot be reached") as caught:
        Replay(settings(source, target, source=nobody, standby_sources=(nobody,))).run()
    assert caught.value.exit_code == 75
