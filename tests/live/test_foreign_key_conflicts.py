"""Children and parents: what must keep its order, and what need not."""

from __future__ import annotations

import pytest

from applier.sandbox import Server
from tests.servers import ServerFactory
from tests.touching import dependencies
from tests.unlogged_cascades import CASCADES_IN_INNODB


@pytest.fixture
def family(source: Server) -> Server:
    return family_of(source)


def family_of(source: Server) -> Server:
    """Parents 1 to 3; child 1 of parent 1."""
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.parent (id INT PRIMARY KEY, code INT UNIQUE, n INT)")
    source.execute(
        "CREATE TABLE d.child (id INT PRIMARY KEY, parent INT, n INT, FOREIGN KEY (parent) REFERENCES d.parent (id))"
    )
    source.execute("INSERT INTO d.parent VALUES (1, 10, 0), (2, 20, 0), (3, 30, 0)")
    source.execute("INSERT INTO d.child VALUES (1, 1, 0)")
    return source


def test_siblings_do_not_conflict(family: Server) -> None:
    assert dependencies(family, [f"INSERT INTO d.child VALUES ({number}, 1, 0)" for number in (2, 3, 4)]) == [
        0,
        0,
        0,
    ]


def test_child_waits_for_its_parent_only(family: Server) -> None:
    statements = [
        "INSERT INTO d.parent VALUES (4, 40, 0)",
        "INSERT INTO d.parent VALUES (5, 50, 0)",
        "INSERT INTO d.child VALUES (2, 4, 0)",
        "INSERT INTO d.child VALUES (3, NULL, 0)",
    ]
    assert dependencies(family, statements) == [0, 0, 1, 0]


def test_parent_goes_after_its_last_child_has_gone_or_moved(family: Server) -> None:
    statements = [
        "INSERT INTO d.child VALUES (2, 1, 0)",
        "DELETE FROM d.child WHERE id = 1",
        "UPDATE d.child SET parent = 2 WHERE id = 2",
        "DELETE FROM d.parent WHERE id = 1",
        "INSERT INTO d.parent VALUES (1, 11, 0)",
    ]
    assert dependencies(family, statements) == [0, 0, 1, 3, 4]


@pytest.mark.parametrize("change", ["id = 9", "n = 1"])
def test_child_of_a_unique_key_waits_for_every_update_of_its_parent(family: Server, change: str) -> None:
    """The value that it refers to stays, but moves within its index: a check beside the update does not find it."""
    family.execute(
        "CREATE TABLE d.nephew (id INT PRIMARY KEY, code INT, FOREIGN KEY (code) REFERENCES d.parent (code))"
    )
    statements = [
        f"UPDATE d.parent SET {change} WHERE id = 3",
        "INSERT INTO d.nephew VALUES (1, 30)",
        "INSERT INTO d.nephew VALUES (2, 20)",
        "INSERT INTO d.nephew VALUES (3, 30)",
    ]
    assert dependencies(family, statements) == [0, 1, 0, 1]


def test_child_that_changes_its_own_key_shares_its_parent_again(family: Server) -> None:
    statements = ["UPDATE d.parent SET n = 1 WHERE id = 1", "UPDATE d.child SET id = 7 WHERE id = 1"]
    assert dependencies(family, statements) == [0, 1]


def test_update_that_leaves_the_reference_alone_does_not_touch_the_parent(family: Server) -> None:
    statements = ["UPDATE d.parent SET n = 1 WHERE id = 1", "UPDATE d.child SET n = 1 WHERE id = 1"]
    assert dependencies(family, statements) == [0, 0]


def test_update_of_a_parent_and_a_new_child_keep_their_order(family: Server) -> None:
    """InnoDB locks the parent's row for the child's check: at once they would only wait for each other."""
    statements = ["UPDATE d.parent SET n = 1 WHERE id = 1", "INSERT INTO d.child VALUES (2, 1, 0)"]
    assert dependencies(family, statements) == [0, 1]
    assert dependencies(
        family, ["INSERT INTO d.child VALUES (3, 1, 0)", "UPDATE d.parent SET n = 2 WHERE id = 1"]
    ) == [0, 1]


