"""A migration that is killed goes on, at another snapshot, and copies nothing twice that has not changed."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pymysql
import pytest

from applier.connection import Connection
from applier.errors import DataError, Fenced, LinkLost, PreflightFailed
from applier.migrate import phases
from applier.migrate.copy import Copier
from applier.migrate.progress import CopyProgress
from applier.migrate.settings import MigrateSettings
from applier.migrate.snapshot import Held, Snapshot, SnapshotLost
from applier.migrate.state import State, TableState
from applier.sandbox import Server
from applier.verify.definitions import Record, Session, query
from tests.live.test_migrate_copy import fill
from tests.migrating import assert_same, caught_up, command, copy_all, migration
from tests.replaying import run_all
from tests.servers import ServerFactory
from tests.unlogged_cascades import CASCADES_IN_INNODB
from tests.waiting import wait_until

ROWS = 4000
TABLES = ("small", "large", "moved")


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("applier.migrate.copy.FIRST_ROWS", 250)
    monkeypatch.setattr("applier.migrate.copy.ROWS_MAX", 250)


@pytest.fixture
def shop(source: Server) -> Server:
    run_all(source, ["CREATE DATABASE shop", "CREATE TABLE shop.keyless (a INT, b INT)"])
    for table in TABLES:
        source.execute(
            f"CREATE TABLE shop.{table} (id INT PRIMARY KEY, u VARCHAR(20), v INT, UNIQUE (u), KEY (v))"
        )
        fill(
            source,
            f"shop.{table}",
            "id, u, v",
            "n * 10, CONCAT('u', n), n",
            ROWS if table == "large" else 300,
        )
    fill(source, "shop.keyless", "a, b", "n % 5, n", 500)
    return source


class Killed(BaseException):
    """As if by kill -9: nothing after it is done."""


def interrupted(settings: MigrateSettings, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Copies until `after` chunks are there."""
    with monkeypatch.context() as patched, State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)
        progress = CopyProgress()
        adapt = Copier._adapt

        def count(self: Copier, *arguments: object) -> None:
            if progress.chunks >= after:
                raise Killed
            adapt(self, *arguments)  # type: ignore[arg-type]

        patched.setattr(Copier, "_adapt", count)
        with pytest.raises(Killed):
            phases.copy_rows(settings, state, progress)


def resumed(settings: MigrateSettings) -> CopyProgress:
    progress = CopyProgress()
    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_rows(settings, state, progress)
        phases.build(settings, state, lambda name: None)
    return progress


