"""What keeps a run from starting or going on: one clear line, the right exit code, nothing applied beyond it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from applier.errors import ApplyError
from applier.sandbox import Server
from tests.replaying import Command, assert_identical, executed, outcome, replay, run_all

PASSWORD = "aVery-Secret1"
AT_END = "--stop-at-end"


@pytest.fixture
def pair(source: Server, target: Server) -> tuple[Server, Server]:
    """Both have d.t with rows 1 to 3, and an account `app` with a password."""
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)"])
    run_all(source, ["INSERT INTO d.t VALUES (1, 1), (2, 2), (3, 3)"])
    replay(source, target)
    for server in (source, target):
        quietly(server, f"CREATE USER app IDENTIFIED BY '{PASSWORD}'", "GRANT ALL ON *.* TO app")
    return source, target


def quietly(server: Server, *statements: str) -> None:
    """What somebody else does to one side only."""
    run_all(server, ["SET sql_log_bin = 0", *statements])


def as_app(server: Server, password: str = "") -> str:
    return server.url.replace("root@", f"app:{password}@" if password else "app@")


def expect(run: Command, exit_code: int, *words: str) -> None:
    """One line of our own that says all this, and no password anywhere."""
    (line,) = run.error_lines
    for word in words:
        assert word in line
    assert run.process.returncode == exit_code, run.errors
    assert PASSWORD not in run.errors + run.output
    assert "Traceback" not in run.errors
    assert not [
        line for line in run.errors.splitlines() if " WARNING " not in line and line not in run.error_lines
    ]


# --- getting in --------------------------------------------------------------------------------------


def test_wrong_passwords(pair: tuple[Server, Server]) -> None:
    source, target = pair
    good = {"MYSQL_PWD": PASSWORD}
    for side in ("source", "target"):
        environment = good | {f"APPLIER_{side.upper()}_PASSWORD": "wr0ng"}
        run = outcome(as_app(source), as_app(target), AT_END, environment=environment)
        expect(run, 3, side, "does not let user app in")
        assert "wr0ng" not in run.errors
    run = outcome(as_app(source, PASSWORD), as_app(target, "wr0ng"), AT_END)
    expect(run, 3, "target", "does not let user app in")
    assert outcome(as_app(source), as_app(target), AT_END, environment=good).process.returncode == 0


def test_servers_that_are_not_there(pair: tuple[Server, Server]) -> None:
    source, target = pair
    expect(
        outcome("mysql://root@nowhere.invalid", target, AT_END), 3, "source", "nowhere.invalid", "not known"
    )
    expect(outcome(source, "mysql://root@127.0.0.1:1", AT_END), 75, "target", "cannot be reached")
    expect(outcome(source, source, AT_END), 3, "server_uuid", "one server")


# --- histories that do not fit -----------------------------------------------------------------------


def test_purged_transactions(pair: tuple[Server, Server]) -> None:
    source, target = pair
    run_all(source, ["INSERT INTO d.t VALUES (4, 4)", "FLUSH BINARY LOGS"])
    lost = str(executed(source) - executed(target))
    ((_, *_), (last, *_)) = source.execute("SHOW BINARY LOGS")
    source.execute(f"PURGE BINARY LOGS TO '{last}'")
    for options in ((), ("--no-check",)):
        expect(outcome(source, target, AT_END, *options), 3, "purged", lost)


def test_target_with_transactions_of_its_own_or_of_the_sources_future(pair: tuple[Server, Server]) -> None:
    source, target = pair
    target.execute("DELETE FROM d.t")
    expect(outcome(source, target, AT_END), 3, "the target has transactions that the source does not have")
    target.execute("RESET BINARY LOGS AND GTIDS")
    ahead = str(executed(source)).split(":")[0] + ":1-99"
    target.execute("SET GLOBAL gtid_purged = %s", (ahead,))
    run_all(source, ["INSERT INTO d.t VALUES (4, 4)"])
    expect(outcome(source, target, AT_END), 3, "does not have", "5-99")
    expect(outcome(source, target, "--until-gtid-set", f"{ahead[:-2]}150", "--no-check"), 3, "5-99")


# --- data that do not fit ----------------------------------------------------------------------------


def break_row(target: Server) -> None:
    quietly(target, "DELETE FROM d.t WHERE id = 2")


def break_key(target: Server) -> None:
    quietly(target, "INSERT INTO d.t VALUES (5, 0)")


def break_table(target: Server) -> None:
    quietly(target, "DROP TABLE d.t")


def break_column(target: Server) -> None:
    quietly(target, "ALTER TABLE d.t MODIFY v VARCHAR(3)")


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (break_row, 1032, "no such row"),
        (break_key, 1062, "already has a row"),
        (break_table, 1146, "no such table"),
        (break_column, 1105, "column's type there does not fit"),
    ],
)
def test_a_change_that_does_not_fit_stops_there(
    source: Server, target: Server, spoil: Callable[[Server], None], code: int, says: str, workers: int
) -> None:
    run_all(
        source,
        [
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE d.other (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1, 1), (2, 2)",
        ],
    )
    replay(source, target)
    run_all(source, [f"INSERT INTO d.other VALUES ({i})" for i in range(30)])
    before = executed(source)
    run_all(source, ["BEGIN", "UPDATE d.t SET v = 9 WHERE id = 2", "INSERT INTO d.t VALUES (5, 5)", "COMMIT"])
    (guilty,) = str(executed(source) - before).splitlines()
    run_all(source, [f"INSERT INTO d.other VALUES ({i})" for i in range(30, 60)])
    spoil(target)
    with pytest.raises(ApplyError) as caught:
        replay(source, target, workers=workers)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    for word in (guilty, "d.t", str(code), says):
        assert word in message
    assert "\n" not in message
    assert executed(target) == before
    assert target.execute("SELECT COUNT(*) FROM d.other") == ((30,),)


def test_the_command_tells_what_does_not_fit_and_goes_on_when_it_is_mended(
    pair: tuple[Server, Server],
) -> None:
    source, target = pair
    break_row(target)
    run_all(source, ["UPDATE d.t SET v = 9 WHERE id = 2", "INSERT INTO d.t VALUES (4, 4)"])
    run = outcome(source, target, AT_END)
    expect(run, 4, str(executed(source)).split(":")[0], "d.t", "1032", "no such row", "applier verify")
    quietly(target, "INSERT INTO d.t VALUES (2, 2)")
    assert outcome(source, target, AT_END).process.returncode == 0
    assert_identical(source, target)


def test_a_target_that_nobody_may_write_to(pair: tuple[Server, Server]) -> None:
    source, target = pair
    run_all(source, ["INSERT INTO d.t VALUES (4, 4)"])
    target.execute("SET GLOBAL super_read_only = ON")
    expect(outcome(source, target, AT_END), 3, "super_read_only", "SET GLOBAL super_read_only = OFF")
    expect(outcome(source, target, AT_END, "--no-check"), 4, "super-read-only", "forbids")
    target.execute("SET GLOBAL super_read_only = OFF")
    target.execute("SET GLOBAL read_only = OFF")
    replay(source, target)
    assert_identical(source, target)


# --- where to stop -----------------------------------------------------------------------------------


def test_until_a_gtid_set_and_not_further(pair: tuple[Server, Server]) -> None:
    source, target = pair
    run_all(source, [f"INSERT INTO d.t VALUES ({i}, 0)" for i in range(10, 60)])
    uuid = str(executed(source)).split(":")[0]
    for last in (23, 24, 30):
        run = outcome(source, target, "--until-gtid-set", f"{uuid}:1-{last}")
        assert run.process.returncode == 0, run.errors
        assert str(executed(target)) == f"{uuid}:1-{last}"
    expect(outcome(source, target, "--until-gtid-set", "nonsense"), 2, "nonsense")
    run = outcome(source, target, "--until-gtid-set", f"{uuid}:1-2", AT_END)
    assert (run.process.returncode, "exclude each other" in run.errors) == (2, True)


# --- privileges --------------------------------------------------------------------------------------

ROWS = "INSERT, UPDATE, DELETE ON d.*"
STATEMENTS = (
    "RELOAD, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE,"
    " EVENT, EXECUTE, LOCK TABLES, CREATE TEMPORARY TABLES, CREATE USER, ROLE_ADMIN, SYSTEM_USER, SET_ANY_DEFINER,"
    " SESSION_VARIABLES_ADMIN, SELECT ON *.*"
)


@pytest.fixture
def least(pair: tuple[Server, Server]) -> tuple[Server, Server]:
    """The accounts `app` may do what rows need, and nothing else."""
    source, target = pair
    for server in pair:
        quietly(server, "REVOKE ALL, GRANT OPTION FROM app")
    quietly(source, "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO app")
    quietly(target, "GRANT REPLICATION_APPLIER ON *.* TO app", f"GRANT {ROWS} TO app")
    return pair


def as_least(pair: tuple[Server, Server], *options: str) -> Command:
    return outcome(
        *(as_app(server) for server in pair), AT_END, *options, environment={"MYSQL_PWD": PASSWORD}
    )


def test_least_privileges_are_enough(least: tuple[Server, Server]) -> None:
    source, target = least
    run_all(
        source,
        ["INSERT INTO d.t VALUES (4, 4)", "BEGIN", "SAVEPOINT s", "DELETE FROM d.t WHERE id = 1", "COMMIT"],
    )
    run = as_least(least)
    assert run.process.returncode == 0, run.errors
    assert_identical(source, target)
    # statements
    quietly(target, f"GRANT {STATEMENTS} TO app", "SET GLOBAL log_bin_trust_function_creators = ON")
    run_all(
        source,
        [
            "USE d",
            "SET sql_require_primary_key = ON, default_table_encryption = OFF",
            "CREATE TABLE copy (PRIMARY KEY (id)) AS SELECT * FROM t",
            "ALTER TABLE copy ADD w INT",
            "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET @x = 1",
            "CREATE PROCEDURE p() SELECT 1",
            "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1",
            "CREATE VIEW v AS SELECT * FROM t",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO DO 0",
            "CREATE USER someone IDENTIFIED BY 'y'",
            "CREATE ROLE r",
            "GRANT r TO someone",
            "FLUSH TABLES",
            "OPTIMIZE TABLE t",
            "ANALYZE TABLE t",
            "RENAME TABLE copy TO copied",
            "TRUNCATE copied",
            "XA START 'x'",
            "INSERT INTO t VALUES (7, 7)",
            "XA END 'x'",
            "XA PREPARE 'x'",
            "XA COMMIT 'x'",
            "CREATE DATABASE n",
            "DROP DATABASE n",
        ],
    )
    run = as_least(least)
    assert run.process.returncode == 0, run.errors
    assert_identical(source, target)


@pytest.mark.parametrize(
    ("side", "privilege", "change", "found_before", "found_later"),
    [
        (
            "source",
            "REPLICATION SLAVE ON *.*",
            "DELETE FROM d.t",
            "GRANT REPLICATION SLAVE",
            "REPLICATION SLAVE",
        ),
        (
            "target",
            "REPLICATION_APPLIER ON *.*",
            "DELETE FROM d.t",
            "GRANT REPLICATION_APPLIER",
            "REPLICATION_APPLIER",
        ),
        (
            "target",
            "DELETE ON d.*",
            "DELETE FROM d.t",
            "DELETE missing",
            "lacks INSERT, UPDATE or DELETE on a table",
        ),
        ("target", "", "ALTER TABLE d.t ADD w INT", "", "lacks a privilege"),
        ("target", "", "CREATE DATABASE n", "", "lacks a privilege"),
    ],
)
def test_a_missing_privilege_is_named(
    least: tuple[Server, Server], side: str, privilege: str, change: str, found_before: str, found_later: str
) -> None:
    """Before the run where that can be told, else by the transaction that needs it."""
    source, target = least
    if privilege:
        quietly(source if side == "source" else target, f"REVOKE {privilege} FROM app")
    before = executed(target)
    run_all(source, [change])
    if found_before:
        expect(as_least(least), 3, "preconditions", found_before)
    expect(as_least(least, "--no-check"), 3 if side == "source" else 4, found_later)
    assert executed(target) == before


def test_tagged_transactions_need_a_privilege_of_their_own(least: tuple[Server, Server]) -> None:
    source, target = least
    run_all(source, ["SET gtid_next = 'AUTOMATIC:blue'", "DELETE FROM d.t"])
    expect(as_least(least), 3, "GRANT TRANSACTION_GTID_TAG")
    expect(as_least(least, "--no-check"), 4, ":blue:1", "TRANSACTION_GTID_TAG")
    quietly(target, "GRANT TRANSACTION_GTID_TAG ON *.* TO app")
    assert as_least(least).process.returncode == 0
    assert_identical(source, target)
