"""Rows of every kind arrive as they are on the source: types, images, compression, tables of every sort."""

# ruff: noqa: E501 (statements are easier to read on one line)

from __future__ import annotations

import pytest

from applier.sandbox import Server
from tests import every_type
from tests.replaying import Mode, assert_identical, in_every_mode, replay, replaying, run_all

LARGE_JSON = "JSON_OBJECT('name', REPEAT('n', 400), 'tags', JSON_ARRAY(1, 2, 3), 'n', 5)"

TABLES = (
    "CREATE DATABASE d",
    "USE d",
    "CREATE TABLE invisible (id INT PRIMARY KEY, v INT INVISIBLE DEFAULT 7, w INT INVISIBLE UNIQUE)",
    "CREATE TABLE computed (id INT PRIMARY KEY, a INT, s INT AS (a * 2) STORED UNIQUE, v VARCHAR(20) AS (CONCAT(a, 'x'))"
    " VIRTUAL UNIQUE)",
    "CREATE TABLE functional (id INT PRIMARY KEY, name VARCHAR(30), doc JSON, UNIQUE KEY ((LOWER(name))),"
    " KEY tags ((CAST(doc->'$.tags' AS UNSIGNED ARRAY))))",
    "CREATE TABLE prefixed (id INT, name VARCHAR(100), PRIMARY KEY (name(4)), UNIQUE KEY (id))",
    "CREATE TABLE ranges (id INT, at DATETIME(3), v TEXT, PRIMARY KEY (id, at)) PARTITION BY RANGE COLUMNS (at)"
    " SUBPARTITION BY HASH (id) SUBPARTITIONS 3"
    " (PARTITION p0 VALUES LESS THAN ('2020-01-01'), PARTITION p1 VALUES LESS THAN (MAXVALUE))",
    "CREATE TABLE keyless_parts (a INT, b INT) PARTITION BY KEY (a) PARTITIONS 4",
    "CREATE TABLE documents (id INT PRIMARY KEY, d JSON, e JSON, n INT)",
    "CREATE TABLE two_byte_names (`größe €` INT PRIMARY KEY, `💧` VARCHAR(9))",
)


def changes() -> list[str]:
    """To TABLES; can be repeated."""
    return [
        "INSERT INTO invisible (id, w) VALUES (1, 1), (2, NULL), (3, NULL)",
        "UPDATE invisible SET v = id, w = w + 1",
        "INSERT INTO computed (id, a) VALUES (1, 1), (2, NULL), (3, -5)",
        "UPDATE computed SET a = a + 10",
        "UPDATE computed SET id = 100 - id",
        """INSERT INTO functional VALUES (1, 'Ä', '{"tags": [1, 2, 3]}'), (2, 'B', '{"tags": []}'), (3, NULL, NULL)""",
        "UPDATE functional SET name = CONCAT(name, '!'), doc = JSON_SET(doc, '$.tags[0]', 9)",
        "DELETE FROM functional WHERE id = 1",
        "INSERT INTO prefixed VALUES (1, 'abcdef'), (2, 'xbcz'), (NULL, 'ab')",
        "UPDATE prefixed SET name = CONCAT('z', name)",
        "INSERT INTO ranges VALUES (1, '2019-12-31 23:59:59.999', 'a'), (2, '2030-01-01', REPEAT('b', 3000))",
        "UPDATE ranges SET at = '2025-05-05 05:05:05.505' WHERE id = 1",
        "DELETE FROM ranges WHERE id = 2",
        "INSERT INTO keyless_parts VALUES (1, 1), (1, 1), (2, NULL), (NULL, NULL), (NULL, NULL)",
        "UPDATE keyless_parts SET a = a + 1, b = 7 WHERE a = 1 LIMIT 1",
        "DELETE FROM keyless_parts WHERE a IS NULL LIMIT 1",
        f"INSERT INTO documents VALUES (1, {LARGE_JSON}, {LARGE_JSON}, 1), (2, NULL, {LARGE_JSON}, 2)",
        "UPDATE documents SET d = JSON_SET(d, '$.n', 6), e = JSON_REMOVE(e, '$.tags[1]')",
        "UPDATE documents SET n = 9, e = JSON_REPLACE(e, '$.name', 'ü') WHERE id = 1",
        "INSERT INTO two_byte_names VALUES (1, 'a'), (2, NULL)",
        "UPDATE two_byte_names SET `💧` = '💧💧' WHERE `größe €` = 1",
    ]


