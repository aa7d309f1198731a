"""Definitions as text: tables as SHOW CREATE TABLE tells them, and views, routines, triggers and events."""

from __future__ import annotations

import re
from collections.abc import Iterable

from applier.verify.definitions import Selection, Session, Table, qualified, query, text_of

# In the line of table options only, which the closing parenthesis begins; before any COMMENT='…'.
_AUTO_INCREMENT = re.compile(r"(?m)^(\) [^']*?) AUTO_INCREMENT=\d+")


def create_table(connection: Session, table: Table) -> str:
    """SHOW CREATE TABLE without the AUTO_INCREMENT counter, which a replay may rightly leave lower."""
    ((_, statement),) = query(connection, f"SHOW CREATE TABLE {qualified(table)}")
    return _AUTO_INCREMENT.sub(r"\1", text_of(statement))


# kind, SELECT of schema, name, definition; its schema column
_OTHERS = (
    (
        "view",
        "SELECT table_schema, table_name, view_definition FROM information_schema.views",
        "table_schema",
    ),
    (
        "routine",
        "SELECT routine_schema, CONCAT(routine_type, ' ', routine_name), routine_definition"
        " FROM information_schema.routines",
        "routine_schema",
    ),
    (
        "trigger",
        "SELECT trigger_schema, trigger_name, CONCAT_WS(' ', action_timing, event_manipulation,"
        " event_object_table, action_order, action_statement) FROM information_schema.triggers",
        "trigger_schema",
    ),
    (
        "event",
        "SELECT event_schema, event_name, event_definition FROM information_schema.events",
        "event_schema",
    ),
)


def read_others(connection: Session, selection: Selection) -> dict[tuple[str, str, str], str]:
    """Definitions of views, routines, triggers and events by kind, schema and name."""
    found: dict[tuple[str, str, str], str] = {}
    for kind, statement, schema_column in _OTHERS:
        condition, arguments = selection.condition(schema_column)
        for schema, name, definition in query(connection, f"{statement} WHERE {condition}", arguments):
            found[kind, schema, text_of(name)] = text_of(definition or "")
    return found


def changed_lines(source: str, target: str) -> str:
    """The lines that only one of two definitions has."""
    ours, theirs = _lines(source), _lines(target)
    only_source = [f"source: {line}" for line in ours if line not in set(theirs)]
    only_target = [f"target: {line}" for line in theirs if line not in set(ours)]
    return "; ".join(only_source + only_target) or "the same lines in another order"


def _lines(text: str) -> list[str]:
    stripped: Iterable[str] = (line.strip().rstrip(",") for line in text.splitlines())
    return [line for line in stripped if line]
