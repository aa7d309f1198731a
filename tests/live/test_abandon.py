"""`applier migrate rollback --abandon-target`: the target is dead, and the migration's state with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from click.testing import CliRunner

from applier.cli.migrate_cutover import rollback
from applier.errors import ChannelTaken, PreflightFailed, UsageError
from applier.events.gtid import GtidSet
from applier.migrate.abandon import abandon, look
from applier.migrate.reverse import replaying_back, stock_statements
from applier.sandbox import Server
from tests.clients import assert_nothing_lost, wait_for_move, writing
from tests.migrating import left_writable
from tests.replaying import Command, session
from tests.switching import NAME, Migrating, killed_after
from tests.waiting import wait_until


@pytest.fixture
def migrating(source: Server, target: Server) -> Iterator[Migrating]:
    with left_writable(source, target):
        yield Migrating(source, target)


def urls(migrating: Migrating) -> list[str]:
    return ["--source", migrating.source.url, "--target", migrating.target.url]


def assert_open(source: Server) -> None:
    assert source.execute("SELECT @@GLOBAL.read_only, @@GLOBAL.super_read_only") == ((0, 0),)
    assert source.execute("SELECT COUNT(*) FROM performance_schema.persisted_variables") == ((0,),)
    assert source.execute("SELECT @@GLOBAL.event_scheduler") == (("ON",),)


def written(server: Server) -> set[tuple[int, int]]:
    return set(server.execute("SELECT client, n FROM shop.written"))


def test_a_target_that_was_killed_is_abandoned_and_what_had_come_back_is_told(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        migrating.cut_over()
        wait_for_move(clients, target)
        with Command("migrate", "reverse", *urls(migrating)) as reverse:
            acknowledged = clients[0].acknowledged[-1]
            # Later than the last one, which the source may have: sent there first, without its answer.
            wanted = "SELECT 1 FROM shop.written WHERE client = 0 AND n > %s"
            wait_until(lambda: source.execute(wanted, (acknowledged,)), what="the replay back is at work")
            target.kill()
            with pytest.raises(ChannelTaken):
                abandon(*migrating.addresses, NAME, migrating.told.append)
            assert source.execute("SELECT @@GLOBAL.read_only") == ((1,),)
            reverse.process.kill()
        before = written(source)
        refused = CliRunner().invoke(rollback, [*urls(migrating), "--abandon-target"], input="n\n")
        assert refused.exit_code == 1
        assert "make sure that no client reaches it" in refused.output
        assert source.execute("SELECT @@GLOBAL.read_only") == ((1,),)
        left = abandon(*migrating.addresses, NAME, migrating.told.append)
        assert_open(source)
        wait_for_move(clients, source)
        assert left.noted == replace(look(*migrating.addresses, NAME).noted, abandoned=left.noted.abandoned)
    assert left.reached.count > 0
    assert not left.reachable
    # The told GTIDs are exactly what has come back: no row is there of a transaction that is called lost.
    target.start()
    told = GtidSet.parse(left.noted.start) | left.reached
    ((executed,),) = target.execute("SELECT @@GLOBAL.gtid_executed")
    assert told <= GtidSet.parse(executed)
    assert before <= written(target)
    lost = written(target) - before
    # Two transactions a row, an insert and an update; of each client's last one perhaps only the first.
    transactions = (GtidSet.parse(executed) - told).count
    assert abs(transactions - 2 * len(lost)) <= 2 * len(clients)
    there = written(source)
    for client in clients:
        acknowledged_rows = {(client.number, n) for n in client.acknowledged}
        assert acknowledged_rows <= there | lost
    # What only the target has must not get here by itself.
    for call in (migrating.roll_back, migrating.cut_over):
        with pytest.raises(UsageError, match="abandoned"):
            call()
    with pytest.raises(UsageError, match="abandoned"), replaying_back(*migrating.addresses, NAME):
        pass


@pytest.mark.parametrize("step", ["take over", "stop writes", "open"])
def test_a_target_that_dies_in_the_cutover_is_abandoned(migrating: Migrating, step: str) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        killed_after(migrating, "cutover", step)
        target.kill()
        done = CliRunner().invoke(rollback, [*urls(migrating), "--abandon-target", "--yes"])
        assert done.exit_code == 0, done.output
        assert "was not finished" in done.output
        assert_open(source)
        wait_for_move(clients, source)
    if step != "open":
        assert_nothing_lost(source, clients)


def test_a_target_that_answers_is_made_read_only_or_not_abandoned(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    target_address = migrating.addresses[1]
    migrating.cut_over()
    told = migrating.told.append
    with pytest.raises(PreflightFailed, match="answers"):
        abandon(migrating.addresses[0], replace(target_address, password="wrong"), NAME, told)
    with (
        session(target, "LOCK TABLES shop.totals WRITE"),
        pytest.raises(PreflightFailed, match="kill-writers"),
    ):
        abandon(*migrating.addresses, NAME, told, stop_seconds=1)
    migrating.assert_writable(target)
    assert look(*migrating.addresses, NAME).reachable
    assert abandon(*migrating.addresses, NAME, told).reachable
    migrating.assert_writable(source)
    persisted = "SELECT variable_value FROM performance_schema.persisted_variables WHERE variable_name = %s"
    for name in ("read_only", "super_read_only"):
        assert target.execute(persisted, (name,)) == (("ON",),)
    assert_open(source)


def test_a_running_stock_replica_is_not_cut_off(migrating: Migrating) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        migrating.cut_over()
        wait_for_move(clients, target)
        for statement in stock_statements(*migrating.addresses, NAME).split(";\n"):
            text = statement.replace("<replication account>", "root").replace("<its password>", "")
            source.execute(text.rstrip(";"))
        later = f"SELECT 1 FROM shop.written WHERE client = 0 AND n > {clients[0].acknowledged[-1]}"
        wait_until(lambda: source.execute(later), what="the replica follows")
        target.kill()
        with pytest.raises(PreflightFailed, match="STOP REPLICA"):
            look(*migrating.addresses, NAME)
        source.execute("STOP REPLICA")
        assert abandon(*migrating.addresses, NAME, migrating.told.append).reached.count > 0
        wait_for_move(clients, source)


def test_without_a_cutover_there_is_nothing_to_abandon(migrating: Migrating) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="no cut-over"):
            look(*migrating.addresses, NAME)
        migrating.cut_over()
        with pytest.raises(UsageError, match="the cut-over was to"):
            look(migrating.addresses[0], replace(migrating.addresses[1], port=1), NAME)
        migrating.roll_back()
