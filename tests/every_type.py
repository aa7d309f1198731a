"""Tables with every column type of MySQL 9.7, and changes: inserts, updates, deletes, NULLs, extreme values.

`python tests/every_type.py FOLDER` makes the `every_type_*.bin.zst` of tests/data again, on servers of its own.
"""
# ruff: noqa: E501 (statements are easier to read on one line)

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

SCHEMA = "types"

# Column definitions and the values they get: text is put into the statement as it is.
COLUMNS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tiny", "TINYINT", ("-128", "127", "0")),
    ("utiny", "TINYINT UNSIGNED", ("0", "255", "128")),
    ("small", "SMALLINT", ("-32768", "32767", "1")),
    ("usmall", "SMALLINT UNSIGNED", ("0", "65535", "1")),
    ("yr", "YEAR", ("1901", "2155", "0")),
    ("medium", "MEDIUMINT", ("-8388608", "8388607", "-1")),
    ("umedium", "MEDIUMINT UNSIGNED", ("0", "16777215", "8388608")),
    ("i", "INT", ("-2147483648", "2147483647", "-1")),
    ("ui", "INT UNSIGNED", ("0", "4294967295", "1")),
    ("big", "BIGINT", ("-9223372036854775808", "9223372036854775807", "-1")),
    ("ubig", "BIGINT UNSIGNED", ("0", "18446744073709551615", "1")),
    ("f", "FLOAT", ("-3.402823e38", "3.402823e38", "1.17549e-38")),
    ("d", "DOUBLE", ("-1.7976931348623157e308", "1.7976931348623157e308", "2.2250738585072014e-308")),
    ("dec_10_2", "DECIMAL(10,2)", ("-99999999.99", "99999999.99", "-0.01")),
    ("dec_65_30", "DECIMAL(65,30)", (f"-{'9' * 35}.{'9' * 30}", f"{'9' * 35}.{'9' * 30}", "0")),
    ("dec_5", "DECIMAL(5)", ("-99999", "99999", "7")),
    ("dec_9_9", "DECIMAL(9,9)", ("-0.999999999", "0.999999999", "0.000000001")),
    ("bit1", "BIT(1)", ("b'0'", "b'1'", "b'1'")),
    ("bit9", "BIT(9)", ("b'0'", "b'111111111'", "b'100000001'")),
    ("bit64", "BIT(64)", ("0", "18446744073709551615", "1")),
    ("dt", "DATE", ("'1000-01-01'", "'9999-12-31'", "'0000-00-00'")),
    ("t", "TIME", ("'-838:59:59'", "'838:59:59'", "'00:00:00'")),
    ("t1", "TIME(1)", ("'-838:59:59.0'", "'-00:00:00.1'", "'12:34:56.7'")),
    ("t3", "TIME(3)", ("'-01:02:03.456'", "'838:59:58.999'", "'-00:00:00.001'")),
    ("t6", "TIME(6)", ("'-838:59:58.999999'", "'00:00:00.000001'", "'-00:00:00.000001'")),
    ("dtm", "DATETIME", ("'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'")),
    (
        "dtm2",
        "DATETIME(2)",
        ("'1970-01-01 00:00:01.01'", "'9999-12-31 23:59:59.99'", "'2024-02-29 12:00:00.5'"),
    ),
    ("dtm6", "DATETIME(6)", ("'1000-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'", "'2024-06-01'")),
    ("ts", "TIMESTAMP NULL", ("'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'0000-00-00 00:00:00'")),
    (
        "ts4",
        "TIMESTAMP(4) NULL",
        ("'1970-01-01 00:00:01.0001'", "'2038-01-19 03:14:07.9999'", "'2024-01-01'"),
    ),
    (
        "ts6",
        "TIMESTAMP(6) NULL",
        ("'1970-01-01 00:00:01.000001'", "'2038-01-19 03:14:07.999999'", "'2024-01-01'"),
    ),
    ("ch", "CHAR(10)", ("''", "'äöü€𝄞'", "'  lead'")),
    ("ch_long", "CHAR(255)", ("''", "REPEAT('𝄞', 255)", "'x'")),
    ("ch_latin", "CHAR(255) CHARACTER SET latin1", ("''", "REPEAT('é', 255)", "'e'")),
    ("bin", "BINARY(8)", ("''", "x'0011223344556677'", "x'ff00'")),
    ("vc", "VARCHAR(20)", ("''", "'äöü€𝄞'", "'abc  '")),
    ("vc_latin", "VARCHAR(255) CHARACTER SET latin1", ("''", "REPEAT('é', 255)", "'é'")),
    ("vc_long", "VARCHAR(2000)", ("''", "REPEAT('€', 2000)", "'x'")),
    ("vc_ascii", "VARCHAR(10) CHARACTER SET ascii COLLATE ascii_bin", ("''", "'abcdefghij'", "'A'")),
    ("vb", "VARBINARY(255)", ("''", "REPEAT(x'ff', 255)", "x'00'")),
    ("vb_long", "VARBINARY(3000)", ("''", "REPEAT(x'80', 3000)", "x'00'")),
    ("tinyb", "TINYBLOB", ("''", "REPEAT(x'01', 255)", "x'00'")),
    ("b", "BLOB", ("''", "REPEAT(x'02', 4000)", "x'00ff'")),
    ("medb", "MEDIUMBLOB", ("''", "REPEAT(x'03', 70000)", "x'00ff'")),
    ("longb", "LONGBLOB", ("''", "REPEAT(x'04', 300)", "x'00ff'")),
    ("tinyt", "TINYTEXT", ("''", "REPEAT('a', 255)", "'ß'")),
    ("txt", "TEXT", ("''", "REPEAT('ß', 3000)", "'ß'")),
    ("medt", "MEDIUMTEXT CHARACTER SET latin1", ("''", "REPEAT('é', 300)", "'é'")),
    ("longt", "LONGTEXT", ("''", "REPEAT('ß', 300)", "'ß'")),
    ("e", "ENUM('a','b''c','ü')", ("'a'", "'ü'", "'b''c'")),
    ("e_large", "ENUM(" + ",".join(f"'v{i}'" for i in range(300)) + ")", ("'v0'", "'v299'", "'v255'")),
    ("s", "SET('x','y','z')", ("''", "'x,y,z'", "'y'")),
    ("s_large", "SET(" + ",".join(f"'m{i}'" for i in range(64)) + ")", ("''", "'m0,m63'", "'m31,m32'")),
    (
        "js",
        "JSON",
        (
            "'null'",
            """'{"a": [1, -1, 65535, 70000, -70000, 5000000000, 18446744073709551615, 1.5, true, false, null, "ü", {}, []],
                 "": {"deep": [[[["x"]]]]}}'""",
            "CAST(CONCAT('[', REPEAT('\"0123456789\",', 7000), '1]') AS JSON)",
        ),
    ),
    (
        "js_opaque",
        "JSON",
        (
            "JSON_ARRAY(CAST('-12.34' AS DECIMAL(10,3)), CAST('2024-02-29' AS DATE))",
            "JSON_ARRAY(CAST('2024-02-29 01:02:03.000004' AS DATETIME(6)), CAST('-01:02:03' AS TIME))",
            "JSON_OBJECT('long', REPEAT('k', 20000))",
        ),
    ),
    (
        "g",
        "GEOMETRY",
        (
            "ST_GeomFromText('POINT(1 2)')",
            "ST_GeomFromText('POLYGON((0 0,0 3,3 3,0 0))', 0)",
            "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')",
        ),
    ),
    ("p", "POINT", ("POINT(1, 2)", "POINT(-1e300, 1e-300)", "POINT(0, 0)")),
)