@pytest.fixture
def indexes_after_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in large tables."""
    monkeypatch.setattr("applier.migrate.definitions.SMALL_ROWS_MAX", -1)


CHANGES = (
    "UPDATE shop.large SET u = CONCAT('x', id), v = v + 1 WHERE id BETWEEN 100 AND 120",
    "DELETE FROM shop.large WHERE id BETWEEN 39000 AND 39500",
    "UPDATE shop.large SET id = id - 39990 + 5 WHERE id = 40000",  # from the end to the beginning
    "UPDATE shop.large a, shop.large b SET a.u = 'swap', b.u = 'swapped' WHERE a.id = 200 AND b.id = 210",
    "UPDATE shop.large SET u = 'u20' WHERE id = 210",
    "UPDATE shop.small SET v = -v",
    "DELETE FROM shop.small WHERE id < 500",
    "INSERT INTO shop.small VALUES (1, 'u1', 1), (2, 'u2', 2)",
    "UPDATE shop.keyless SET b = -b WHERE a = 1",
    "INSERT INTO shop.moved VALUES (7, 'seven', 7)",
    "CREATE TABLE shop.fresh (id INT PRIMARY KEY)",
    "INSERT INTO shop.fresh VALUES (1), (2)",
)


@pytest.mark.usefixtures("indexes_after_the_rows")
@pytest.mark.parametrize("after", [0, 3, 6, 12])
def test_what_is_copied_already_is_brought_to_the_new_snapshot(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    settings = migration(shop, target, threads=1)
    interrupted(settings, monkeypatch, after)
    run_all(shop, CHANGES)
    progress = resumed(settings)
    assert progress.rows < ROWS + 1400 - 250 * max(0, after - 6)
    run_all(shop, ("UPDATE shop.large SET v = v * 2 WHERE id < 3000", "DELETE FROM shop.keyless LIMIT 3"))
    caught_up(settings)
    assert_same(settings)


@pytest.mark.parametrize(
    "ddl",
    [
        "TRUNCATE TABLE shop.small",
        "ALTER TABLE shop.small ADD COLUMN w INT DEFAULT 3",
        "DROP TABLE shop.small",
    ],
)
def test_ddl_between_two_runs_makes_its_table_be_copied_again(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch, ddl: str
) -> None:
    settings = migration(shop, target, threads=1)
    everything_but_indexes(settings, monkeypatch)
    run_all(
        shop,
        (ddl, "UPDATE shop.moved SET v = 1 WHERE id < 900", "INSERT INTO shop.large VALUES (3, 'new', 1)"),
    )
    if not ddl.startswith("DROP"):
        shop.execute("INSERT INTO shop.small (id, u, v) VALUES (5, 'five', 5), (6, 'six', 6)")
    progress = resumed(settings)
    assert progress.rows <= 500, "only the changed table is copied again"
    caught_up(settings)
    assert_same(settings)


def copy_rows(settings: MigrateSettings, state: State) -> None:
    phases.copy_rows(settings, state, CopyProgress())


@pytest.mark.parametrize("phase", [phases.copy_schema, copy_rows])
@pytest.mark.parametrize("created", [0, 2])
def test_killed_between_noting_tables_and_creating_them(
    shop: Server,
    target: Server,
    monkeypatch: pytest.MonkeyPatch,
    created: int,
    phase: Callable[[MigrateSettings, State], None],
) -> None:
    settings = migration(shop, target, threads=1)
    left = [created]

    def one_more(session: Connection[Any], statement: str, arguments: Sequence[object] = ()) -> list[Record]:
        if statement.startswith("CREATE TABLE"):
            if not left[0]:
                raise Killed
            left[0] -= 1
        return query(session, statement, arguments)

    with monkeypatch.context() as patched, State(settings.target) as state:
        patched.setattr("applier.migrate.schema_copy.query", one_more)
        phases.begin(settings, state)
        with pytest.raises(Killed):
            phase(settings, state)
        assert {table.table for table in state.tables()} == {*TABLES, "keyless"}, "all are noted"
    there = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop'"
    assert len(target.execute(there)) == created
    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)  # makes the others, whichever phase it was
    assert len(target.execute(there)) == len(TABLES) + 1
    resumed(settings)
    caught_up(settings)
    assert_same(settings)


def test_a_table_that_changed_is_made_anew_also_when_the_run_that_saw_it_failed(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = migration(shop, target, threads=1)
    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)
    run_all(
        shop,
        (
            "ALTER TABLE shop.small ALTER v SET DEFAULT 7, ADD KEY another (v, id)",
            "ALTER TABLE shop.moved ADD w INT FIRST",
            "DROP TABLE shop.keyless",
        ),
    )

    def busy(*ignored: object, **settings: object) -> Held:
        raise PreflightFailed(detail="the source is too busy")

    with monkeypatch.context() as patched, State(settings.target) as state:
        patched.setattr(Snapshot, "open", busy)
        phases.begin(settings, state)
        with pytest.raises(PreflightFailed):
            phases.copy_rows(settings, state, CopyProgress())
    resumed(settings)
    caught_up(settings)
    assert_same(settings)


def test_a_process_that_was_taken_over_drops_no_table(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = migration(shop, target, threads=1)
    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)
        shop.execute("ALTER TABLE shop.small ADD w INT")

        def taken_over(*ignored: object) -> None:
            target.execute("UPDATE applier_migrate.migration SET owner = owner + 1")

        monkeypatch.setattr(phases, "create_databases", taken_over)
        with pytest.raises(Fenced):
            phases.copy_rows(settings, state, CopyProgress())
    assert target.execute("SELECT COUNT(*) FROM shop.small") == ((0,),), "it is still there"


def test_a_statement_of_a_killed_process_that_went_on_in_the_server_does_no_harm(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = migration(shop, target, threads=1)

    def late(session: Connection[Any], statement: str, arguments: Sequence[object] = ()) -> list[Record]:
        if statement.startswith("CREATE TABLE `small`"):
            monkeypatch.undo()
            target.execute("CREATE TABLE shop.small (of_another_time INT)")
        return query(session, statement, arguments)

    monkeypatch.setattr("applier.migrate.schema_copy.query", late)
    resumed(settings)
    caught_up(settings)
    assert_same(settings)


def test_a_definition_that_the_target_refuses_ends_the_copy_with_its_words(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = migration(shop, target, threads=1)

    def refused(session: Connection[Any], statement: str, arguments: Sequence[object] = ()) -> list[Record]:
        changed = statement.startswith("CREATE TABLE `small`")
        return query(session, statement.replace("int", "innt") if changed else statement, arguments)

    with monkeypatch.context() as patched, State(settings.target) as state:
        patched.setattr("applier.migrate.schema_copy.query", refused)
        phases.begin(settings, state)
        with pytest.raises(DataError, match=r"the target refused a definition.*innt"):
            phases.copy_rows(settings, state, CopyProgress())
    assert target.execute("SELECT COUNT(*) FROM shop.large") != ((0,),), "larger tables go first"
    resumed(settings)
    caught_up(settings)
    assert_same(settings)


def test_killed_when_half_of_the_indexes_are_built(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch, indexes_after_the_rows: None
) -> None:
    settings = migration(shop, target, threads=1)
    everything_but_indexes(settings, monkeypatch)
    told: list[str] = []

    def die(name: str) -> None:
        told.append(name)
        if len(told) == 2:
            raise Killed

    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_rows(settings, state, CopyProgress())
        with pytest.raises(Killed):
            phases.build(settings, state, die)
    resumed(settings)
    caught_up(settings)
    assert_same(settings)


def everything_but_indexes(settings: MigrateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows are copied, and the process is killed before it can note so."""
    with monkeypatch.context() as patched, State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)
        run = Copier.run

        def die(self: Copier, *arguments: object) -> None:
            run(self, *arguments)  # type: ignore[arg-type]
            raise Killed

        patched.setattr(Copier, "run", die)
        with pytest.raises(Killed):
            phases.copy_rows(settings, state, CopyProgress())
        assert {table.state for table in state.tables()} == {TableState.COPIED}


