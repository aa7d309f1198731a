"""What transactions of a log need of each other, worked out from the values of their rows: no hash, no index.

The keys come straight from information_schema, the values from the slow path of the decoder; two dicts that never
forget hold the last writer and the last sharer of each key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from applier.events.batch import Batch
from applier.events.transaction import TransactionFlag
from applier.events.values import RowChange, RowKind, row_change
from applier.sandbox import Server

Table = tuple[str, str]
Columns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """Of one table, by column names; the first of `unique` is the identity when `has_identity`."""

    unique: tuple[Columns, ...] = ()
    has_identity: bool = False
    foreign: tuple[tuple[Columns, Table, Columns], ...] = ()
    is_parent: bool = False


@dataclass(slots=True)
class Touched:
    """By one transaction. `shared` and `exclusive` hold (table, columns, values)."""

    exclusive: set[Any] = field(default_factory=set)
    shared: set[Any] = field(default_factory=set)
    tables: set[Table] = field(default_factory=set)
    barrier: bool = False


def keys_of(server: Server) -> dict[Table, Keys]:
    """Of every table: primary key and unique keys without expressions, foreign keys."""
    unique: dict[Table, dict[str, list[tuple[str, bool]]]] = defaultdict(lambda: defaultdict(list))
    for schema, table, name, column, nullable in server.execute(
        "SELECT table_schema, table_name, index_name, column_name, nullable FROM information_schema.statistics"
        " WHERE non_unique = 0 AND table_schema NOT IN ('mysql', 'sys')"
        " ORDER BY table_schema, table_name, index_name <> 'PRIMARY', nullable, index_name, seq_in_index"
    ):
        unique[schema, table][name].append((column, nullable == "YES"))
    foreign: dict[Table, dict[str, list[tuple[str, Table, str]]]] = defaultdict(lambda: defaultdict(list))
    for schema, table, name, column, parent_schema, parent, parent_column in server.execute(
        "SELECT table_schema, table_name, constraint_name, column_name, referenced_table_schema,"
        " referenced_table_name, referenced_column_name FROM information_schema.key_column_usage"
        " WHERE referenced_table_name IS NOT NULL"
        " ORDER BY table_schema, table_name, constraint_name, ordinal_position"
    ):
        foreign[schema, table][name].append((column, (parent_schema, parent), parent_column))
    parents = {parts[0][1] for keys in foreign.values() for parts in keys.values()}
    return {
        table: Keys(
            unique=tuple(tuple(column for column, _ in parts) for parts in unique[table].values()),
            has_identity=any(not any(nullable for _, nullable in parts) for parts in unique[table].values()),
            foreign=tuple(
                (tuple(p[0] for p in parts), parts[0][1], tuple(p[2] for p in parts))
                for parts in foreign[table].values()
            ),
            is_parent=table in parents,
        )
        for table in {*unique, *foreign, *parents}
    }


def transactions_of(batch: Batch, keys: Mapping[Table, Keys]) -> Iterator[tuple[int, Touched]]:
    """Sequence number and touches of each transaction of a decoded batch."""
    for number in range(len(batch)):
        info = batch.transaction(number)
        touched = Touched(barrier=bool(info.flags & TransactionFlag.BARRIER))
        for row in range(info.row_first, info.row_first + info.row_count):
            change = row_change(batch, row)
            table = (change.table_map.schema, change.table_map.table)
            touched.tables.add(table)
            _touch(touched, table, keys.get(table, Keys()), change)
        yield info.sequence_number, touched


def _touch(touched: Touched, table: Table, keys: Keys, change: RowChange) -> None:
    images = [image for image in (change.before, change.after) if image is not None]
    if not keys.has_identity:
        (touched.shared if change.kind is RowKind.INSERT else touched.exclusive).add((table, (), ()))
    for position, columns in enumerate(keys.unique):
        values = [_values(image, columns) for image in images]
        identity = keys.has_identity and position == 0
        if identity or len(set(values)) < len(values) == 2:
            values = values if identity else []
        touched.exclusive.update((table, columns, value) for value in values if None not in value)
    for columns, parent, parent_columns in keys.foreign:
        values = [_values(image, columns) for image in images]
        if len(values) == 1 or values[0] != values[1]:
            touched.shared.update((parent, parent_columns, value) for value in values if None not in value)


def _values(image: Mapping[str, Any], columns: Columns) -> tuple[Any, ...]:
    """Text is compared as the collations of these tests do: ASCII without case."""
    return tuple(value.lower() if isinstance(value := image[column], str) else value for column in columns)


@dataclass(slots=True)
class ExactDependencies:
    """`siblings_conflict`: sharers are taken for writers, as the server does."""

    siblings_conflict: bool = False
    writers: dict[Any, int] = field(default_factory=dict)
    sharers: dict[Any, int] = field(default_factory=dict)
    floor: int = 0

    def next(self, number: int, touched: Touched) -> int:
        """The highest sequence number that the transaction needs; transactions come in log order."""
        exclusive, shared = touched.exclusive, touched.shared - touched.exclusive
        if self.siblings_conflict:
            exclusive, shared = exclusive | shared, set()
        needed = max(
            self.floor,
            *(self.writers.get(key, 0) for key in exclusive | shared),
            *(self.sharers.get(key, 0) for key in exclusive),
            0,
        )
        self.writers.update(dict.fromkeys(exclusive, number))
        self.sharers.update(dict.fromkeys(shared, number))
        if touched.barrier:
            self.floor = number
            return number - 1
        return needed
