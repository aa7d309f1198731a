"""`applier verify --repair`: rows that differ are the source's afterwards, whatever goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from applier.connection import Connection, connect
from applier.sandbox import Server
from applier.verify import Kind, Selection, VerifyOptions, VerifyReport, comparison, verify
from applier.workload import workload_named
from scheduler.grouping import GroupLimits
from tests.live.test_verify import CHANGES, KEYS
from tests.replaying import Mode, address, replaying, session
from tests.verifying import Pair
from tests.waiting import wait_until


@pytest.fixture
def pair(source: Server, target: Server) -> Pair:
    return Pair(source, target)


def assert_repaired(pair: Pair, rows: int | None = None) -> VerifyReport:
    """One repair mends everything."""
    report = pair.verify(repair=True, chunk_rows=20)
    assert report.exit_code == 0, report.as_dict()
    assert rows is None or report.rows_repaired == rows, report.differences
    assert pair.verify().identical
    return report


def test_changed_missing_and_extra_rows_are_repaired_whatever_the_key(pair: Pair) -> None:
    for number, (columns, row) in enumerate(KEYS.values()):
        rows = ", ".join(row.format(n=value) for value in range(60))
        pair.both(
            f"CREATE TABLE t{number} ({columns}) CHARACTER SET utf8mb4",
            f"INSERT IGNORE INTO t{number} VALUES {rows}",
            f"ALTER TABLE t{number} ADD v INT NOT NULL DEFAULT 0",
        )
        pair.on(
            pair.target,
            f"UPDATE t{number} SET v = 1 LIMIT 5",
            f"DELETE FROM t{number} WHERE v = 0 LIMIT 4",
        )
        pair.on(pair.source, f"DELETE FROM t{number} LIMIT 3")
    report = assert_repaired(pair)
    for table in report.tables:
        assert table.rows_repaired == table.rows_different > 5, table
    kinds = {difference.kind for difference in report.differences}
    assert kinds == {Kind.MISSING, Kind.EXTRA, Kind.DIFFERENT}


def test_values_of_every_type_are_repaired_exactly(pair: Pair) -> None:
    columns = ", ".join(
        f"c{number} {column_type}" for number, (column_type, _, _) in enumerate(CHANGES.values())
    )
    ours, theirs = (", ".join(change[side] for change in CHANGES.values()) for side in (1, 2))
    nulls = ", ".join("NULL" for _ in CHANGES)
    pair.both(f"CREATE TABLE t (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")
    pair.on(pair.source, f"INSERT INTO t VALUES (1, {ours}), (2, {nulls}), (3, {theirs})")
    pair.on(pair.target, f"INSERT INTO t VALUES (1, {theirs}), (2, {theirs}), (4, {nulls})")
    assert_repaired(pair, rows=4)


def test_generated_invisible_and_zero_auto_increment_columns_are_repaired(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, hidden INT INVISIBLE, v INT AS (a + 1) VIRTUAL,"
        " s INT AS (a * 2) STORED, d TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
        "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        "INSERT INTO t (id, a, hidden, d) VALUES (0, 1, 2, '2020-01-01'), (5, NULL, NULL, NULL)",
    )
    pair.on(pair.target, "DELETE FROM t")
    assert_repaired(pair, rows=2)


def test_dates_that_are_none_are_compared_and_repaired(pair: Pair) -> None:
    pair.both("CREATE TABLE t (d DATE PRIMARY KEY, e DATETIME)")
    rows = ", ".join(f"('2023-{month}-31', '2023-{month}-30 10:00:00')" for month in ("01", "02", "04"))
    pair.on(
        pair.source, "SET sql_mode = 'ALLOW_INVALID_DATES'", f"INSERT INTO t VALUES ('0000-00-00', 0), {rows}"
    )
    report = pair.verify(repair=True, chunk_rows=1)
    assert report.rows_repaired == 4
    assert pair.verify(chunk_rows=1).identical


def test_a_table_without_a_key_gets_every_row_as_often_as_the_source_has_it(pair: Pair) -> None:
    pair.both("CREATE TABLE t (a INT, b VARCHAR(5))", "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, NULL)")
    pair.on(pair.source, "INSERT INTO t VALUES (1, 'x'), (7, 'y'), (7, 'y')")
    pair.on(pair.target, "INSERT INTO t VALUES (2, NULL), (2, NULL), (9, 'z')")
    assert_repaired(pair, rows=6)


def test_a_table_without_a_key_is_repaired_in_pieces(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "KEYLESS_ROWS_FETCHED_MAX", 100)
    numbers = ", ".join(f"({number % 400})" for number in range(800))
    pair.both("CREATE TABLE t (a INT)", f"INSERT INTO t VALUES {numbers}")
    pair.on(pair.target, "DELETE FROM t WHERE a % 2 = 0", "UPDATE t SET a = -a")
    (table,) = pair.verify(repair=True).tables
    assert table.repaired
    assert table.rows_repaired == 400 + 400 + 400
    assert pair.verify().identical


@pytest.mark.parametrize("rows_at_once", [50, 500_000])
def test_unique_values_of_a_table_without_a_key_do_not_hinder_the_repair(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(comparison, "KEYLESS_ROWS_FETCHED_MAX", rows_at_once)
    pair.both("CREATE TABLE t (a INT UNIQUE, b INT)")
    for server, change in ((pair.source, 0), (pair.target, 1000)):
        pair.on(server, f"INSERT INTO t VALUES {', '.join(f'({n}, {n + change})' for n in range(200))}")
    report = pair.verify(repair=True)
    (table,) = report.tables
    assert report.exit_code == 0
    assert (table.rows_different, table.rows_repaired, table.chunks_different) == (400, 400, 1)
    assert pair.verify().identical


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("DOUBLE", "-1.2345678901234567e-10"),
        ("DOUBLE NOT NULL", "-1.7976931348623157e-308"),
        ("DOUBLE(255,30)", "-1e224"),
        ("DECIMAL(5,5)", "-0.12345"),
        ("TIME(6)", "'-838:59:58.123456'"),
    ],
)
def test_long_numbers_of_a_table_without_a_key_are_repaired(pair: Pair, kind: str, value: str) -> None:
    pair.both(f"CREATE TABLE t (v {kind})")
    pair.on(pair.source, f"INSERT INTO t VALUES ({value}), ({value}), ({value})")
    pair.on(pair.target, f"INSERT INTO t VALUES ({value})")
    assert_repaired(pair, rows=2)


def test_statements_of_a_repair_fit_small_packets(pair: Pair) -> None:
    numbers = ", ".join(f"({number})" for number in range(20_000))
    pair.both("CREATE TABLE t (a INT)")
    pair.on(pair.source, f"INSERT INTO t VALUES {numbers}")
    pair.on(pair.target, f"INSERT INTO t SELECT -a - 1 FROM (VALUES {numbers.replace('(', 'ROW(')}) AS n (a)")
    for server in (pair.source, pair.target):
        server.execute("SET GLOBAL max_allowed_packet = 1048576")
    assert_repaired(pair, rows=40_000)


def test_unique_values_that_wrong_rows_hold_do_not_hinder_the_repair(pair: Pair) -> None:
    count = 500  # more than are locked at once
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, u INT NOT NULL, UNIQUE (u))")
    rows = [(number, number) for number in range(count)]
    pair.on(pair.source, f"INSERT INTO t VALUES {', '.join(map(str, rows))}")
    moved = [(number, (number + 250) % count) for number in range(count)]
    pair.on(pair.target, f"INSERT INTO t VALUES {', '.join(map(str, moved))}")
    assert_repaired(pair, rows=count)


def test_a_key_spelt_otherwise_is_repaired(pair: Pair) -> None:
    pair.both("CREATE TABLE t (k VARCHAR(9) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY)")
    pair.on(pair.source, "INSERT INTO t VALUES ('a'), ('b')")
    pair.on(pair.target, "INSERT INTO t VALUES ('A'), ('b')")
    assert_repaired(pair, rows=1)


def test_parents_are_repaired_without_touching_their_children(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE parent (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
        "INSERT INTO parent VALUES (1, 1)",
        "INSERT INTO child VALUES (1, 1)",
    )
    pair.on(pair.target, "UPDATE parent SET v = 2")
    assert_repaired(pair, rows=1)


def test_triggers_of_the_target_are_not_fired(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE TRIGGER noted AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES ()",
    )
    pair.on(pair.target, "UPDATE t SET v = 2")
    report = pair.verify(repair=True)
    assert report.exit_code == 4
    (table,) = (table for table in report.tables if table.table == "t")
    assert "noted" in table.repair_error
    assert pair.target.execute("SELECT COUNT(*) FROM v.log") == ((0,),)


def test_triggers_that_the_account_cannot_see_are_not_fired(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE TRIGGER noted AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES ()",
        "CREATE USER mender",
        "GRANT REPLICATION CLIENT, SESSION_VARIABLES_ADMIN ON *.* TO mender",
        "GRANT SELECT, INSERT, DELETE ON v.* TO mender",
    )
    pair.on(pair.target, "UPDATE t SET v = 2")
    mender = address(pair.target, "target", user="mender")
    report = verify(address(pair.source, "source"), mender, VerifyOptions(repair=True))
    assert report.exit_code == 4
    (table,) = (table for table in report.tables if table.table == "t")
    assert "GRANT TRIGGER ON `v`.*" in table.repair_error
    assert pair.target.execute("SELECT COUNT(*) FROM v.log") == ((0,),)


def test_a_repair_is_not_in_the_targets_binary_log_unless_wanted(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    for logged in (False, True):
        pair.on(pair.target, "UPDATE t SET v = v + 1")
        before = pair.target.execute("SELECT @@GLOBAL.gtid_executed")
        assert pair.verify(repair=True, log_repairs=logged).rows_repaired == 1
        assert (pair.target.execute("SELECT @@GLOBAL.gtid_executed") != before) is logged


# --- while writes go on ------------------------------------------------------------------------------


@contextmanager
def load(source: Server) -> Iterator[None]:
    """Hot rows, inserts at the end, updates and deletes everywhere, until the block ends."""
    stop = threading.Event()
    work = workload_named("tpcc", warehouses=1, scale=0.01, terminals=2)

    def connection() -> Connection[Any]:
        return connect(address(source, "source"))

    work.prepare(connection)
    # As fast as the target keeps up with on a machine that has little.
    thread = threading.Thread(target=work.run, args=(connection,), kwargs={"stop": stop, "rate": 100.0})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


MOVING: dict[str, Mode] = {
    "source's GTIDs": {},
    "own GTIDs, groups": {"group": GroupLimits(100), "net_changes": True, "target_gtids": "own"},
}


def _has_history(server: Server) -> bool:
    return len(server.execute("SELECT 1 FROM tpcc.history LIMIT 3")) == 3


def _items(server: Server) -> int:
    rows = server.execute("SELECT table_rows FROM information_schema.tables WHERE table_name = 'item'")
    return server.execute("SELECT COUNT(*) FROM tpcc.item")[0][0] if rows else -1


@pytest.mark.parametrize("mode", MOVING.values(), ids=MOVING)
def test_differences_are_found_and_repaired_while_writes_go_on(
    source: Server, target: Server, mode: Mode
) -> None:
    pair = Pair(source, target)
    with replaying(source, target, **mode) as running:
        with load(source):
            wait_until(lambda: running.failure or (_items(target) == _items(source) and _has_history(target)))
            with session(target, "SET sql_log_bin = 0, foreign_key_checks = 0") as run:
                run("UPDATE tpcc.item SET i_price = i_price + 1 ORDER BY i_id LIMIT 300")
                run("DELETE FROM tpcc.item ORDER BY i_id DESC LIMIT 20")
                run("INSERT INTO tpcc.item SELECT i_id + 1000000, i_im_id, 'x', 1, '' FROM tpcc.item LIMIT 5")
                run("INSERT INTO tpcc.history SELECT * FROM tpcc.history LIMIT 3")
                run("UPDATE tpcc.district SET d_street_1 = 'x'")  # hot: the load's next update mends it too
            report = pair.verify(repair=True, differences_max=1000, selection=Selection(schemas=("tpcc",)))
            assert report.exit_code == 0, report.as_dict()
            found = {table.table: table.rows_different for table in report.tables if table.rows_different}
            found.pop("district", None)
            assert found == {"item": 325, "history": 3}
        assert pair.verify().identical