DATA = Path(__file__).parent / "data"


def log(metadata: str) -> bytes:
    """The kept binlog file of `changes`, written with binlog_row_metadata=`metadata` (`full` or `minimal`)."""
    return zstandard.decompress((DATA / f"every_type_{metadata}.bin.zst").read_bytes())


def definitions() -> list[str]:
    """CREATE statements; run them on source and target."""
    columns = ", ".join(
        f"{name} {kind} NULL" if "NULL" not in kind else f"{name} {kind}" for name, kind, _ in COLUMNS
    )
    tables = {
        "every_type": f"id INT PRIMARY KEY, {columns}",
        "not_null": "id BIGINT UNSIGNED, w SMALLINT NOT NULL, name VARCHAR(16) NOT NULL, amount DECIMAL(12,2) NOT NULL, "
        "note VARCHAR(500) NOT NULL, PRIMARY KEY (w, id), UNIQUE (name)",
        "computed": "id INT AUTO_INCREMENT PRIMARY KEY, a INT, twice INT AS (a * 2) VIRTUAL, thrice INT AS (a * 3) STORED, "
        "doc JSON, UNIQUE (thrice), KEY ((CAST(doc->'$.tags' AS UNSIGNED ARRAY))), KEY ((a + 1))",
        "two_documents": "id INT PRIMARY KEY, d1 JSON, n INT, d2 JSON",
        "keyless": "a INT, b VARCHAR(10)",
        "keyless_defaults": "a INT DEFAULT 7, b VARCHAR(10) DEFAULT 'x'",
        "many_columns": "id INT PRIMARY KEY, " + ", ".join(f"c{i} INT" for i in range(70)),
        "prefixed": "n INT, name VARCHAR(30), note TEXT, PRIMARY KEY (name(5), n)",
        "vectors": "id INT PRIMARY KEY, v VECTOR(3), w VECTOR(16383), n INT UNSIGNED",
        "invisible": "id INT PRIMARY KEY, shown INT, hidden INT INVISIBLE",
    }
    return [
        f"CREATE DATABASE {SCHEMA} CHARACTER SET utf8mb4",
        *(f"CREATE TABLE {SCHEMA}.{name} ({body})" for name, body in tables.items()),
        f"CREATE TABLE {SCHEMA}.partitioned (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 4",
    ]


