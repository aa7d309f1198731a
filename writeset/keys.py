"""Which keys the rows of a table touch: read from the target's schema, brought to a `TablePlan`.

A key is named by its columns, not by its index. So two indexes over the same columns are one key, and a child
can name its parent's key without reading the parent's indexes.

Forms. Wherever equality of a column cannot be computed from the row image (an expression, a multi-valued
part, a collation of which nothing is proven), the column is left out of the key (`Form.ANY`): equal keys are
still equal without it. A key that has nothing else conflicts with itself always. Where it depends on the
value (a text beyond what is proven of its collation), the key is guarded: see `Access` in hashing.pxd.

Foreign keys. A child row shares the parent's key, the parent's rows write it. Where child and parent column
are of different types or collations, so that equal values may have different bytes, the two get a key of
their own, without the columns that do not match; and where the parent has no unique index over just these
columns (the server allows any index), a key of the parent that is not unique.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import Connection

from writeset.collation import text_form
from writeset.definitions import Access, Form, KeyColumnDefinition, KeyDefinition, TableDefinition
from writeset.hashing import TablePlan
from writeset.schema import Column, ForeignKey, Index, IndexPart, SchemaReader, Table, TableName

# Equal values have equal bytes in the row image, and different values different ones.
RAW_TYPES = frozenset(
    {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year", "date", "time", "datetime"}
    | {"timestamp", "bit", "enum", "set", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
)
BYTE_TYPES = {"binary": Form.ZERO_TRIMMED, "float": Form.FLOAT, "double": Form.DOUBLE}
TEXT_TYPES = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})


class KeyReader:
    """Reads what the rows of the target's tables touch.

    connection: an SQLAlchemy connection to the target; it is set to autocommit, so that each answer is the
        schema of now.
    images_may_lack_columns: whether row images may lack key columns (binlog_row_image other than FULL). Then
        the keys are guarded, so that an unknown value conflicts with its index instead of with everything.

    Methods raise sqlalchemy.exc.SQLAlchemyError when the target does not answer.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        images_may_lack_columns: bool = False,
    ) -> None:
        if not connection.in_transaction():
            connection.execution_options(isolation_level="AUTOCOMMIT")
        self._reader = SchemaReader(connection)
        self._images_may_lack_columns = images_may_lack_columns

    def read_table(self, schema: str, table: str) -> TablePlan | None:
        """The plan of one table; None when the target has no such base table."""
        name = self._reader.spelled(schema, table)
        foreign_keys = self._reader.foreign_keys(*name)
        tables = self._reader.tables({name, *_ends(foreign_keys)})
        return self._plan(tables[name], foreign_keys, tables) if name in tables else None

    def read_schema(self, schema: str) -> dict[TableName, TablePlan]:
        """The plans of all base tables of a schema, in a handful of queries."""
        tables = self._reader.schema(schema)
        foreign_keys = self._reader.foreign_keys(self._reader.spelled(schema, "")[0])
        elsewhere = set(_ends(foreign_keys)) - tables.keys()
        known = tables | self._reader.tables(elsewhere)
        by_table: dict[TableName, list[ForeignKey]] = {name: [] for name in tables}
        for foreign_key in foreign_keys:
            for name in {foreign_key.child, foreign_key.parent} & tables.keys():
                by_table[name].append(foreign_key)
        return {name: self._plan(table, by_table[name], known) for name, table in tables.items()}

    def _plan(self, table: Table, foreign_keys: list[ForeignKey], known: dict[TableName, Table]) -> TablePlan:
        definition = table_definition(
            table,
            foreign_keys,
            known,
            guard_all=self._images_may_lack_columns,
        )
        return TablePlan(definition)


def table_definition(
    table: Table,
    foreign_keys: Iterable[ForeignKey],
    known: dict[TableName, Table],
    *,
    guard_all: bool = False,
) -> TableDefinition:
    """What a table's rows touch. `known` holds the table and those at the other ends of its foreign keys."""
    foreign_keys = list(foreign_keys)
    children = [key for key in foreign_keys if key.parent == table.name]
    parents = [key for key in foreign_keys if key.child == table.name]
    keys: dict[tuple[str, ...], KeyDefinition] = {}
    for index in _identity_first(table):
        seed_name = _seed_name(table.name, index.parts)
        keys.setdefault((*seed_name, "own"), _unique_key(table, index, seed_name, guard_all))
    has_identity = bool(keys) and _identifies(table, _identity_first(table)[0])
    for foreign_key in children:
        touched = _parent_key(foreign_key, known, Access.EXCLUSIVE_OVER_SHARED, guard_all)
        keys[*touched.seed_name, "own"] = touched
    for foreign_key in parents:
        touched = _parent_key(foreign_key, known, Access.SHARED, guard_all)
        keys.setdefault((*touched.seed_name, *foreign_key.child_columns), touched)
    return TableDefinition(
        *table.name,
        column_total=len(table.columns),
        keys=tuple(keys.values()),
        has_identity=has_identity,
        cascades=any(key.cascades for key in children),
        has_foreign_keys=bool(foreign_keys),
        source_overlooks=any(not _has_primary_key(known.get(key.parent)) for key in parents),
        has_computed_columns=table.has_computed_columns,
    )


