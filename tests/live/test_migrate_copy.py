"""The copy: every type and key, consistent while writes go on, whatever the accounts may do."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from applier.errors import DataError, PreflightFailed, UsageError
from applier.migrate import phases
from applier.migrate.progress import CopyProgress
from applier.migrate.snapshot import Snapshot
from applier.migrate.state import Phase, State, TableState
from applier.sandbox import Server
from applier.verify.definitions import query
from tests import every_type
from tests.migrating import assert_same, caught_up, command, copy_all, migrated, migration
from tests.replaying import run_all, session
from tests.waiting import wait_until

NUMBERS = "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < {}) "


def fill(server: Server, table: str, columns: str, values: str, rows: int) -> None:
    run_all(
        server,
        (
            "SET SESSION cte_max_recursion_depth = 1000000",
            f"INSERT INTO {table} ({columns}) {NUMBERS.format(rows)} SELECT {values} FROM r",
        ),
    )


def shop(server: Server, rows: int = 3000) -> None:
    run_all(
        server,
        (
            "CREATE DATABASE shop",
            "CREATE TABLE shop.goods (id BIGINT AUTO_INCREMENT PRIMARY KEY, n INT, note VARCHAR(40), KEY (n),"
            " KEY (note, n))",
            "CREATE TABLE shop.log (a INT, b VARCHAR(9))",
        ),
    )
    fill(server, "shop.goods", "n, note", "n, CONCAT('note ', n)", rows)
    fill(server, "shop.log", "a, b", "n % 7, n % 11", 500)


# --- exactness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load_data", [True, False], ids=["LOAD DATA", "INSERT"])
def test_every_type_is_copied_exactly(source: Server, target: Server, load_data: bool) -> None:
    run_all(source, [*every_type.definitions(), *every_type.changes()])
    edge_cases(source)
    settings = migration(source, target, "types", "edges", load_data=load_data)
    migrated(settings)
    # A DECIMAL that a function put into a JSON document is a plain number in its text.
    assert_same(settings, "js_opaque")


def edge_cases(server: Server) -> None:
    binary = "".join(f"{byte:02x}" for byte in range(256))
    run_all(
        server,
        (
            "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+00:00'",
            "CREATE DATABASE edges",
            "CREATE TABLE edges.zero (id INT AUTO_INCREMENT PRIMARY KEY, d DATE, f FLOAT, g FLOAT(7,2),"
            " h DOUBLE(20,3), d0 DOUBLE, e ENUM('', 'x', '2'), s SET('a', 'b'), y YEAR, b VARBINARY(600),"
            " t TEXT CHARACTER SET utf16)",
            "INSERT INTO edges.zero VALUES (0, '2023-02-31', 0.1, 12345.67, 99999999999999999.125, -0.0, '', 'a,b',"
            " 0,"
            f" X'{binary}', 'tab\\tline\\nback\\\\slash \\\\N NULL'), (1, '0000-00-00', 1e-40, -0.01, 0, 1e-320, 'x',"
            " '',"
            " 2155, '', ''), (-5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),"
            " (2, '0001-00-01', 16777217, 1, 1, 4.9e-324, '2', 'b', 1970, '\\\\N', 'NULL')",
            "SET SESSION sql_mode = ''",
            "INSERT INTO edges.zero (id, e) VALUES (3, 'none of them')",  # the error value, number 0
            'CREATE TABLE edges.`we``ird "täble"` (`a b` INT, `käy``` VARCHAR(20) COLLATE utf8mb4_0900_ai_ci,'
            " `\\\\` INT, PRIMARY KEY (`käy```, `a b`))",
            "INSERT INTO edges.`we``ird \"täble\"` VALUES (1, 'ß', 1), (2, 'SS', 2), (3, '', 3), (4, '\\\\\\'', 4)",
            "CREATE TABLE edges.hidden (v INT) /* gets an invisible key */",
            "CREATE TABLE edges.point (id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, SPATIAL KEY (p))",
            "INSERT INTO edges.point VALUES (1, ST_GeomFromText('POINT(1 2)', 4326))",
            "CREATE TABLE edges.words (id INT PRIMARY KEY, t TEXT, u TEXT, FULLTEXT KEY (t), FULLTEXT KEY (u))",
            "INSERT INTO edges.words VALUES (1, 'some words', 'others')",
            "CREATE TABLE edges.computed (id INT PRIMARY KEY, p DECIMAL(12, 4), n VARCHAR(9),"
            " gross DECIMAL(12, 2) AS (p * 1.19) STORED, m INT AS (n + 0) STORED)",
            "INSERT INTO edges.computed (id, p, n) VALUES (1, 1.2345, '7x'), (2, NULL, NULL)",  # with warnings
            "CREATE TABLE edges.bigtext (id INT PRIMARY KEY, t LONGTEXT)",
            "INSERT INTO edges.bigtext VALUES (1, REPEAT('x\\t', 9000000)), (2, 'end')",
        ),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("a INT, b INT, PRIMARY KEY (b, a)", "n, n % 5"),
        (
            "a VARCHAR(30) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, b INT",
            "CONCAT(CHAR(97 + n % 26), 'é', n), n",
        ),
        ("a VARBINARY(28) PRIMARY KEY, b INT", "UNHEX(SHA2(n, 224)), n"),
        (
            "a DECIMAL(20, 6), b DATETIME(6), PRIMARY KEY (b DESC, a)",
            "n / 7, '2024-01-01' + INTERVAL n MICROSECOND",
        ),
        ("a INT NOT NULL, b INT, UNIQUE KEY (a)", "n, n"),
        ("a ENUM('x', 'y', 'z'), b BIT(20), PRIMARY KEY (a, b)", "1 + n % 3, n"),
        ("a INT, b INT, PRIMARY KEY (a)) PARTITION BY HASH (a) PARTITIONS (3", "n, n"),
    ],
)
def test_any_key_is_cut_into_chunks(
    source: Server, target: Server, key: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("applier.migrate.copy.FIRST_ROWS", 100)
    monkeypatch.setattr("applier.migrate.copy.ROWS_MAX", 100)
    definition = key.replace("PARTITIONS (3", "PARTITIONS 3") if "PARTITION" in key else f"{key})"
    run_all(source, ("CREATE DATABASE shop", f"CREATE TABLE shop.t ({definition}"))
    fill(source, "shop.t", "a, b", value, 1500)
    settings = migration(source, target)
    progress = CopyProgress()
    copy_all(settings, progress)
    assert progress.rows == 1500
    assert_same(settings)


def test_dates_that_are_none_are_keys_as_others(
    source: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("applier.migrate.copy.FIRST_ROWS", 1)
    run_all(
        source,
        (
            "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'",
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (d DATE PRIMARY KEY, e DATE DEFAULT '2023-02-31')",
            "INSERT INTO shop.t (d) VALUES ('0000-00-00'), ('2023-02-30'), ('2023-02-31'), ('2023-03-01')",
        ),
    )
    settings = migration(source, target)
    migrated(settings)
    assert_same(settings)


def test_code_and_foreign_keys_are_made_and_events_do_not_run(source: Server, target: Server) -> None:
    shop(source)
    run_all(
        source,
        (
            "USE shop",
            "CREATE TABLE child (id INT PRIMARY KEY, goods BIGINT, FOREIGN KEY (goods) REFERENCES goods (id))",
            "INSERT INTO child SELECT id, id FROM goods LIMIT 50",
            "CREATE FUNCTION f(n INT) RETURNS INT DETERMINISTIC RETURN n + 1",
            "CREATE VIEW b_view AS SELECT id, f(n) FROM goods",
            "CREATE VIEW a_view AS SELECT id FROM b_view",
            "CREATE PROCEDURE p() SELECT 'ü'",
            "CREATE TRIGGER before_log BEFORE INSERT ON log FOR EACH ROW SET NEW.a = NEW.a + 1",
            "CREATE EVENT tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO log VALUES (1, 'tick')",
        ),
    )
    run_all(source, ("SET GLOBAL event_scheduler = OFF",))
    settings = migration(source, target)
    migrated(settings)
    assert_same(settings)
    ((status,),) = target.execute("SELECT status FROM information_schema.events WHERE event_name = 'tick'")
    assert "DISABLED" in str(status)


# --- consistent, while the source lives ----------------------------------------------------------------------


@contextmanager
def writing(server: Server) -> Iterator[threading.Event]:
    """Moves sums between two tables, so that only a consistent copy has the same total; other schemas too."""
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        with session(server) as run:
            number = 0
            while not stop.is_set():
                number += 1
                run("BEGIN")
                run(f"UPDATE shop.goods SET n = n - 1 WHERE id = {number % 900 + 1}")
                run(f"UPDATE shop.account SET balance = balance + 1 WHERE id = {number % 9 + 1}")
                run(f"INSERT INTO elsewhere.t VALUES ({number})")
                run(f"INSERT INTO shop.log VALUES ({number}, 'w')")
                if number % 7 == 0:
                    run(f"UPDATE shop.goods SET id = id + 100000 WHERE id = {number % 800 + 1}")
                run("COMMIT")
                begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(10)
        yield stop
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def bank(source: Server) -> Server:
    shop(source)
    run_all(
        source,
        (
            "CREATE TABLE shop.account (id INT PRIMARY KEY, balance INT)",
            "INSERT INTO shop.account VALUES (1,0),(2,0),(3,0),(4,0),(5,0),(6,0),(7,0),(8,0),(9,0)",
            "CREATE DATABASE elsewhere",
            "CREATE TABLE elsewhere.t (id INT PRIMARY KEY)",
        ),
    )
    return source


def test_the_copy_is_one_state_of_a_source_that_is_written_to(bank: Server, target: Server) -> None:
    ((total,),) = bank.execute(
        "SELECT (SELECT SUM(n) FROM shop.goods) + (SELECT SUM(balance) FROM shop.account)"
    )
    settings = migration(bank, target)
    with writing(bank):
        copy_all(settings)
        ((copied,),) = target.execute(
            "SELECT (SELECT SUM(n) FROM shop.goods) + (SELECT SUM(balance) FROM shop.account)"
        )
        assert copied == total
        bank.execute("CREATE TABLE shop.later (id INT PRIMARY KEY)")
        bank.execute("CREATE TABLE elsewhere.later (id INT PRIMARY KEY)")
        bank.execute("INSERT INTO shop.later VALUES (1)")
    caught_up(settings)
    assert_same(settings)
    assert (
        target.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'elsewhere'")
        == ()
    )


def test_a_short_lock_is_taken_when_the_moment_does_not_come(
    bank: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Snapshot, "_without_lock", lambda *arguments: None)
    settings = migration(bank, target)
    with writing(bank):
        copy_all(settings)
    with State(settings.target) as state:
        facts = state.require().facts
    assert "FLUSH TABLES WITH READ LOCK" in facts["held"]
    assert 0 < facts["locked_seconds"] < 5
    caught_up(settings)
    assert_same(settings)


def test_the_short_lock_is_no_part_of_a_deadlock(
    source: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction whose next statement waits for the lock, which waits for who waits for its rows."""
    shop(source, 10)
    monkeypatch.setattr(Snapshot, "_without_lock", lambda *arguments: None)
    settings = migration(source, target)
    snapshot = Snapshot(settings.source, 2)
    change = "UPDATE shop.goods SET n = n + 1 WHERE id = {}".format
    with (
        contextlib.closing(snapshot),
        session(source, "BEGIN", change(1)) as first,
        session(source) as second,
        ThreadPoolExecutor(2) as threads,
    ):
        others = threads.submit(second, change(1))
        wait_until(lambda: source.execute("SELECT 1 FROM performance_schema.data_lock_waits"))
        opening = threads.submit(snapshot.open, [], allow_lock=True, lock_seconds_max=20)
        wait_until(lambda: waiting(source, "FLUSH"), what="the lock is waited for")
        first(change(2))
        first("COMMIT")
        assert opening.result(30).waited_seconds < 10
        others.result(10)


