"""The keys read from a real schema, and what real row images touch by them."""

from __future__ import annotations

from collections.abc import Sequence

import pymysql
import pytest

from applier.sandbox import Server
from tests.servers import ServerFactory
from tests.touching import Transaction, conflict, dependencies, log_of, read_plan, transactions_of

# Column, values as SQL, whether our form is as fine as the server's equality for them.
NUMBERS = [
    ("INT", ["0", "1", "-1", "2147483647"], True),
    ("BIGINT UNSIGNED", ["0", "1", "18446744073709551615"], True),
    ("DECIMAL(10,4)", ["0", "-0.00", "1.5", "1.5000", "-1.5", "-0.00001"], True),
    ("FLOAT", ["0", "-0e0", "1.1", "1.10000001", "-1.1"], True),
    ("DOUBLE", ["0", "-0e0", "1e308", "5e-324", "-5e-324"], True),
    ("BIT(10)", ["b'0'", "b'1'", "b'1000000001'"], True),
    ("YEAR", ["1999", "2000", "0"], True),
    ("ENUM('a','B','b ','')", ["'a'", "'A'", "'B'", "1", "4"], True),
    ("SET('x','y','z')", ["'x,y'", "'y,x'", "''", "'z'"], True),
]
TIMES = [
    ("DATE", ["'2024-01-01'", "'2024-1-1'", "'1000-01-01'"], True),
    ("TIME(3)", ["'10:00:00'", "'10:00:00.000'", "'-10:00:00'", "'10:00:00.001'", "'838:59:59'"], True),
    ("DATETIME(6)", ["'2024-01-01 00:00:00'", "'2024-01-01'", "'2024-01-01 00:00:00.000001'"], True),
    ("TIMESTAMP", ["'2024-01-01 00:00:00'", "'2024-01-01 00:00:00.4'", "'2024-01-01 00:00:01'"], True),
]
BYTES = [
    ("BINARY(4)", ["'a'", "X'6100'", "X'61000000'", "'a '", "''", "X'00'", "'b'"], True),
    ("VARBINARY(8)", ["'a'", "X'6100'", "'a '", "''", "X'00'", "'A'"], True),
    ("BLOB", ["'abc'", "'abd'", "'abcd'", "'ab'", "X'616200'"], True),
]
TEXTS = [
    "''",
    "' '",
    "'a'",
    "'a '",
    "'A'",
    "'b'",
    "'ab'",
    "'aB  '",
    "'á'",
    "'Á'",
    "'ß'",
    "'ss'",
    "'SS'",
    "'a\tb'",
]
COLLATIONS = [
    "utf8mb4_0900_ai_ci",
    "utf8mb4_0900_bin",
    "utf8mb4_general_ci",
    "latin1_german2_ci",
    "utf16_unicode_ci",
    "utf8mb4_0900_as_cs",
    "utf8mb4_bin",
    "utf8mb4_german2_ci",
    "latin1_swedish_ci",
    "latin2_czech_cs",
    "utf16le_bin",
    "utf32_general_ci",
    "ucs2_bin",
    "gb18030_chinese_ci",
]
TEXT_COLUMNS = [
    (f"{kind} CHARACTER SET {collation.split('_')[0]} COLLATE {collation}", TEXTS, False)
    for kind, collations in (
        ("VARCHAR(20)", COLLATIONS),
        ("CHAR(20)", COLLATIONS[:5]),
        ("TEXT", COLLATIONS[:5]),
    )
    for collation in collations
]
CONTRACTIONS = [
    (
        "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_es_trad_0900_ai_ci",
        ["'ch'", "'CH'", "'cH'", "'llo'"],
        False,
    ),
    (
        "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_hu_0900_ai_ci",
        ["'ccs'", "'cscs'", "'CCS'", "'cs'"],
        False,
    ),
    ("VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_tr_0900_ai_ci", ["'i'", "'I'", "'ı'", "'İ'"], False),
]


DUPLICATE_ENTRY = 1062


def prefix(column: str) -> str:
    """Indexes over TEXT and BLOB need one; two characters, so that it matters."""
    return "(2)" if column.startswith(("TEXT", "BLOB")) else ""


