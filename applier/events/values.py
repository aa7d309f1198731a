"""Rows as Python values, for error messages and tests. A slow path: replay itself never decodes a value."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from applier.events.batch import Batch
from applier.events.column_types import ColumnType
from applier.events.json_value import decode_json, decode_json_diffs
from applier.events.rows import row_cells
from applier.events.scalars import (
    decimal_value,
    decode_date,
    decode_datetime2,
    decode_old_datetime,
    decode_old_time,
    decode_time2,
    decode_timestamp,
)
from applier.events.table_map import Column, TableMap

BINARY_COLLATION = 63
VALUE_CHARACTERS_MAX = 120
"""Of one value in a message."""

_INTEGERS = frozenset(
    {ColumnType.TINY, ColumnType.SHORT, ColumnType.INT24, ColumnType.LONG, ColumnType.LONGLONG}
)
_STRINGS = frozenset(
    {
        ColumnType.VARCHAR,
        ColumnType.VAR_STRING,
        ColumnType.STRING,
        ColumnType.TINY_BLOB,
        ColumnType.MEDIUM_BLOB,
        ColumnType.LONG_BLOB,
        ColumnType.BLOB,
    }
)
# Collation numbers by Python codec, from information_schema.collations. What is not here is shown as bytes.
_CODECS: tuple[tuple[str, tuple[range, ...]], ...] = (
    (
        "utf-8",
        (range(255, 324), range(224, 248), range(45, 47), range(192, 216), range(33, 34), range(83, 84)),
    ),
    ("utf-8", (range(76, 77), range(223, 224))),
    ("cp1252", (range(8, 9), range(5, 6), range(15, 16), range(31, 32), range(47, 50), range(94, 95))),
    ("ascii", (range(11, 12), range(65, 66))),
    (
        "utf-16-be",
        (range(35, 36), range(90, 91), range(128, 152), range(159, 160), range(54, 56), range(101, 125)),
    ),
    ("utf-16-le", (range(56, 57), range(62, 63))),
    ("utf-32-be", (range(60, 62), range(160, 184))),
    ("gb18030", (range(24, 25), range(28, 29), range(86, 88), range(248, 251))),
)


class CellState(IntEnum):
    """What a row image says about a column."""

    PRESENT = 0
    NULL = 1
    ABSENT = 2
    PARTIAL = 3
    """JSON: differences to the before image."""


class RowKind(IntEnum):
    """The numbers of `RowKind` in `writeset/hashing.pxd`."""

    INSERT = 0
    UPDATE = 1
    DELETE = 2


Cell = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row of the log. Images are {column label: value} without the columns that the log left out."""

    kind: RowKind
    table_map: TableMap
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def __str__(self) -> str:
        parts = [f"{self.kind.name} {self.table_map}"]
        if self.before is not None:
            parts.append(f"before {image_text(self.before)}")
        if self.after is not None:
            parts.append(f"after {image_text(self.after)}")
        return ", ".join(parts)


def row_change(batch: Batch, i: int) -> RowChange:
    """Row `i` of a decoded batch. Raises IndexError."""
    kind, table_map, before, after = row_cells(batch, i)
    return RowChange(
        RowKind(kind),
        table_map,
        None if before is None else decode_image(table_map, before),
        None if after is None else decode_image(table_map, after),
    )


def image_text(image: dict[str, Any]) -> str:
    """For a message: long values are cut."""
    return "(" + ", ".join(f"{label}={_shortened(repr(value))}" for label, value in image.items()) + ")"


def _shortened(text: str) -> str:
    if len(text) <= VALUE_CHARACTERS_MAX:
        return text
    return f"{text[:VALUE_CHARACTERS_MAX]}… ({len(text)} characters)"