def _ends(foreign_keys: Iterable[ForeignKey]) -> list[TableName]:
    return [end for key in foreign_keys for end in (key.child, key.parent)]


def _identifies(table: Table, index: Index) -> bool:
    """Whether every row has one value of this unique index, and no two rows the same."""
    return all(part.column is not None and not table.columns[part.column].nullable for part in index.parts)


def _has_primary_key(table: Table | None) -> bool:
    """Whether the server itself sees a primary key: a unique key over whole NOT NULL columns counts as one."""
    return table is not None and any(
        index.name == "PRIMARY"
        or (_identifies(table, index) and not any(part.prefix_characters for part in index.parts))
        for index in table.unique_indexes
    )


def _identity_first(table: Table) -> list[Index]:
    """The unique indexes: the row's identity first, if the table has any. Primary key, then whole columns."""

    def rank(index: Index) -> tuple[bool, bool, bool]:
        return (
            not _identifies(table, index),
            index.name != "PRIMARY",
            any(part.prefix_characters for part in index.parts),
        )

    return sorted(table.unique_indexes, key=rank)


def _seed_name(name: TableName, parts: Iterable[IndexPart]) -> tuple[str, str, str]:
    """What makes two keys one. Column names may hold any character, so the parts are quoted."""
    return (*name, " ".join(f"{part.column!r}({part.prefix_characters})" for part in parts))


def _unique_key(
    table: Table, index: Index, seed_name: tuple[str, str, str], guard_all: bool
) -> KeyDefinition:
    columns = tuple(
        KeyColumnDefinition(0, Form.ANY)
        if part.column is None
        else key_column(table.columns[part.column], part.prefix_characters)
        for part in index.parts
    )
    return _key(seed_name, columns, Access.EXCLUSIVE, guard_all, index.name)


def _parent_key(
    foreign_key: ForeignKey, known: dict[TableName, Table], access: Access, guard_all: bool
) -> KeyDefinition:
    """The key that child and parent of a foreign key both touch, seen from the side that `access` tells."""
    child, parent = known.get(foreign_key.child), known.get(foreign_key.parent)
    child_columns = _columns(child, foreign_key.child_columns)
    parent_columns = _columns(parent, foreign_key.parent_columns)
    matches = [
        ours is not None and theirs is not None and signature(ours) == signature(theirs)
        for ours, theirs in zip(child_columns, parent_columns, strict=True)
    ]
    side = child_columns if access is Access.SHARED else parent_columns
    columns = tuple(
        key_column(column) if same and column is not None else KeyColumnDefinition(0, Form.ANY)
        for column, same in zip(side, matches, strict=True)
    )
    if all(matches):
        parts = [IndexPart(column) for column in foreign_key.parent_columns]
        return _key(_seed_name(foreign_key.parent, parts), columns, access, guard_all, foreign_key.name)
    seed_name = (*foreign_key.child, f"FOREIGN KEY {foreign_key.name}")
    return _key(seed_name, columns, access, guard_all, foreign_key.name)


def _columns(table: Table | None, names: Iterable[str]) -> list[Column | None]:
    """A table that is missing (foreign_key_checks = 0 allows that) has no columns."""
    return [table.columns.get(name) if table is not None else None for name in names]


def _key(
    seed_name: tuple[str, str, str],
    columns: tuple[KeyColumnDefinition, ...],
    access: Access,
    guard_all: bool,
    index_name: str,
) -> KeyDefinition:
    folds = any(column.form in (Form.FOLDED, Form.FOLDED_TRIMMED) for column in columns)
    return KeyDefinition(seed_name, columns, access, guard_all or folds, index_name)


def key_column(column: Column, prefix_characters: int = 0) -> KeyColumnDefinition:
    """A column as a part of a key."""
    if column.data_type in RAW_TYPES:
        return KeyColumnDefinition(column.position, Form.RAW, prefix_characters)
    if column.data_type in BYTE_TYPES:
        return KeyColumnDefinition(column.position, BYTE_TYPES[column.data_type], prefix_characters)
    if column.data_type not in TEXT_TYPES or column.collation is None:
        return KeyColumnDefinition(column.position, Form.ANY)
    form = text_form(column.collation, column.character_bytes_max, column.data_type == "char")
    return KeyColumnDefinition(
        column.position,
        form.form,
        prefix_characters,
        form.character_bytes_max,
        form.code_unit_bytes,
        form.little_endian,
        form.utf8,
        form.fold,
    )


def signature(column: Column) -> tuple[object, ...]:
    """Equal for two columns only if equal values of them have equal forms."""
    if column.data_type in TEXT_TYPES and column.collation is not None:
        form = text_form(column.collation, column.character_bytes_max, column.data_type == "char").form
        return (column.collation, form)
    if column.data_type in ("varbinary", "binary"):
        return (column.data_type,)
    # The display width of an integer says nothing of its bytes.
    return (column.data_type, re.sub(r"^(\w*int|year)\(\d+\)", r"\1", column.column_type.lower()))