def test_reference_to_a_secondary_key_of_the_parent(family: Server) -> None:
    family.execute(
        "CREATE TABLE d.other (id INT PRIMARY KEY, code INT, FOREIGN KEY (code) REFERENCES d.parent (code))"
    )
    statements = [
        "UPDATE d.parent SET code = 11 WHERE id = 1",
        "INSERT INTO d.other VALUES (1, 11)",
        "UPDATE d.parent SET n = 1 WHERE id = 1",
        "INSERT INTO d.other VALUES (2, 11)",
        "DELETE FROM d.other",
        "UPDATE d.parent SET code = 12 WHERE id = 1",
    ]
    assert dependencies(family, statements) == [0, 1, 2, 3, 4, 5]


def test_reference_to_itself(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute(
        "CREATE TABLE d.tree (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES d.tree (id))"
    )
    statements = [
        "INSERT INTO d.tree VALUES (1, NULL)",
        "INSERT INTO d.tree VALUES (2, 1)",
        "INSERT INTO d.tree VALUES (3, 1)",
        "INSERT INTO d.tree VALUES (4, 4)",
        "DELETE FROM d.tree WHERE id = 3",
        "UPDATE d.tree SET up = NULL WHERE id = 2",
        "DELETE FROM d.tree WHERE id = 1",
    ]
    assert dependencies(source, statements) == [0, 1, 1, 0, 3, 2, 6]


@pytest.mark.parametrize(
    ("parent", "child", "same"),
    [
        ("VARCHAR(20)", "VARCHAR(40)", True),
        ("CHAR(20) COLLATE utf8mb4_general_ci", "VARCHAR(40) COLLATE utf8mb4_general_ci", True),
        ("CHAR(8) COLLATE utf8mb4_0900_bin", "VARCHAR(40) COLLATE utf8mb4_0900_bin", False),
        ("BINARY(8)", "VARBINARY(8)", False),
        ("DECIMAL(10,2)", "DECIMAL(10,2)", True),
    ],
)
def test_reference_between_columns_of_different_types(
    source: Server, parent: str, child: str, same: bool
) -> None:
    """Equal values may have different bytes then: all references through the key are one."""
    source.execute("CREATE DATABASE d")
    source.execute(f"CREATE TABLE d.parent (id {parent} PRIMARY KEY)")
    source.execute(
        f"CREATE TABLE d.child (id INT PRIMARY KEY, ref {child}, FOREIGN KEY (ref) REFERENCES d.parent (id))"
    )
    statements = [
        "INSERT INTO d.parent VALUES ('12345678')",
        "INSERT INTO d.child VALUES (1, '12345678')",
        "INSERT INTO d.child VALUES (2, '12345678')",
        "DELETE FROM d.child WHERE id = 1",
        "DELETE FROM d.child WHERE id = 2",
        "DELETE FROM d.parent",
        "INSERT INTO d.parent VALUES ('87654321')",
    ]
    assert dependencies(source, statements) == [0, 1, 1, 2, 3, 5, 0 if same else 6]


def test_composite_reference_to_an_index_that_is_not_unique(source: Server) -> None:
    source.execute("SET GLOBAL restrict_fk_on_non_standard_key = OFF")
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.parent (id INT PRIMARY KEY, a INT, b INT, KEY (a, b))")
    source.execute(
        "CREATE TABLE d.child (id INT PRIMARY KEY, x INT, y INT, FOREIGN KEY (x, y) REFERENCES d.parent (a, b))"
    )
    statements = [
        "INSERT INTO d.parent VALUES (1, 5, 6)",
        "INSERT INTO d.parent VALUES (2, 5, 7)",
        "INSERT INTO d.child VALUES (1, 5, 6)",
        "INSERT INTO d.child VALUES (2, 5, NULL)",
        "UPDATE d.child SET x = NULL WHERE id = 1",
        "DELETE FROM d.parent WHERE id = 1",
    ]
    assert dependencies(source, statements) == [0, 0, 1, 0, 3, 5]


def test_parent_without_an_identity(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.parent (code INT UNIQUE, n INT)")
    source.execute(
        "CREATE TABLE d.child (id INT PRIMARY KEY, code INT, FOREIGN KEY (code) REFERENCES d.parent (code))"
    )
    statements = [
        "INSERT INTO d.parent VALUES (1, 0)",
        "INSERT INTO d.child VALUES (1, 1)",
        "DELETE FROM d.child",
        "DELETE FROM d.parent",
        "INSERT INTO d.parent VALUES (1, 0)",
        "INSERT INTO d.child VALUES (2, 1)",
    ]
    assert dependencies(source, statements) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("action", ["ON DELETE CASCADE", "ON DELETE SET NULL", "ON UPDATE CASCADE"])
def test_cascade_that_the_source_logs_is_ordered_by_its_rows(family: Server, action: str) -> None:
    family.execute(
        "CREATE TABLE d.pet (id INT PRIMARY KEY, parent INT, n INT,"
        f" CONSTRAINT owner FOREIGN KEY (parent) REFERENCES d.parent (id) {action})"
    )
    change = (
        "UPDATE d.parent SET id = 9 WHERE id = 2"
        if "UPDATE" in action
        else "DELETE FROM d.parent WHERE id = 2"
    )
    statements = [
        "INSERT INTO d.pet VALUES (1, 2, 0)",
        "INSERT INTO d.pet VALUES (2, 3, 0)",
        change,
        "INSERT INTO d.parent VALUES (2, 21, 0)",
        "INSERT INTO d.pet VALUES (3, 2, 0)",
        "REPLACE INTO d.pet VALUES (1, 3, 1)",
    ]
    assert dependencies(family, statements) == [0, 0, 1, 3, 4, 3]


def test_cascade_that_the_source_does_not_log_runs_alone_but_nothing_else_does(
    server_factory: ServerFactory,
) -> None:
    family = family_of(server_factory(CASCADES_IN_INNODB))
    family.execute(
        "CREATE TABLE d.pet (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES d.parent (id)"
        " ON DELETE CASCADE ON UPDATE CASCADE)"
    )
    statements = [
        "INSERT INTO d.parent VALUES (4, 40, 0)",
        "UPDATE d.parent SET n = 1 WHERE id = 2",
        "INSERT INTO d.pet VALUES (1, 3)",
        "DELETE FROM d.parent WHERE id = 3",
        "INSERT INTO d.parent VALUES (5, 50, 0)",
        "UPDATE d.parent SET id = 6 WHERE id = 2",
        "INSERT INTO d.child VALUES (9, 1, 0)",
    ]
    assert dependencies(family, statements) == [0, 0, 0, 3, 4, 5, 6]


def test_reference_to_a_table_that_does_not_exist_yet(source: Server) -> None:
    source.execute("CREATE DATABASE d")
    with source.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        cursor.execute(
            "CREATE TABLE d.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.later (id))"
        )
    statements = ["SET foreign_key_checks = 0", *(f"INSERT INTO d.child VALUES ({n}, {n})" for n in (1, 2))]
    assert dependencies(source, statements) == [0, 0]


def test_bulk_reading_gives_the_plans_of_single_reading(family: Server) -> None:
    from applier.address import parse_url
    from applier.connection import sqlalchemy_engine
    from writeset.keys import KeyReader

    family.execute("CREATE DATABASE e")
    family.execute("CREATE TABLE e.far (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.parent (id))")
    engine = sqlalchemy_engine(parse_url(family.url, "target", prompt=False))
    with engine.connect() as connection:
        reader = KeyReader(connection)
        for schema, tables in (("d", {"parent", "child"}), ("e", {"far"})):
            plans = reader.read_schema(schema)
            assert {name for _, name in plans} == tables
            for name, plan in plans.items():
                single = reader.read_table(*name)
                assert single is not None
                assert single.definition == plan.definition
    engine.dispose()