def equal_to_the_server(source: Server, values: Sequence[str]) -> set[tuple[int, int]]:
    """Pairs of values that the unique index of d.keyed does not take together."""
    pairs = set()
    with source.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        for one in range(len(values)):
            for other in range(one, len(values)):
                try:
                    cursor.execute(f"INSERT INTO d.keyed (v) VALUES ({values[one]}), ({values[other]})")
                except pymysql.err.IntegrityError as error:
                    if error.args[0] != DUPLICATE_ENTRY:
                        raise
                    pairs.add((one, other))
                connection.rollback()
    return pairs


def images(source: Server, values: Sequence[str]) -> list[Transaction]:
    """What each value touches in d.keyed; logged from a table without its index."""
    statements = [f"INSERT INTO d.plain (v) VALUES ({value})" for value in values]
    return transactions_of(log_of(source, statements), source, like=("d", "keyed"))


@pytest.mark.parametrize(
    "columns",
    [NUMBERS, TIMES, BYTES, TEXT_COLUMNS, CONTRACTIONS],
    ids=["numbers", "times", "bytes", "texts", "contractions"],
)
def test_values_that_the_server_takes_for_equal_conflict(
    source: Server, columns: list[tuple[str, list[str], bool]]
) -> None:
    source.execute("SET GLOBAL sql_mode = ''")
    source.execute("CREATE DATABASE d")
    for column, values, exact in columns:
        source.execute("DROP TABLE IF EXISTS d.keyed, d.plain")
        source.execute(f"CREATE TABLE d.plain (id INT AUTO_INCREMENT PRIMARY KEY, v {column})")
        source.execute("CREATE TABLE d.keyed LIKE d.plain")
        source.execute(f"ALTER TABLE d.keyed ADD UNIQUE (v{prefix(column)})")
        equal = equal_to_the_server(source, values)
        touched = images(source, values)
        assert len(touched) == len(values)
        for one in range(len(values)):
            for other in range(one, len(values)):
                what = f"{column}: {values[one]} and {values[other]}"
                if (one, other) in equal:
                    assert conflict(touched[one], touched[other]), what
                    assert conflict(touched[other], touched[one]), what
                elif exact:
                    assert not conflict(touched[one], touched[other]), what


