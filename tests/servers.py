"""Fixtures: real MySQL servers, started once and shared by the whole run, wiped before each test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pymysql
import pytest
from pymysql.cursors import Cursor

from applier.sandbox import Sandbox, Server

SYSTEM_SCHEMAS = ("mysql", "sys", "performance_schema", "information_schema")
OWN_ACCOUNTS = ("root", "repl", "mysql.sys", "mysql.session", "mysql.infoschema")
# Follow from what the server did, not from what a test set.
NOT_SETTINGS = frozenset(
    {
        "gtid_executed",
        "gtid_owned",
        "gtid_purged",
        "timestamp",
        "innodb_buffer_pool_size",
        "log_error_services",
    }
)

GlobalVariables = Mapping[str, str]


def global_variables(server: Server) -> dict[str, str]:
    rows = server.execute("SELECT variable_name, variable_value FROM performance_schema.global_variables")
    return {name: value for name, value in rows if name not in NOT_SETTINGS}


def _rows(cursor: Cursor, sql: str) -> list[tuple[Any, ...]]:
    cursor.execute(sql)
    return list(cursor.fetchall())


def _end_sessions(cursor: Cursor) -> None:
    """Sessions that a failed test left open would hold locks that the clean-up waits for."""
    for (session,) in _rows(
        cursor,
        "SELECT id FROM performance_schema.processlist WHERE id <> CONNECTION_ID()"
        " AND user NOT IN ('event_scheduler', 'system user')",
    ):
        with contextlib.suppress(pymysql.err.OperationalError):  # ended by itself meanwhile
            cursor.execute(f"KILL {session}")
    for _, _, _, xid in _rows(cursor, "XA RECOVER CONVERT XID"):
        with contextlib.suppress(pymysql.err.OperationalError):  # its session is still being ended
            cursor.execute(f"XA ROLLBACK {xid}")


def _drop_everything(cursor: Cursor) -> None:
    for (schema,) in _rows(cursor, "SELECT schema_name FROM information_schema.schemata"):
        if schema not in SYSTEM_SCHEMAS:
            cursor.execute("DROP DATABASE `{}`".format(schema.replace("`", "``")))
    for user, host in _rows(cursor, "SELECT user, host FROM mysql.user"):
        if user not in OWN_ACCOUNTS:
            cursor.execute("DROP USER %s@%s", (user, host))


def _typed(value: str) -> str | int | float:
    """Numeric variables refuse a quoted number."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _restore_variables(server: Server, cursor: Cursor, baseline: GlobalVariables) -> None:
    for name, value in global_variables(server).items():
        if name in baseline and baseline[name] != value:
            cursor.execute(f"SET GLOBAL `{name}` = %s", (_typed(baseline[name]),))


def reset(server: Server, baseline: GlobalVariables) -> None:
    """An empty server: no schemas, accounts, GTIDs and binary logs; global variables as at its start."""
    if not server.running:
        server.start()
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0, foreign_key_checks = 0, lock_wait_timeout = 30")
        _end_sessions(cursor)
        if _rows(cursor, "SHOW REPLICA STATUS"):
            cursor.execute("STOP REPLICA")
            cursor.execute("RESET REPLICA ALL")
        _restore_variables(server, cursor, baseline)
        _drop_everything(cursor)
        older = server.installation.numbers < (8, 2, 0)
        cursor.execute("RESET MASTER" if older else "RESET BINARY LOGS AND GTIDS")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A source and a target that all tests share. Ask for `source` and `target`: those are wiped."""
    with Sandbox(servers=("source", "target")) as started:
        yield started


@pytest.fixture(scope="session")
def baselines(sandbox: Sandbox) -> dict[str, GlobalVariables]:
    """Global variables of each shared server as they were at its start."""
    return {server.name: global_variables(server) for server in sandbox}


@pytest.fixture
def source(sandbox: Sandbox, baselines: dict[str, GlobalVariables]) -> Server:
    """The shared source, empty. A test may stop, kill or restart it."""
    reset(sandbox["source"], baselines["source"])
    return sandbox["source"]


@pytest.fixture
def target(sandbox: Sandbox, baselines: dict[str, GlobalVariables]) -> Server:
    """The shared target, empty. A test may stop, kill or restart it."""
    reset(sandbox["target"], baselines["target"])
    return sandbox["target"]


class ServerFactory(Protocol):
    def __call__(
        self,
        options: Mapping[str, str] | None = None,
        *,
        snapshot: Path | None = None,
        replica_of: str | None = None,
    ) -> Server: ...


@pytest.fixture
def server_factory(sandbox: Sandbox) -> Iterator[ServerFactory]:
    """Starts a server of its own for one test, with mysqld `options`; it goes when the test ends."""
    numbers = itertools.count(1)
    names: list[str] = []

    def make(
        options: Mapping[str, str] | None = None,
        *,
        snapshot: Path | None = None,
        replica_of: str | None = None,
    ) -> Server:
        name = f"extra{next(numbers)}"
        server = sandbox.add(name, options=options, snapshot=snapshot, replica_of=replica_of)
        names.append(name)
        return server

    yield make
    for name in names:
        sandbox.remove(name)
