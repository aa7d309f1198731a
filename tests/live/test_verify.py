"""`applier verify`: what differs is found and named, what does not is not."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import replace

import pytest

from applier.errors import NotComparable, UsageError
from applier.sandbox import Server
from applier.verify import Kind, Selection, comparison, verify
from applier.verify.definitions import Record
from tests.verifying import Pair, found_rows, verify_by_command


@pytest.fixture
def pair(source: Server, target: Server) -> Pair:
    return Pair(source, target)


# --- values ------------------------------------------------------------------------------------------

# column type, value on both sides, what the target has instead
CHANGES: dict[str, tuple[str, str, str]] = {
    "tinyint": ("TINYINT", "127", "126"),
    "unsigned bigint": ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551614"),
    "decimal": ("DECIMAL(65,30)", "0.000000000000000000000000000001", "0.000000000000000000000000000002"),
    "last bit of a double": ("DOUBLE", "0.1e0", "0.10000000000000002e0"),
    "smallest double": ("DOUBLE", "5e-324", "0e0"),
    "sign of zero": ("DOUBLE", "0e0", "-0e0"),
    "last bit of a float": ("FLOAT", "16777216", "16777215"),
    "seventh digit of a float": ("FLOAT", "1.0000001e0", "1.0000002e0"),
    "bit": ("BIT(64)", "b'1'", "x'8000000000000001'"),
    "microsecond": ("DATETIME(6)", "'2024-02-29 23:59:59.999999'", "'2024-02-29 23:59:59.999998'"),
    "timestamp": ("TIMESTAMP(6) NULL", "'2024-03-31 01:30:00.5'", "'2024-03-31 02:30:00.5'"),
    "negative time": ("TIME(3)", "'-838:59:58.999'", "'838:59:58.999'"),
    "zero date": ("DATE", "'0000-00-00'", "NULL"),
    "year": ("YEAR", "0", "2000"),
    "enum's error value": ("ENUM('','a')", "1", "0"),
    "64th member of a set": (
        "SET(" + ",".join(f"'m{number}'" for number in range(64)) + ")",
        "1 << 62",
        "(1 << 62) + 1",
    ),
    "null is not an empty string": ("VARCHAR(10)", "''", "NULL"),
    "null is not the letter": ("VARCHAR(10)", "'N'", "NULL"),
    "trailing space": ("VARCHAR(10) COLLATE utf8mb4_general_ci", "'a'", "'a '"),
    "case": ("VARCHAR(10) COLLATE utf8mb4_0900_ai_ci", "'a'", "'A'"),
    "accent": ("CHAR(10) CHARACTER SET latin1", "'e'", "'é'"),
    "latin1 beyond ASCII": ("VARCHAR(10) CHARACTER SET latin1", "'é'", "'è'"),
    "utf16": ("VARCHAR(10) CHARACTER SET utf16", "'😀'", "'😁'"),
    "gbk": ("VARCHAR(10) CHARACTER SET gbk", "'国'", "'國'"),
    "zero byte": ("VARBINARY(10)", "x'6100'", "x'61'"),
    "binary": ("BINARY(4)", "x'FF'", "x'FE'"),
    "one byte of many": ("LONGBLOB", "REPEAT('a', 1000000)", "CONCAT(REPEAT('a', 999999), 'b')"),
    "text": ("MEDIUMTEXT", "REPEAT('ä', 70000)", "CONCAT(REPEAT('ä', 69999), 'a')"),
    "json order of elements": ("JSON", """'[1, 2, {"a": null}]'""", """'[2, 1, {"a": null}]'"""),
    "json integer and double": ("JSON", "'1'", "'1.0'"),
    "json null and NULL": ("JSON", "'null'", "NULL"),
    "geometry": ("GEOMETRY", "ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POINT(2 1)')"),
    "spatial reference": (
        "POINT",
        "ST_GeomFromText('POINT(1 2)', 0)",
        "ST_GeomFromText('POINT(1 2)', 4326)",
    ),
    "vector": ("VECTOR(3)", "TO_VECTOR('[1,2,3]')", "TO_VECTOR('[1,2,3.0000002]')"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_value_is_found_in_its_row_and_column(pair: Pair, change: str) -> None:
    column_type, ours, theirs = CHANGES[change]
    pair.both(
        f"CREATE TABLE t (id INT PRIMARY KEY, a INT, c {column_type}, z VARCHAR(5)) CHARACTER SET utf8mb4",
        f"INSERT INTO t VALUES (1, 5, {ours}, 'x'), (2, 6, {ours}, NULL), (3, NULL, NULL, '')",
    )
    assert pair.verify().identical
    # Not an UPDATE: one from 1 to 1.0 leaves a JSON column as it is.
    pair.on(pair.target, f"REPLACE INTO t VALUES (2, 6, {theirs}, NULL)")
    assert found_rows(pair.verify()) == [("different", {"id": 2}, ("c",))]


def test_neighbouring_doubles_never_look_the_same(pair: Pair) -> None:
    seeded = random.Random(1)
    bits = [seeded.getrandbits(64) for _ in range(500)]
    bits = [pattern for pattern in bits if abs(_double(pattern)) < 1e300]
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, d DOUBLE)")
    for server, flipped in ((pair.source, 0), (pair.target, 1)):
        rows = (f"({number}, {_double(pattern ^ flipped)!r})" for number, pattern in enumerate(bits))
        pair.on(server, f"INSERT INTO t VALUES {', '.join(rows)}")
    (table,) = pair.verify(differences_max=1000).tables
    assert table.rows_different == len(bits)


def _double(bits: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    return float(value)


def test_values_do_not_run_into_each_other(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20), b VARCHAR(20))")
    pair.on(pair.source, "INSERT INTO t VALUES (1, 'x,1,y', 'z'), (2, '', 'N')")
    pair.on(pair.target, "INSERT INTO t VALUES (1, 'x', 'y,1,z'), (2, 'N', '')")
    assert len(pair.verify().differences) == 2


def test_generated_and_invisible_columns_are_compared(pair: Pair) -> None:
    columns = (
        "id INT PRIMARY KEY, a INT, hidden INT INVISIBLE, v INT AS ({}) VIRTUAL, s INT AS (a * 2) STORED"
    )
    pair.both(f"CREATE TABLE t ({columns.format('a + 1')})", "INSERT INTO t (id, a, hidden) VALUES (1, 1, 1)")
    assert pair.verify().identical
    pair.on(pair.target, "UPDATE t SET hidden = 2, a = 3")
    assert found_rows(pair.verify()) == [("different", {"id": 1}, ("a", "hidden", "v", "s"))]


# --- rows and keys -----------------------------------------------------------------------------------


def test_missing_and_extra_rows_are_named(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (a INT, b VARCHAR(10), PRIMARY KEY (b, a))", "INSERT INTO t VALUES (1, 'x'), (2, 'y')"
    )
    pair.on(pair.target, "DELETE FROM t WHERE a = 1", "INSERT INTO t VALUES (3, 'z')")
    report = pair.verify()
    assert found_rows(report) == [("missing", {"b": "x", "a": 1}, ()), ("extra", {"b": "z", "a": 3}, ())]
    assert report.exit_code == 4


KEYS: dict[str, tuple[str, str]] = {
    "composite": (
        "a SMALLINT, b BIGINT UNSIGNED, c VARCHAR(20), PRIMARY KEY (c, a, b)",
        "({n}%7, {n}, '{n}'%3)",
    ),
    "text": (
        "k VARCHAR(30) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY",
        "(CONCAT(CHAR(97+{n}%26), 'ß''\\\\', {n}))",
    ),
    "padded text": ("k CHAR(30) COLLATE utf8mb4_general_ci PRIMARY KEY", "(CONCAT('é', {n}))"),
    "latin1": ("k VARCHAR(30) CHARACTER SET latin1 PRIMARY KEY", "(CONCAT('é', {n}))"),
    "utf16": ("k VARCHAR(30) CHARACTER SET utf16 PRIMARY KEY", "(CONCAT('😀', {n}))"),
    "binary": ("k BINARY(16) PRIMARY KEY", "(UNHEX(LEFT(SHA2({n}, 256), 32)))"),
    "varbinary": ("k VARBINARY(16) PRIMARY KEY", "(UNHEX(LEFT(SHA2({n}, 256), 2 + 2 * ({n} % 8))))"),
    "decimal": ("k DECIMAL(20,10) PRIMARY KEY", "({n} / 7)"),
    "double": ("k DOUBLE PRIMARY KEY", "({n} / 7e0)"),
    "float": ("k FLOAT PRIMARY KEY", "({n} / 7e0)"),
    "date and time": ("k DATETIME(6) PRIMARY KEY", "('2024-01-01' + INTERVAL {n} * 1001 MICROSECOND)"),
    "timestamp": ("k TIMESTAMP(3) PRIMARY KEY", "('2024-03-31 00:59:00' + INTERVAL {n} MINUTE)"),
    "time": ("k TIME(2) PRIMARY KEY", "(SEC_TO_TIME({n} * 30 - 900.25))"),
    "bit": ("k BIT(40) PRIMARY KEY", "({n} * 1000003)"),
    "enum": ("k ENUM('b','a','c') NOT NULL, n INT, PRIMARY KEY (k, n)", "(1 + {n} % 3, {n})"),
    "unique": ("k INT NOT NULL, n INT, UNIQUE (n), UNIQUE wanted (k)", "({n}, NULL)"),
    "signed and not": (
        "a TINYINT, b BIGINT UNSIGNED, PRIMARY KEY (a, b)",
        "({n} - 20, 18446744073709551615 - {n})",
    ),
    "descending": ("k INT, n INT, PRIMARY KEY (n, k DESC)", "({n}, {n} % 4)"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_chunks_cover_every_row_once_whatever_the_key(pair: Pair, kind: str) -> None:
    columns, row = KEYS[kind]
    rows = ", ".join(row.format(n=number) for number in range(60))
    pair.both(f"CREATE TABLE t ({columns}) CHARACTER SET utf8mb4", f"INSERT IGNORE INTO t VALUES {rows}")
    ((count,),) = pair.source.execute("SELECT COUNT(*) FROM v.t")
    (table,) = pair.verify(chunk_rows=7).tables
    assert table.identical
    assert (table.rows_source, table.rows_target) == (count, count)
    assert table.chunks == count // 7 + 1


@pytest.mark.parametrize("kind", KEYS)
def test_a_missing_row_is_named_by_its_key(pair: Pair, kind: str) -> None:
    columns, row = KEYS[kind]
    rows = ", ".join(row.format(n=number) for number in range(30))
    pair.both(f"CREATE TABLE t ({columns}) CHARACTER SET utf8mb4", f"INSERT IGNORE INTO t VALUES {rows}")
    ((before,),) = pair.source.execute("SELECT COUNT(*) FROM v.t")
    pair.on(pair.target, "DELETE FROM t LIMIT 3")
    (table,) = pair.verify(chunk_rows=7).tables
    assert [found.kind for found in table.differences] == [Kind.MISSING] * 3
    assert len({json.dumps(found.key) for found in table.differences}) == 3
    assert (table.rows_source, table.rows_target) == (before, before - 3)


def test_of_a_large_chunk_only_rows_near_a_difference_are_fetched(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    digests = comparison._digests

    def counted(rows: list[Record]) -> comparison.Digests:
        fetched.append(len(rows))
        return digests(rows)

    monkeypatch.setattr(comparison, "_digests", counted)
    pair.both("CREATE TABLE t (a INT, b INT, PRIMARY KEY (b, a))")
    pair.both(f"INSERT INTO t VALUES {', '.join(f'({n}, {-n})' for n in range(5000))}")
    pair.on(pair.target, "UPDATE t SET a = -1 WHERE b = -17", "DELETE FROM t WHERE b = -4000")
    assert sorted(kind for kind, *_ in found_rows(pair.verify())) == ["extra", "missing", "missing"]
    assert 0 < sum(fetched) < 200


def test_text_and_binary_keys_are_shown_readably(pair: Pair) -> None:
    pair.both("CREATE TABLE t (k VARCHAR(9) CHARACTER SET latin1, b BINARY(2), PRIMARY KEY (k, b))")
    pair.on(pair.source, "INSERT INTO t VALUES ('é', x'00FF')")
    assert found_rows(pair.verify()) == [("missing", {"k": "é", "b": "0x00FF"}, ())]


def test_a_key_spelt_otherwise_is_one_changed_row(pair: Pair) -> None:
    pair.both("CREATE TABLE t (k VARCHAR(9) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, n INT)")
    pair.on(pair.source, "INSERT INTO t VALUES ('a', 1), ('b', 2)")
    pair.on(pair.target, "INSERT INTO t VALUES ('A', 1), ('b', 2)")
    report = pair.verify()
    assert found_rows(report) == [("different", {"k": "a"}, ("k",))]
    assert report.tables[0].rows_different == 1


def test_more_differences_than_asked_for_are_counted_not_listed(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY)", f"INSERT INTO t VALUES {_numbers(100)}")
    pair.on(pair.target, "DELETE FROM t")
    (table,) = pair.verify(differences_max=5).tables
    assert (len(table.differences), table.rows_different, table.truncated) == (5, 100, True)


def test_a_flood_of_extra_rows_is_fetched_in_pieces(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1000)")
    pair.on(pair.target, f"INSERT INTO t VALUES {_numbers(500)}")
    (table,) = pair.verify(chunk_rows=10, differences_max=1000).tables
    assert sorted(int(str(found.key["id"])) for found in table.differences) == list(range(500))
    assert table.rows_target == 501


def _numbers(count: int) -> str:
    return ", ".join(f"({number})" for number in range(count))


# --- definitions -------------------------------------------------------------------------------------


def test_tables_on_one_side_only_are_named(pair: Pair) -> None:
    pair.both("CREATE TABLE both_sides (id INT PRIMARY KEY)")
    pair.on(pair.source, "CREATE TABLE ours (id INT PRIMARY KEY)")
    pair.on(pair.target, "CREATE TABLE theirs (id INT PRIMARY KEY)")
    found = {(one.table, one.kind) for one in pair.verify().differences}
    assert found == {("ours", Kind.MISSING_TABLE), ("theirs", Kind.EXTRA_TABLE)}


@pytest.mark.parametrize(
    "change",
    [
        "MODIFY c VARCHAR(11)",
        "MODIFY c VARCHAR(10) COLLATE utf8mb4_bin",
        "ADD INDEX (c)",
        "ADD d INT",
        "COMMENT 'x'",
    ],
)
def test_a_changed_definition_isfound_rows(pair: Pair, change: str) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, c VARCHAR(10)) CHARACTER SET utf8mb4")
    pair.on(pair.target, f"ALTER TABLE t {change}")
    (found,) = pair.verify().differences
    assert found.kind is Kind.DEFINITION
    assert "target: " in found.detail


def test_the_next_auto_increment_value_is_no_difference(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY) COMMENT = ') AUTO_INCREMENT=5'")
    pair.on(pair.source, "INSERT INTO t VALUES (7)", "DELETE FROM t")
    assert pair.verify().identical


# statement on the source, on the target, what the warning names
OTHERS: dict[str, tuple[str, str, str]] = {
    "view": ("CREATE VIEW w AS SELECT 1 AS a", "CREATE VIEW w AS SELECT 2 AS a", "view v.w: different"),
    "view's security": (
        "CREATE SQL SECURITY INVOKER VIEW w AS SELECT 1 AS a",
        "CREATE VIEW w AS SELECT 1 AS a",
        "view v.w: different",
    ),
    "parameter": (
        "CREATE PROCEDURE p(a INT) SELECT 1",
        "CREATE PROCEDURE p(a BIGINT) SELECT 1",
        "parameter v.PROCEDURE p #1: different",
    ),
    "what a function returns": (
        "CREATE FUNCTION f() RETURNS INT NO SQL RETURN 1",
        "CREATE FUNCTION f() RETURNS CHAR(9) NO SQL RETURN 1",
        "parameter v.FUNCTION f #0: different",
    ),
    "routine's rights": (
        "CREATE DEFINER = a@b PROCEDURE p() SELECT 1",
        "CREATE DEFINER = a@c PROCEDURE p() SELECT 1",
        "routine v.PROCEDURE p: different",
    ),
    "trigger": (
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW SET @a = 1",
        "trigger v.g: different",
    ),
    "event's schedule": (
        "CREATE EVENT e ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01' DO SELECT 1",
        "CREATE EVENT e ON SCHEDULE EVERY 2 HOUR STARTS '2030-01-01' DO SELECT 1",
        "event v.e: different",
    ),
    "default character set": (
        "ALTER DATABASE v CHARACTER SET latin1",
        "ALTER DATABASE v CHARACTER SET utf8mb4",
        "database v: different",
    ),
}


@pytest.mark.parametrize(("ours", "theirs", "warning"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_table_and_differs_is_a_warning(pair: Pair, ours: str, theirs: str, warning: str) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY)")
    pair.on(pair.source, ours)
    pair.on(pair.target, theirs)
    report = pair.verify()
    assert report.identical
    assert list(report.warnings) == [warning]
    assert pair.verify(selection=Selection(tables=(("v", "t"),))).warnings == ()


def test_an_event_that_is_disabled_until_cutover_is_no_difference(pair: Pair) -> None:
    pair.both(
        "CREATE TABLE t (id INT)", "CREATE EVENT e ON SCHEDULE EVERY 1 HOUR STARTS '2030-01-01' DO SELECT 1"
    )
    pair.on(pair.target, "ALTER EVENT e DISABLE")
    assert pair.verify().warnings == ()


def test_only_the_tables_named_are_compared(pair: Pair) -> None:
    pair.both("CREATE TABLE a (id INT PRIMARY KEY)", "CREATE TABLE b (id INT PRIMARY KEY)")
    pair.on(pair.target, "INSERT INTO b VALUES (1)")
    assert pair.verify(selection=Selection(tables=(("v", "a"),))).identical
    assert not pair.verify(selection=Selection(tables=(("v", "b"),))).identical
    assert pair.verify(selection=Selection(ignored_schemas=("v",))).identical
    with pytest.raises(UsageError, match=r"v\.nowhere"):
        pair.verify(selection=Selection(tables=(("v", "nowhere"),)))


def test_defaults_of_the_servers_sessions_do_not_matter(pair: Pair) -> None:
    columns = ", ".join(f"c{number} INT DEFAULT 0" for number in range(30))
    tables = [f"t{number}" for number in range(10)]
    pair.both(*(f"CREATE TABLE {table} (id INT PRIMARY KEY, {columns})" for table in tables))
    pair.both(*(f"INSERT INTO {table} (id) VALUES (1), (2)" for table in tables))
    pair.on(pair.target, "UPDATE t9 SET c29 = 5 WHERE id = 2")
    pair.target.execute("SET GLOBAL sql_select_limit = 300")
    pair.target.execute("SET GLOBAL autocommit = OFF")
    try:
        assert found_rows(pair.verify(repair=True)) == [("different", {"id": 2}, ("c29",))]
    finally:  # here: the limit would hide itself from whoever sets all globals back
        pair.target.execute("SET GLOBAL autocommit = ON")
        pair.target.execute("SET GLOBAL sql_select_limit = DEFAULT")
    assert pair.verify().identical


def test_nothing_is_not_called_identical(pair: Pair) -> None:
    """Names that are misspelt, and an account that sees no tables or may not read them."""
    pair.both("CREATE TABLE t (id INT)")
    pair.on(pair.source, "INSERT INTO t VALUES (1)")
    with pytest.raises(UsageError, match="neither side has a schema w"):
        pair.verify(selection=Selection(schemas=("v", "w")))
    pair.both("CREATE USER blind", "GRANT REPLICATION CLIENT ON *.* TO blind")
    addresses = [replace(one, user="blind") for one in pair.addresses]
    with pytest.raises(UsageError, match="nothing is compared"):
        verify(*addresses)
    pair.both("GRANT TRIGGER ON v.* TO blind")
    with pytest.raises(NotComparable, match=r"v\.t cannot be seen"):
        verify(*addresses)


# --- the command -------------------------------------------------------------------------------------


def test_the_command_ends_with_0_when_identical_and_4_when_different(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, c TEXT)", "INSERT INTO t VALUES (1, 'a')")
    code, text = verify_by_command(pair)
    assert code == 0
    assert "identical: 1 tables, 1 rows" in text
    pair.on(pair.target, "UPDATE t SET c = 'b'")
    code, text = verify_by_command(pair)
    assert code == 4
    assert "v.t: different: id=1 in c" in text


def test_the_command_prints_json(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, c TEXT)")
    pair.on(pair.source, "INSERT INTO t VALUES (1, 'a')")
    code, text = verify_by_command(pair, "--json", "--tables", "v.t")
    report = json.loads(text)
    assert code == 4
    assert report["identical"] is False
    assert report["differences"][0]["kind"] == "missing"
    assert report["differences"][0]["key"] == {"id": 1}


def test_the_command_refuses_nonsense(pair: Pair) -> None:
    assert verify_by_command(pair, "--tables", "t")[0] == 2
    assert verify_by_command(pair, "--allow-lock", "--assume-quiesced")[0] == 2
