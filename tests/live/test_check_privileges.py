"""`applier check`: a privilege that is missing is named, with the GRANT that mends it, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from applier.preflight import Level, Report
from applier.preflight.grants import Grants
from applier.preflight.privileges import LOCK_TABLES
from applier.sandbox import Server
from tests.checking import Pair, make_shop, quietly

ENOUGH_ON_SOURCE = "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO someone@'%'"
ENOUGH_ON_TARGET = (
    "GRANT INSERT, UPDATE, DELETE, SELECT, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, TRIGGER,"
    " CREATE ROUTINE, ALTER ROUTINE, EVENT, EXECUTE, LOCK TABLES, CREATE TEMPORARY TABLES, CREATE USER,"
    " RELOAD, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO someone@'%'",
    "GRANT REPLICATION_APPLIER, SESSION_VARIABLES_ADMIN, SET_ANY_DEFINER, ROLE_ADMIN, SYSTEM_USER"
    " ON *.* TO someone@'%'",
)


@pytest.fixture
def accounts(source: Server, target: Server) -> Pair:
    """`someone` on both sides with all that a run needs, and not more."""
    shop = Pair(source, target)
    make_shop(shop)
    quietly(shop.source, "CREATE USER someone@'%'", ENOUGH_ON_SOURCE)
    quietly(shop.target, "CREATE USER someone@'%'", *ENOUGH_ON_TARGET)
    shop.target.execute("SET GLOBAL log_bin_trust_function_creators = ON")
    return shop


def _as_someone(pair: Pair, **requirements: Any) -> Report:
    return pair.check(source_user="someone", target_user="someone", **requirements)


def test_the_privileges_asked_for_are_enough(accounts: Pair) -> None:
    report = _as_someone(accounts, verify=True)
    assert report.failures == ()
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("side", "privilege", "name", "level"),
    [
        ("source", "REPLICATION SLAVE", "privileges.source.REPLICATION SLAVE", Level.FAILURE),
        ("source", "REPLICATION CLIENT", "privileges.source.REPLICATION CLIENT", Level.WARNING),
        ("source", "SELECT", "privileges.source.SELECT", Level.WARNING),
        ("target", "REPLICATION_APPLIER", "privileges.target.REPLICATION_APPLIER", Level.FAILURE),
        ("target", "SESSION_VARIABLES_ADMIN", "privileges.target.SESSION_VARIABLES_ADMIN", Level.WARNING),
        ("target", "INSERT", "privileges.target.rows", Level.FAILURE),
        ("target", "UPDATE", "privileges.target.rows", Level.FAILURE),
        ("target", "DELETE", "privileges.target.rows", Level.FAILURE),
        ("target", "CREATE VIEW", "privileges.target.statements", Level.WARNING),
        ("target", "SELECT", "privileges.target.SELECT", Level.WARNING),
    ],
)
def test_a_privilege_taken_away_is_missed_and_its_remedy_works(
    accounts: Pair, side: str, privilege: str, name: str, level: Level
) -> None:
    server = accounts.source if side == "source" else accounts.target
    quietly(server, f"REVOKE {privilege} ON *.* FROM someone@'%'")
    (found,) = (one for one in _as_someone(accounts).findings if one.name == name)
    assert found.level is level
    assert privilege in found.remedy
    quietly(server, found.remedy)
    (mended,) = (one for one in _as_someone(accounts).findings if one.name == name)
    assert mended.level is Level.OK


def test_three_tables_of_the_performance_schema_are_wanted(accounts: Pair) -> None:
    name = "privileges.target.performance_schema"
    revoke = "REVOKE SELECT ON *.* FROM someone@'%'"
    quietly(accounts.target, revoke, "GRANT SELECT ON performance_schema.data_lock_waits TO someone@'%'")
    found = accounts.finding(name, target_user="someone")
    assert found.level is Level.WARNING
    assert "data_locks, threads" in found.detail
    quietly(accounts.target, found.remedy)
    assert accounts.finding(name, target_user="someone").level is Level.OK
    quietly(
        accounts.target,
        "REVOKE SELECT ON performance_schema.* FROM someone@'%'",
        *(f"GRANT SELECT ON performance_schema.{table} TO someone@'%'" for table in LOCK_TABLES),
    )
    assert accounts.finding(name, target_user="someone").level is Level.OK


def test_verifying_makes_select_a_must(accounts: Pair) -> None:
    quietly(accounts.target, "REVOKE SELECT ON *.* FROM someone@'%'")
    names = [found.name for found in _as_someone(accounts, verify=True).failures]
    assert names == ["privileges.target.SELECT"]


def test_groups_without_binary_log_need_more(accounts: Pair) -> None:
    names = [found.name for found in _as_someone(accounts, gtids="purged").failures]
    assert names == ["privileges.target.SYSTEM_VARIABLES_ADMIN"]


def test_progress_needs_a_place(accounts: Pair) -> None:
    quietly(
        accounts.target,
        "REVOKE CREATE, UPDATE ON *.* FROM someone@'%'",
        "GRANT UPDATE ON shop.* TO someone@'%'",
    )
    assert _as_someone(accounts).failures == ()
    (found,) = _as_someone(accounts, gtids="own").failures
    assert found.name == "privileges.target.progress"
    assert found.remedy == "GRANT CREATE, UPDATE ON `applier`.* TO 'someone'@'%'"


def test_privileges_on_the_schema_are_enough_for_its_rows(accounts: Pair) -> None:
    quietly(
        accounts.target,
        "REVOKE INSERT, UPDATE, DELETE ON *.* FROM someone@'%'",
        r"GRANT INSERT, UPDATE, DELETE ON `sho_`.* TO someone@'%'",
    )
    assert _as_someone(accounts).failures == ()


def test_privileges_of_an_active_role_count(accounts: Pair) -> None:
    quietly(
        accounts.target,
        "REVOKE INSERT, UPDATE, DELETE, REPLICATION_APPLIER ON *.* FROM someone@'%'",
        "CREATE ROLE writer",
        "GRANT INSERT, UPDATE, DELETE, REPLICATION_APPLIER ON *.* TO writer",
        "GRANT writer TO someone@'%'",
    )
    assert len(_as_someone(accounts).failures) == 2
    quietly(accounts.target, "SET DEFAULT ROLE writer TO someone@'%'")
    assert _as_someone(accounts).failures == ()


def test_a_partial_revoke_is_seen(accounts: Pair) -> None:
    accounts.target.execute("SET GLOBAL partial_revokes = ON")
    quietly(accounts.target, "REVOKE UPDATE ON shop.* FROM someone@'%'")
    (found,) = _as_someone(accounts).failures
    assert found.name == "privileges.target.rows"
    assert "shop" in found.detail
    # As long as there are partial revokes the server does not let partial_revokes be turned off.
    quietly(accounts.target, "GRANT UPDATE ON shop.* TO someone@'%'")


def test_grants_are_read_as_the_server_writes_them() -> None:
    grants = Grants.parse(
        [
            "GRANT SELECT, INSERT (`a`, `b`), CREATE TEMPORARY TABLES ON `s\\_1%`.* TO `u`@`%`",
            "GRANT ALL PRIVILEGES ON `odd``name`.`t` TO `u`@`%` WITH GRANT OPTION",
            "GRANT EXECUTE ON PROCEDURE `s`.`p` TO `u`@`%`",
            "GRANT `role`@`%` TO `u`@`%`",
            "GRANT PROXY ON ``@`` TO `root`@`localhost` WITH GRANT OPTION",
        ]
    )
    assert grants.holds("SELECT", "s_1 and more")
    assert not grants.holds("SELECT", "sx1")
    assert not grants.holds("INSERT", "s_1")
    assert grants.holds("CREATE TEMPORARY TABLES", "s_1")
    assert grants.holds("DELETE", "odd`name", "t")
    assert not grants.holds("DELETE", "odd`name", "other")
    assert not grants.holds("EXECUTE", "s")
    assert not grants.holds("SELECT")