EMPTYING = tuple(
    f"DELETE FROM {table}"
    for table in ("invisible", "computed", "functional", "prefixed", "ranges", "documents", "two_byte_names")
)

# name → session variables of the source
WAYS = {
    "full": {},
    "minimal": {"binlog_row_image": "MINIMAL"},
    "noblob": {"binlog_row_image": "NOBLOB"},
    "partial json": {"binlog_row_value_options": "PARTIAL_JSON"},
    "partial json, minimal": {"binlog_row_value_options": "PARTIAL_JSON", "binlog_row_image": "MINIMAL"},
    "compressed": {"binlog_transaction_compression": "ON"},
    "with comments": {"binlog_rows_query_log_events": "ON"},
}


@in_every_mode
def test_every_type_and_every_value(source: Server, target: Server, mode: Mode) -> None:
    run_all(source, every_type.definitions())
    run_all(source, every_type.changes())
    replay(source, target, **mode)
    assert_identical(source, target)


@pytest.mark.parametrize("metadata", ["MINIMAL", "FULL"])
@in_every_mode
def test_tables_of_every_sort_in_every_row_image(
    source: Server, target: Server, metadata: str, mode: Mode
) -> None:
    source.execute("SET GLOBAL binlog_row_metadata = %s", (metadata,))
    run_all(source, TABLES)
    for settings in WAYS.values():
        before = [f"SET SESSION {name} = '{value}'" for name, value in settings.items()]
        run_all(source, [*before, *changes(), *EMPTYING], database="d")
    run_all(source, changes(), database="d")
    replay(source, target, **mode)
    assert_identical(source, target)


@in_every_mode
def test_transactions_of_every_shape(source: Server, target: Server, mode: Mode) -> None:
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT UNIQUE)"])
    shapes = [
        "BEGIN",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "SAVEPOINT one",
        "INSERT INTO t VALUES (3, 3)",
        "ROLLBACK TO one",
        "SAVEPOINT `sp ``ä`",
        "UPDATE t SET v = v + 10",
        "RELEASE SAVEPOINT one",
        "COMMIT",
        "BEGIN",
        "DELETE FROM t",
        "ROLLBACK",
        # the same row and the same unique value several times
        "BEGIN",
        "UPDATE t SET v = 100 WHERE id = 1",
        "UPDATE t SET v = 11 WHERE id = 2",
        "DELETE FROM t WHERE id = 1",
        "INSERT INTO t VALUES (1, 12)",
        "UPDATE t SET id = 5 WHERE id = 1",
        "COMMIT",
        # nothing in it
        "SET gtid_next = '00000000-0000-0000-0000-00000000000a:7'",
        "BEGIN",
        "COMMIT",
        "SET gtid_next = 'AUTOMATIC'",
        # tags
        "SET gtid_next = 'AUTOMATIC:blue'",
        "INSERT INTO t VALUES (20, 20)",
        "SET gtid_next = '00000000-0000-0000-0000-00000000000a:tag_1:3'",
        "INSERT INTO t VALUES (21, 21)",
        "SET gtid_next = 'AUTOMATIC'",
        "INSERT INTO t VALUES (22, 22)",
    ]
    run_all(source, shapes, database="d")
    replay(source, target, **mode)
    assert_identical(source, target)
    assert target.execute("SELECT id, v FROM d.t ORDER BY id") == (
        (2, 11),
        (5, 12),
        (20, 20),
        (21, 21),
        (22, 22),
    )


