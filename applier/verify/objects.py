"""Definitions as text: tables as SHOW CREATE TABLE tells them; databases, views, routines, triggers and events."""

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


# kind, schema column, name, what makes its definition, table of information_schema. NULLs are left out of the last.
# Not an event's status: it is disabled on a target until cut-over.
_OTHERS = (
    (
        "database",
        "schema_name",
        "''",
        "default_character_set_name, default_collation_name",
        "schemata",
    ),
    (
        "view",
        "table_schema",
        "table_name",
        "view_definition, check_option, security_type, definer",
        "views",
    ),
    (
        "routine",
        "routine_schema",
        "CONCAT(routine_type, ' ', routine_name)",
        "routine_definition, is_deterministic, sql_data_access, security_type, definer, sql_mode, routine_comment",
        "routines",
    ),
    (
        "parameter",
        "specific_schema",
        "CONCAT(routine_type, ' ', specific_name, ' #', ordinal_position)",  # 0 is what a function returns
        "parameter_mode, parameter_name, dtd_identifier, character_set_name, collation_name",
        "parameters",
    ),
    (
        "trigger",
        "trigger_schema",
        "trigger_name",
        "action_timing, event_manipulation, event_object_table, action_order, action_statement, definer, sql_mode",
        "triggers",
    ),
    (
        "event",
        "event_schema",
        "event_name",
        "event_definition, event_type, execute_at, interval_value, interval_field, starts, ends, on_completion,"
        " time_zone, definer, sql_mode, event_comment",
        "events",
    ),
)


def read_others(connection: Session, selection: Selection) -> dict[tuple[str, str, str], str]:
    """What there is beside tables: definitions by kind, schema and name."""
    found: dict[tuple[str, str, str], str] = {}
    for kind, schema_column, name_expression, definition, table in _OTHERS:
        condition, arguments = selection.condition(schema_column)
        rows = query(
            connection,
            f"SELECT {schema_column}, {name_expression}, CONCAT_WS('\n', {definition})"
            f" FROM information_schema.{table} WHERE {condition}",
            arguments,
        )
        for schema, name, text in rows:
            found[kind, text_of(schema), text_of(name)] = text_of(text or "")
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
