"""Table map events: what the row events after them are about.

Parsed once per distinct content, the bytes after the table id: only the id differs between maps of one table.
Source: the description of `Table_map_event` in MySQL's source documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from threading import Lock
from typing import NamedTuple

from applier.events.column_types import CHARACTER, NUMERIC, ColumnType, Layout, layout, read_metadata

TABLE_MAPS_MAX = 4096
"""Table maps that are remembered."""

COLUMNS_MAX = 4096
"""Of a MySQL table."""

COLUMNS_REMEMBERED_MAX = 1 << 16
"""Of all table maps that are remembered. A column takes some 320 bytes, and as little as one in the log."""

COLUMN_CONTENT_BYTES = 16
"""Names and values take some twenty times what they are in the log: so much of it counts as a column."""

VALUES_MAX = 65_535
"""Of an ENUM; a SET has fewer."""


class KeyPart(NamedTuple):
    """A column of the primary key: its position from 0, its prefix in characters (0: the whole column)."""

    position: int
    prefix_characters: int


@dataclass(frozen=True, slots=True)
class Column:
    """One column. What is None is not in the log: it needs `binlog_row_metadata=FULL` on the source, except
    `unsigned`, `collation_id` (of text) and `geometry_type`, which are always there since MySQL 8.0."""

    position: int
    """From 0."""
    type: ColumnType
    metadata: int
    layout: Layout
    nullable: bool
    name: str | None = None
    unsigned: bool | None = None
    collation_id: int | None = None
    """63 is binary."""
    values: tuple[bytes, ...] | None = None
    """Of ENUM and SET, in the column's character set."""
    geometry_type: int | None = None
    """0 is any geometry, 1 POINT … as in WKB."""
    visible: bool | None = None
    dimensions: int | None = None
    """Of VECTOR."""

    @property
    def label(self) -> str:
        """The name, or `@1` … as mysqlbinlog writes it when the log has none."""
        return self.name if self.name is not None else f"@{self.position + 1}"


@dataclass(frozen=True, slots=True, eq=False)
class TableMap:
    """A table at one place of the log. Two with the same content are one object, so compare with `is`."""

    content: bytes
    """The event's body after the table id, without the checksum."""
    flags: int
    schema: str
    table: str
    columns: tuple[Column, ...]
    primary_key: tuple[KeyPart, ...] | None
    """None when the log does not say (`binlog_row_metadata=MINIMAL`) or the table has none."""

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def weight(self) -> int:
        """What it takes, in columns."""
        return len(self.columns) + len(self.content) // COLUMN_CONTENT_BYTES


class _Field(IntEnum):
    SIGNEDNESS = 1
    DEFAULT_CHARSET = 2
    COLUMN_CHARSET = 3
    COLUMN_NAME = 4
    SET_STR_VALUE = 5
    ENUM_STR_VALUE = 6
    GEOMETRY_TYPE = 7
    SIMPLE_PRIMARY_KEY = 8
    PRIMARY_KEY_WITH_PREFIX = 9
    ENUM_AND_SET_DEFAULT_CHARSET = 10
    ENUM_AND_SET_COLUMN_CHARSET = 11
    COLUMN_VISIBILITY = 12
    VECTOR_DIMENSIONALITY = 13


class _Reader:
    """Takes things off the front of a byte string; ValueError when they are not there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise ValueError(f"{length} bytes expected at {self.at}, {len(self.data) - self.at} left")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def packed(self) -> int:
        """A length-encoded integer."""
        first = self.take(1)[0]
        if first < 251:
            return first
        if first in (251, 255):
            raise ValueError(f"a length-encoded integer begins with {first}")
        return int.from_bytes(self.take({252: 2, 253: 3, 254: 8}[first]), "little")

    def packed_bytes(self) -> bytes:
        return self.take(self.packed())

    def packed_until_end(self) -> Iterator[int]:
        while self.at < len(self.data):
            yield self.packed()

    def name(self) -> str:
        """A length byte, the name, a zero byte."""
        text = self.take(self.take(1)[0])
        self.take(1)
        return _text(text)


def _text(raw: bytes) -> str:
    """Identifiers are always UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"the name {raw!r} is not UTF-8") from None


