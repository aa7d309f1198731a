"""What the target's information_schema says of tables, indexes and foreign keys, as plain records.

Read with SQL rather than with SQLAlchemy's inspector, which knows no functional key parts, no generated
invisible primary key, and not who refers to a table; and which asks for one table at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, text

TableName = tuple[str, str]  # schema, table


@dataclass(frozen=True, slots=True)
class Column:
    """position: number in the table map, from 0: every column but those that the server hides for functional
    indexes; invisible and generated ones, stored or virtual, are in the row image."""

    name: str
    position: int
    data_type: str
    column_type: str
    nullable: bool
    character_set: str | None
    collation: str | None
    character_bytes_max: int


@dataclass(frozen=True, slots=True)
class IndexPart:
    """column is None for an expression (functional, multi-valued). prefix_characters: 0 = the whole
    column."""

    column: str | None
    prefix_characters: int = 0


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    parts: tuple[IndexPart, ...]


@dataclass(frozen=True, slots=True)
class ForeignKey:
    name: str
    child: TableName
    child_columns: tuple[str, ...]
    parent: TableName
    parent_columns: tuple[str, ...]
    on_update: str
    on_delete: str

    @property
    def cascades(self) -> bool:
        """Whether a change of the parent changes rows of the child."""
        return not {self.on_update, self.on_delete} <= {"NO ACTION", "RESTRICT"}


@dataclass(frozen=True, slots=True)
class Table:
    """unique_indexes: the primary key first, then in the server's order. has_computed_columns: generated columns,
    or an index, unique or not, over an expression."""

    name: TableName
    columns: dict[str, Column]
    unique_indexes: tuple[Index, ...]
    has_computed_columns: bool = False


# A generated invisible primary key is in the row image, so it must be in the answers as well.
SHOW_GENERATED_KEYS = "SET SESSION show_gipk_in_create_table_and_information_schema = ON"

COLUMNS = """
SELECT c.table_schema, c.table_name, c.column_name, c.data_type, c.column_type, c.is_nullable,
       c.character_set_name, c.collation_name, COALESCE(s.maxlen, 1)
FROM information_schema.columns c
LEFT JOIN information_schema.character_sets s ON s.character_set_name = c.character_set_name
JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
WHERE t.table_type = 'BASE TABLE' AND {where}
ORDER BY c.table_schema, c.table_name, c.ordinal_position
"""

UNIQUE_INDEXES = """
SELECT c.table_schema, c.table_name, c.index_name, c.column_name, c.sub_part
FROM information_schema.statistics c
WHERE c.non_unique = 0 AND {where}
ORDER BY c.table_schema, c.table_name, c.index_name <> 'PRIMARY', c.index_name, c.seq_in_index
"""

COMPUTED_COLUMNS = """
SELECT c.table_schema, c.table_name FROM information_schema.columns c
WHERE c.generation_expression <> '' AND {where}
UNION
SELECT c.table_schema, c.table_name FROM information_schema.statistics c WHERE c.column_name IS NULL AND {where}
"""

FOREIGN_KEYS = """
SELECT k.constraint_schema, k.table_name, k.constraint_name, k.column_name,
       k.referenced_table_schema, k.referenced_table_name, k.referenced_column_name,
       r.update_rule, r.delete_rule
FROM information_schema.key_column_usage k
JOIN information_schema.referential_constraints r
  ON r.constraint_schema = k.constraint_schema AND r.constraint_name = k.constraint_name
     AND r.table_name = k.table_name
