"""Random changes of the schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.random_schemas.schema import TEXTS, Column, Table, quoted
from tests.random_schemas.tables import TableMaker, parent_indexes, schema_for

TABLES_MAX = 7
HIDDEN_KEY = "my_row_id"
TABLE_NAMES = ("t0", "t1", "t2", "T3", "t 4", "t5", "ü6", "t7")


class SchemaChanger:
    """Makes up DDL for the tables that there are. What the server refuses has no consequence."""

    def __init__(self, chance: Random, maker: TableMaker) -> None:
        self.chance = chance
        self.maker = maker
        self._on_table: dict[Callable[[Table], str], int] = {
            self._add_index: 8,
            self._add_unique: 8,
            self._drop_index: 7,
            self._add_column: 6,
            self._drop_column: 5,
            self._modify_column: 6,
            self._change_collation: 6,
            self._convert: 3,
            self._rename_column: 4,
            self._rename: 4,
            self._swap_through_rename: 3,
            self._truncate: 4,
            self._replace: 8,
            self._drop_primary_key: 3,
            self._add_primary_key: 5,
            self._drop_foreign_key: 4,
            self._partition: 3,
            self._rebuild: 2,
            self._create_like: 2,
            self._create_select: 2,
        }

    def change(self, tables: Sequence[Table]) -> list[str]:
        """Statements that belong together; usually one."""
        if not tables or (len(tables) < TABLES_MAX and self.chance.random() < 0.12):
            return self.create(tables).split(";\n")
        table = self.chance.choice(tables)
        if self.chance.random() < 0.06:
            return [self._add_foreign_key(table, tables)]
        (make,) = self.chance.choices(list(self._on_table), list(self._on_table.values()))
        return make(table).split(";\n")

    def create(self, tables: Sequence[Table]) -> str:
        """A table of a name that is free, if there is one."""
        free = [name for name in TABLE_NAMES if name not in {table.name for table in tables}]
        schema = schema_for(self.chance)
        return self.maker.create(schema, self.chance.choice(free or TABLE_NAMES), tables)

    # --- indexes ---------------------------------------------------------------------------------

    def _add_index(self, table: Table) -> str:
        return f"ALTER TABLE {table.sql} ADD {self._index(table, unique=False)}"

    def _add_unique(self, table: Table) -> str:
        # Rows in the way would make most of them fail.
        make_room = "" if self.chance.random() < 0.5 else f"DELETE FROM {table.sql};\n"
        return f"{make_room}ALTER TABLE {table.sql} ADD {self._index(table, unique=True)}"

    def _index(self, table: Table, *, unique: bool) -> str:
        columns = [column for column in table.columns if column.data_type not in ("point", "vector")]
        name = f"n{self.chance.randrange(4)}"
        hidden_key = any(column.name == HIDDEN_KEY for column in table.columns)  # see WITHOUT_HIDDEN_KEY
        return self.maker.index(
            columns or table.columns, unique=unique, name=name, expressions=not hidden_key
        )

    def _drop_index(self, table: Table) -> str:
        names = [index.name for index in table.indexes if index.name != "PRIMARY"]
        return f"ALTER TABLE {table.sql} DROP INDEX {quoted(self.chance.choice(names or ['none']))}"

    def _drop_primary_key(self, table: Table) -> str:
        return f"ALTER TABLE {table.sql} DROP PRIMARY KEY"

    def _add_primary_key(self, table: Table) -> str:
        make_room = "" if self.chance.random() < 0.3 else f"DELETE FROM {table.sql};\n"
        drop = "DROP PRIMARY KEY, " if any(index.name == "PRIMARY" for index in table.indexes) else ""
        return f"{make_room}ALTER TABLE {table.sql} {drop}ADD {self.maker.primary_key(table.columns)}"

    # --- columns ---------------------------------------------------------------------------------

    def _new_name(self) -> str:
        return f"x{self.chance.randrange(6)}"

    def _add_column(self, table: Table) -> str:
        column = self.maker.column(self._new_name())
        place = self.chance.choice(("", " FIRST", f" AFTER {self.chance.choice(table.columns).sql}"))
        return f"ALTER TABLE {table.sql} ADD COLUMN {self.maker.column_sql(column)}{place}"

    def _drop_column(self, table: Table) -> str:
        return f"ALTER TABLE {table.sql} DROP COLUMN {self.chance.choice(table.columns).sql}"

    def _modify_column(self, table: Table) -> str:
        old = self.chance.choice(table.written or table.columns)
        new = self.maker.column(old.name)
        kept = Column(
            old.name, old.data_type, old.column_type, None, old.collation, not old.nullable, False, False
        )
        column = self.chance.choice((new, kept))
        place = self.chance.choice(("", "", " FIRST"))
        return f"ALTER TABLE {table.sql} MODIFY COLUMN {self.maker.column_sql(column)}{place}"

    def _change_collation(self, table: Table) -> str:
        texts = [column for column in table.written if column.data_type in TEXTS]
        if not texts:
            return self._convert(table)
        column = self.chance.choice(texts)
        null = "NULL" if column.nullable else "NOT NULL"
        definition = f"{column.column_type} COLLATE {self.maker.collation()} {null}"
        return f"ALTER TABLE {table.sql} CHANGE {column.sql} {column.sql} {definition}"

    def _convert(self, table: Table) -> str:
        collation = self.maker.collation()
        return (
            f"ALTER TABLE {table.sql} CONVERT TO CHARACTER SET {collation.split('_')[0]} COLLATE {collation}"
        )

    def _rename_column(self, table: Table) -> str:
        column = self.chance.choice(table.columns)
        return f"ALTER TABLE {table.sql} RENAME COLUMN {column.sql} TO {quoted(self._new_name())}"

    # --- tables ----------------------------------------------------------------------------------

    def _rename(self, table: Table) -> str:
        name = f"{quoted(schema_for(self.chance))}.{quoted(self.chance.choice(TABLE_NAMES))}"
        return f"RENAME TABLE {table.sql} TO {name}"

    def _swap_through_rename(self, table: Table) -> str:
        """Two tables take each other's names, where both are there."""
        other = f"{quoted(table.schema)}.{quoted(self.chance.choice(TABLE_NAMES))}"
        return f"RENAME TABLE {table.sql} TO d.swapping, {other} TO {table.sql}, d.swapping TO {other}"

    def _truncate(self, table: Table) -> str:
        return f"TRUNCATE TABLE {table.sql}"

    def _replace(self, table: Table) -> str:
        """The same name, other keys."""
        return f"DROP TABLE {table.sql};\n{self.maker.create(table.schema, table.name, [])}"

    def _partition(self, table: Table) -> str:
        if table.partitioned:
            return f"ALTER TABLE {table.sql} REMOVE PARTITIONING"
        return f"ALTER TABLE {table.sql} PARTITION BY KEY () PARTITIONS 3"

    def _rebuild(self, table: Table) -> str:
        how = self.chance.choice(("ENGINE=InnoDB", "ROW_FORMAT=COMPACT", "COMMENT='x'", "ORDER BY 1"))
        return f"ALTER TABLE {table.sql} {how}"

    def _create_like(self, table: Table) -> str:
        name = f"{quoted(schema_for(self.chance))}.{quoted(self.chance.choice(TABLE_NAMES))}"
        return f"CREATE TABLE {name} LIKE {table.sql}"

    def _create_select(self, table: Table) -> str:
        name = f"{quoted(schema_for(self.chance))}.{quoted(self.chance.choice(TABLE_NAMES))}"
        return f"CREATE TABLE {name} AS SELECT * FROM {table.sql}"

    # --- foreign keys ----------------------------------------------------------------------------

    def _drop_foreign_key(self, table: Table) -> str:
        names = table.foreign_keys or ("none",)
        return f"ALTER TABLE {table.sql} DROP FOREIGN KEY {quoted(self.chance.choice(names))}"

    def _add_foreign_key(self, table: Table, tables: Sequence[Table]) -> str:
        """Between columns that fit, if there are any."""
        pairs = [
            (column, parent, index)
            for parent in tables
            for index in parent_indexes(parent)
            for column in table.written
            if len(index.columns) == 1
            and index.columns[0] is not None
            and parent.column(index.columns[0]).definition == column.definition
        ]
        if not pairs:
            return self._add_index(table)
        column, parent, index = self.chance.choice(pairs)
        return f"ALTER TABLE {table.sql} ADD {self.maker.foreign_key([column.name], parent, index)}"
