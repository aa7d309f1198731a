"""Definitions as the source tells them; CREATE TABLE split into what comes before the rows and what after them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pymysql

from applier.verify.definitions import Selection, Session, TableName, query, quoted, text_of

# A line of SHOW CREATE TABLE that is an index or a foreign key; the server prints one on each.
INDEX: Final = re.compile(
    r"  (?:(?P<kind>UNIQUE|FULLTEXT|SPATIAL) )?KEY `(?P<name>(?:[^`]|``)+)` \((?P<first>`(?:[^`]|``)+`)?"
)
FOREIGN_KEY: Final = re.compile(r"  CONSTRAINT `(?:[^`]|``)+` FOREIGN KEY ")
# Whatever the size of the table: the words of FULLTEXT are sorted in bulk, and SPATIAL is rare enough to stay with it.
ALWAYS_LATER: Final = frozenset({"FULLTEXT", "SPATIAL"})
# In a table up to here an index costs about the same before the rows as after them, as its pages stay in memory; only
# that after them there is an ALTER TABLE, some 30 ms of waiting for DDL each, which counts with hundreds of tables.
# From 50,000 rows on sorting them wins.
SMALL_ROWS_MAX: Final = 20_000
SMALL_BYTES_MAX: Final = 8 << 20
AUTO_INCREMENT: Final = re.compile(r"(?m)^  (`(?:[^`]|``)+`) .* AUTO_INCREMENT\b")


@dataclass(frozen=True, slots=True)
class CreateTable:
    """`now` makes the table that takes the rows; `later` are clauses of ALTER TABLE: indexes, then foreign keys."""

    now: str
    later: tuple[str, ...] = ()


def is_small(rows: int, size: int) -> bool:
    """Whether a table's indexes are to be there before its rows, by the server's estimates."""
    return rows <= SMALL_ROWS_MAX and size <= SMALL_BYTES_MAX


def split_create(statement: str, *, defer: bool, small: bool = False) -> CreateTable:
    """Foreign keys always come later: their parent may not be there yet. With `defer` secondary indexes do too, but
    for the unique ones of a table without a primary key, which tell its rows apart, for the one that an
    AUTO_INCREMENT column needs, and for most of those of a `small` table."""
    lines = statement.split("\n")
    end = next(number for number, line in enumerate(lines) if line.startswith(")"))
    has_primary = any(line.startswith("  PRIMARY KEY") for line in lines[:end])
    counter = AUTO_INCREMENT.search("\n".join(lines[:end]))
    kept, indexes, foreign = [], [], []
    for line in lines[1:end]:
        bare = line.rstrip(",")
        index = INDEX.match(line)
        if FOREIGN_KEY.match(line):
            foreign.append(f"ADD{bare[1:]}")
        elif index is None or not defer or _first(index, has_primary, counter[1] if counter else None, small):
            kept.append(bare)
        else:
            indexes.append(f"ADD{bare[1:]}")
    body = ",\n".join(kept)
    return CreateTable("\n".join([lines[0], body, *lines[end:]]), (*indexes, *foreign))


def _first(index: re.Match[str], has_primary: bool, counter: str | None, small: bool) -> bool:
    if index["kind"] in ALWAYS_LATER:
        return False
    if small or (index["kind"] == "UNIQUE" and not has_primary):
        return True
    return counter is not None and index["first"] == counter


def is_foreign_key(clause: str) -> bool:
    """One of `CreateTable.later`."""
    return FOREIGN_KEY.match(f" {clause.removeprefix('ADD')}") is not None


def lines_of(statement: str) -> frozenset[str]:
    """What a table has, to be compared with clauses to add."""
    return frozenset(f"ADD{line.rstrip(',')[1:]}" for line in statement.split("\n")[1:])


@dataclass(frozen=True, slots=True)
class Code:
    """A view, routine, trigger or event: what makes it, and the session state that it was made under."""

    kind: str
    schema: str
    name: str
    statement: str
    sql_mode: str = ""
    charset: str = "utf8mb4"
    collation: str = ""
    time_zone: str = ""


@dataclass(frozen=True, slots=True)
class Definitions:
    """Of some schemas. Tables and code in the order in which they can be made; views as they depend on each other."""

    databases: dict[str, str]
    tables: dict[TableName, str]
    code: tuple[Code, ...]


def read_definitions(session: Session, schemas: Sequence[str]) -> Definitions:
    """Everything of these schemas. Raises what PyMySQL raises."""
    databases = {
        schema: text_of(query(session, f"SHOW CREATE DATABASE {quoted(schema)}")[0][1]) for schema in schemas
    }
    tables = {name: create_statement(session, name) for name in _names(session, schemas, "BASE TABLE")}
    code = [*_routines(session, schemas), *_views(session, schemas), *_triggers(session, schemas)]
    return Definitions(databases, tables, (*code, *_events(session, schemas)))


def create_statement(session: Session, name: TableName) -> str:
    """SHOW CREATE TABLE, its AUTO_INCREMENT counter included."""
    schema, table = name
    return text_of(query(session, f"SHOW CREATE TABLE {quoted(schema)}.{quoted(table)}")[0][1])


def _names(session: Session, schemas: Sequence[str], kind: str) -> list[TableName]:
    condition, arguments = Selection(schemas=tuple(schemas)).condition("table_schema")
    rows = query(
        session,
        "SELECT table_schema, table_name FROM information_schema.tables"
        f" WHERE table_type = %s AND {condition} ORDER BY 1, 2",
        [kind, *arguments],
    )
    return [(text_of(schema), text_of(name)) for schema, name in rows]


def _shown(session: Session, statement: str) -> dict[str, Any]:
    """One row of a SHOW CREATE, by column."""
    with session.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
    assert row is not None
    return dict(row)


def _code(kind: str, schema: str, name: str, row: dict[str, Any], statement: str) -> Code:
    return Code(
        kind,
        schema,
        name,
        text_of(statement),
        text_of(row.get("sql_mode", "")),
        text_of(row["character_set_client"]),
        text_of(row["collation_connection"]),
        text_of(row.get("time_zone", "")),
    )


def _routines(session: Session, schemas: Sequence[str]) -> list[Code]:
    condition, arguments = Selection(schemas=tuple(schemas)).condition("routine_schema")
    rows = query(
        session,
        "SELECT routine_type, routine_schema, routine_name FROM information_schema.routines"
        f" WHERE routine_type IN ('FUNCTION', 'PROCEDURE') AND {condition} ORDER BY 1, 2, 3",
        arguments,
    )
    found = []
    for kind, schema, name in rows:
        row = _shown(session, f"SHOW CREATE {kind} {quoted(schema)}.{quoted(text_of(name))}")
        statement = row[f"Create {text_of(kind).capitalize()}"]
        if statement is not None:  # else the account may not see it; the plan has said so
            found.append(_code(text_of(kind), schema, text_of(name), row, statement))
    return found


def _views(session: Session, schemas: Sequence[str]) -> list[Code]:
    found = []
    for schema, name in _names(session, schemas, "VIEW"):
        row = _shown(session, f"SHOW CREATE VIEW {quoted(schema)}.{quoted(name)}")
        found.append(_code("VIEW", schema, name, row, row["Create View"]))
    return found


def _triggers(session: Session, schemas: Sequence[str]) -> list[Code]:
    condition, arguments = Selection(schemas=tuple(schemas)).condition("trigger_schema")
    rows = query(
        session,
        f"SELECT trigger_schema, trigger_name FROM information_schema.triggers WHERE {condition}"
        " ORDER BY trigger_schema, event_object_table, action_timing, event_manipulation, action_order",
        arguments,
    )
    found = []
    for schema, name in rows:
        row = _shown(session, f"SHOW CREATE TRIGGER {quoted(schema)}.{quoted(text_of(name))}")
        found.append(_code("TRIGGER", schema, text_of(name), row, row["SQL Original Statement"]))
    return found


def _events(session: Session, schemas: Sequence[str]) -> list[Code]:
    condition, arguments = Selection(schemas=tuple(schemas)).condition("event_schema")
    rows = query(
        session,
        f"SELECT event_schema, event_name FROM information_schema.events WHERE {condition} ORDER BY 1, 2",
        arguments,
    )
    found = []
    for schema, name in rows:
        row = _shown(session, f"SHOW CREATE EVENT {quoted(schema)}.{quoted(text_of(name))}")
        found.append(_code("EVENT", schema, text_of(name), row, row["Create Event"]))
    return found
