"""Few values for each column, chosen to collide: equal to the server and not by their bytes, or nearly equal."""

from __future__ import annotations

from functools import cache
from random import Random

from tests.random_schemas.schema import BYTES, INTEGERS, TEXTS, Column

# Texts that some collation takes for one another. A column gets two or three of these groups.
TEXT_GROUPS = (
    ("a", "A", "á", "Á", "ä", "a\u0301", "Å", "ａ"),
    ("ae", "Ae", "æ", "Æ", "ä", "ǽ", "a\u00ade"),
    ("ss", "SS", "ß", "ẞ", "s", "s\u200ds", "ſs"),
    ("i", "I", "ı", "İ", "i\u0307", "ĳ", "ij", "IJ"),
    ("", " ", "  ", "\u00a0", "\u200d", "\x00", "\t", "\u3000"),
    ("x", "x ", "x  ", "x\x00", "x\t", "X ", "x\u00ad", " x"),
    ("ch", "Ch", "CH", "c h", "ll", "Ll", "č", "c\u030c", "aa", "å"),
    ("prefix-a", "PREFIX-B", "prefix-á", "prefix", "prefix ", "préfix-a"),
    ("σ", "ς", "Σ", "я", "Я", "ё", "е", "й", "и\u0306"),
    ("か", "カ", "が", "ガ", "ｶ", "か\u3099", "は", "ハ"),
    ("1", "１", "①", "½", "1/2", "01", "2", "²"),
    ("😀", "😁", "\U0001f469\u200d\U0001f4bb", "中", "啊", "阿", "한", "하"),
    ("fi", "ﬁ", "FI", "ﬀ", "ff", "ŉ", "ǆ", "dž"),
    ("z" * 30, "Z" * 30, "z" * 30 + " ", "z" * 29 + "y", "é" * 20, "É" * 20),
)
# Where a finer form than "any value" is proven: only with these can a conflict be missed for want of the exact one.
PLAIN_GROUPS = (
    ("a", "A", "a ", "A  ", "b", "ab", "AB "),
    ("prefix-a", "PREFIX-B", "prefix", "Prefix ", "prefix-b", "preFIX-A"),
    ("x", "X", "x ", "y", "Y", "Y  "),
    ("", " ", "  ", "0", "00", "1", "01"),
)
BYTE_VALUES = (
    "",
    "00",
    "0000",
    "20",
    "2000",
    "61",
    "6100",
    "6120",
    "41",
    "ff",
    "61626364",
    "61626365",
    "616263",
)
ZEROS = ("0e0", "-0e0")
FLOATS = ("1e0", "-1e0", "1.1e0", "0.1e0", "1e10", "3e38", "1e-40", "16777217e0")
DECIMALS = ("0", "-0.0", "1", "1.0", "1.10", "-1.5", "99.99", "123456789.5")
BITS = ("0", "1", "2", "5", "255", "256", "4096")
YEARS = ("0", "1970", "2024", "2155", "1901")
DATES = ("0000-00-00", "2024-02-29", "2024-00-00", "1000-01-01", "9999-12-31", "1970-01-01")
TIMES = ("00:00:00", "-00:00:01", "838:59:59", "12:00:00.5", "12:00:00.500001", "-12:30:00.25")
MOMENTS = (
    "2024-01-01 00:00:00",
    "2024-01-01 00:00:00.5",
    "2024-01-01 00:00:00.000001",
    "1971-01-01 00:00:01",
    "2038-01-19 03:14:07",
    "0000-00-00 00:00:00",
    "1999-12-31 23:59:59.999999",
)
JSONS = ("[1, 2]", "[2, 3]", '{"a": 1, "tags": [1, 2]}', '{"a": 2, "tags": [3]}', "null", '"x"', "1.0", "[]")
POINTS = ("POINT(0 0)", "POINT(1 1)", "POINT(1 -1)")
CHOICES = ("0", "1", "2", "3", "1", "2", "3")  # of ENUM and SET, by number
VECTORS = ("[1,2,3]", "[1,2,3.5]", "[0,0,0]", "[-0,0,0]")