def changes() -> Iterator[str]:
    """Statements to run on the source, one transaction each unless they say otherwise."""
    yield "SET SESSION sql_mode = '', time_zone = '+00:00'"
    yield f"USE {SCHEMA}"
    yield from _every_type_changes()
    yield from _other_changes()
    for image in ("MINIMAL", "NOBLOB"):
        yield f"SET SESSION binlog_row_image = '{image}'"
        yield "INSERT INTO keyless_defaults () VALUES ()"
        yield "INSERT INTO not_null (w, id, name, amount, note) VALUES (9, 1, 'nine', 1, 'n'), (9, 2, 'ten', 2, 'm')"
        yield "UPDATE not_null SET amount = amount + 1 WHERE w = 9"
        yield "UPDATE every_type SET tiny = 5, txt = 'changed', e = 'a' WHERE id = 1"
        yield "UPDATE many_columns SET c69 = 4, c0 = NULL WHERE id = 1"
        yield "DELETE FROM not_null WHERE w = 9"
    yield "SET SESSION binlog_row_image = 'FULL', binlog_row_value_options = 'PARTIAL_JSON'"
    yield from _partial_changes()
    yield "SET SESSION binlog_row_image = 'MINIMAL'"
    yield from _partial_changes()
    yield "SET SESSION binlog_row_image = 'FULL', binlog_row_value_options = '', binlog_transaction_compression = ON"
    yield from _other_changes()


def _every_type_changes() -> Iterator[str]:
    for row in range(3):
        values = ", ".join(values[row] for _, _, values in COLUMNS)
        yield f"INSERT INTO every_type VALUES ({row + 1}, {values})"
    nulls = ", ".join("NULL" for _ in COLUMNS)
    yield f"INSERT INTO every_type VALUES (4, {nulls})"
    yield "INSERT INTO every_type SELECT 5, {} FROM every_type WHERE id = 2".format(
        ", ".join(name if index % 2 else "NULL" for index, (name, _, _) in enumerate(COLUMNS))
    )
    for index, (name, _, _) in enumerate(COLUMNS):
        yield f"UPDATE every_type t, (SELECT {name} v FROM every_type WHERE id = {index % 3 + 1}) s SET t.{name} = s.v WHERE id = 4"
    yield "UPDATE every_type SET {} WHERE id = 5".format(
        ", ".join(f"{name} = NULL" for name, _, _ in COLUMNS)
    )
    yield "DELETE FROM every_type WHERE id IN (3, 5)"