def decode_image(table_map: TableMap, cells: Sequence[Cell]) -> dict[str, Any]:
    """{column label: value}; NULL is None, a partial JSON value a list of JsonDiff."""
    image: dict[str, Any] = {}
    for column, (state, data) in zip(table_map.columns, cells, strict=True):
        if state == CellState.NULL:
            image[column.label] = None
        elif state == CellState.PARTIAL:
            image[column.label] = _or_raw(data, lambda raw, _: decode_json_diffs(raw), column)
        elif state == CellState.PRESENT:
            image[column.label] = decode_value(column, data)
    return image


def decode_value(column: Column, data: bytes) -> Any:
    """The value as int, float, Decimal, str, bytes, a JSON value or (VECTOR) a list of floats.

    Dates and times are text as the server prints them, TIMESTAMP in UTC; ENUM and SET are their text if the
    log names the values, else the number; GEOMETRY is SRID and WKB. What cannot be decoded stays bytes.
    """
    return _or_raw(data, _decode, column)


def _or_raw(data: bytes, decode: Any, column: Column) -> Any:
    """A message must not fail over a value that it cannot show."""
    try:
        return decode(data, column)
    except (ValueError, IndexError, OverflowError, struct.error, ArithmeticError):
        return data


def _decode(data: bytes, column: Column) -> Any:
    kind = column.type
    if kind in _INTEGERS:
        return int.from_bytes(data, "little", signed=not column.unsigned)
    if kind in _STRINGS:
        return _string(data, column.collation_id)
    decoder = _DECODERS.get(kind)
    return decoder(data, column) if decoder is not None else data


def _string(data: bytes, collation_id: int | None) -> str | bytes:
    for codec, collations in _CODECS:
        if any(collation_id in some for some in collations):
            return data.decode(codec)
    return data


def _packed_fraction(decode: Any) -> Any:
    return lambda data, column: decode(data, column.metadata)


def _year(data: bytes, _: Column) -> int:
    return data[0] + 1900 if data[0] else 0


def _enum(data: bytes, column: Column) -> str | bytes | int:
    number = int.from_bytes(data, "little")
    if column.values is None or number > len(column.values):
        return number
    # 0 is the empty string that stands for an invalid value.
    return _string(column.values[number - 1], column.collation_id) if number else ""


def _set(data: bytes, column: Column) -> str | bytes | int:
    number = int.from_bytes(data, "little")
    if column.values is None or number >> len(column.values):
        return number
    chosen = [value for index, value in enumerate(column.values) if number >> index & 1]
    return _string(b",".join(chosen), column.collation_id)


_DECODERS: dict[ColumnType, Any] = {
    ColumnType.FLOAT: lambda data, _: struct.unpack("<f", data)[0],
    ColumnType.DOUBLE: lambda data, _: struct.unpack("<d", data)[0],
    ColumnType.NEWDECIMAL: lambda data, column: decimal_value(
        data, column.metadata >> 8, column.metadata & 0xFF
    ),
    ColumnType.YEAR: _year,
    ColumnType.BIT: lambda data, _: int.from_bytes(data, "big"),
    ColumnType.DATE: lambda data, _: decode_date(data),
    ColumnType.NEWDATE: lambda data, _: decode_date(data),
    ColumnType.TIME: lambda data, _: decode_old_time(data),
    ColumnType.DATETIME: lambda data, _: decode_old_datetime(data),
    ColumnType.TIMESTAMP: lambda data, _: decode_timestamp(int.from_bytes(data, "little")),
    ColumnType.TIME2: _packed_fraction(decode_time2),
    ColumnType.DATETIME2: _packed_fraction(decode_datetime2),
    ColumnType.TIMESTAMP2: lambda data, column: decode_timestamp(
        int.from_bytes(data[:4], "big"), data[4:], column.metadata
    ),
    ColumnType.ENUM: _enum,
    ColumnType.SET: _set,
    ColumnType.JSON: lambda data, _: decode_json(data),
    ColumnType.VECTOR: lambda data, _: list(struct.unpack(f"<{len(data) // 4}f", data)),
}
