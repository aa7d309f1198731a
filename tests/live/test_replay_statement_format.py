"""Transactions logged as statements: what they read is given back to them; what they cannot carry is refused."""

# ruff: noqa: E501 (statements are easier to read on one line)

from __future__ import annotations

from pathlib import Path

import pymysql
import pytest

from applier.errors import ApplyError
from applier.sandbox import Server
from tests.replaying import Mode, assert_identical, executed, in_every_mode, replay, run_all, session

IN_D = ("CREATE DATABASE d", "USE d")


@in_every_mode
def test_statement_format(source: Server, target: Server, mode: Mode) -> None:
    run_all(
        source,
        [
            *IN_D,
            "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT, n DOUBLE, x DECIMAL(65, 30), at TIMESTAMP(6)"
            " DEFAULT CURRENT_TIMESTAMP(6))",
            "CREATE TABLE isam (id INT PRIMARY KEY) ENGINE=MyISAM",
            "SET binlog_format = STATEMENT",
            "SET timestamp = 1700000000.123456",
            "SET @i = 5, @neg = -7, @low = -9223372036854775808, @top = 18446744073709551615, @un = CAST(3 AS UNSIGNED)",
            "SET @f = 1.5e0, @tiny = 2.2250738585072014e-308, @big = -1.7976931348623157e308, @dec = 1.50, @zero = 0e0",
            f"SET @wide = -{'9' * 35}.{'9' * 30}, @nought = 0.{'0' * 29}, @null = NULL",
            "SET @text = 'ä''\"\\\\', @latin = _latin1 X'E9' COLLATE latin1_bin, @bytes = X'00ff', @empty = ''",
            "SET @json = CAST('{\"a\": 1}' AS JSON), @`näme` = 1, @date = CAST('2020-02-02' AS DATE)",
            "INSERT INTO t (v, n, x) VALUES (@text, @f / 3, @dec / 3), (@i, @neg, @top), (@null, @null, @null)",
            "INSERT INTO t (v, n, x) VALUES (@latin, @low, @wide), (HEX(@bytes), @tiny, @nought), (@empty, @big, @un)",
            "INSERT INTO t (v, n) VALUES (CONCAT(@f / 3, @un - 2, @dec), @`näme`), (CONCAT(@json, @date), @zero)",
            "INSERT INTO t (v) VALUES (CHARSET(@latin)), (COLLATION(@latin)), (COLLATION(@text)), (NOW(6))",
            "INSERT INTO t (v, n) VALUES ('random', RAND()), ('random', RAND())",
            "INSERT INTO t (v) VALUES (LAST_INSERT_ID())",
            "SET insert_id = 1000",
            "INSERT INTO t (v) VALUES ('chosen'), ('the next')",
            "INSERT INTO t (v) VALUES ('on its own')",
            "SET time_zone = '+05:00', lc_time_names = 'de_DE', sql_auto_is_null = ON",
            "INSERT INTO t (v) VALUES (NOW(6)), (DATE_FORMAT('2020-01-01', '%M'))",
            "SET timestamp = DEFAULT, sql_auto_is_null = OFF",
            "BEGIN",
            "INSERT INTO t (v) VALUES (1)",
            "INSERT INTO t (v) VALUES (LAST_INSERT_ID())",
            "SAVEPOINT s",
            "INSERT INTO t (v) VALUES ('back')",
            "ROLLBACK TO s",
            "UPDATE t SET v = RAND() WHERE id = 1",
            "COMMIT",
            # What fails half-way leaves what it did: logged with the error that it must meet again.
            "INSERT INTO isam VALUES (3)",
            "INSERT IGNORE INTO isam VALUES (1), (2), (3), (4)",
        ],
    )
    with (
        session(source, "SET binlog_format = STATEMENT") as run,
        pytest.raises(pymysql.err.IntegrityError),
    ):
        run("INSERT INTO d.isam VALUES (10), (11), (3), (12)")
    run_all(source, ["INSERT INTO d.t (v) VALUES ('after')"])
    replay(source, target, **mode)
    assert_identical(source, target)
    assert target.execute("SELECT COUNT(*) FROM d.isam") == ((6,),)


def test_temporary_tables_leave_no_trace(source: Server, target: Server) -> None:
    run_all(
        source,
        [
            *IN_D,
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "CREATE TEMPORARY TABLE tmp (a INT)",
            "INSERT INTO tmp VALUES (1), (2)",
            "INSERT INTO t SELECT * FROM tmp",
            "BEGIN",
            "CREATE TEMPORARY TABLE tmp2 SELECT * FROM t",
            "UPDATE t, tmp2 SET t.a = tmp2.a + 10 WHERE t.a = tmp2.a",
            "DROP TEMPORARY TABLE tmp2",
            "COMMIT",
            "CREATE TEMPORARY TABLE t (x INT)",
            "INSERT INTO t VALUES (99)",
        ],
    )
    replay(source, target)
    assert_identical(source, target)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("CREATE TEMPORARY TABLE t (a INT)", "temporary table in statement format"),
        ("LOAD DATA INFILE '{file}' INTO TABLE t", "LOAD DATA in statement format"),
    ],
)
def test_what_statement_format_cannot_carry_is_refused(
    source: Server, target: Server, tmp_path: Path, statement: str, says: str
) -> None:
    """A temporary table of one session of the source would hide the table t from all others."""
    rows = tmp_path / "rows"
    rows.write_text("1\n2\n")
    run_all(source, [*IN_D, "CREATE TABLE t (a INT)"])
    before = executed(source)
    run_all(source, ["USE d", "SET binlog_format = STATEMENT", statement.format(file=rows)])
    with pytest.raises(ApplyError, match=f"{says}.* binlog_format = ROW") as caught:
        replay(source, target)
    assert caught.value.exit_code == 4
    assert executed(target) == before