class _Remembered:
    """Table maps by their content. All are forgotten when there are too many: rarely, and they are parsed again."""

    def __init__(self) -> None:
        self._maps: dict[bytes, TableMap] = {}
        self._columns = 0
        self._lock = Lock()

    def get(self, content: bytes) -> TableMap | None:
        return self._maps.get(content)

    def add(self, content: bytes, table_map: TableMap) -> TableMap:
        """Returns the one that is remembered: another thread may have been first."""
        with self._lock:
            if len(self._maps) >= TABLE_MAPS_MAX or self._columns > COLUMNS_REMEMBERED_MAX:
                self._maps.clear()
                self._columns = 0
            self._columns += table_map.weight
            return self._maps.setdefault(content, table_map)


_remembered = _Remembered()


def parse_table_map(content: bytes) -> TableMap:
    """Parses the body of a table map event from after the table id. Contents are remembered, up to a limit.

    Raises ValueError, naming the table as far as it is known, when the bytes are not a table map.
    """
    found = _remembered.get(content)
    return _remembered.add(content, _parse(content)) if found is None else found


def _parse(content: bytes) -> TableMap:
    reader = _Reader(content)
    flags = int.from_bytes(reader.take(2), "little")
    schema, table = reader.name(), reader.name()
    try:
        count = reader.packed()
        if count > COLUMNS_MAX:
            raise ValueError(f"{count} columns")
        codes = reader.take(count)
        block = reader.packed_bytes()
        null_bits = reader.take((count + 7) // 8)
        optional = _Optional(_column_types(codes, block))
        optional.read(reader)
    except ValueError as error:
        raise ValueError(f"table map of {schema}.{table}: {error}") from None
    columns = tuple(
        Column(
            position=position,
            type=kind,
            metadata=metadata,
            layout=layout(kind, metadata),
            nullable=bool(null_bits[position >> 3] >> (position & 7) & 1),
            name=optional.names.get(position),
            unsigned=optional.unsigned.get(position),
            collation_id=optional.collations.get(position),
            values=optional.values.get(position),
            geometry_type=optional.geometry_types.get(position),
            visible=optional.visible.get(position),
            dimensions=optional.dimensions.get(position),
        )
        for position, (kind, metadata) in enumerate(optional.types)
    )
    return TableMap(content, flags, schema, table, columns, optional.primary_key)


def _column_types(codes: bytes, block: bytes) -> list[tuple[ColumnType, int]]:
    types = []
    at = 0
    for number, code in enumerate(codes, 1):
        try:
            kind, metadata, at = read_metadata(code, block, at)
            layout(kind, metadata)
        except ValueError as error:
            raise ValueError(f"column {number}: {error}") from None
        types.append((kind, metadata))
    if at != len(block):
        raise ValueError(f"{len(block) - at} bytes of column metadata too many")
    return types


class _Optional:
    """The optional metadata: type, length, value. A value is about the columns of one kind, in order."""

    def __init__(self, types: list[tuple[ColumnType, int]]) -> None:
        self.types = types
        self.names: dict[int, str] = {}
        self.unsigned: dict[int, bool] = {}
        self.collations: dict[int, int] = {}
        self.values: dict[int, tuple[bytes, ...]] = {}
        self.geometry_types: dict[int, int] = {}
        self.visible: dict[int, bool] = {}
        self.dimensions: dict[int, int] = {}
        self.primary_key: tuple[KeyPart, ...] | None = None

    def read(self, reader: _Reader) -> None:
        """Fields of unknown types are skipped: a newer server may write more."""
        choices = frozenset({ColumnType.ENUM, ColumnType.SET})
        handlers: dict[int, Callable[[_Reader], None]] = {
            _Field.SIGNEDNESS: lambda field: self._bits(field, self._of(NUMERIC), self.unsigned),
            _Field.DEFAULT_CHARSET: lambda field: self._default_collation(field, CHARACTER),
            _Field.COLUMN_CHARSET: lambda field: self._packed(field, CHARACTER, self.collations),
            _Field.COLUMN_NAME: self._column_names,
            _Field.SET_STR_VALUE: lambda field: self._values(field, ColumnType.SET),
            _Field.ENUM_STR_VALUE: lambda field: self._values(field, ColumnType.ENUM),
            _Field.GEOMETRY_TYPE: lambda field: self._packed(
                field, {ColumnType.GEOMETRY}, self.geometry_types
            ),
            _Field.SIMPLE_PRIMARY_KEY: self._simple_primary_key,
            _Field.PRIMARY_KEY_WITH_PREFIX: self._prefixed_primary_key,
            _Field.ENUM_AND_SET_DEFAULT_CHARSET: lambda field: self._default_collation(field, choices),
            _Field.ENUM_AND_SET_COLUMN_CHARSET: lambda field: self._packed(field, choices, self.collations),
            _Field.COLUMN_VISIBILITY: lambda field: self._bits(field, range(len(self.types)), self.visible),
            _Field.VECTOR_DIMENSIONALITY: lambda field: self._packed(
                field, {ColumnType.VECTOR}, self.dimensions
            ),
        }
        while reader.at < len(reader.data):
            number = reader.take(1)[0]
            field = _Reader(reader.packed_bytes())
            if number in handlers:
                handlers[number](field)

    def _of(self, kinds: Set[ColumnType]) -> list[int]:
        return [position for position, (kind, _) in enumerate(self.types) if kind in kinds]

    def _bits(self, field: _Reader, positions: Sequence[int], into: dict[int, bool]) -> None:
        """One bit per column, the first in the highest bit of the first byte."""
        raw = field.take((len(positions) + 7) // 8)
        for index, position in enumerate(positions):
            into[position] = bool(raw[index >> 3] << (index & 7) & 0x80)

    def _packed(self, field: _Reader, kinds: Set[ColumnType], into: dict[int, int]) -> None:
        for position in self._of(kinds):
            into[position] = field.packed()

    def _default_collation(self, field: _Reader, kinds: Set[ColumnType]) -> None:
        """The commonest collation, then pairs (number among these columns, collation) for the others."""
        positions = self._of(kinds)
        default = field.packed()
        self.collations.update(dict.fromkeys(positions, default))
        for index in field.packed_until_end():
            if index >= len(positions):
                raise ValueError(f"collation of text column {index} of {len(positions)}")
            self.collations[positions[index]] = field.packed()

    def _column_names(self, field: _Reader) -> None:
        for position in range(len(self.types)):
            self.names[position] = _text(field.packed_bytes())

    def _values(self, field: _Reader, kind: ColumnType) -> None:
        for position in self._of({kind}):
            count = field.packed()
            if count > VALUES_MAX:
                raise ValueError(f"{count} values")
            self.values[position] = tuple(field.packed_bytes() for _ in range(count))

    def _simple_primary_key(self, field: _Reader) -> None:
        self._set_primary_key(KeyPart(position, 0) for position in field.packed_until_end())

    def _prefixed_primary_key(self, field: _Reader) -> None:
        self._set_primary_key(KeyPart(position, field.packed()) for position in field.packed_until_end())

    def _set_primary_key(self, parts: Iterator[KeyPart]) -> None:
        self.primary_key = tuple(islice(parts, len(self.types) + 1))
        if len(self.primary_key) > len(self.types):
            raise ValueError(f"a primary key of more parts than the {len(self.types)} columns")
        if any(part.position >= len(self.types) for part in self.primary_key):
            raise ValueError(f"primary key over columns {[part.position for part in self.primary_key]}")
