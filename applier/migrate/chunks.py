"""SQL text of the copy: what is read of a table, how it is loaded, and where its chunks lie. No connection here.

Values travel as the source's own text, byte for byte, in no character set: the reading session has
character_set_results = NULL, and what is loaded is declared to be binary. Some types have no exact text, or none that
a server would take back, and go another way:

| type | read as | loaded |
|---|---|---|
| FLOAT | DOUBLE: a FLOAT prints 6 digits, as a DOUBLE it prints all | as it is |
| ENUM, SET | their number: '' may be a member or the error value | CAST to the number |
| JSON | its text | CONVERT to utf8mb4: JSON takes no binary text |
| all others | as they are | as they are |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from applier.migrate.row_text import RowText
from applier.migrate.state import Chunk
from applier.verify import expressions as sql
from applier.verify.definitions import Column, Table, TableName, qualified, quoted
from applier.verify.expressions import KeyValues

NUMBERED = frozenset({"enum", "set"})
# Their text may stand in an INSERT as it is. Not DOUBLE: as a number -0 would lose its sign.
BARE = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "decimal"})


def read_expression(column: Column) -> str:
    """What to select of a column."""
    name = quoted(column.name)
    if column.data_type == "float":
        return f"CAST({name} AS DOUBLE)"
    if column.data_type in NUMBERED:
        return f"CAST({name} AS UNSIGNED)"
    return name


@dataclass(frozen=True, slots=True)
class CopyTable:
    """A table as the copy sees it: `columns` are those that are written."""

    table: Table
    columns: tuple[Column, ...]
    row_bytes: int = 100  # about, to keep chunks small in bytes
    partitions: int = 1

    @property
    def name(self) -> TableName:
        return self.table.schema, self.table.name

    @property
    def has_key(self) -> bool:
        return bool(self.table.key)

    def select(self, where: str) -> str:
        """Rows in the order of their key, if there is one: inserting them so fills pages one after the other."""
        index = f" FORCE INDEX ({quoted(self.table.unique.index)})" if self.table.unique.index else ""
        order = f" ORDER BY {','.join(map(quoted, self.table.key))}" if self.in_key_order else ""
        # Every table has a column: a query without any would be no SQL.
        columns = ",".join(map(read_expression, self.columns)) or "1"
        return f"SELECT {columns} FROM {qualified(self.table)}{index}{where}{order}"

    @property
    def in_key_order(self) -> bool:
        """Whether the index itself gives the order: otherwise the server would sort each chunk."""
        return self.table.unique.index == "PRIMARY" and self.partitions == 1

    def boundary(self, where: str, rows: int) -> str:
        """The key of the `rows`-th row."""
        return sql.boundary_statement(self.table, where, rows)

    # --- LOAD DATA ---------------------------------------------------------------------------------------

    def load_statement(self) -> str:
        targets, assignments = [], []
        for number, column in enumerate(self.columns):
            converted = self._converted(column, f"@v{number}")
            targets.append(quoted(column.name) if converted is None else f"@v{number}")
            if converted is not None:
                assignments.append(f"{quoted(column.name)}={converted}")
        setting = f" SET {','.join(assignments)}" if assignments else ""
        return (
            f"LOAD DATA LOCAL INFILE 'rows' INTO TABLE {qualified(self.table)} CHARACTER SET binary"
            " FIELDS TERMINATED BY '\\t' ENCLOSED BY '' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n'"
            f" ({','.join(targets)}){setting}"
        )

    @staticmethod
    def _converted(column: Column, variable: str) -> str | None:
        if column.data_type == "json":
            return f"CONVERT({variable} USING utf8mb4)"
        if column.data_type in NUMBERED:
            return f"CAST({variable} AS UNSIGNED)"
        return None

    def load_text(self) -> RowText:
        """Turns rows into lines for `load_statement`."""
        nothing = [b""] * len(self.columns)
        return RowText(nothing, nothing)

    # --- INSERT ------------------------------------------------------------------------------------------

    def insert_head(self) -> bytes:
        names = ",".join(quoted(column.name) for column in self.columns)
        return f"INSERT INTO {qualified(self.table)} ({names}) VALUES ".encode()

    def insert_text(self) -> RowText:
        """Turns rows into `(…),(…),` behind `insert_head`."""
        prefixes, suffixes = zip(*map(_around, self.columns), strict=True)
        return RowText(
            list(prefixes), list(suffixes), between=b",", null=b"NULL", row_begin=b"(", row_end=b"),"
        )


def _around(column: Column) -> tuple[bytes, bytes]:
    if column.data_type in BARE or column.data_type in NUMBERED:
        return b"", b""
    if column.data_type == "json":
        return b"CONVERT(_binary'", b"' USING utf8mb4)"
    return b"_binary'", b"'"


def copy_table(table: Table, row_bytes: int, partitions: int) -> CopyTable:
    """Generated columns are left out: the target computes them."""
    written = tuple(column for column in table.columns if not column.generated)
    return CopyTable(table, written, max(1, row_bytes), partitions)


# --- parts of a table --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Rows still to copy: keys above `lower` and up to `upper`. A `head` is cut into chunks as it is taken, the
    `cuts`-th next; see Chunk.place."""

    table: CopyTable
    lower: KeyValues | None = None
    upper: KeyValues | None = None
    place: tuple[int, ...] = ()
    head: bool = True
    cuts: int = 0

    @property
    def where(self) -> str:
        return sql.where_range(self.table.table, self.lower, self.upper) if self.table.has_key else ""

    def cut(self, boundary: KeyValues | None) -> tuple[Part, Part | None]:
        """The chunk up to `boundary`, and the rest; None: no more than one chunk is left."""
        place = (*self.place, self.cuts)
        if boundary is None:
            return Part(self.table, self.lower, self.upper, place, head=False), None
        chunk = Part(self.table, self.lower, boundary, place, head=False)
        return chunk, Part(self.table, boundary, self.upper, self.place, cuts=self.cuts + 1)

    def as_chunk(self) -> Chunk:
        return Chunk(*self.table.name, self.lower, self.upper, self.place)


def parts_left(table: CopyTable, copied: Sequence[Chunk]) -> list[Part]:
    """What lies between the chunks that are copied, in order; nothing when they are the whole table."""
    parts: list[Part] = []
    lower: KeyValues | None = None
    place: tuple[int, ...] = ()
    for chunk in sorted(copied, key=lambda one: one.place):
        if chunk.lower != lower:
            parts.append(Part(table, lower, chunk.lower, _between(place, chunk.place)))
        lower, place = chunk.upper, chunk.place
        if lower is None:
            return parts
    return [*parts, Part(table, lower, None, place)]


def _between(place: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """What, with any number behind it, comes after the one place and before the other."""
    if after[: len(place)] != place:
        return place
    return (*place, after[len(place)] - 1)
