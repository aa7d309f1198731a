"""The tables of a server with their columns and keys.

Read from information_schema, which shows an account only what it has privileges on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from applier.connection import Connection
from applier.errors import NotComparable
from applier.target import checkpoint

SYSTEM_SCHEMAS = ("information_schema", "mysql", "performance_schema", "sys")
OWN_SCHEMA = checkpoint.SCHEMA  # progress rows, which the target alone has
MIGRATION_SCHEMA = "applier_migrate"  # the state of migrations, on the target alone
HIDDEN_SCHEMAS = (*SYSTEM_SCHEMAS, OWN_SCHEMA, MIGRATION_SCHEMA)


@dataclass(frozen=True, slots=True)
class Column:
    """A column, as information_schema describes it. Without text, `charset` and `collation` are None.

    `generated`: computed by the server, never written.
    """

    name: str
    data_type: str
    column_type: str
    nullable: bool
    charset: str | None
    collation: str | None
    bytes_max: int
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """Columns of a primary key, or of a unique key without NULLs and prefixes; `index` is its name."""

    columns: tuple[str, ...]
    index: str | None


NO_KEY = Key((), None)


@dataclass(frozen=True, slots=True)
class Table:
    """A base table, and what its rows are told apart by (NO_KEY: nothing). `changing`: written to in the last minute,
    as far as the server tells (not of partitioned tables)."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    unique: Key
    rows_estimated: int = 0
    changing: bool = False

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def key(self) -> tuple[str, ...]:
        return self.unique.columns

    @property
    def shape(self) -> tuple[object, ...]:
        """What must be the same on both sides for rows to be comparable by one statement."""
        return (
            *((c.name, c.data_type, c.column_type, c.nullable, c.charset, c.collation) for c in self.columns),
            self.key,
        )


TableName = tuple[str, str]  # schema, table
Record = tuple[Any, ...]
Session: TypeAlias = "Connection[Any]"  # a string: PyMySQL's class takes no parameter at run time


def quoted(name: str) -> str:
    """An identifier in backticks."""
    return f"`{name.replace('`', '``')}`"


def qualified(table: Table) -> str:
    """Schema and table in backticks."""
    return f"{quoted(table.schema)}.{quoted(table.name)}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tables: those named, those in the schemas named, or all but the system's and ours; never those ignored."""

    tables: tuple[TableName, ...] = ()
    schemas: tuple[str, ...] = ()
    ignored_schemas: tuple[str, ...] = ()

    def condition(self, schema_column: str, name_column: str | None = None) -> tuple[str, list[str]]:
        """A WHERE condition and its arguments."""
        hidden = [*HIDDEN_SCHEMAS, *self.ignored_schemas]
        terms, arguments = [f"{schema_column} NOT IN ({_marks(hidden)})"], list(hidden)
        wanted = list(self.schemas)
        if self.tables and name_column:
            pairs = " OR ".join(f"({schema_column}=%s AND {name_column}=%s)" for _ in self.tables)
            alternatives = [pairs]
            arguments += [part for table in self.tables for part in table]
            if wanted:
                alternatives.append(f"{schema_column} IN ({_marks(wanted)})")
                arguments += wanted
            terms.append(f"({' OR '.join(alternatives)})")
        elif wanted:
            terms.append(f"{schema_column} IN ({_marks(wanted)})")
            arguments += wanted
        return " AND ".join(terms), arguments


def _marks(values: Sequence[str]) -> str:
    return ",".join(["%s"] * len(values))


