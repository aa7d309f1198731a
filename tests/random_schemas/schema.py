"""What tables the source has now, read from its information_schema."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SCHEMAS = ("d", "Other Schema")
Query = Callable[[str], Any]

TEMPORAL = frozenset({"date", "time", "datetime", "timestamp", "year"})
TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
WITHOUT_LENGTH = frozenset(
    {"tinytext", "text", "mediumtext", "longtext", "tinyblob", "blob", "mediumblob", "longblob"}
)

COLUMNS = """
SELECT table_schema, table_name, column_name, data_type, column_type, character_set_name, collation_name,
       is_nullable = 'YES', generation_expression <> '', extra LIKE '%auto_increment%'
FROM information_schema.columns WHERE table_schema IN ('d', 'Other Schema')
ORDER BY table_schema, table_name, ordinal_position
"""
INDEXES = """
SELECT table_schema, table_name, index_name, non_unique = 0, column_name, sub_part
FROM information_schema.statistics WHERE table_schema IN ('d', 'Other Schema')
ORDER BY table_schema, table_name, index_name, seq_in_index
"""
FOREIGN_KEYS = """
SELECT constraint_schema, table_name, constraint_name, unique_constraint_schema, referenced_table_name
FROM information_schema.referential_constraints WHERE constraint_schema IN ('d', 'Other Schema')
ORDER BY constraint_schema, table_name, constraint_name
"""
PARTITIONED = """
SELECT DISTINCT table_schema, table_name FROM information_schema.partitions
WHERE table_schema IN ('d', 'Other Schema') AND partition_name IS NOT NULL
"""


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    data_type: str
    column_type: str
    character_set: str | None
    collation: str | None
    nullable: bool
    generated: bool
    counts: bool  # AUTO_INCREMENT

    @property
    def sql(self) -> str:
        return quoted(self.name)

    @property
    def definition(self) -> str:
        """Type and collation, without what a constraint adds."""
        return self.column_type + (f" COLLATE {self.collation}" if self.collation else "")


@dataclass(frozen=True, slots=True)
class Index:
    """`columns`: None for an expression."""

    name: str
    unique: bool
    columns: tuple[str | None, ...]
    has_prefix: bool


@dataclass(frozen=True, slots=True)
class Table:
    schema: str
    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    foreign_keys: tuple[str, ...]
    is_parent: bool
    partitioned: bool

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def written(self) -> tuple[Column, ...]:
        """Columns that an INSERT may name."""
        return tuple(column for column in self.columns if not column.generated)

    @property
    def has_identity(self) -> bool:
        """Whether a key tells every row from every other."""
        return any(
            index.unique
            and all(name is not None and not self.column(name).nullable for name in index.columns)
            for index in self.indexes
        )

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def read_tables(query: Query) -> list[Table]:
    """All tables of our schemas, always in the same order."""
    columns: dict[tuple[str, str], list[Column]] = defaultdict(list)
    for schema, table, name, data_type, column_type, *rest in query(COLUMNS):
        text, *flags = (*rest[:2],), *(bool(flag) for flag in rest[2:])
        columns[schema, table].append(Column(name, data_type.lower(), _text(column_type), *text, *flags))
    parts: dict[tuple[str, str], dict[tuple[str, bool], list[tuple[str | None, int | None]]]]
    parts = defaultdict(lambda: defaultdict(list))
    for schema, table, index, unique, column, prefix in query(INDEXES):
        parts[schema, table][index, bool(unique)].append((column, prefix))
    foreign_keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    parents = set()
    for schema, table, name, *parent in query(FOREIGN_KEYS):
        foreign_keys[schema, table].append(name)
        parents.add(tuple(parent))
    partitioned = set(query(PARTITIONED))
    return [
        Table(
            *name,
            tuple(found),
            tuple(
                Index(index, unique, tuple(column for column, _ in of), any(prefix for _, prefix in of))
                for (index, unique), of in parts[name].items()
            ),
            tuple(foreign_keys[name]),
            name in parents,
            name in partitioned,
        )
        for name, found in columns.items()
    ]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
