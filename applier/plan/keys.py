"""Where the keys of tables come from when there is no target to ask.

From a server's schema of today, if one is named: the source itself, or one that has the same tables. For a table that
this server does not have, or has with other columns, and without a server: the primary key that the log itself
names (`binlog_row_metadata=FULL`). A table whose keys nobody knows conflicts with itself as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from applier.address import ServerAddress
from applier.connection import sqlalchemy_engine
from applier.errors import Unreachable
from applier.events.column_types import ColumnType
from applier.events.table_map import Column, TableMap
from applier.plan.collation_ids import COLLATION_NAMES
from writeset import schema as server_schema
from writeset.collation import proven_collations
from writeset.definitions import TableDefinition
from writeset.hashing import TablePlan
from writeset.keys import KeyReader, table_definition

BINARY_COLLATION = 63
CHARACTER_BYTES_MAX = {"utf8mb4": 4, "utf8mb3": 3, "utf16": 4, "utf16le": 4, "utf32": 4, "ucs2": 2}

_DATA_TYPES = {
    ColumnType.TINY: "tinyint",
    ColumnType.SHORT: "smallint",
    ColumnType.INT24: "mediumint",
    ColumnType.LONG: "int",
    ColumnType.LONGLONG: "bigint",
    ColumnType.NEWDECIMAL: "decimal",
    ColumnType.FLOAT: "float",
    ColumnType.DOUBLE: "double",
    ColumnType.BIT: "bit",
    ColumnType.ENUM: "enum",
    ColumnType.SET: "set",
    ColumnType.YEAR: "year",
    ColumnType.DATE: "date",
    ColumnType.NEWDATE: "date",
    ColumnType.TIME: "time",
    ColumnType.TIME2: "time",
    ColumnType.DATETIME: "datetime",
    ColumnType.DATETIME2: "datetime",
    ColumnType.TIMESTAMP: "timestamp",
    ColumnType.TIMESTAMP2: "timestamp",
}
_TEXT_TYPES = {
    ColumnType.STRING: ("char", "binary"),
    ColumnType.VARCHAR: ("varchar", "varbinary"),
    ColumnType.VAR_STRING: ("varchar", "varbinary"),
    ColumnType.TINY_BLOB: ("tinytext", "tinyblob"),
    ColumnType.BLOB: ("text", "blob"),
    ColumnType.MEDIUM_BLOB: ("mediumtext", "mediumblob"),
    ColumnType.LONG_BLOB: ("longtext", "longblob"),
}


class KeysFrom(Enum):
    """Who told the keys of a table. The texts are those of the report."""

    SCHEMA = "schema"
    LOG = "primary key in the log"
    NOBODY = "unknown"


@dataclass(frozen=True, slots=True)
class KnownTable:
    """A table of the log. `columns` are the names of its columns, where anybody told them."""

    plan: TablePlan
    keys_from: KeysFrom
    columns: tuple[str, ...] | None


class PlanKeys:
    """The keys of tables as they are now: of `server`, or of the log alone. Each table is read once."""

    def __init__(self, server: ServerAddress | None = None) -> None:
        self.server = server
        self.tables: dict[tuple[str, str], KnownTable] = {}
        self._known: dict[bytes, KnownTable] = {}  # by content of the table map

    def plan(self, table_map: TableMap, sequence_number: int) -> TablePlan:
        """Raises Unreachable and what `connect` raises."""
        known = self._known.get(table_map.content)
        if known is None:
            known = self._known[table_map.content] = self._look_up(table_map)
            self.tables[table_map.schema, table_map.table] = known
        return known.plan

    def known(self, table_map: TableMap) -> KnownTable:
        """Of a table map that has been asked for."""
        return self._known[table_map.content]

    def _look_up(self, table_map: TableMap) -> KnownTable:
        if self.server is not None:
            known = self._from_server(self.server, table_map)
            if known is not None and known.plan.column_total == len(table_map.columns):
                return known
        return keys_of_log(table_map)

    def _from_server(self, server: ServerAddress, table_map: TableMap) -> KnownTable | None:
        engine = sqlalchemy_engine(server)
        try:
            with engine.connect() as connection:
                reader = KeyReader(connection)
                plan = reader.read_table(table_map.schema, table_map.table)
                columns = _column_names(connection, table_map)
        except SQLAlchemyError as error:
            detail = f"the keys of {table_map} could not be read: {error.__cause__ or error}"
            raise Unreachable(role=server.role, place=server.place, detail=detail) from error
        finally:
            engine.dispose()
        return None if plan is None else KnownTable(plan, KeysFrom.SCHEMA, columns)


def _column_names(connection: Connection, table_map: TableMap) -> tuple[str, ...]:
    reader = server_schema.SchemaReader(connection)
    name = reader.spelled(table_map.schema, table_map.table)
    tables = reader.tables([name])
    return tuple(tables[name].columns) if name in tables else ()


# --- from the log alone --------------------------------------------------------------------------------


def keys_of_log(table_map: TableMap) -> KnownTable:
    """The primary key that the table map names; else no key at all, and the table conflicts as a whole.

    With `binlog_row_metadata=FULL` a table without a primary key is known to have none, but may have unique keys.
    """
    names = tuple(column.name for column in table_map.columns if column.name is not None)
    columns = names if len(names) == len(table_map.columns) else None
    if table_map.primary_key is None:
        plan = TablePlan(TableDefinition(table_map.schema, table_map.table, len(table_map.columns)))
        return KnownTable(plan, KeysFrom.NOBODY, columns)
    parts = tuple(
        server_schema.IndexPart(table_map.columns[part.position].label, part.prefix_characters)
        for part in table_map.primary_key
    )
    table = server_schema.Table(
        (table_map.schema, table_map.table),
        {column.label: _server_column(column) for column in table_map.columns},
        (server_schema.Index("PRIMARY", parts),),
    )
    return KnownTable(TablePlan(table_definition(table, [], {})), KeysFrom.LOG, columns)


def _server_column(column: Column) -> server_schema.Column:
    """The column as information_schema would tell it, as far as keys need it. A text of a collation that we cannot
    name has none, so that it is left out of its key."""
    data_type, collation = _DATA_TYPES.get(column.type, "other"), None
    if column.type in _TEXT_TYPES:
        data_type = _TEXT_TYPES[column.type][column.collation_id == BINARY_COLLATION]
        collation = COLLATION_NAMES.get(column.collation_id or 0)
    character_set = proven_collations()[collation].character_set if collation is not None else None
    return server_schema.Column(
        column.label,
        column.position,
        data_type,
        data_type,
        column.nullable,
        character_set,
        collation,
        CHARACTER_BYTES_MAX.get(character_set or "", 1),
    )
