"""Are two servers' rows the same? Plainly: the text of every value, of every row, on both sides.

Knows nothing of `applier.verify`, whose blind spots would hide ours. The text of a FLOAT is rounded, so CHECKSUM TABLE,
which takes the bytes as InnoDB keeps them, is compared as well.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from applier.sandbox import Server
from tests.random_schemas.schema import Table, read_tables

SHOW_HIDDEN_KEYS = "SET SESSION show_gipk_in_create_table_and_information_schema = ON"
ROWS_SHOWN = 5
Row = tuple[bytes | None, ...]
Contents = tuple[Counter[Row], int | None]  # rows, and CHECKSUM TABLE


def assert_same_rows(source: Server, target: Server) -> None:
    """AssertionError: says the same of every target with the same rows, so that two of them can be told apart by it."""
    ours, theirs = _contents(source), _contents(target)
    assert sorted(theirs) == sorted(ours), f"other tables: {sorted(ours.keys() ^ theirs.keys())}"
    found = [
        difference for table in sorted(ours) if (difference := _difference(table, ours[table], theirs[table]))
    ]
    assert not found, "; ".join(found)


def _difference(table: str, ours: Contents, theirs: Contents) -> str:
    """Empty when there is none."""
    missing, surplus = ours[0] - theirs[0], theirs[0] - ours[0]
    if missing or surplus:
        return f"{table}: missing {_shown(missing)}, too many {_shown(surplus)}"
    return f"{table}: CHECKSUM TABLE gives {theirs[1]}, not {ours[1]}" if ours[1] != theirs[1] else ""


def _shown(rows: Counter[Row]) -> str:
    shown = sorted(rows.elements(), key=repr)
    return f"{len(shown)} rows {shown[:ROWS_SHOWN]}"


def _contents(server: Server) -> dict[str, Contents]:
    with server.connect(autocommit=True, use_unicode=False, conv={}) as raw, raw.cursor() as values:
        values.execute("SET character_set_results = NULL")  # as they are stored
        with server.connect(autocommit=True) as connection, connection.cursor() as cursor:

            def query(sql: str) -> Any:
                cursor.execute(sql)
                return cursor.fetchall()

            query(SHOW_HIDDEN_KEYS)
            found = {}
            for table in read_tables(query):
                values.execute(f"SELECT {', '.join(column.sql for column in table.columns)} FROM {table.sql}")
                found[table.sql] = (Counter(values.fetchall()), _checksum(query, table))
            return found


def _checksum(query: Any, table: Table) -> int | None:
    """A table with a functional index has a hidden column, for which it differs from call to call."""
    if any(column is None for index in table.indexes for column in index.columns):
        return None
    return int(query(f"CHECKSUM TABLE {table.sql} EXTENDED")[0][1])
