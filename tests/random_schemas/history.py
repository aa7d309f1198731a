"""One seed's history of a source: tables, then transactions of several sessions with DDL among them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from random import Random
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from applier.sandbox import Server
from tests.random_schemas.ddl import TABLE_NAMES, SchemaChanger
from tests.random_schemas.schema import SCHEMAS, Query, Table, quoted, read_tables
from tests.random_schemas.sessions import Life, Stage
from tests.random_schemas.tables import TableMaker, Taste, schema_for
from tests.random_schemas.transactions import RowChanger

TRANSACTION_IS_GONE = frozenset({1213, 1317})  # deadlock, killed because nobody could go on
SESSION_SETTINGS = (
    ("binlog_row_image", ("FULL", "FULL", "FULL", "FULL", "FULL", "FULL", "MINIMAL", "NOBLOB")),
    ("binlog_row_value_options", ("''", "''", "PARTIAL_JSON")),
    ("binlog_transaction_compression", ("OFF", "OFF", "ON")),
    ("foreign_key_checks", ("ON", "ON", "ON", "OFF")),
    ("time_zone", ("'+00:00'", "'+05:30'")),
    ("sql_generate_invisible_primary_key", ("OFF", "OFF", "ON")),
    ("transaction_isolation", ("'REPEATABLE-READ'", "'READ-COMMITTED'")),
    ("sql_mode", ("''", "''", "'STRICT_ALL_TABLES'")),
)
# Durability is not what is tested here.
FAST = "SET GLOBAL sync_binlog = 0, GLOBAL innodb_flush_log_at_trx_commit = 2"


@dataclass(frozen=True, slots=True)
class Size:
    """Of a history. `schema_change_odds`: for each transaction, that it is DDL instead."""

    tables: int = 4
    sessions: int = 4
    transactions: int = 260
    schema_change_odds: float = 0.02


class History:
    """Writes the history of one seed to an empty source."""

    def __init__(self, source: Server, seed: int, size: Size | None = None) -> None:
        self.source = source
        self.seed = seed
        self.size = size or Size()
        self.chance = Random(seed)
        self.taste = Taste.draw(self.chance)
        self.tables: list[Table] = []
        self.left = self.size.transactions
        self.schema_changes = 0
        self._query: Query = lambda sql: ()

    def write(self) -> None:
        self.source.execute(FAST)
        self.source.execute(f"SET GLOBAL binlog_row_metadata = {self.chance.choice(('MINIMAL', 'FULL'))}")
        for schema in SCHEMAS:
            self.source.execute(f"CREATE DATABASE {quoted(schema)}")
        with self.source.connect(autocommit=True) as connection, connection.cursor() as cursor:
            self._query = _query_of(cursor)
            collations = [
                name
                for (name,) in self._query(
                    "SELECT collation_name FROM information_schema.collations ORDER BY 1"
                )
                if name != "binary"
            ]
            self._create_tables(collations)
            lives = [
                self._life(Random(f"{self.seed} {number}"), collations)
                for number in range(self.size.sessions)
            ]
            Stage(self.source, self.chance).play(lives)

    def _create_tables(self, collations: list[str]) -> None:
        maker = TableMaker(self.chance, self.taste, collations)
        for name in TABLE_NAMES[: self.size.tables]:
            schema = schema_for(self.chance)
            while (schema, name) not in {(table.schema, table.name) for table in self.tables}:
                with contextlib.suppress(pymysql.err.MySQLError):
                    self._query("SET SESSION sql_mode = ''")
                    for statement in maker.create(schema, name, self.tables).split(";\n"):
                        self._query(statement)
                self.tables = read_tables(self._query)

    def _life(self, chance: Random, collations: list[str]) -> Life:
        rows, schemas = RowChanger(chance), SchemaChanger(chance, TableMaker(chance, self.taste, collations))
        while self.left > 0:
            self.left -= 1
            if chance.random() < 0.1:
                name, values = chance.choice(SESSION_SETTINGS)
                yield f"SET SESSION {name} = {chance.choice(values)}"
            kind = chance.random()
            if kind < self.size.schema_change_odds or not self.tables:
                self.schema_changes += 1
                for statement in schemas.change(self.tables):
                    yield statement
                self.tables = read_tables(self._query)
            elif kind < 0.3:
                for statement in rows.statements(self.tables):
                    yield statement
            else:
                yield from self._transaction(rows, chance)

    def _transaction(self, rows: RowChanger, chance: Random) -> Life:
        yield "BEGIN"
        for statement in rows.transaction(self.tables):
            if (yield statement) in TRANSACTION_IS_GONE:
                yield "ROLLBACK"
                return
        yield "ROLLBACK" if chance.random() < 0.12 else "COMMIT"


def _query_of(cursor: Cursor) -> Query:
    def query(sql: str) -> list[tuple[Any, ...]]:
        cursor.execute(sql)
        return list(cursor.fetchall())

    return query
