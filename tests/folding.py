"""Row transactions put together by hand, and a database of dicts that applies them: the oracle of net changes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from applier.events.batch import Batch
from applier.events.rows import RowDecoder, row_cells
from applier.events.table_map import TableMap
from applier.events.transaction import TransactionFlag
from tests.binlog_bytes import TABLE_MAP, event
from writeset.definitions import (
    Access,
    Form,
    KeyColumnDefinition,
    KeyDefinition,
    RowKind,
    TableDefinition,
)
from writeset.hashing import TablePlan

ROWS = int(TransactionFlag.ROWS | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART)
INSERT, UPDATE, DELETE = RowKind.INSERT, RowKind.UPDATE, RowKind.DELETE
EVENT_TYPES = {INSERT: 30, UPDATE: 31, DELETE: 32}
STMT_END, NO_FOREIGN_KEY_CHECKS = 1, 2
LOWER = bytes(ord(chr(code).lower()) if 32 <= code < 127 else 0 for code in range(256))

Value = Any  # int, str, None, or ... for an absent column
Image = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """A unique key. `form` is of its text columns; `prefix` and `Form.ANY` are told to the plan only."""

    columns: tuple[int, ...]
    form: Form = Form.RAW
    prefix: int = 0

    def value(self, row: Image) -> tuple[Value, ...] | None:
        """Equal for two rows where the server says equal; None when a part is NULL."""
        parts = [row[column] for column in self.columns]
        if None in parts:
            return None
        texts = [
            part.lower() if isinstance(part, str) and self.form is Form.FOLDED else part for part in parts
        ]
        return tuple(part[: self.prefix] if isinstance(part, str) and self.prefix else part for part in texts)

    def definition(self, table: Table, name: str, access: Access = Access.EXCLUSIVE) -> KeyDefinition:
        folds = self.form is Form.FOLDED
        columns = tuple(
            KeyColumnDefinition(
                0 if self.form is Form.ANY else column,
                self.form if table.columns[column] == "v" or self.form is Form.ANY else Form.RAW,
                prefix_characters=self.prefix if table.columns[column] == "v" else 0,
                fold=LOWER if folds and table.columns[column] == "v" else None,
            )
            for column in self.columns
        )
        return KeyDefinition(("d", table.name, name), columns, access, guarded=folds)


@dataclass(frozen=True, slots=True)
class Table:
    """Columns are "i" (INT) or "v" (VARCHAR). keys[0] is the identity, unless `keyless`.

    parent: (table name, column here) of a foreign key to the parent's identity."""

    name: str
    columns: str
    keys: tuple[Key, ...] = (Key((0,)),)
    keyless: bool = False
    parent: tuple[str, int] | None = None
    is_parent: bool = False
    minimal: bool = False
    not_null: tuple[int, ...] = ()
    computed: bool = False

    def identity(self, row: Image) -> tuple[Value, ...]:
        value = self.keys[0].value(row)
        assert value is not None
        return value

    def plan(self) -> TablePlan:
        own = Access.EXCLUSIVE_OVER_SHARED if self.is_parent else Access.EXCLUSIVE
        keys = [
            key.definition(self, f"key{number}", own if number == 0 else Access.EXCLUSIVE)
            for number, key in enumerate(self.keys)
        ]
        if self.parent is not None:
            name, column = self.parent
            keys.append(KeyDefinition(("d", name, "key0"), (KeyColumnDefinition(column),), Access.SHARED))
        return TablePlan(
            TableDefinition(
                "d",
                self.name,
                len(self.columns),
                keys=tuple(keys),
                has_identity=not self.keyless,
                has_foreign_keys=self.is_parent or self.parent is not None,
                has_computed_columns=self.computed,
            )
        )

    def map_event(self, table_id: int, *, metadata: bytes = b"") -> bytes:
        types = bytes(3 if kind == "i" else 15 for kind in self.columns)
        block = b"".join(b"" if kind == "i" else struct.pack("<H", 200) for kind in self.columns)
        name = self.name.encode()
        null_bits = (1 << len(self.columns)) - 1
        body = (
            table_id.to_bytes(6, "little") + bytes(2) + b"\1d\0" + bytes([len(name)]) + name + b"\0"
            + packed(len(types)) + types + packed(len(block)) + block
            + null_bits.to_bytes((len(types) + 7) // 8, "little") + metadata
        )  # fmt: skip
        return event(TABLE_MAP, body, checksum=False)


@dataclass(frozen=True, slots=True)
class Change:
    """One row change: before is None for an insert, after for a delete."""

    table: Table
    before: Image | None
    after: Image | None
    flags: int = 0

    @property
    def kind(self) -> RowKind:
        return INSERT if self.before is None else DELETE if self.after is None else UPDATE

    def minimal(self) -> Change:
        """With the images of binlog_row_image=MINIMAL."""
        if self.before is None:
            return self
        columns = range(len(self.before))
        identity = self.table.keys[0].columns
        before = tuple(self.before[i] if i in identity else ... for i in columns)
        if self.after is None:
            return Change(self.table, before, None, self.flags)
        after = tuple(self.after[i] if self.after[i] != self.before[i] else ... for i in columns)
        return Change(self.table, before, after, self.flags)


def packed(count: int) -> bytes:
    """A length-encoded integer below 65,536."""
    return bytes([count]) if count < 251 else b"\xfc" + struct.pack("<H", count)


def encode_image(image: Image) -> bytes:
    there = [value for value in image if value is not ...]
    null_bits = sum((value is None) << i for i, value in enumerate(there))
    values = b"".join(
        b""
        if value is None
        else struct.pack("<i", value)
        if isinstance(value, int)
        else bytes([len(value.encode())]) + value.encode()
        for value in there
    )
    return null_bits.to_bytes((len(there) + 7) // 8, "little") + values


def bitmap(image: Image) -> bytes:
    bits = sum((value is not ...) << i for i, value in enumerate(image))
    return bits.to_bytes((len(image) + 7) // 8, "little")


def rows_event(
    changes: Sequence[Change], table_id: int, flags: int, *, kind: int = 0, extra: bytes = b""
) -> bytes:
    """One event for changes of one table, kind, and set of columns."""
    first = changes[0]
    images = [image for image in (first.before, first.after) if image is not None]
    body = table_id.to_bytes(6, "little") + struct.pack("<H", flags)
    if kind not in (23, 24, 25):
        body += struct.pack("<H", 2 + len(extra)) + extra
    body += packed(len(first.table.columns)) + b"".join(bitmap(image) for image in images)
    for change in changes:
        body += b"".join(encode_image(image) for image in (change.before, change.after) if image is not None)
    return event(kind or EVENT_TYPES[first.kind], body, checksum=False)


def statement_events(changes: Sequence[Change], table_ids: dict[str, int] | None = None) -> list[bytes]:
    """Table maps, then a row event for each run of like changes; the last ends the statement."""
    numbers = table_ids if table_ids is not None else {}
    tables = {change.table.name: change.table for change in changes}
    for name in tables:
        numbers.setdefault(name, 100 + len(numbers))
    runs: list[list[Change]] = []
    for change in changes:
        if runs and alike(runs[-1][0], change):
            runs[-1].append(change)
        else:
            runs.append([change])
    events = [table.map_event(numbers[name]) for name, table in tables.items()]
    for i, run in enumerate(runs):
        flags = run[0].flags | (STMT_END if i == len(runs) - 1 else 0)
        events.append(rows_event(run, numbers[run[0].table.name], flags))
    return events


def alike(a: Change, b: Change) -> bool:
    def columns(change: Change) -> list[bytes]:
        return [bitmap(image) for image in (change.before, change.after) if image is not None]

    return a.table is b.table and a.kind == b.kind and a.flags == b.flags and columns(a) == columns(b)


class Plans:
    """The plans of some tables, each made once, as the catalog does."""

    def __init__(self, tables: Iterable[Table]) -> None:
        self._plans = {table.name: table.plan() for table in tables}

    def __call__(self, table_map: TableMap, sequence_number: int) -> TablePlan:
        return self._plans[table_map.table]


def batch_of(transactions: Iterable[Sequence[bytes]], plans: Plans, first_number: int = 1) -> Batch:
    """A decoded batch of row transactions, each given by its events."""
    batch = Batch()
    for number, events in enumerate(transactions, first_number):
        batch.append_transaction(events, ROWS, number)
    return decode(batch, plans)


def decode(batch: Batch, plans: Plans) -> Batch:
    RowDecoder().decode(batch, plans)
    if batch.failure is not None:
        raise batch.failure
    return batch


def changes_in(batch: Batch, tables: Iterable[Table], plans: Plans) -> Iterator[Change]:
    """The row changes of a batch that net changes have written, in order, as the decoder reads them."""
    by_name = {table.name: table for table in tables}
    decode(batch, plans)
    for i in range(batch.row_total):
        kind, table_map, before, after = row_cells(batch, i)
        table = by_name[table_map.table]
        change = Change(table, values(table, before), values(table, after))
        assert change.kind == kind
        yield change


def values(table: Table, cells: list[tuple[int, bytes]] | None) -> Image | None:
    if cells is None:
        return None
    return tuple(
        None
        if state == 1
        else ...
        if state == 2
        else int.from_bytes(data, "little", signed=True)
        if kind == "i"
        else data.decode()
        for kind, (state, data) in zip(table.columns, cells, strict=True)
    )


class ConstraintViolated(Exception):
    """The server would refuse the change."""


@dataclass
class Database:
    """Rows of several tables, with unique and foreign keys checked at every single change, as InnoDB does."""

    tables: dict[str, Table]
    rows: dict[str, list[Image]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.tables:
            self.rows.setdefault(name, [])

    def copy(self) -> Database:
        return Database(self.tables, {name: list(rows) for name, rows in self.rows.items()})

    def contents(self) -> dict[str, list[Image]]:
        return {name: sorted(rows, key=repr) for name, rows in self.rows.items()}

    def apply(self, change: Change) -> None:
        table, rows = change.table, self.rows[change.table.name]
        old = None if change.before is None else self._find(table, change.before)
        new = change.after
        if new is not None and old is not None:
            new = tuple(was if value is ... else value for was, value in zip(old, new, strict=True))
        if new is not None:
            self._check_unique(table, old, new)
            self._check_parent(table, new)
        if old is not None and not change.flags & NO_FOREIGN_KEY_CHECKS:
            self._check_children(table, old, new)
        if old is not None:
            rows.remove(old)
        if new is not None:
            rows.append(new)

    def apply_all(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.apply(change)

    def _find(self, table: Table, image: Image) -> Image:
        for row in self.rows[table.name]:
            if table.keyless and row == image:
                return row
            if not table.keyless and table.identity(row) == table.identity(image):
                return row
        raise ConstraintViolated(f"no row {image} in {table.name}")

    def _check_unique(self, table: Table, old: Image | None, new: Image) -> None:
        for key in table.keys:
            value = key.value(new)
            if value is not None and any(
                key.value(row) == value for row in self.rows[table.name] if row is not old
            ):
                raise ConstraintViolated(f"{new} is there already in {table.name}")

    def _check_parent(self, table: Table, new: Image) -> None:
        if table.parent is None or new[table.parent[1]] is None:
            return
        name, column = table.parent
        if not any(row[0] == new[column] for row in self.rows[name]):
            raise ConstraintViolated(f"{new} has no parent")

    def _check_children(self, table: Table, old: Image, new: Image | None) -> None:
        if not table.is_parent or (new is not None and new[0] == old[0]):
            return
        for child in self.tables.values():
            if child.parent is not None and child.parent[0] == table.name:
                column = child.parent[1]
                if any(row[column] == old[0] for row in self.rows[child.name]):
                    raise ConstraintViolated(f"{old} has children")