INTEGER_LIMITS = {"tinyint": 7, "smallint": 15, "mediumint": 23, "int": 31, "bigint": 63}


def literal(chance: Random, column: Column, *, null_odds: float = 0.12) -> str:
    """SQL text of a value for the column. Not every column takes it: what fails on the source is not replayed."""
    if column.nullable and chance.random() < null_odds:
        return "NULL"
    if column.counts and chance.random() < 0.5:
        return "DEFAULT"
    return chance.choice(pool(column))


PLAIN_VALUES: dict[str, tuple[str, ...]] = {
    "decimal": DECIMALS,
    "bit": BITS,
    "year": YEARS,
    "enum": CHOICES,
    "set": CHOICES,
}
QUOTED_VALUES = {"date": DATES, "time": TIMES, "datetime": MOMENTS, "timestamp": MOMENTS, "json": JSONS}
FUNCTIONS = {"vector": ("STRING_TO_VECTOR", VECTORS), "point": ("ST_GeomFromText", POINTS)}


def alike(chance: Random, column: Column) -> str:
    """The value @v of the column, often with other bytes that are the same to some collation, prefix or type."""
    kind = column.data_type
    if kind in TEXTS:
        return chance.choice(("@v", "UPPER(@v)", "LOWER(@v)", "CONCAT(@v, ' ')", "CONCAT(LEFT(@v, 5), 'q')"))
    if kind in BYTES:
        return chance.choice(("@v", "CONCAT(@v, x'00')", "CONCAT(LEFT(@v, 2), x'71')", "LEFT(@v, 4)"))
    if kind in ("float", "double"):
        return chance.choice(("@v", "IF(@v = 0, -0e0, @v)", "IF(@v = 0, 0e0, @v)"))
    return "@v"


@cache
def pool(column: Column) -> tuple[str, ...]:
    """The values of a column; columns of one type share them, so that children find parents."""
    kind = column.data_type
    chance = Random(f"{column.column_type} {column.collation}")
    if kind in TEXTS:
        return _texts(chance, column)
    if kind in BYTES:
        return _bytes(chance, column)
    if kind in INTEGERS:
        return _integers(chance, column)
    if kind in ("float", "double"):
        return (*ZEROS, *chance.sample(FLOATS, 3))
    if kind in PLAIN_VALUES:
        return PLAIN_VALUES[kind]
    function, values = FUNCTIONS[kind] if kind in FUNCTIONS else ("", QUOTED_VALUES[kind])
    return tuple(f"{function}('{value}')" for value in values)


def _bytes(chance: Random, column: Column) -> tuple[str, ...]:
    values = [f"x'{value}'" for value in BYTE_VALUES]
    if "blob" in column.data_type:
        values += ["REPEAT(x'6162', 400)", "CONCAT(REPEAT(x'6162', 400), x'00')"]
    return tuple(chance.sample(values, 7))


def _integers(chance: Random, column: Column) -> tuple[str, ...]:
    bits = INTEGER_LIMITS[column.data_type]
    unsigned = "unsigned" in column.column_type
    extremes = [2 ** (bits + 1) - 1 if unsigned else -(2**bits), 2**bits - 1]
    common = [0, 1, 2, 3, 4, 5, *chance.sample(range(6, 120), 24 if column.name == "id" else 2)]
    return tuple(str(value) for value in common + extremes if not (unsigned and value < 0))


def _texts(chance: Random, column: Column) -> tuple[str, ...]:
    groups = PLAIN_GROUPS if chance.random() < 0.5 else TEXT_GROUPS
    values = [value for group in chance.sample(groups, 2) for value in chance.sample(group, 4)]
    if column.data_type.endswith("text"):
        values += ["z" * 500, "Z" * 500]
    return tuple("_utf8mb4 x'" + value.encode().hex() + "'" for value in values)