@in_every_mode
def test_tables_without_transactions(source: Server, target: Server, mode: Mode) -> None:
    changes = [
        "CREATE DATABASE d",
        "USE d",
        "CREATE TABLE isam (id INT PRIMARY KEY, v INT) ENGINE=MyISAM",
        "CREATE TABLE memory (v INT) ENGINE=MEMORY",
        "CREATE TABLE archive (v INT) ENGINE=ARCHIVE",
        "CREATE TABLE csv (v INT NOT NULL) ENGINE=CSV",
        "CREATE TABLE t (id INT PRIMARY KEY)",
        *(f"INSERT INTO {table} (v) VALUES (1), (2)" for table in ("memory", "archive", "csv")),
        "INSERT INTO isam VALUES (1, 1), (2, 2)",
        "UPDATE isam SET v = 9",
        "BEGIN",
        "DELETE FROM isam WHERE id = 1",
        "INSERT INTO isam VALUES (3, 3)",
        "ROLLBACK",
        "INSERT INTO t VALUES (1)",
    ]
    run_all(source, changes)
    replay(source, target, **mode)
    assert_identical(source, target)
    assert target.execute("SELECT * FROM d.isam ORDER BY id") == ((2, 9), (3, 3))


@in_every_mode
def test_cascades_and_triggers_are_not_done_twice(source: Server, target: Server, mode: Mode) -> None:
    """Without REPLACE of a parent: there 9.7 logs other changes than it makes, and its own replica differs too."""
    changes = [
        "CREATE DATABASE d",
        "USE d",
        "CREATE TABLE parent (id INT PRIMARY KEY, code VARCHAR(9) UNIQUE)",
        "CREATE TABLE child (id INT PRIMARY KEY AUTO_INCREMENT, parent INT, code VARCHAR(9), FOREIGN KEY (parent) REFERENCES"
        " parent (id) ON DELETE CASCADE ON UPDATE CASCADE, FOREIGN KEY (code) REFERENCES parent (code) ON DELETE SET NULL"
        " ON UPDATE CASCADE)",
        "CREATE TABLE grandchild (id INT PRIMARY KEY AUTO_INCREMENT, child INT, FOREIGN KEY (child) REFERENCES child (id)"
        " ON DELETE CASCADE)",
        "CREATE TABLE self (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES self (id) ON DELETE CASCADE)",
        "CREATE TABLE log (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(30))",
        "CREATE TRIGGER inserted AFTER INSERT ON parent FOR EACH ROW INSERT INTO log (what) VALUES (CONCAT('i', NEW.id))",
        "CREATE TRIGGER changing BEFORE UPDATE ON parent FOR EACH ROW SET NEW.code = CONCAT(NEW.code, '.')",
        "CREATE TRIGGER deleted AFTER DELETE ON parent FOR EACH ROW INSERT INTO log (what) VALUES (CONCAT('d', OLD.id))",
        "INSERT INTO parent VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "INSERT INTO child (parent, code) VALUES (1, 'a'), (1, 'b'), (2, 'b'), (NULL, 'c'), (3, NULL)",
        "INSERT INTO grandchild (child) SELECT id FROM child",
        "INSERT INTO self VALUES (1, NULL), (2, 1), (3, 2), (4, 1)",
        "UPDATE parent SET id = id + 10, code = CONCAT(code, code)",
        "DELETE FROM parent WHERE id = 11",
        "DELETE FROM self WHERE id = 2",
        "SET foreign_key_checks = 0",
        "DELETE FROM parent WHERE id = 13",
        "INSERT INTO child (parent) VALUES (77)",
        "SET foreign_key_checks = 1",
        "INSERT INTO self VALUES (9, 1)",
    ]
    run_all(source, changes)
    replay(source, target, **mode)
    assert_identical(source, target)
    assert target.execute("SELECT COUNT(*) FROM d.log") == source.execute("SELECT COUNT(*) FROM d.log")