WHERE k.referenced_table_name IS NOT NULL AND ({where})
ORDER BY k.constraint_schema, k.table_name, k.constraint_name, k.ordinal_position
"""


class SchemaReader:
    """Reads through one SQLAlchemy connection. Names come and go as the target spells them.

    Raises sqlalchemy.exc.SQLAlchemyError when the target does not answer.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.ignores_case = bool(self._rows("SELECT @@lower_case_table_names")[0][0])
        if self._rows("SHOW VARIABLES LIKE 'show\\_gipk\\_in\\_create%'"):
            connection.execute(text(SHOW_GENERATED_KEYS))

    def spelled(self, schema: str, table: str) -> TableName:
        """A name of the binary log as the target compares it (lower_case_table_names)."""
        return (schema.lower(), table.lower()) if self.ignores_case else (schema, table)

    def tables(self, names: Iterable[TableName]) -> dict[TableName, Table]:
        """Those of the named tables that exist."""
        wanted = {self.spelled(*name) for name in names}
        schemas: dict[str, list[str]] = defaultdict(list)
        for schema, table in sorted(wanted):
            schemas[schema].append(table)
        found: dict[TableName, Table] = {}
        for schema, tables in schemas.items():
            values = {"schema": schema, "tables": tables}
            found |= self._read("c.table_schema = :schema AND c.table_name IN :tables", values)
        return {name: table for name, table in found.items() if name in wanted}

    def schema(self, schema: str) -> dict[TableName, Table]:
        """All base tables of a schema."""
        schema = self.spelled(schema, "")[0]
        found = self._read("c.table_schema = :schema", {"schema": schema})
        return {name: table for name, table in found.items() if name[0] == schema}

    def foreign_keys(self, schema: str, table: str | None = None) -> list[ForeignKey]:
        """Those whose child or parent is the table, or any table of the schema."""
        where = (
            "k.constraint_schema = :schema AND k.table_name = :table"
            " OR k.referenced_table_schema = :schema AND k.referenced_table_name = :table"
        )
        if table is None:
            where = "k.constraint_schema = :schema OR k.referenced_table_schema = :schema"
        values = {"schema": schema} if table is None else {"schema": schema, "table": table}
        rows = self._rows(FOREIGN_KEYS.format(where=where), values)
        grouped: dict[tuple[Any, ...], list[Sequence[Any]]] = defaultdict(list)
        for row in rows:
            grouped[tuple(row[:3])].append(row)
        return [self._foreign_key(parts) for parts in grouped.values()]

    def _foreign_key(self, parts: list[Sequence[Any]]) -> ForeignKey:
        child_schema, child, name, _, parent_schema, parent, _, on_update, on_delete = parts[0]
        return ForeignKey(
            name,
            self.spelled(child_schema, child),
            tuple(part[3].lower() for part in parts),
            self.spelled(parent_schema, parent),
            tuple(part[6].lower() for part in parts),
            on_update,
            on_delete,
        )

    def _read(self, where: str, values: dict[str, Any]) -> dict[TableName, Table]:
        columns: dict[TableName, dict[str, Column]] = defaultdict(dict)
        for schema, table, column, data_type, column_type, nullable, *texts in self._rows(
            COLUMNS.format(where=where), values
        ):
            mine = columns[self.spelled(schema, table)]
            mine[column.lower()] = Column(
                column.lower(), len(mine), data_type.lower(), _text(column_type), nullable == "YES", *texts
            )
        parts: dict[TableName, dict[str, list[IndexPart]]] = defaultdict(lambda: defaultdict(list))
        for schema, table, index, column, prefix in self._rows(UNIQUE_INDEXES.format(where=where), values):
            part = IndexPart(column.lower() if column is not None else None, prefix or 0)
            parts[self.spelled(schema, table)][index].append(part)
        computed = {self.spelled(*name) for name in self._rows(COMPUTED_COLUMNS.format(where=where), values)}
        return {
            name: Table(
                name,
                found,
                tuple(Index(index, tuple(of)) for index, of in parts[name].items()),
                name in computed,
            )
            for name, found in columns.items()
        }

    def _rows(self, statement: str, values: dict[str, Any] | None = None) -> Sequence[Any]:
        clause = text(statement)
        if values is not None and "tables" in values:
            clause = clause.bindparams(bindparam("tables", expanding=True))
        return self._connection.execute(clause, values or {}).all()


def _text(value: str | bytes) -> str:
    """column_type comes as bytes or text, by version."""
    return value.decode() if isinstance(value, bytes) else value
