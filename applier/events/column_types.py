"""Column types as the binary log names them, and how long their values are in a row image.

Source: MySQL's `enum_field_types` and the description of `Table_map_event`. A value is either of a fixed
number of bytes, or comes after its own length in `prefix_bytes` bytes, least significant first.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class ColumnType(IntEnum):
    """Type codes. STRING is CHAR and BINARY, BLOB is every BLOB and TEXT; ENUM and SET hide in STRING."""

    DECIMAL = 0
    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    NULL = 6
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    TYPED_ARRAY = 20
    VECTOR = 242
    JSON = 245
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    TINY_BLOB = 249
    MEDIUM_BLOB = 250
    LONG_BLOB = 251
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


class Layout(NamedTuple):
    """How long a value is: `fixed_bytes`, or what the `prefix_bytes` (1-4) bytes before it say when not 0."""

    prefix_bytes: int
    fixed_bytes: int


_FIXED_BYTES = {
    ColumnType.TINY: 1,
    ColumnType.SHORT: 2,
    ColumnType.LONG: 4,
    ColumnType.FLOAT: 4,
    ColumnType.DOUBLE: 8,
    ColumnType.NULL: 0,
    ColumnType.TIMESTAMP: 4,
    ColumnType.LONGLONG: 8,
    ColumnType.INT24: 3,
    ColumnType.DATE: 3,
    ColumnType.TIME: 3,
    ColumnType.DATETIME: 8,
    ColumnType.YEAR: 1,
    ColumnType.NEWDATE: 3,
}
# Whole bytes of a temporal value, before those of its fraction.
_TEMPORAL_BYTES = {ColumnType.TIMESTAMP2: 4, ColumnType.DATETIME2: 5, ColumnType.TIME2: 3}
_LENGTH_PREFIXED = frozenset(
    {
        ColumnType.TINY_BLOB,
        ColumnType.MEDIUM_BLOB,
        ColumnType.LONG_BLOB,
        ColumnType.BLOB,
        ColumnType.JSON,
        ColumnType.GEOMETRY,
        ColumnType.VECTOR,
    }
)
_ONE_METADATA_BYTE = _LENGTH_PREFIXED | _TEMPORAL_BYTES.keys() | {ColumnType.FLOAT, ColumnType.DOUBLE}
_TWO_METADATA_BYTES = frozenset(
    {
        ColumnType.VARCHAR,
        ColumnType.VAR_STRING,
        ColumnType.BIT,
        ColumnType.NEWDECIMAL,
        ColumnType.STRING,
        ColumnType.ENUM,
        ColumnType.SET,
    }
)
_LITTLE_ENDIAN_METADATA = frozenset({ColumnType.VARCHAR, ColumnType.VAR_STRING, ColumnType.BIT})
# Decimal digits are packed nine to four bytes; this is what the odd ones of them take.
_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_FRACTION_DIGITS_MAX = 6
_DECIMAL_DIGITS_MAX = 65

# What a signedness bit is kept for; YEAR has one too.
NUMERIC = frozenset(
    {
        ColumnType.YEAR,
        ColumnType.TINY,
        ColumnType.SHORT,
        ColumnType.INT24,
        ColumnType.LONG,
        ColumnType.LONGLONG,
        ColumnType.NEWDECIMAL,
        ColumnType.FLOAT,
        ColumnType.DOUBLE,
    }
)
# What a collation is kept for. VECTOR is a BLOB to the server here; JSON and GEOMETRY are not.
CHARACTER = frozenset(
    {
        ColumnType.VECTOR,
        ColumnType.STRING,
        ColumnType.VAR_STRING,
        ColumnType.VARCHAR,
        ColumnType.TINY_BLOB,
        ColumnType.MEDIUM_BLOB,
        ColumnType.LONG_BLOB,
        ColumnType.BLOB,
    }
)


def read_metadata(code: int, block: bytes, at: int) -> tuple[ColumnType, int, int]:
    """The column's real type, its metadata, and where the next column's metadata begins.

    `code` is the type byte of the table map, `block` its metadata block. ENUM and SET come out of their
    hiding place in STRING, and the metadata of STRING becomes its length in bytes: up to 1020, of which the
    length byte holds 255; the two missing bits are folded into the type byte.
    Raises ValueError for an unknown type or when the block is too short.
    """
    try:
        kind = ColumnType(code)
    except ValueError:
        raise ValueError(f"column type {code} is not known to this version") from None
    if kind is ColumnType.TYPED_ARRAY:
        return _read_array_metadata(block, at)
    size = 1 if kind in _ONE_METADATA_BYTE else 2 if kind in _TWO_METADATA_BYTES else 0
    raw = block[at : at + size]
    if len(raw) < size:
        raise ValueError("the column metadata end too early")
    at += size
    if kind is ColumnType.STRING:
        return *_string_type(raw[0], raw[1]), at
    if kind in (ColumnType.ENUM, ColumnType.SET):
        return kind, raw[1], at
    return kind, int.from_bytes(raw, "little" if kind in _LITTLE_ENDIAN_METADATA else "big"), at


def _string_type(first: int, second: int) -> tuple[ColumnType, int]:
    if first in (ColumnType.ENUM, ColumnType.SET):
        return ColumnType(first), second
    if first | 0x30 != ColumnType.STRING:
        raise ValueError(f"a string column claims to be of type {first}")
    return ColumnType.STRING, ((first & 0x30) ^ 0x30) << 4 | second


def _read_array_metadata(block: bytes, at: int) -> tuple[ColumnType, int, int]:
    """Element type and its own metadata; a VARCHAR element has three bytes of them."""
    if at >= len(block):
        raise ValueError("the column metadata end too early")
    if block[at] == ColumnType.TYPED_ARRAY:
        raise ValueError("an array of arrays")
    is_text = block[at] == ColumnType.VARCHAR
    end = at + 4 if is_text else read_metadata(block[at], block, at + 1)[2]
    if end > len(block):
        raise ValueError("the column metadata end too early")
    return ColumnType.TYPED_ARRAY, int.from_bytes(block[at:end], "little"), end


def layout(kind: ColumnType, metadata: int) -> Layout:
    """How long values of a column are. `kind` and `metadata` as `read_metadata` gives them.

    Raises ValueError for a type whose values cannot be walked and for metadata that no server writes.
    """
    prefix_bytes = fixed_bytes = 0
    if kind in _FIXED_BYTES:
        fixed_bytes = _FIXED_BYTES[kind]
        _require(metadata in (0, fixed_bytes), f"a {kind.name} column of {metadata} bytes")
    elif kind in (ColumnType.VARCHAR, ColumnType.VAR_STRING, ColumnType.STRING):
        prefix_bytes = 2 if metadata > 255 else 1
    elif kind in _LENGTH_PREFIXED:
        _require(1 <= metadata <= 4, f"a {kind.name} column with {metadata} length bytes")
        prefix_bytes = metadata
    elif kind in _TEMPORAL_BYTES:
        _require(metadata <= _FRACTION_DIGITS_MAX, f"a {kind.name} column with {metadata} digits of fraction")
        fixed_bytes = _TEMPORAL_BYTES[kind] + (metadata + 1) // 2
    elif kind is ColumnType.NEWDECIMAL:
        fixed_bytes = _decimal_bytes(metadata >> 8, metadata & 0xFF)
    elif kind is ColumnType.BIT:
        fixed_bytes = (metadata >> 8) + (1 if metadata & 0xFF else 0)
    elif kind in (ColumnType.ENUM, ColumnType.SET):
        fixed_bytes = metadata
    elif kind is ColumnType.TYPED_ARRAY:
        prefix_bytes = 4
    else:
        raise ValueError(f"a column of the type {kind.name}, which servers before 5.0 wrote")
    return Layout(prefix_bytes, fixed_bytes)


def _require(holds: bool, detail: str) -> None:
    if not holds:
        raise ValueError(detail)


def _decimal_bytes(precision: int, scale: int) -> int:
    _require(
        scale <= precision and 1 <= precision <= _DECIMAL_DIGITS_MAX, f"a DECIMAL({precision},{scale}) column"
    )
    whole, whole_odd = divmod(precision - scale, 9)
    fraction, fraction_odd = divmod(scale, 9)
    return 4 * (whole + fraction) + _DIGIT_BYTES[whole_odd] + _DIGIT_BYTES[fraction_odd]