def test_large_transactions_and_large_rows(source: Server, target: Server) -> None:
    """200,000 rows, 80 MB of one statement, single rows beyond a protocol packet, CREATE TABLE … SELECT in parts."""
    numbers = "WITH RECURSIVE n AS (SELECT 1 a UNION ALL SELECT a + 1 FROM n WHERE a < 200000)"
    changes = [
        "CREATE DATABASE d",
        "USE d",
        "SET cte_max_recursion_depth = 1000000",
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(600), u INT UNIQUE)",
        f"INSERT INTO t {numbers} SELECT a, REPEAT('v', 370), a FROM n",
        "INSERT INTO t VALUES (0, 'after', NULL)",
        "CREATE TABLE copy SELECT * FROM t LIMIT 100000",
        "INSERT INTO copy VALUES (0, 'after', NULL)",
        "SET binlog_transaction_compression = ON",
        "CREATE TABLE packed (PRIMARY KEY (id)) AS SELECT id, u FROM t",
        "UPDATE t SET u = NULL, v = 'short' WHERE id < 60000",
        "SET binlog_transaction_compression = OFF",
        "BEGIN",
        "DELETE FROM t WHERE id > 100000",
        "SAVEPOINT half",
        "DELETE FROM t WHERE id > 50000",
        "COMMIT",
        "CREATE TABLE blobs (id INT PRIMARY KEY, b LONGBLOB)",
        "INSERT INTO blobs VALUES (1, REPEAT('x', 20000000))",
        "UPDATE blobs SET b = CONCAT(b, 'y')",
        "INSERT INTO blobs VALUES (2, REPEAT('z', 0xFFFFFF)), (3, REPEAT('z', 0xFFFFFF - 40))",
        "DELETE FROM blobs WHERE id = 1",
    ]
    run_all(source, changes)
    replay(source, target)
    assert_identical(source, target)


def test_target_that_takes_small_packets_only(source: Server, target: Server) -> None:
    """Base64 makes a third more of it, so what fits the source's limit need not fit the target's in one statement."""
    for server in (source, target):
        server.execute("SET GLOBAL max_allowed_packet = 4194304")
    changes = [
        "CREATE DATABASE d",
        "USE d",
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGBLOB)",
        "INSERT INTO t (v) VALUES (REPEAT('x', 2000000)), (REPEAT('x', 1900000))",
        "INSERT INTO t (v) SELECT REPEAT('a', 5000) FROM information_schema.columns LIMIT 3000",
    ]
    run_all(source, changes)
    replay(source, target)
    assert_identical(source, target)


def test_target_with_columns_and_keys_of_its_own(source: Server, target: Server) -> None:
    """Its keys decide what may run side by side, not those of the source."""
    columns = "SELECT id, v, w FROM d.t ORDER BY id"
    run_all(
        source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT UNIQUE, w VARCHAR(20))"]
    )
    replay(source, target)
    alter = "ALTER TABLE d.t ADD extra INT DEFAULT 5, ADD at TIMESTAMP DEFAULT NOW(), ADD UNIQUE (w), DROP INDEX v"
    run_all(target, ["SET sql_log_bin = 0", alter])
    changes = [f"INSERT INTO t VALUES ({i}, {i}, 'w{i}')" for i in range(60)]
    changes += ["UPDATE t SET v = v + 1000, w = CONCAT(w, 'x')"]
    changes += [f"DELETE FROM t WHERE id = {i}" for i in range(0, 60, 2)]
    changes += [f"INSERT INTO t VALUES ({i}, {i + 1000}, 'w{60 - i}')" for i in range(0, 60, 2)]
    for i in range(60):  # one value goes from row to row
        changes += [f"UPDATE t SET w = 'swap' WHERE id = {i}", f"UPDATE t SET w = 's{i}' WHERE id = {i}"]
    run_all(source, changes, database="d")
    replay(source, target, workers=8)
    assert target.execute(columns) == source.execute(columns)
    assert target.execute("SELECT DISTINCT extra FROM d.t") == ((5,),)


def test_checksums_of_the_log_change_on_the_way(source: Server, target: Server) -> None:
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)"])
    with replaying(source, target) as running:
        for checksum in ("NONE", "CRC32", "NONE"):
            source.execute("SET GLOBAL binlog_checksum = %s", (checksum,))
            run_all(
                source,
                [
                    "INSERT INTO t (v) VALUES (1)",
                    "CREATE TABLE x SELECT * FROM t",
                    "UPDATE t SET v = 2",
                    "DROP TABLE x",
                ],
                database="d",
            )
        running.wait_for(source, target)
    assert_identical(source, target)
