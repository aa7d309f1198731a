"""A migration with exactly the documented privileges, accounts that come along, and a copy that gives way."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence

import pymysql
import pytest

from applier.migrate import phases
from applier.migrate.plan import make_plan
from applier.migrate.progress import CopyProgress
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import State
from applier.sandbox import Server
from applier.verify.definitions import Record, Session, query
from tests.live.test_migrate_copy import fill
from tests.migrating import account, assert_same, copy_all, migration
from tests.replaying import Command, address, run_all
from tests.servers import ServerFactory
from tests.waiting import wait_until

# As in README.md.
BOTH = (
    "REPLICATION SLAVE, REPLICATION CLIENT, PROCESS, RELOAD, SELECT, SYSTEM_VARIABLES_ADMIN, SESSION_VARIABLES_ADMIN,"
    " CONNECTION_ADMIN, REPLICATION_APPLIER, XA_RECOVER_ADMIN, SET_ANY_DEFINER ON *.*",
    "INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, EVENT, TRIGGER, LOCK TABLES, SHOW VIEW ON shop.*",
    "CREATE, SELECT, INSERT, UPDATE, DELETE, DROP ON applier.*",
)
SOURCE = (*BOTH, "BACKUP_ADMIN, SHOW_ROUTINE ON *.*")
TARGET = (
    *BOTH,
    "CREATE VIEW, CREATE ROUTINE, ALTER ROUTINE, EXECUTE ON shop.*",
    "CREATE, DROP, SELECT, INSERT, UPDATE, DELETE ON applier_migrate.*",
)


@pytest.fixture
def movable(source: Server, target: Server) -> Iterator[tuple[Server, Server]]:
    yield source, target
    for server in (source, target):
        server.execute("SET GLOBAL super_read_only = OFF")
        server.execute("SET GLOBAL read_only = OFF")
        server.execute("RESET PERSIST")


def shop(server: Server) -> None:
    run_all(
        server,
        (
            "CREATE DATABASE shop",
            "USE shop",
            "CREATE TABLE goods (id INT AUTO_INCREMENT PRIMARY KEY, n INT, KEY (n))",
            "CREATE TABLE sold (id INT PRIMARY KEY, goods INT, FOREIGN KEY (goods) REFERENCES goods (id))",
            "CREATE TABLE log (a INT)",
            "CREATE DEFINER = clerk@'%' FUNCTION f(n INT) RETURNS INT DETERMINISTIC RETURN n + 1",
            "CREATE DEFINER = clerk@'%' VIEW cheap AS SELECT id, f(n) FROM goods WHERE n < 5",
            "CREATE DEFINER = clerk@'%' TRIGGER counts AFTER INSERT ON sold FOR EACH ROW INSERT INTO log VALUES (1)",
            "CREATE DEFINER = clerk@'%' EVENT tick ON SCHEDULE EVERY 1 DAY DO INSERT INTO shop.log VALUES (2)",
        ),
    )
    fill(server, "shop.goods", "n", "n", 3000)
    fill(server, "shop.sold", "id, goods", "n, n", 100)


def test_the_documented_privileges_are_enough(movable: tuple[Server, Server]) -> None:
    source, target = movable
    for server, grants in ((source, SOURCE), (target, TARGET)):
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET sql_log_bin = 0")
            cursor.execute("CREATE USER clerk")
            cursor.execute("GRANT ALL ON shop.* TO clerk")
            cursor.execute("CREATE USER mover IDENTIFIED BY 'pw'")
            for grant in grants:
                cursor.execute(f"GRANT {grant} TO mover")
    shop(source)
    target.execute("SET GLOBAL read_only = ON")
    target.execute(
        "SET GLOBAL log_bin_trust_function_creators = ON"
    )  # for triggers and functions, without SUPER

    def migrate(command: str, *options: str) -> str:
        urls = [server.url.replace("root@", "mover@") for server in movable]
        passwords = {"APPLIER_SOURCE_PASSWORD": "pw", "APPLIER_TARGET_PASSWORD": "pw"}
        words = ("migrate", command, "--source", urls[0], "--target", urls[1], *options)
        with Command(*words, environment=os.environ | passwords) as process:
            assert process.wait() == 0, process.errors
        return process.output + process.errors

    migrate("plan", "--schemas", "shop")
    migrate("run", "--schemas", "shop", "--stop-at-end")
    source.execute("INSERT INTO shop.sold VALUES (101, 101)")
    migrate("catch-up", "--stop-at-end")
    migrate("verify")
    migrate("cutover")
    target.execute("INSERT INTO shop.sold VALUES (102, 102)")
    migrate("rollback")
    assert source.execute("SELECT COUNT(*) FROM shop.sold") == ((102,),)
    assert_same(migration(source, target))


def test_accounts_roles_and_grants_come_along(source: Server, target: Server) -> None:
    run_all(
        source,
        (
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, secret INT)",
            "CREATE ROLE reader",
            "GRANT SELECT (id) ON shop.t TO reader",
            "CREATE USER anna IDENTIFIED BY 'it''s ü' DEFAULT ROLE reader WITH MAX_QUERIES_PER_HOUR 50",
            "GRANT reader TO anna",
            "GRANT INSERT ON shop.* TO anna WITH GRANT OPTION",
            "CREATE USER kept IDENTIFIED BY 'on the source'",
        ),
    )
    target.execute("CREATE USER kept IDENTIFIED BY 'on the target'")
    copy_all(migration(source, target, accounts=True))
    for name in ("anna", "reader"):
        wanted = source.execute(f"SHOW GRANTS FOR {name}")
        assert target.execute(f"SHOW GRANTS FOR {name}") == wanted
    with target.connect(user="anna", password="it's ü".encode()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM shop.t")
    target.connect(user="kept", password="on the target").close()


# --- throttled ---------------------------------------------------------------------------------------------


def test_killed_before_accounts_have_what_is_granted_to_them(
    source: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(
        source,
        (
            "CREATE DATABASE shop",
            "CREATE USER anna, kept",
            "GRANT SELECT ON shop.* TO anna, kept",
        ),
    )
    target.execute("CREATE USER kept")
    settings = migration(source, target, accounts=True)

    def killed(session: Session, statement: str, arguments: Sequence[object] = ()) -> list[Record]:
        if "SHOW GRANTS" in statement:
            raise KeyboardInterrupt
        return query(session, statement, arguments)

    monkeypatch.setattr("applier.migrate.accounts.query", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_all(settings)
    monkeypatch.undo()
    copy_all(settings)
    assert target.execute("SHOW GRANTS FOR anna") == source.execute("SHOW GRANTS FOR anna")
    assert target.execute("SHOW GRANTS FOR kept") == (("GRANT USAGE ON *.* TO `kept`@`%`",),)


def test_tables_that_the_account_cannot_see_are_not_left_behind(source: Server, target: Server) -> None:
    run_all(
        source,
        ("CREATE DATABASE shop", "CREATE TABLE shop.goods (id INT)", "CREATE TABLE shop.sold (id INT)"),
    )
    settings = migration(source, target)
    grants = ("REPLICATION SLAVE, REPLICATION CLIENT, RELOAD ON *.*", "SELECT ON shop.goods")
    with account(source, settings, "source", *grants) as wanted, State(wanted.target, wanted.name) as state:
        report = make_plan(wanted, state).report
    assert "migrate.source.shop" in [finding.name for finding in report.failures]


def test_only_the_schemas_to_migrate_are_looked_at(source: Server, target: Server) -> None:
    run_all(
        source,
        (
            "CREATE DATABASE shop",
            "CREATE DATABASE archive",
            "CREATE TABLE archive.keyless (id INT)",
            "CREATE TABLE archive.files (id INT) ENGINE = MyISAM",
        ),
    )
    settings = migration(source, target)
    grants = (
        "REPLICATION SLAVE, REPLICATION CLIENT, RELOAD ON *.*",
        "SELECT ON shop.*",
        "UPDATE ON archive.*",
    )
    with account(source, settings, "source", *grants) as wanted, State(wanted.target, wanted.name) as state:
        report = make_plan(wanted, state).report
    assert "archive" not in str(report.findings)
    assert "privileges.source.SELECT" not in [finding.name for finding in report.failures]


@contextlib.contextmanager
def copying(settings: MigrateSettings) -> Iterator[CopyProgress]:
    """A copy that goes on in a thread; it has ended well when the block has."""
    progress = CopyProgress()
    failure: list[BaseException] = []

    def copy() -> None:
        try:
            with State(settings.target) as state:
                phases.begin(settings, state)
                phases.copy_schema(settings, state)
                phases.copy_rows(settings, state, progress)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure.append(error)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    yield progress
    thread.join(60)
    assert not thread.is_alive()
    if failure:
        raise failure[0]


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many that the copy lasts until it has been looked at."""
    monkeypatch.setattr("applier.migrate.copy.FIRST_ROWS", 20)
    monkeypatch.setattr("applier.migrate.copy.ROWS_MAX", 20)
    monkeypatch.setattr("applier.migrate.throttle.LOOK_SECONDS", 0.02)


