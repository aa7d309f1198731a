"""The server's binary JSON to Python values, and the differences of partial JSON updates.

Slow path: for messages and tests. Source: the description of `json_binary` and `Json_diff` in MySQL's source
documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from applier.events.column_types import ColumnType
from applier.events.scalars import date_text, datetime_text, decimal_value, time_text

SMALL_OBJECT, LARGE_OBJECT, SMALL_ARRAY, LARGE_ARRAY, LITERAL = range(5)
INT16, UINT16, INT32, UINT32, INT64, UINT64, DOUBLE, STRING = range(5, 13)
OPAQUE = 15

_SCALARS = {INT16: "<h", UINT16: "<H", INT32: "<i", UINT32: "<I", INT64: "<q", UINT64: "<Q", DOUBLE: "<d"}
_INLINED_WHEN_SMALL = frozenset({LITERAL, INT16, UINT16})
_INLINED_WHEN_LARGE = _INLINED_WHEN_SMALL | {INT32, UINT32}
_LITERALS = {0: None, 1: True, 2: False}
_DEPTH_MAX = 110
"""The server allows 100 levels."""


@dataclass(frozen=True, slots=True)
class JsonDiff:
    """One change to a document: `operation` is REPLACE, INSERT or REMOVE, `path` as in the SQL functions."""

    operation: str
    path: str
    value: Any = None


def decode_json(data: bytes) -> Any:
    """A JSON column's value: dict, list, str, int, float, bool or None. The empty value is None (JSON null).

    What JSON has no type for becomes the text that the server prints (dates, times, decimals) or bytes.
    Raises ValueError when the bytes are not binary JSON.
    """
    if not data:
        return None
    try:
        return _Decoder(data).value(data[0], memoryview(data)[1:])
    except (IndexError, struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"not binary JSON: {error!r}") from None


def decode_json_diffs(data: bytes) -> list[JsonDiff]:
    """A JSON column's value in a partial update. Raises ValueError when the bytes are not differences."""
    diffs = []
    at = 0
    while at < len(data):
        try:
            operation = ("REPLACE", "INSERT", "REMOVE")[data[at]]
            length, at = _packed(data, at + 1)
            path, at = data[at : at + length].decode("utf-8"), at + length
            value = None
            if operation != "REMOVE":
                length, at = _packed(data, at)
                value, at = decode_json(data[at : at + length]), at + length
        except (IndexError, UnicodeDecodeError) as error:
            raise ValueError(f"not JSON differences: {error!r}") from None
        diffs.append(JsonDiff(operation, path, value))
    return diffs


def _packed(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer, and where it ends."""
    size = {252: 2, 253: 3, 254: 8}.get(data[at], 0)
    if size == 0:
        return data[at], at + 1
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


class _Decoder:
    """One document. Every value and every byte of a text is there once, so one that seems to hold more than it has
    bytes is corrupt: what refers to the same bytes over and over might never come to an end, or fill the memory."""

    def __init__(self, data: bytes) -> None:
        self.bytes_left = len(data)

    def value(self, kind: int, data: memoryview, depth: int = 0) -> Any:
        self._take(1)
        if depth > _DEPTH_MAX:
            raise ValueError("a JSON document that contains itself")
        if kind <= LARGE_ARRAY:
            return self._container(kind, data, depth)
        if kind == LITERAL:
            return _LITERALS[data[0]]
        if kind == STRING:
            length, at = _variable_length(data, 0)
            return str(self._bytes(data, at, length), "utf-8")
        if kind == OPAQUE:
            length, at = _variable_length(data, 1)
            return _opaque(data[0], self._bytes(data, at, length))
        return struct.unpack_from(_SCALARS[kind], data)[0]

    def _take(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise ValueError("a JSON document that contains itself, or more than it has bytes")

    def _bytes(self, data: memoryview, at: int, length: int) -> bytes:
        self._take(length)
        return bytes(_exactly(data, at, length))

    def _container(self, kind: int, data: memoryview, depth: int) -> Any:
        """Count, bytes, an object's keys (offset, length), the values (type, offset or inlined value)."""
        size = 4 if kind in (LARGE_OBJECT, LARGE_ARRAY) else 2
        count, total = (int.from_bytes(data[at : at + size], "little") for at in (0, size))
        if total > len(data) or count > total:
            raise ValueError(f"a JSON container of {count} values in {total} bytes, {len(data)} are there")
        at = 2 * size
        if kind in (SMALL_ARRAY, LARGE_ARRAY):
            return list(self._values(data[:total], at, size, count, depth))
        keys = [self._key(data, at + number * (size + 2), size) for number in range(count)]
        at += count * (size + 2)
        return dict(zip(keys, self._values(data[:total], at, size, count, depth), strict=True))

    def _key(self, data: memoryview, entry: int, size: int) -> str:
        start = int.from_bytes(_exactly(data, entry, size), "little")
        length = int.from_bytes(_exactly(data, entry + size, 2), "little")
        return str(self._bytes(data, start, length), "utf-8")

    def _values(self, data: memoryview, at: int, size: int, count: int, depth: int) -> Iterator[Any]:
        inlined = _INLINED_WHEN_LARGE if size == 4 else _INLINED_WHEN_SMALL
        for entry in range(at, at + count * (size + 1), size + 1):
            kind, raw = data[entry], _exactly(data, entry + 1, size)
            if kind not in inlined:
                raw = data[int.from_bytes(raw, "little") :]
            yield self.value(kind, raw, depth + 1)


def _exactly(data: memoryview, at: int, length: int) -> memoryview:
    taken = data[at : at + length]
    if len(taken) < length:
        raise ValueError("a JSON value is cut off")
    return taken


def _variable_length(data: memoryview, at: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first, the high bit says that more follow; five bytes at most."""
    length = 0
    for shift in range(0, 35, 7):
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return length, at
    raise ValueError("a JSON length of more than five bytes")


def _opaque(kind: int, data: bytes) -> Any:
    if kind == ColumnType.NEWDECIMAL:
        return str(decimal_value(data[2:], data[0], data[1]))
    if kind not in (ColumnType.DATE, ColumnType.DATETIME, ColumnType.TIMESTAMP, ColumnType.TIME):
        return data
    if len(data) < 8:
        raise ValueError("a JSON value is cut off")
    packed = int.from_bytes(data[:8], "little", signed=True)
    whole, microseconds = abs(packed) >> 24, abs(packed) & 0xFFFFFF
    if kind == ColumnType.TIME:
        return time_text(packed < 0, whole, f"{microseconds:06d}")
    if kind == ColumnType.DATE:
        return date_text(whole >> 22, whole >> 17 & 31)
    return datetime_text(whole, f"{microseconds:06d}")