def test_without_a_moment_and_without_a_lock_it_is_refused(
    source: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(source, 10)
    monkeypatch.setattr(Snapshot, "_without_lock", lambda *arguments: None)
    with pytest.raises(PreflightFailed, match="too busy"):
        copy_all(migration(source, target, allow_lock=False))


@pytest.mark.parametrize("backup_lock", [True, False])
def test_ddl_waits_until_the_copy_is_over(
    source: Server, target: Server, backup_lock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(source)
    if not backup_lock:
        monkeypatch.setattr(Snapshot, "_lock_ddl", lambda self: False)
    settings = migration(source, target)
    snapshot = Snapshot(settings.source, 2)
    done = threading.Event()

    def alter() -> None:
        source.execute("ALTER TABLE shop.goods ADD COLUMN more INT DEFAULT 5, ALGORITHM = INSTANT")
        done.set()

    try:
        tables = phases._copy_tables(snapshot.control, settings, {})
        snapshot.open([one.table for one in tables.values()], allow_lock=True, lock_seconds_max=5)
        thread = threading.Thread(target=alter)
        thread.start()
        wait_until(lambda: waiting(source), what="the ALTER waits")
        assert not done.is_set()
        ((rows,),) = query(snapshot.sessions[0], "SELECT COUNT(*) FROM shop.goods")
        assert int(rows) == 3000
    finally:
        snapshot.close()
    thread.join(20)
    assert done.is_set()


def waiting(server: Server, statement: str = "ALTER") -> bool:
    return any(
        "lock" in str(state).lower()
        for (state,) in server.execute(
            "SELECT state FROM performance_schema.processlist WHERE info LIKE CONCAT(%s, '%%')", (statement,)
        )
    )


# --- what may fail -------------------------------------------------------------------------------------------


def test_one_bad_chunk_does_not_spoil_the_rest(source: Server, target: Server) -> None:
    shop(source)
    settings = migration(source, target, attempts_max=1)
    with State(settings.target) as state:
        phases.begin(settings, state)
        phases.copy_schema(settings, state)
        target.execute("ALTER TABLE shop.log ADD CONSTRAINT bad CHECK (a < 6)")
        with pytest.raises(DataError, match=r"shop\.log.*bad"):
            phases.copy_rows(settings, state, CopyProgress())
        states = {table.table: table.state for table in state.tables()}
        assert states == {"goods": TableState.COPIED, "log": TableState.FAILED}
        assert state.require().phase is Phase.COPY
        target.execute("ALTER TABLE shop.log DROP CONSTRAINT bad")
        progress = CopyProgress()
        phases.copy_rows(settings, state, progress)
        assert progress.rows == 500  # goods is not copied again
        phases.build(settings, state, lambda name: None)
    caught_up(settings)
    assert_same(settings)


def test_one_process_works_on_a_migration_and_an_old_one_is_fenced_off(
    source: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("applier.migrate.state.LOCK_WAIT_SECONDS", 0)
    shop(source, 10)
    settings = migration(source, target)
    with State(settings.target) as one:
        phases.begin(settings, one)
        with State(settings.target) as other, pytest.raises(PreflightFailed, match="Another process"):
            other.acquire()
        one.release()
        with State(settings.target) as other:
            other.acquire()
            with pytest.raises(DataError, match="taken over"):
                one.set_phase(Phase.COPY)
            with pytest.raises(DataError, match="taken over"):
                one.put_tables([])


def test_another_source_or_other_schemas_are_refused(source: Server, target: Server) -> None:
    shop(source, 10)
    settings = migration(source, target)
    copy_all(settings)
    with State(settings.target) as state, pytest.raises(UsageError, match="is of the schemas shop"):
        phases.begin(dataclasses.replace(settings, schemas=("other",)), state)


# --- the command ---------------------------------------------------------------------------------------------


def test_the_command_from_plan_to_following_and_back_to_nothing(source: Server, target: Server) -> None:
    shop(source, 300)
    before = target.execute("SELECT @@GLOBAL.gtid_executed")
    with command(source, target, "--dry-run") as plan:
        assert plan.wait() == 0, plan.errors
        assert "shop.goods" in plan.output
    assert target.execute("SELECT @@GLOBAL.gtid_executed") == before, "a plan writes nothing"
    with command(source, target, "--stop-at-end") as run:
        assert run.wait() == 0, run.errors
    settings = migration(source, target)
    assert_same(settings)
    with command(source, target, "--stop-at-end") as again:
        source.execute("INSERT INTO shop.goods (n) VALUES (7)")
        assert again.wait() == 0, again.errors
    assert_same(settings)
