"""Random statements that change rows. Values are few and tables small, so that nearly everything conflicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tests.random_schemas.schema import Column, Table
from tests.random_schemas.values import alike, literal

STATEMENTS_MAX = 6
ROWS_AT_ONCE = 4


class RowChanger:
    """Makes up statements for the tables that there are."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance

    def transaction(self, tables: Sequence[Table]) -> Iterator[str]:
        """Statements between BEGIN and COMMIT, savepoints among them."""
        chance = self.chance
        savepoints = chance.random() < 0.05
        for number in range(chance.randint(1, STATEMENTS_MAX)):
            if savepoints and chance.random() < 0.5:
                yield f"SAVEPOINT s{number % 2}"
            elif savepoints and chance.random() < 0.5:
                yield f"ROLLBACK TO s{number % 2}"  # of one that may not be there
            yield from self.statements(tables)

    def statements(self, tables: Sequence[Table]) -> list[str]:
        """One change, sometimes of several statements that belong together."""
        table = self.chance.choice(tables)
        makers = {
            self._insert: 34,
            self._update: 26,
            self._delete: 14,
            self._upsert: 14,
            self._move_value: 22,
            self._swap_values: 6,
            self._json: 4,
            self._many: 3,
            self._copy: 3,
            self._wipe: 1,
        }
        (make,) = self.chance.choices(list(makers), list(makers.values()))
        return make(table)

    # --- single statements -----------------------------------------------------------------------

    def _insert(self, table: Table) -> list[str]:
        return [f"INSERT INTO {table.sql} {self._rows(table, self.chance.choice((1, 1, 1, ROWS_AT_ONCE)))}"]

    def _upsert(self, table: Table) -> list[str]:
        kind = self.chance.random()
        # Without a key a replica does not find a row that one statement changes twice.
        rows = self._rows(table, self.chance.choice((1, 2)) if table.has_identity else 1)
        if kind < 0.4 and not table.is_parent:  # of a parent the server logs what no replica can apply (1451)
            return [f"REPLACE INTO {table.sql} {rows}"]
        if kind < 0.6:
            return [f"INSERT IGNORE INTO {table.sql} {rows}"]
        return [f"INSERT INTO {table.sql} {rows} ON DUPLICATE KEY UPDATE {self._assignment(table)}"]

    def _update(self, table: Table) -> list[str]:
        assignments = ", ".join(self._assignment(table) for _ in range(self.chance.choice((1, 1, 2, 3))))
        return [f"UPDATE {table.sql} SET {assignments} {self._where(table)}"]

    def _delete(self, table: Table) -> list[str]:
        return [f"DELETE FROM {table.sql} {self._where(table)}"]

    def _wipe(self, table: Table) -> list[str]:
        return [f"DELETE FROM {table.sql}"]

    def _many(self, table: Table) -> list[str]:
        """Slow on the target, beside fast ones."""
        return [f"INSERT IGNORE INTO {table.sql} {self._rows(table, 60)}"]

    def _copy(self, table: Table) -> list[str]:
        names = ", ".join(column.sql for column in table.written)
        return [
            f"INSERT IGNORE INTO {table.sql} ({names}) SELECT {names} FROM {table.sql} LIMIT 20",
            f"UPDATE IGNORE {table.sql} SET {self._assignment(table)}",
        ]

    def _json(self, table: Table) -> list[str]:
        """A change that may be logged as a difference."""
        columns = [column for column in table.written if column.data_type == "json"]
        if not columns:
            return self._update(table)
        name = self.chance.choice(columns).sql
        path = self.chance.choice(("$.a", "$.tags[0]", "$[1]", "$.new"))
        value = self.chance.choice(("1", "7", "'text'", "NULL"))
        return [f"UPDATE {table.sql} SET {name} = JSON_SET({name}, '{path}', {value}) {self._where(table)}"]

    # --- unique values that move -----------------------------------------------------------------

    def _move_value(self, table: Table) -> list[str]:
        """A unique value leaves one row and is taken by another; or one that is equal to it and has other bytes."""
        column = self._unique_column(table)
        name, taken = column.sql, alike(self.chance, column)
        pick = f"SELECT {name} INTO @v FROM {table.sql} WHERE {name} IS NOT NULL LIMIT {self.chance.randrange(6)}, 1"
        free = self.chance.choice(
            (
                f"DELETE FROM {table.sql} WHERE {name} <=> @v",
                f"UPDATE {table.sql} SET {name} = {literal(self.chance, column)} WHERE {name} <=> @v",
            )
        )
        take = self.chance.choice(
            (
                f"INSERT INTO {table.sql} {self._rows(table, 1, column, taken)}",
                f"UPDATE {table.sql} SET {name} = {taken} {self._where(table)} LIMIT 1",
            )
        )
        return [pick, free, take]

    def _swap_values(self, table: Table) -> list[str]:
        """Two rows exchange values by way of a third one."""
        column = self._unique_column(table)
        first, second, third = (literal(self.chance, column, null_odds=0.0) for _ in range(3))
        name = column.sql
        return [
            f"UPDATE {table.sql} SET {name} = {new} WHERE {name} <=> {old}"
            for old, new in ((first, third), (second, first), (third, second))
        ]

    # --- parts of statements ---------------------------------------------------------------------

    def _unique_column(self, table: Table) -> Column:
        written = {column.name: column for column in table.written}
        names = [
            name
            for index in table.indexes
            if index.unique and index.name != "PRIMARY"
            for name in index.columns
            if name in written
        ]
        return written[self.chance.choice(names)] if names else self.chance.choice(table.written)

    def _rows(self, table: Table, count: int, fixed: Column | None = None, value: str = "") -> str:
        names = ", ".join(column.sql for column in table.written)
        rows = (
            ", ".join(value if column is fixed else literal(self.chance, column) for column in table.written)
            for _ in range(count)
        )
        return f"({names}) VALUES " + ", ".join(f"({row})" for row in rows)

    def _assignment(self, table: Table) -> str:
        column = self.chance.choice(table.written)
        return f"{column.sql} = {literal(self.chance, column)}"

    def _where(self, table: Table) -> str:
        """By a key if there is one, so that few rows are meant."""
        names = [index.columns[0] for index in table.indexes if index.columns[0] is not None]
        column = self.chance.choice(table.columns)
        if names and self.chance.random() < 0.8:
            name = self.chance.choice(names)
            column = table.column(name) if name is not None else column
        return f"WHERE {column.sql} <=> {literal(self.chance, column, null_odds=0.05)}"
