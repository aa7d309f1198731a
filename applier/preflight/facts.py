"""What the checks look at, read once, with SELECT, SHOW and XA RECOVER only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pymysql

from applier.address import Role
from applier.connection import Connection
from applier.preflight.grants import Grants, read_grants
from applier.verify.definitions import Selection, Session, Table, TableName, query

GtidUse = Literal["kept", "purged", "own"]

# Not allowed to look, or this version does not know the statement or the variable.
NOT_TO_BE_SEEN = frozenset({1044, 1064, 1142, 1143, 1146, 1193, 1227, 1305, 1370, 1401})


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the run is going to do.

    `gtids`: *kept*, each transaction commits under its source's GTID; *purged*, groups commit without a
    binary log and their GTIDs are added with gtid_purged; *own*, the target makes its own (for the
    last two progress rows tell what is applied). `allow_errant`, `allow_downstream`: a
    warning instead of a failure. `verify`: the data will be compared, so both accounts need SELECT. `received`:
    GTIDs that the source need not have any more, beside those that the target has. `selection`: the tables that
    matter. `channel`: of the progress row.
    """

    gtids: GtidUse = "kept"
    verify: bool = False
    allow_errant: bool = False
    allow_downstream: bool = False
    received: str = ""
    selection: Selection = Selection()
    channel: str = "applier"


@dataclass(frozen=True, slots=True)
class Server:
    """One side: its global variables, and what our account may do there."""

    role: Role
    session: Session
    version_text: str
    variables: Mapping[str, str]
    account: str
    grants: Grants

    @property
    def mariadb(self) -> bool:
        return "mariadb" in self.version_text.lower()

    @property
    def version(self) -> tuple[int, int, int]:
        match = re.match(r"(\d+)\.(\d+)\.(\d+)", self.version_text)
        return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)

    def variable(self, *names: str) -> str:
        """The first of these that the server knows (names change over versions), else an empty string."""
        return next((self.variables[name] for name in names if name in self.variables), "")

    def is_on(self, *names: str) -> bool:
        return self.variable(*names).upper() in ("ON", "1", "YES")

    def number(self, name: str) -> int:
        text = self.variable(name)
        return int(text) if text.isdigit() else 0

    def query(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        return query(self.session, statement, arguments)

    def answers(self, *statements: str) -> list[dict[str, Any]] | None:
        """The rows of the first statement that this version knows and this account may run, else None."""
        for statement in statements:
            try:
                with self.session.cursor(pymysql.cursors.DictCursor) as cursor:
                    cursor.execute(statement)
                    return list(cursor.fetchall())
            except pymysql.MySQLError as error:
                if error.args[0] not in NOT_TO_BE_SEEN:
                    raise
        return None


def read_server(connection: Connection[Any], role: Role) -> Server:
    """The facts of one side."""
    ((version, account),) = query(connection, "SELECT VERSION(), CURRENT_USER()")
    variables = {str(name): str(value) for name, value in query(connection, "SHOW GLOBAL VARIABLES")}
    return Server(
        role=role,
        session=connection,
        version_text=str(version),
        variables=variables,
        account=_quoted_account(str(account)),
        grants=read_grants(connection),
    )


def _quoted_account(account: str) -> str:
    user, _, host = account.rpartition("@")
    return "'{}'@'{}'".format(user.replace("'", "''"), host.replace("'", "''"))


@dataclass(frozen=True, slots=True)
class Situation:
    """Both sides, and the sets and tables that several checks need."""

    source: Server
    target: Server
    requirements: Requirements
    source_executed: str
    target_executed: str
    target_progress: str
    source_tables: Mapping[TableName, Table]
    target_tables: Mapping[TableName, Table]

    @property
    def servers(self) -> tuple[Server, Server]:
        return self.source, self.target

    def subtract(self, minuend: str, subtrahend: str) -> str:
        """GTIDs in the first set and not in the second."""
        ((gtid_set,),) = self.source.query("SELECT GTID_SUBTRACT(%s, %s)", minuend, subtrahend)
        return str(gtid_set).replace("\n", "")
