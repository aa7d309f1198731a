"""`applier migrate cutover` and `rollback`, with clients that write all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner

from applier.cli.migrate_cutover import verify as verify_command
from applier.errors import (
    LinkLost,
    MigrationTaken,
    NotComparable,
    PreflightFailed,
    SwitchHalfway,
    SwitchUndone,
    UsageError,
)
from applier.migrate.cutover import cut_over, roll_back
from applier.migrate.quick import CHUNK_ROWS, QuickComparison
from applier.migrate.reverse import replaying_back, stock_statements
from applier.migrate.state import Phase
from applier.migrate.switch import Switch
from applier.sandbox import Server
from applier.verify.comparison import Comparer, Outcome, Part, Tally
from applier.verify.sessions import Pair
from tests.clients import assert_nothing_lost, wait_for_move, writing
from tests.live.test_migrate_copy import fill
from tests.migrating import assert_same, caught_up, left_writable, migrated, migration
from tests.replaying import Running, session
from tests.switching import NAME, WANTED, Migrating
from tests.waiting import wait_until


def invoke(*options: str) -> BaseException | None:
    """What `applier migrate verify` raises."""
    return CliRunner().invoke(verify_command, options).exception


@pytest.fixture
def migrating(source: Server, target: Server) -> Iterator[Migrating]:
    with left_writable(source, target):
        yield Migrating(source, target)


def test_clients_move_to_the_target_and_back_and_lose_nothing(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        report = migrating.cut_over()
        migrating.assert_writable(target)
        assert report.write_downtime_seconds < 2
        wait_for_move(clients, target)
        migrating.assert_phase(Phase.CUT_OVER)
        migrating.roll_back()
        migrating.assert_writable(source)
        wait_for_move(clients, source)
        migrating.assert_phase(Phase.CATCH_UP)
        migrating.cut_over()
        wait_for_move(clients, target)
        assert all(client.longest_pause_seconds < 5 for client in clients)
    assert_nothing_lost(target, clients)
    migrating.roll_back()
    assert_nothing_lost(source, clients)
    migrating.assert_identical()


# --- what is checked before --------------------------------------------------------------------------


def test_a_cutover_wants_a_comparison_and_no_open_transactions(migrating: Migrating) -> None:
    with session(migrating.source, "XA START 'x'", "INSERT INTO shop.written VALUES (9, 9, NOW())") as run:
        run("XA END 'x'")
        run("XA PREPARE 'x'")
        with pytest.raises(PreflightFailed) as refused:
            migrating.cut_over(ignored=frozenset())
        for check in ("verified", "xa"):
            assert f"{check}:" in str(refused.value)
        run("XA ROLLBACK 'x'")
    migrating.assert_phase(Phase.CATCH_UP)
    migrating.assert_writable(migrating.source)


def test_a_comparison_that_finds_nothing_or_repairs_it_is_enough(migrating: Migrating) -> None:
    urls = ["--source", migrating.source.url, "--target", migrating.target.url]
    migrating.follow()
    migrating.target.execute("UPDATE shop.totals SET n = n + 1")
    assert CliRunner().invoke(verify_command, urls).exit_code == 4
    with pytest.raises(PreflightFailed, match="found differences"):
        migrating.cut_over(ignored=frozenset())
    assert CliRunner().invoke(verify_command, [*urls, "--repair"]).exit_code == 0
    migrating.cut_over(ignored=frozenset())


def test_of_two_migrations_each_is_compared_at_its_own_position(source: Server, target: Server) -> None:
    for schema in ("one", "two"):
        source.execute(f"CREATE DATABASE {schema}")
        source.execute(f"CREATE TABLE {schema}.t (id INT PRIMARY KEY)")
    one, two = (migration(source, target, name, name=name) for name in ("one", "two"))
    migrated(one)
    migrated(two)
    source.execute("INSERT INTO two.t VALUES (1)")
    caught_up(one)  # further on than the other, in the same source's log
    urls = ["--source", source.url, "--target", target.url, "--name", "two"]
    assert isinstance(invoke(*urls, "--repair", "--wait-seconds", "0.5"), NotComparable)
    caught_up(two)
    assert_same(two)


def test_a_repair_never_takes_what_clients_write_after_a_cutover(
    migrating: Migrating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be gone before the replay back begins."""
    repair = ["--source", migrating.source.url, "--target", migrating.target.url, "--repair"]
    raised = []

    def meanwhile(switch: Switch) -> str:
        migrating.target.execute("INSERT INTO shop.totals VALUES (77, 7)")
        raised.append(invoke(*repair))
        return ""

    monkeypatch.setattr(Switch, "_enable_events", meanwhile)
    migrating.cut_over()
    assert migrating.target.execute("SELECT n FROM shop.totals WHERE client = 77") == ((7,),)
    assert isinstance(raised[0], MigrationTaken)
    assert isinstance(invoke(*repair), UsageError)