def query(connection: Session, statement: str, arguments: Sequence[object] = ()) -> list[Record]:
    """All rows of one statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments or None)
        return list(cursor.fetchall())


def read_tables(connection: Session, selection: Selection) -> dict[TableName, Table]:
    """The base tables of the selection whose columns the account may see, by name."""
    names = _base_tables(connection, selection)
    columns = _columns(connection, selection)
    keys = _keys(connection, selection, columns)
    return {
        name: Table(*name, tuple(columns[name]), keys.get(name, NO_KEY), rows, changing)
        for name, (rows, changing) in names.items()
        if name in columns
    }


def readable_tables(connection: Session, selection: Selection) -> dict[TableName, Table]:
    """Likewise; raises NotComparable for one that the account may see but not read."""
    names = _base_tables(connection, selection)
    found = read_tables(connection, selection)
    for schema, name in names:
        if (schema, name) not in found:
            raise NotComparable(
                detail=f"the columns of {schema}.{name} cannot be seen: SELECT on it is missing, or it was just dropped"
            )
    return found


def _base_tables(connection: Session, selection: Selection) -> dict[TableName, tuple[int, bool]]:
    """Rows as the server guesses, and whether they are changing."""
    condition, arguments = selection.condition("table_schema", "table_name")
    rows = query(
        connection,
        "SELECT table_schema, table_name, COALESCE(table_rows, 0),"
        " COALESCE(update_time > NOW() - INTERVAL 1 MINUTE, 0) FROM information_schema.tables"
        f" WHERE table_type = 'BASE TABLE' AND {condition} ORDER BY 1, 2",
        arguments,
    )
    return {(schema, name): (int(count), bool(int(changing))) for schema, name, count, changing in rows}


def _columns(connection: Session, selection: Selection) -> dict[TableName, list[Column]]:
    condition, arguments = selection.condition("table_schema", "table_name")
    rows = query(
        connection,
        "SELECT table_schema, table_name, column_name, data_type, column_type, is_nullable,"
        " character_set_name, collation_name, character_octet_length, generation_expression <> ''"
        " FROM information_schema.columns"
        f" WHERE {condition} ORDER BY table_schema, table_name, ordinal_position",
        arguments,
    )
    found: dict[TableName, list[Column]] = defaultdict(list)
    for schema, table, name, data_type, column_type, nullable, charset, collation, octets, generated in rows:
        found[schema, table].append(
            Column(
                name=name,
                data_type=text_of(data_type).lower(),
                column_type=text_of(column_type),
                nullable=nullable == "YES",
                charset=charset,
                collation=collation,
                bytes_max=_bytes_max(text_of(data_type).lower(), octets),
                generated=bool(generated),
            )
        )
    return found


def _bytes_max(data_type: str, octets: int | None) -> int:
    if data_type in ("json", "geometry", "vector") or "geom" in data_type:
        return 1 << 32
    if octets is None:  # numbers, times; and the spatial types by their own names (point, polygon …)
        return 128 if data_type in _SHORT else 1 << 32
    return int(octets)


_SHORT = frozenset(
    (
        *("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "bit"),
        *("year", "date", "datetime", "timestamp", "time"),
    )
)


def _keys(
    connection: Session, selection: Selection, columns: dict[TableName, list[Column]]
) -> dict[TableName, Key]:
    """The best key of each table: the primary key, else the first unique one of whole NOT NULL columns."""
    condition, arguments = selection.condition("table_schema", "table_name")
    rows = query(
        connection,
        "SELECT table_schema, table_name, index_name, column_name, sub_part, is_visible"
        f" FROM information_schema.statistics WHERE non_unique = 0 AND {condition}"
        " ORDER BY table_schema, table_name, index_name <> 'PRIMARY', index_name, seq_in_index",
        arguments,
    )
    indexes: dict[TableName, dict[str, list[str] | None]] = defaultdict(dict)
    nullable = {name: {c.name for c in found if c.nullable} for name, found in columns.items()}
    for schema, table, index, column, prefix, visible in rows:
        parts = indexes[schema, table].setdefault(index, [])
        usable = column is not None and prefix is None and visible == "YES"
        if not usable or column in nullable.get((schema, table), ()):
            indexes[schema, table][index] = None
        elif parts is not None:
            parts.append(column)
    best: dict[TableName, Key] = {}
    for name, candidates in indexes.items():
        for index, parts in candidates.items():
            if parts:
                best[name] = Key(tuple(parts), index)
                break
    return best


def text_of(value: str | bytes) -> str:
    """Some columns of information_schema come as bytes, which ones depends on the server's version."""
    return value.decode() if isinstance(value, bytes) else value