def test_ascii_keys_of_the_usual_collations_do_not_conflict_needlessly(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (v VARCHAR(50) PRIMARY KEY, n INT)")
    statements = [f"INSERT INTO d.t VALUES ('user{number}@example.org', 0)" for number in range(5)]
    assert dependencies(source, statements) == [0, 0, 0, 0, 0]
    updates = [f"UPDATE d.t SET n = {number} WHERE v = 'USER1@example.org'" for number in (5, 6)]
    assert dependencies(source, updates) == [0, 1]


# --- known wrong schedules of other tools ---------------------------------------------------------------


@pytest.fixture
def items(source: Server) -> Server:
    source.execute("CREATE DATABASE d")
    source.execute(
        "CREATE TABLE d.items (id INT PRIMARY KEY, code INT UNIQUE, name VARCHAR(40), n INT, UNIQUE (name(3)))"
    )
    source.execute("INSERT INTO d.items VALUES (1, 10, 'apple', 0), (2, 20, 'pear', 0)")
    return source


def test_unique_value_freed_by_a_delete_and_taken_under_another_primary_key(items: Server) -> None:
    statements = ["DELETE FROM d.items WHERE id = 1", "INSERT INTO d.items VALUES (3, 10, NULL, 0)"]
    assert dependencies(items, statements) == [0, 1]


def test_unique_values_swapped(items: Server) -> None:
    statements = [
        "UPDATE d.items SET code = 99 WHERE id = 1",
        "UPDATE d.items SET code = 10 WHERE id = 2",
        "UPDATE d.items SET code = 20 WHERE id = 1",
    ]
    assert dependencies(items, statements) == [0, 1, 2]


def test_prefix_of_a_unique_index_counts_and_no_more(items: Server) -> None:
    statements = [
        "DELETE FROM d.items WHERE id = 1",
        "INSERT INTO d.items VALUES (3, 30, 'apply', 0)",
        "INSERT INTO d.items VALUES (4, 40, 'apart', 0)",
    ]
    assert dependencies(items, statements) == [0, 1, 0]


def test_update_of_a_row_and_a_later_user_of_its_unchanged_unique_value_stay_in_order(items: Server) -> None:
    statements = [
        "UPDATE d.items SET n = 7 WHERE id = 1",
        "DELETE FROM d.items WHERE id = 1",
        "INSERT INTO d.items VALUES (3, 10, NULL, 0)",
    ]
    assert dependencies(items, statements) == [0, 1, 2]


def test_nulls_in_a_unique_key_do_not_conflict(items: Server) -> None:
    statements = [f"INSERT INTO d.items VALUES ({number}, NULL, NULL, 0)" for number in (3, 4, 5)]
    assert dependencies(items, statements) == [0, 0, 0]


def test_changed_primary_key_frees_the_old_and_takes_the_new(items: Server) -> None:
    statements = [
        "UPDATE d.items SET id = 5 WHERE id = 1",
        "INSERT INTO d.items VALUES (1, 50, NULL, 0)",
        "UPDATE d.items SET n = 1 WHERE id = 5",
    ]
    assert dependencies(items, statements) == [0, 1, 1]


def test_transaction_that_mixes_tables_with_and_without_keys(items: Server) -> None:
    items.execute("CREATE TABLE d.notes (text VARCHAR(20))")
    statements = [
        "INSERT INTO d.notes VALUES ('x')",
        "INSERT INTO d.notes VALUES ('x')",
        "BEGIN",
        "UPDATE d.items SET n = 1 WHERE id = 1",
        "DELETE FROM d.notes LIMIT 1",
        "COMMIT",
        "INSERT INTO d.notes VALUES ('y')",
        "UPDATE d.items SET n = 2 WHERE id = 1",
    ]
    assert dependencies(items, statements) == [0, 0, 2, 3, 3]


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_images_that_lack_columns(items: Server, image: str) -> None:
    items.execute("INSERT INTO d.items VALUES (8, 80, NULL, 0)")
    items.execute(f"SET GLOBAL binlog_row_image = '{image}'")
    statements = [
        "UPDATE d.items SET n = 1 WHERE id = 1",
        "UPDATE d.items SET n = 1 WHERE id = 2",
        "UPDATE d.items SET code = 11 WHERE id = 1",
        "INSERT INTO d.items VALUES (3, 10, NULL, 0)",
        "DELETE FROM d.items WHERE id = 2",
        "INSERT INTO d.items VALUES (4, 20, NULL, 0)",
        "UPDATE d.items SET n = 1 WHERE id = 8",
    ]
    loose = dependencies(items, statements, images_may_lack_columns=True)
    items.execute("DELETE FROM d.items WHERE id IN (1, 3, 4)")
    items.execute("INSERT INTO d.items VALUES (1, 10, 'apple', 0), (2, 20, 'pear', 0)")
    strict = dependencies(items, statements)
    for found in (loose, strict):
        assert found[:2] == [0, 0], "an update that leaves the keys alone knows all that it touches"
        assert found[2] >= 1
        assert found[3] == 3
        assert found[4] >= 2
        assert found[5] == 5
    assert loose[6] == 0, "another row is not held up"


# --- generated, functional, invisible, hidden -----------------------------------------------------------


def test_generated_functional_and_multi_valued_keys(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute(
        "CREATE TABLE d.t (id INT PRIMARY KEY, a INT, j JSON, tags JSON,"
        " v INT GENERATED ALWAYS AS (a + 1) VIRTUAL UNIQUE, s INT GENERATED ALWAYS AS (a + 2) STORED UNIQUE)"
    )
    source.execute("CREATE TABLE d.f (id INT PRIMARY KEY, a INT, UNIQUE ((a % 10)))")
    source.execute(
        "CREATE TABLE d.m (id INT PRIMARY KEY, tags JSON, UNIQUE ((CAST(tags->'$[*]' AS UNSIGNED ARRAY))))"
    )
    generated = [f"INSERT INTO d.t (id, a) VALUES ({number}, {number})" for number in (1, 2)]
    assert dependencies(source, [*generated, "DELETE FROM d.t WHERE id = 1"]) == [0, 0, 1]
    assert dependencies(
        source, ["UPDATE d.t SET a = 9 WHERE id = 2", "INSERT INTO d.t (id, a) VALUES (3, 2)"]
    ) == [0, 1]
    functional = ["INSERT INTO d.f VALUES (1, 1)", "DELETE FROM d.f", "INSERT INTO d.f VALUES (2, 11)"]
    assert dependencies(source, functional) == [0, 1, 2]
    valued = ["INSERT INTO d.m VALUES (1, '[1,2]')", "DELETE FROM d.m", "INSERT INTO d.m VALUES (2, '[2,3]')"]
    assert dependencies(source, valued) == [0, 1, 2]


def test_columns_are_counted_as_the_log_counts_them(source: Server) -> None:
    """Hidden columns of functional indexes, invisible ones, dropped and added in place, first and after."""
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (b INT, a INT PRIMARY KEY, UNIQUE ((b * 2)))")
    for change in (
        "ADD COLUMN last INT UNIQUE",
        "ADD COLUMN unseen INT INVISIBLE DEFAULT 3 AFTER b",
        "ADD COLUMN first INT FIRST, ALGORITHM = INSTANT",
        "ADD COLUMN going INT, ALGORITHM = INSTANT",
        "DROP COLUMN going, ALGORITHM = INSTANT",
        "ADD COLUMN twice INT GENERATED ALWAYS AS (last * 2) VIRTUAL, ADD UNIQUE seen_last (twice)",
    ):
        source.execute(f"ALTER TABLE d.t {change}")
    names = "`first`, b, unseen, a, `last`"
    statements = [
        f"INSERT INTO d.t ({names}) VALUES (1, NULL, 1, 1, 100)",
        f"INSERT INTO d.t ({names}) VALUES (1, NULL, 1, 2, 200)",
        "UPDATE d.t SET last = 300 WHERE a = 1",
        f"INSERT INTO d.t ({names}) VALUES (1, NULL, 1, 3, 100)",
        "UPDATE d.t SET unseen = 5 WHERE a = 2",
    ]
    assert dependencies(source, statements)[2:4] == [2, 3], (
        "the functional key of any update may have changed"
    )
    plan = read_plan(source, "d", "t")
    assert plan is not None
    assert plan.wanted_columns == (3, 4, 5)


@pytest.mark.parametrize("shown", ["ON", "OFF"])
def test_generated_invisible_primary_key_counts_even_if_not_shown(source: Server, shown: str) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("SET GLOBAL sql_generate_invisible_primary_key = ON")
    source.execute("CREATE TABLE d.t (v INT UNIQUE)")
    source.execute(f"SET GLOBAL show_gipk_in_create_table_and_information_schema = {shown}")
    statements = [
        "INSERT INTO d.t VALUES (1)",
        "INSERT INTO d.t VALUES (2)",
        "UPDATE d.t SET v = 3 WHERE v = 1",
    ]
    assert dependencies(source, statements) == [0, 0, 1]
    plan = read_plan(source, "d", "t")
    assert plan is not None
    assert plan.has_identity


def test_invisible_index_is_unique_all_the_same(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (id INT PRIMARY KEY, v INT, UNIQUE u (v) INVISIBLE)")
    statements = ["INSERT INTO d.t VALUES (1, 5)", "DELETE FROM d.t", "INSERT INTO d.t VALUES (2, 5)"]
    assert dependencies(source, statements) == [0, 1, 2]


def test_partitioned_table_and_not_null_unique_key_as_identity(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (a INT NOT NULL, b INT, UNIQUE (a)) PARTITION BY HASH (a) PARTITIONS 4")
    statements = [
        "INSERT INTO d.t VALUES (1, 1)",
        "INSERT INTO d.t VALUES (2, 1)",
        "UPDATE d.t SET b = 2 WHERE a = 1",
    ]
    assert dependencies(source, statements) == [0, 0, 1]


def test_table_with_nullable_unique_key_only_has_no_identity(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (a INT UNIQUE, b INT)")
    statements = [
        "INSERT INTO d.t VALUES (1, 1)",
        "INSERT INTO d.t VALUES (2, 1)",
        "DELETE FROM d.t WHERE a = 1",
        "INSERT INTO d.t VALUES (1, 2)",
    ]
    assert dependencies(source, statements) == [0, 0, 2, 3]


def test_missing_table_and_view_have_no_plan(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE VIEW d.v AS SELECT 1 AS a")
    assert read_plan(source, "d", "nothing") is None
    assert read_plan(source, "d", "v") is None


def test_names_are_compared_as_the_target_compares_them(server_factory: ServerFactory) -> None:
    server = server_factory({"lower_case_table_names": "1"})
    server.execute("CREATE DATABASE Shop")
    server.execute("CREATE TABLE Shop.Items (Id INT PRIMARY KEY)")
    plans = [read_plan(server, "SHOP", "iTEMS"), read_plan(server, "shop", "items")]
    assert [plan and plan.touches(0, None, [b"1"]) for plan in plans] == [
        plans[0] and plans[0].touches(0, None, [b"1"])
    ] * 2
    assert plans[0] is not None