def test_a_transaction_that_holds_a_table_of_the_target_does_not_hold_the_cutover_for_long(
    migrating: Migrating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("applier.migrate.server.DDL_WAIT_SECONDS", 1)
    migrating.source.execute("CREATE TABLE shop.numbered (n INT AUTO_INCREMENT PRIMARY KEY)")
    migrating.source.execute("INSERT INTO shop.numbered VALUES (1)")
    migrating.follow()
    with session(migrating.source, "BEGIN") as run:
        run("INSERT INTO shop.numbered VALUES (2)")  # rolled back, so only the counter has to be raised
    began = time.monotonic()
    with session(migrating.target, "BEGIN", "SELECT * FROM shop.numbered"):
        with pytest.raises(SwitchUndone, match="Lock wait timeout"):
            migrating.cut_over()
        assert not migrating.target.execute(
            "SELECT 1 FROM performance_schema.processlist WHERE info LIKE 'ALTER TABLE%'"
        )
    assert time.monotonic() - began < 30
    migrating.assert_writable(migrating.source)
    migrating.cut_over()


def test_a_table_that_cannot_be_read_does_not_hold_the_last_comparison(migrating: Migrating) -> None:
    migrating.source.execute("CREATE TABLE shop.idle (n INT PRIMARY KEY)")
    migrating.follow()
    with session(migrating.target, "LOCK TABLES shop.idle WRITE") as run:
        late = threading.Timer(15.0, run, ("UNLOCK TABLES",))
        late.start()
        report = migrating.cut_over(compare_seconds=1.0)
        late.cancel()
    assert report.write_downtime_seconds < 10
    assert "as far as the time went" in report.compared


def test_a_difference_counts_though_the_time_is_over_before_its_rows_are_found(
    migrating: Migrating, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrating.source.execute("CREATE TABLE shop.idle (n INT PRIMARY KEY)")
    migrating.follow()
    fill(migrating.target, "shop.idle", "n", "n", 3 * CHUNK_ROWS)
    compare = Comparer.compare

    def late(self: Comparer, pair: Pair, chunk: Part, tally: Tally) -> Outcome:
        outcome = compare(self, pair, chunk, tally)
        if outcome.more:
            time.sleep(2.0)
        return outcome

    monkeypatch.setattr(Comparer, "compare", late)
    with QuickComparison.opened(*migrating.addresses, migrating.settings.selection) as comparison:
        assert comparison.run(2.0).differences


@pytest.mark.parametrize("back", [False, True], ids=["cut-over", "rollback"])
def test_an_origin_that_crashes_when_clients_are_let_in_would_come_up_read_only(
    migrating: Migrating, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    switch, origin = migrating.cut_over, migrating.source
    if back:
        migrating.cut_over()
        switch, origin = migrating.roll_back, migrating.target

    def crash(self: Switch) -> str:
        raise LinkLost(role=origin.name, detail="it crashed")

    with monkeypatch.context() as patched:
        patched.setattr(Switch, "_enable_events", crash)
        with pytest.raises(SwitchHalfway):
            switch()
    # Servers of the sandbox do not load these.
    assert ("read_only", "ON") in origin.execute("SELECT * FROM performance_schema.persisted_variables")
    switch()
    migrating.assert_writable(migrating.source if back else migrating.target)


def test_the_longest_name_gets_there_and_back(source: Server, target: Server) -> None:
    """A longer one would be found out when clients are on the target already."""
    source.execute("CREATE DATABASE shop")
    settings = migration(source, target, name="n" * 43)
    with left_writable(source, target):
        migrated(settings)
        for switch in cut_over, roll_back:
            switch(settings.source, settings.target, settings.name, WANTED, print)
    for name in ("n" * 44, "ñ"):
        with pytest.raises(UsageError, match="characters"):
            migration(source, target, name=name)


def test_there_is_nothing_to_roll_back_before_a_cutover(migrating: Migrating) -> None:
    with pytest.raises(UsageError, match="no cut-over"):
        migrating.roll_back()
    with pytest.raises(UsageError, match="no cut-over"), replaying_back(*migrating.addresses, NAME):
        pass


# --- what fails is undone ----------------------------------------------------------------------------


def test_a_write_that_does_not_end_undoes_the_cutover_unless_it_may_be_killed(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    with session(source, "LOCK TABLES shop.totals WRITE"):
        with pytest.raises(SwitchUndone, match="--kill-writers"):
            migrating.cut_over(stop_seconds=1)
        migrating.assert_writable(source)
        migrating.assert_phase(Phase.CATCH_UP)
    with writing(source, target) as clients, session(source, "BEGIN", "DELETE FROM shop.totals"):
        migrating.cut_over(kill_writers=True)
        wait_for_move(clients, target)
    assert_nothing_lost(target, clients)


@pytest.mark.parametrize("held", [False, True])
def test_a_transaction_that_others_wait_for_is_let_end(migrating: Migrating, held: bool) -> None:
    """Its next statement waits for the lock that stops all writes, which waits for those that wait for its rows."""
    source = migrating.source

    def change(run: Callable[[str], Any], *numbers: int) -> None:
        for number in numbers:
            run(f"UPDATE shop.totals SET n = n + 1 WHERE client = {number}")

    def waiting(what: str) -> Callable[[], Any]:
        wanted = f"SELECT 1 FROM performance_schema.processlist WHERE {what}"
        return lambda: source.execute(wanted)

    with (
        session(source, "BEGIN", "UPDATE shop.totals SET n = 1 WHERE client = 0") as first,
        session(source) as second,
        ThreadPoolExecutor(2) as threads,
    ):
        others = threads.submit(change, second, 0)
        wait_until(lambda: source.execute("SELECT 1 FROM performance_schema.data_lock_waits"))
        switching = threads.submit(migrating.cut_over, stop_seconds=3)
        wait_until(waiting("info LIKE 'SET GLOBAL super_read_only%'"), what="writes are being stopped")
        if held:
            with pytest.raises(SwitchUndone, match="--kill-writers"):
                switching.result(30)
        change(first, 1)
        first("COMMIT")
        others.result(30)
        if not held:
            report = switching.result(30)
            assert report.killed == 0
            assert report.write_downtime_seconds < 2.5
    expected = ((0, 2), (1, 1))
    there = source if held else migrating.target
    assert there.execute("SELECT client, n FROM shop.totals WHERE client < 2 ORDER BY 1") == expected
    migrating.assert_writable(there)


def test_a_difference_undoes_the_cutover(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    source.execute("CREATE EVENT shop.e ON SCHEDULE EVERY 1 DAY DO DO 0")
    migrating.follow()
    target.execute("UPDATE shop.totals SET n = n + 1 WHERE client = 3")
    with writing(source, target, clients=1) as clients:
        with pytest.raises(SwitchUndone, match="differ") as failed:
            migrating.cut_over()
        assert "shop.totals" in str(failed.value)
        wait_for_move(clients, source)
        migrating.assert_writable(source)
        assert source.execute("SELECT @@GLOBAL.event_scheduler") == (("ON",),)
    migrating.assert_phase(Phase.CATCH_UP)


def test_a_replay_that_fails_undoes_the_cutover(migrating: Migrating) -> None:
    migrating.follow()
    migrating.target.execute("DELETE FROM shop.totals")
    migrating.source.execute("UPDATE shop.totals SET n = n + 1")
    with pytest.raises(SwitchUndone, match=r"shop\.totals"):
        migrating.cut_over()
    migrating.assert_writable(migrating.source)
    migrating.assert_phase(Phase.CATCH_UP)


# --- what goes along ---------------------------------------------------------------------------------


def test_events_and_counters_go_along(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    for server in (source, target):
        with session(server, "SET sql_log_bin = 0") as run:
            run("CREATE USER clock@'%'")
            run("GRANT EVENT ON shop.* TO clock@'%'")
    with session(source, "SET sql_mode = 'ANSI_QUOTES', time_zone = '+03:00'") as run:
        run(
            "CREATE DEFINER = clock@'%' EVENT shop.runs ON SCHEDULE EVERY 1 DAY DO SELECT \"x\" FROM shop.totals"
        )
        run("CREATE EVENT shop.rests ON SCHEDULE EVERY 1 DAY DISABLE DO DO 0")
        run("CREATE TABLE shop.numbered (id INT AUTO_INCREMENT PRIMARY KEY)")
        run("ALTER TABLE shop.numbered AUTO_INCREMENT = 50")
        run("INSERT INTO shop.numbered VALUES (70)")
        run("DELETE FROM shop.numbered")
    migrating.cut_over()
    facts = (
        "SELECT status, definer, sql_mode, time_zone FROM information_schema.events WHERE event_name = '{}'"
    )
    assert target.execute(facts.format("runs")) == (("ENABLED", "clock@%", "ANSI_QUOTES", "+03:00"),)
    assert target.execute(facts.format("rests"))[0][0] == "DISABLED"
    assert source.execute("SELECT @@GLOBAL.event_scheduler") == (("OFF",),)
    assert target.execute("SELECT @@GLOBAL.event_scheduler") == (("ON",),)
    target.execute("INSERT INTO shop.numbered VALUES ()")
    assert target.execute("SELECT id FROM shop.numbered") == ((71,),)
    target.execute("CREATE EVENT shop.later ON SCHEDULE EVERY 1 DAY DO DO 1")
    migrating.roll_back()
    for event in ("runs", "later"):
        assert source.execute(facts.format(event))[0][0] == "ENABLED"
    assert source.execute("SELECT @@GLOBAL.event_scheduler") == (("ON",),)
    assert target.execute("SELECT @@GLOBAL.event_scheduler") == (("OFF",),)


# --- the way back ------------------------------------------------------------------------------------


def test_the_source_follows_the_target_until_the_rollback(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        migrating.cut_over()
        wait_for_move(clients, target)
        with replaying_back(*migrating.addresses, NAME) as replay:
            running = Running(replay)
            written = clients[0].acknowledged[-1]
            wanted = "SELECT 1 FROM shop.written WHERE client = 0 AND n = %s"
            wait_until(
                lambda: source.execute(wanted, (written,)), what="the source has what the target was given"
            )
            migrating.roll_back()
            running.end()
        wait_for_move(clients, source)
    assert_nothing_lost(source, clients)


def test_a_stock_replica_can_be_the_way_back(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        migrating.cut_over()
        wait_for_move(clients, target)
        for statement in stock_statements(*migrating.addresses, NAME).split(";\n"):
            text = statement.replace("<replication account>", "root").replace("<its password>", "")
            source.execute(text.rstrip(";"))
        wanted = "SELECT 1 FROM shop.written WHERE client = 0 AND n = %s"
        written = clients[0].acknowledged[-1]
        wait_until(
            lambda: source.execute(wanted, (written,)),
            what="the replica follows",
        )
        assert source.execute("SELECT @@GLOBAL.super_read_only") == ((1,),)
    source.execute("STOP REPLICA")
