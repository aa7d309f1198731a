"""What an account may do, from what SHOW GRANTS says: roles, patterns, partial revokes."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymysql

from applier.connection import Connection

# `name` with doubled backticks inside, or a bare word.
_NAME = r"(?:`(?:[^`]|``)*`|[^\s.`]+)"
_GRANT = re.compile(
    rf"^(?P<verb>GRANT|REVOKE) (?P<privileges>.+?) ON (?P<kind>TABLE |PROCEDURE |FUNCTION |LIBRARY )?"
    rf"(?P<schema>{_NAME})\.(?P<object>{_NAME}) (?:TO|FROM) "
)
# A privilege on single columns, as in SELECT (`a`, `b`), does not count: row events need the whole table.
_COLUMNS = re.compile(r"\w+ \([^)]*\)")
_EVERYTHING = "ALL PRIVILEGES"


@dataclass(slots=True)
class Grants:
    """Privileges by level. `schemas` maps a pattern (`%` and `_` are wildcards) to privileges."""

    everywhere: set[str] = field(default_factory=set)
    schemas: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tables: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    revoked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    patterns: bool = True

    @classmethod
    def parse(cls, lines: Iterable[str], *, patterns: bool = True) -> Grants:
        """`patterns` is False under partial_revokes=ON, where schema names are taken literally."""
        grants = cls(patterns=patterns)
        for line in lines:
            match = _GRANT.match(line)
            if match is None or match["kind"] in ("PROCEDURE ", "FUNCTION ", "LIBRARY "):
                continue  # roles (their privileges are lines of their own), PROXY, routines
            names = _COLUMNS.sub("", match["privileges"]).split(",")
            privileges = {name.strip().upper() for name in names if name.strip()}
            grants._add(match["verb"], _unquoted(match["schema"]), _unquoted(match["object"]), privileges)
        return grants

    def _add(self, verb: str, schema: str, table: str, privileges: set[str]) -> None:
        if verb == "REVOKE":
            self.revoked[schema] |= privileges
        elif schema == "*":
            self.everywhere |= privileges
        elif table == "*":
            self.schemas[schema] |= privileges
        else:
            self.tables[schema, table] |= privileges

    def holds(self, privilege: str, schema: str | None = None, table: str | None = None) -> bool:
        """On everything, on a whole schema, or on a table."""
        if _includes(self.everywhere, privilege):
            if schema is None:
                return not any(_includes(names, privilege) for names in self.revoked.values())
            return not _includes(self.revoked.get(schema, set()), privilege)
        if schema is None:
            return False
        for pattern, privileges in self.schemas.items():
            if self._matches(pattern, schema) and _includes(privileges, privilege):
                return True
        return table is not None and _includes(self.tables.get((schema, table), set()), privilege)

    def holds_any(self, privileges: Sequence[str]) -> bool:
        """One of them, on everything."""
        return any(self.holds(privilege) for privilege in privileges)

    def lacking(self, privileges: Sequence[str], schema: str | None = None) -> list[str]:
        """Those not held on everything, or on a whole schema."""
        return [privilege for privilege in privileges if not self.holds(privilege, schema)]

    def _matches(self, pattern: str, schema: str) -> bool:
        if not self.patterns:
            return pattern == schema
        return re.fullmatch(_regular_expression(pattern), schema) is not None


def read_grants(session: Connection[Any]) -> Grants:
    """Of the session's account. Only the roles that are active count: our other sessions will have the same ones."""

    def rows(statement: str) -> list[tuple[Any, ...]]:
        with session.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    using = ""
    with contextlib.suppress(pymysql.MySQLError):  # MariaDB, which is refused later with a clear message
        ((roles,),) = rows("SELECT CURRENT_ROLE()")
        using = "" if roles in (None, "NONE") else f" USING {roles}"
    lines = rows(f"SHOW GRANTS FOR CURRENT_USER(){using}")
    literal = rows("SHOW GLOBAL VARIABLES LIKE 'partial_revokes'") == [("partial_revokes", "ON")]
    return Grants.parse((str(line) for (line,) in lines), patterns=not literal)


def _includes(privileges: set[str], wanted: str) -> bool:
    return wanted in privileges or _EVERYTHING in privileges


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _regular_expression(pattern: str) -> str:
    """A LIKE pattern (backslash escapes) as a regular expression."""
    pieces = re.findall(r"\\.|.", pattern, flags=re.DOTALL)
    wildcards = {"%": ".*", "_": "."}
    return "".join(wildcards.get(piece) or re.escape(piece[-1]) for piece in pieces)