def test_children_of_cascades_that_no_log_tells_of_are_compared(
    server_factory: ServerFactory, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = server_factory(CASCADES_IN_INNODB)
    run_all(
        source,
        (
            "CREATE DATABASE shop",
            "CREATE TABLE shop.parent (id INT PRIMARY KEY)",
            "CREATE TABLE shop.child (id INT PRIMARY KEY, parent INT,"
            " FOREIGN KEY (parent) REFERENCES shop.parent (id) ON DELETE CASCADE)",
        ),
    )
    fill(source, "shop.parent", "id", "n", 1000)
    fill(source, "shop.child", "id, parent", "n, n", 1000)
    settings = migration(source, target)
    everything_but_indexes(settings, monkeypatch)
    source.execute("DELETE FROM shop.parent WHERE id < 50")
    progress = resumed(settings)
    assert 0 < progress.rows <= 250, "one chunk of the child has changed, the parent is replayed"
    caught_up(settings)
    assert_same(settings)


def test_when_the_log_is_purged_chunks_are_compared(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = migration(shop, target)
    everything_but_indexes(settings, monkeypatch)
    run_all(shop, ("UPDATE shop.large SET v = 0 WHERE id = 20000", "FLUSH BINARY LOGS"))
    ((newest, *_),) = shop.execute("SHOW BINARY LOGS")[-1:]
    shop.execute(f"PURGE BINARY LOGS TO '{newest}'")
    progress = resumed(settings)
    assert 0 < progress.rows <= 750 + 500, "one chunk has changed"
    caught_up(settings)
    assert_same(settings)


def test_a_process_that_was_taken_over_adds_nothing_to_a_table_without_a_key(
    shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is gone with one session, its other sessions go on."""
    monkeypatch.setattr("applier.migrate.load.PIECE_BYTES_MAX", 1000)
    fill(shop, "shop.keyless", "a, b", "n % 5, n", 200_000)  # several reads
    settings = migration(shop, target, threads=1)  # so it begins with the table without a key
    pieces = []

    def lost(session: Session, statement: str, arguments: Sequence[object] = ()) -> list[Record]:
        rows = query(session, statement, arguments)
        if statement == "COMMIT" and not pieces:
            pieces.append(statement)
            ((holder,),) = target.execute("SELECT IS_USED_LOCK('applier_migrate:default')")
            target.execute(f"KILL {holder}")
            copy_all(settings)
        return rows

    monkeypatch.setattr("applier.migrate.load.query", lost)
    with pytest.raises((Fenced, LinkLost)):
        copy_all(settings)
    assert pieces
    assert_same(settings)


def test_a_lost_snapshot_is_replaced(shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = migration(shop, target, threads=2)
    lost: list[bool] = []
    adapt = Copier._adapt

    def lose(self: Copier, *arguments: object) -> None:
        if not lost and self.progress.chunks > 5:
            lost.append(True)
            raise SnapshotLost("as if both readers had lost their sessions")
        adapt(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Copier, "_adapt", lose)
    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)
        phases.copy_rows(settings, state, CopyProgress())
        phases.build(settings, state, lambda name: None)
    assert lost
    caught_up(settings)
    assert_same(settings)


def test_killed_readers_are_survived(shop: Server, target: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source ends every session of ours, once, in the middle."""
    settings = migration(shop, target, threads=2)
    killed: list[int] = []
    adapt = Copier._adapt

    def kill(self: Copier, *arguments: object) -> None:
        if not killed and self.progress.chunks > 5:
            for (number,) in shop.execute("SELECT trx_mysql_thread_id FROM information_schema.innodb_trx"):
                with contextlib.suppress(pymysql.MySQLError):  # ended by itself meanwhile
                    shop.execute(f"KILL {number}")
                    killed.append(number)
        adapt(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Copier, "_adapt", kill)
    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)
        phases.copy_rows(settings, state, CopyProgress())
        phases.build(settings, state, lambda name: None)
    assert killed
    caught_up(settings)
    assert_same(settings)


def kill_and_go_on(shop: Server, target: Server, times: int, seed: int, seconds_max: float) -> None:
    chance = random.Random(seed)
    settings = migration(shop, target)
    for number in range(1, times + 1):
        with command(shop, target) as run:
            pause = chance.uniform(0.3, seconds_max)
            wait_until(_after(pause), pause + 5, "the moment to kill")
            run.process.kill()
        table = chance.choice(TABLES)
        base = 1_000_000 + number * 10
        run_all(
            shop,
            (
                f"INSERT INTO shop.{table} VALUES ({base}, 'k{base}', 1)",
                f"UPDATE shop.{table} SET v = v + 1, u = CONCAT('z{number}-', id) WHERE id % 50 = {number % 5 * 10}",
                f"UPDATE shop.{table} SET id = id + 1 WHERE id % 1000 = 0",
                f"UPDATE shop.keyless SET b = b + 1 WHERE a = {number % 5}",
            ),
        )
    with command(shop, target, "--stop-at-end") as run:
        assert run.wait(120) == 0, run.errors
    assert_same(settings)


def _after(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def test_killed_three_times_and_identical(shop: Server, target: Server) -> None:
    fill(shop, "shop.large", "id, u, v", "n * 10 + 100001, CONCAT('w', n), n", 40_000)
    kill_and_go_on(shop, target, 3, seed=1, seconds_max=3.0)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_killed_ten_times_and_identical(shop: Server, target: Server, seed: int) -> None:
    fill(shop, "shop.large", "id, u, v", "n * 10 + 100001, CONCAT('w', n), n", 300_000)
    kill_and_go_on(shop, target, 10, seed=seed, seconds_max=6.0)