def _other_changes() -> Iterator[str]:
    yield "INSERT INTO not_null VALUES (1, 1, 'a', 1.5, ''), (2, 1, 'b', -2, REPEAT('n', 400)), (3, 2, 'c', 0, 'x')"
    yield "UPDATE not_null SET amount = amount * 2, note = 'y'"
    yield "BEGIN"
    yield "UPDATE not_null SET name = 'tmp' WHERE name = 'a'"
    yield "UPDATE not_null SET name = 'a' WHERE name = 'b'"
    yield "INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (NULL, NULL)"
    yield "UPDATE keyless SET b = 'y' WHERE a = 1"
    yield "COMMIT"
    yield "DELETE FROM not_null"
    yield """INSERT INTO computed (a, doc) VALUES (1, '{"tags": [1, 2, 3]}'), (NULL, NULL), (5, '{"tags": []}')"""
    yield "UPDATE computed SET a = a + 10, doc = '{\"tags\": [9]}' WHERE a IS NOT NULL"
    yield "DELETE FROM computed WHERE a IS NULL"
    yield "INSERT INTO many_columns (id, c3, c8, c69) VALUES (1, 1, NULL, 2), (2, NULL, NULL, NULL) ON DUPLICATE KEY UPDATE c1 = 7"
    yield "INSERT INTO partitioned VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5) ON DUPLICATE KEY UPDATE v = v + 1"
    yield "UPDATE partitioned SET id = id + 100 WHERE id < 3"
    yield "DELETE FROM partitioned WHERE id > 50"
    yield "INSERT INTO invisible (id, shown, hidden) VALUES (1, 2, 3) ON DUPLICATE KEY UPDATE hidden = hidden + 1"
    yield "REPLACE INTO prefixed VALUES (1, 'abcdefgh', 'a'), (1, 'abcd', NULL)"
    yield "REPLACE INTO vectors VALUES (1, STRING_TO_VECTOR('[-1.5,0,3.4e38]'), STRING_TO_VECTOR('[7]'), 1), (2, NULL, NULL, 2)"
    yield "UPDATE vectors SET v = STRING_TO_VECTOR('[1]'), n = 4294967295 WHERE id = 1"
    yield "DELETE n, k FROM keyless n, keyless k WHERE n.a = k.a"


def _partial_changes() -> Iterator[str]:
    document = """JSON_OBJECT('name', REPEAT('n', 400), 'tags', JSON_ARRAY(1, 2, 3), 'n', 5)"""
    yield f"REPLACE INTO two_documents VALUES (1, {document}, 1, {document}), (2, {document}, 2, NULL)"
    yield "UPDATE two_documents SET d1 = JSON_SET(d1, '$.n', 6)"
    yield "UPDATE two_documents SET d2 = JSON_REMOVE(JSON_SET(d2, '$.tags[0]', 'ü', '$.new', JSON_OBJECT('x', 1.5)), '$.n')"
    yield "UPDATE two_documents SET n = n + 1, d2 = JSON_SET(d2, '$.name', 'short') WHERE id = 1"
    yield "UPDATE two_documents SET d1 = JSON_SET(d1, '$.n', 7), d2 = '[]' WHERE id = 1"
    yield "UPDATE two_documents SET n = n + 1"


def run(cursor: Any, statements: Iterator[str] | list[str]) -> None:
    """Runs the statements one after the other."""
    for statement in statements:
        cursor.execute(statement)


def binlog_files(cursor: Any, datadir: Path) -> list[Path]:
    """The server's binlog files, oldest first."""
    cursor.execute("SHOW BINARY LOGS")
    return [datadir / row[0] for row in cursor.fetchall()]


def _make(folder: Path) -> None:
    """One file with the metadata that a source writes by default, one with all of it."""
    from applier.sandbox import Sandbox

    for metadata in ("MINIMAL", "FULL"):
        with Sandbox(servers=["source"], options={"source": {"binlog_row_metadata": metadata}}) as sandbox:
            server = sandbox["source"]
            with server.connect() as connection, connection.cursor() as cursor:
                run(cursor, definitions())
                cursor.execute("FLUSH BINARY LOGS")
                run(cursor, changes())
                cursor.execute("FLUSH BINARY LOGS")
                log = binlog_files(cursor, server.datadir)[-2].read_bytes()
                (folder / f"every_type_{metadata.lower()}.bin.zst").write_bytes(zstandard.compress(log, 19))


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