def stands_still(progress: CopyProgress) -> Callable[[], bool]:
    """Asked again and again: whether no chunk has come for a second, that is for many chunks."""
    seen = [-1, 0]

    def ask() -> bool:
        seen[1] = seen[1] + 1 if progress.chunks == seen[0] else 0
        seen[0] = progress.chunks
        return seen[1] > 100

    return ask


@pytest.mark.usefixtures("many_chunks")
def test_the_copy_gives_way_to_a_busy_source(source: Server, target: Server) -> None:
    source.execute("CREATE DATABASE shop")
    source.execute("CREATE TABLE shop.goods (id INT PRIMARY KEY, n INT)")
    fill(source, "shop.goods", "id, n", "n, n", 20_000)
    settings = migration(source, target, threads_running_max=5)
    busy = [source.connect() for _ in range(8)]
    sleeping = [threading.Thread(target=sleep, args=(one,)) for one in busy]
    with copying(settings) as progress:
        for thread in sleeping:
            thread.start()
        wait_until(lambda: "threads running" in progress.waiting_for, what="the copy waits")
        wait_until(stands_still(progress), what="no chunk is copied")
        assert progress.rows < 20_000
        for one in busy:
            source.execute(f"KILL {one.thread_id()}")  # type: ignore[no-untyped-call]
    for thread in sleeping:
        thread.join()
    assert progress.rows == 20_000
    assert progress.waiting_for == ""


def sleep(session: pymysql.Connection[pymysql.cursors.Cursor]) -> None:
    with contextlib.suppress(pymysql.MySQLError), session.cursor() as cursor:
        cursor.execute("SELECT SLEEP(60)")


@pytest.mark.usefixtures("many_chunks")
def test_the_copy_gives_way_to_a_replica_that_lags(
    source: Server, target: Server, server_factory: ServerFactory
) -> None:
    source.execute("CREATE DATABASE shop")
    source.execute("CREATE TABLE shop.goods (id INT PRIMARY KEY, n INT)")
    fill(source, "shop.goods", "id, n", "n, n", 20_000)
    replica = server_factory(replica_of="target")
    replica.execute("STOP REPLICA SQL_THREAD")
    settings = migration(source, target, replica_lag_seconds_max=1.0, lag_of=address(replica, "source"))
    with copying(settings) as progress:
        wait_until(lambda: "a replica" in progress.waiting_for, what="the copy waits")
        wait_until(stands_still(progress), what="no chunk is copied")
        assert progress.rows < 20_000
        replica.execute("START REPLICA SQL_THREAD")
    assert progress.rows == 20_000
