"""SQL text of a comparison: a row as one string that no other row has, its checksum, ranges of keys.

No connection here. The servers compute, we only compose; the same text runs on both sides.

A row becomes a string in which every column is either a number, a time or hexadecimal digits (whose text has no
comma), or a byte string behind its length; a NULL is the letter N, which none has. So no two different rows share a
string.
SHA2 and not MD5: MySQL 9.6 took MD5 and SHA1 out of the server (they need a component there).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from applier.verify.definitions import Column, Table, qualified, quoted

# One row's string has to stay far below max_allowed_packet: above it CONCAT_WS gives NULL. Columns beyond
# this budget go in as their digest.
INLINE_BYTES_MAX = 256 << 10

# Shorter strings go in as hexadecimal digits, one function instead of three: a digest of many of them is a quarter
# cheaper (measured on TPC-C's stock and customer).
HEX_BYTES_MAX = 512

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
TEMPORAL = frozenset({"date", "datetime", "timestamp", "time"})
NUMBERS_OF_BITS = frozenset({"bit", "enum", "set"})
TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
STRINGS = TEXTS | {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}

# Python's names of the character sets whose text we can show; others are shown in hexadecimal.
CODECS = {
    "utf8mb4": "utf-8",
    "utf8mb3": "utf-8",
    "utf8": "utf-8",
    "ascii": "ascii",
    "latin1": "cp1252",
    "utf16": "utf-16-be",
    "ucs2": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
}

# What tells a row from others: its key columns as `ValueColumn.fetch` gives them, or, without a key, its digest.
KeyValues = tuple[str, ...]
NUMBER_CHARACTERS_MAX = 400  # DOUBLE(255,30) has the most
KeyShown = dict[str, int | str]


# --- a column, exactly ---------------------------------------------------------------------------------


def exact_number(column: Column) -> str | None:
    """An expression whose text has no comma and tells any two values apart, or None for byte strings."""
    name = quoted(column.name)
    if column.data_type in NUMBERS_OF_BITS:
        # The number, not the text: an ENUM may have '' both as a member and as its error value.
        return f"CAST({name} AS UNSIGNED)"
    if column.data_type == "float":
        # FLOAT prints 6 digits, which is lossy. As a DOUBLE it prints 16; any FLOAT needs 9.
        return f"CAST({name} AS DOUBLE)"
    if column.data_type == "double":
        # Prints the shortest text that reads back the same, but DOUBLE(M,D) only D digits: JSON has them all.
        return f"CAST(JSON_ARRAY({name}) AS CHAR)" if "(" in column.column_type else name
    if column.data_type in INTEGERS or column.data_type in TEMPORAL or column.data_type == "decimal":
        return name
    return None


def _parts(column: Column, inline: bool) -> list[str]:
    number = exact_number(column)
    if number is not None:
        return [f"IFNULL({number},'N')" if column.nullable else number]
    name = quoted(column.name)
    as_bytes = f"CAST({name} AS BINARY)"
    if column.data_type in STRINGS and column.bytes_max <= HEX_BYTES_MAX:
        return [f"IFNULL(HEX({name}),'N')" if column.nullable else f"HEX({name})"]
    if not inline:
        digest = f"SHA2({as_bytes},256)"
        return [f"IFNULL({digest},'N')" if column.nullable else digest]
    # The length of the bytes, not LENGTH(column): a column's own LENGTH() of VECTOR or JSON need not agree.
    if column.nullable:
        return [f"IFNULL(LENGTH({as_bytes}),'N')", f"IFNULL({as_bytes},'')"]
    return [f"LENGTH({as_bytes})", as_bytes]


def column_digest(column: Column) -> str:
    """An expression: 64 hexadecimal digits that tell any two values of the column apart."""
    return _digest(_parts(column, inline=False))


def row_digest(table: Table) -> str:
    """An expression: 64 hexadecimal digits that tell any two rows of the table apart."""
    parts: list[str] = []
    budget = INLINE_BYTES_MAX
    for column in table.columns:
        budget -= column.bytes_max
        parts += _parts(column, inline=budget >= 0)
        if budget < 0:
            budget += column.bytes_max
    return _digest(parts)


def _digest(parts: Sequence[str]) -> str:
    # A binary separator: no column is converted to the connection's character set.
    return f"SHA2(CONCAT_WS(_binary',',{','.join(parts)}),256)"


# --- keys ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """A column whose values travel to us and back: of the key that rows are told apart by, or of a row to write."""

    column: Column

    @property
    def fetch(self) -> str:
        """An expression whose text, through `literal`, is the same value again."""
        number = exact_number(self.column)
        if number is None:
            return f"HEX(CAST({quoted(self.column.name)} AS BINARY))"
        return f"CONCAT({number})"

    @property
    def fetch_whole(self) -> str:
        """The same for a SELECT DISTINCT, whose temporary table cuts the text of a DOUBLE or a DECIMAL to the length
        that the server thinks it has."""
        if exact_number(self.column) is None:
            return self.fetch
        return f"CAST({self.fetch} AS CHAR({NUMBER_CHARACTERS_MAX}))"

    @property
    def folds(self) -> bool:
        """Whether different bytes can be the same key."""
        collation = self.column.collation
        return collation is not None and collation != "binary"

    def literal(self, value: str) -> str:
        kind = self.column.data_type
        if kind in INTEGERS or kind in NUMBERS_OF_BITS or kind == "decimal":
            return value
        if kind in ("float", "double"):
            plain = value.strip("[]")
            # Without an exponent the text would be a DECIMAL, and compared as one.
            return plain if "e" in plain.lower() else f"{plain}e0"
        if kind in TEMPORAL:
            return f"'{value}'"
        if kind == "json":
            return f"_utf8mb4 X'{value}'"
        introducer = f"_{self.column.charset}" if self.column.charset else "_binary"
        return f"{introducer} X'{value}'"

    def shown(self, value: str) -> int | str:
        kind = self.column.data_type
        if kind in INTEGERS or kind in NUMBERS_OF_BITS:
            return int(value)
        if exact_number(self.column) is not None:
            return value.strip("[]")
        codec = CODECS.get(self.column.charset or "")
        try:
            return bytes.fromhex(value).decode(codec) if codec else f"0x{value}"
        except UnicodeDecodeError:
            return f"0x{value}"


def key_columns(table: Table) -> tuple[ValueColumn, ...]:
    """Those of the table's key; none for a table without a usable one."""
    by_name = {column.name: column for column in table.columns}
    return tuple(ValueColumn(by_name[name]) for name in table.key)


def shown_key(table: Table, values: KeyValues) -> KeyShown:
    pairs = zip(key_columns(table), values, strict=True)
    return {key.column.name: key.shown(value) for key, value in pairs}


def _beyond(keys: Sequence[ValueColumn], values: KeyValues, sign: str) -> str:
    """`(a, b) > (x, y)` written out: only so does the range optimizer use the index."""
    terms, equal = [], ""
    for key, value in zip(keys, values, strict=True):
        name, literal = quoted(key.column.name), key.literal(value)
        terms.append(f"({equal}{name}{sign}{literal})")
        equal += f"{name}={literal} AND "
    return " OR ".join(terms)


def equals(table: Table, values: KeyValues) -> str:
    """The row with this key, as the server's collations see it."""
    pairs = zip(key_columns(table), values, strict=True)
    return " AND ".join(f"{quoted(key.column.name)}={key.literal(value)}" for key, value in pairs)


def where_range(table: Table, lower: KeyValues | None, upper: KeyValues | None) -> str:
    """Rows whose key is above `lower` and not above `upper`; an end that is None is open."""
    keys = key_columns(table)
    terms = []
    if lower is not None:
        terms.append(f"({_beyond(keys, lower, '>')})")
    if upper is not None:
        terms.append(f"({_beyond(keys, upper, '<')} OR ({equals(table, upper)}))")
    return f" WHERE {' AND '.join(terms)}" if terms else ""


def where_keys(table: Table, keys: Sequence[KeyValues]) -> str:
    """Rows with one of these keys, or one of these digests."""
    if not table.key:
        digests = ",".join(f"'{digest}'" for (digest,) in keys)
        return f" WHERE {row_digest(table)} IN ({digests})"
    return " WHERE " + " OR ".join(f"({equals(table, values)})" for values in keys)


# --- statements ----------------------------------------------------------------------------------------


def _from(table: Table) -> str:
    index = f" FORCE INDEX ({quoted(table.unique.index)})" if table.unique.index else ""
    return f" FROM {qualified(table)}{index}"


def _order(table: Table) -> str:
    names = (f"{quoted(table.name)}.{quoted(name)}" for name in table.key)
    return f" ORDER BY {','.join(names)}"


def checksum_statement(table: Table, where: str) -> str:
    """Count and checksum of the rows, whatever their order."""
    return f"SELECT {_checksum(table)}{_from(table)}{where}"


def _checksum(table: Table) -> str:
    """Rows with a key are all different, so XOR loses nothing. Without a key two equal rows would cancel each
    other out: there the sum of 64 bits of each digest (more would need the digest, which is what costs, twice)."""
    digest = row_digest(table)
    if table.key:
        return f"COUNT(*),HEX(BIT_XOR(UNHEX({digest})))"
    return f"COUNT(*),SUM(CAST(CONV(RIGHT({digest},16),16,10) AS UNSIGNED))"


def boundary_statement(table: Table, where: str, rows: int) -> str:
    """The key of the `rows`-th row (1 is the first); nothing when there are fewer."""
    columns = ",".join(key.fetch for key in key_columns(table))
    return f"SELECT {columns}{_from(table)}{where}{_order(table)} LIMIT 1 OFFSET {rows - 1}"


def last_statement(table: Table, rows: int) -> str:
    """The key of the `rows`-th row from the end; nothing when there are fewer."""
    columns = ",".join(key.fetch for key in key_columns(table))
    order = ",".join(f"{quoted(table.name)}.{quoted(name)} DESC" for name in table.key)
    return f"SELECT {columns}{_from(table)} ORDER BY {order} LIMIT 1 OFFSET {rows - 1}"


def rows_statement(table: Table, where: str) -> str:
    """Digest and key of each row."""
    columns = ",".join([row_digest(table), *(key.fetch for key in key_columns(table))])
    return f"SELECT {columns}{_from(table)}{where}"


def keys_statement(table: Table, where: str) -> str:
    """One column of each row, which no index but the clustered one has for certain."""
    return f"SELECT {row_digest(table)}{_from(table)}{where}"


def buckets_statement(table: Table, where: str, buckets: int) -> str:
    """Number, count and checksum of each bucket; rows go to one by how their key is spelt, or by their digest.

    `buckets`: a prime, so that columns that depend on each other spread over all of them."""
    return f"SELECT {_bucket(table, buckets)},{_checksum(table)}{_from(table)}{where} GROUP BY 1"


def in_buckets(table: Table, where: str, buckets: int, wanted: Sequence[int]) -> str:
    """Of the rows of a range (`where_range`), those in the wanted buckets."""
    word = "AND" if where else "WHERE"
    return f"{where} {word} {_bucket(table, buckets)} IN ({','.join(map(str, wanted))})"


def _bucket(table: Table, buckets: int) -> str:
    # Of what the digest is made of too: a row that is the same on both sides is in the same bucket.
    if not table.key:
        return f"CAST(CONV(LEFT({row_digest(table)},8),16,10) AS UNSIGNED) % {buckets}"
    terms = (f"{number}*{_small(key, buckets)}" for number, key in enumerate(key_columns(table), 1))
    return f"({'+'.join(terms)}) % {buckets}"


def _small(key: ValueColumn, buckets: int) -> str:
    """A number of the key's value that is not negative, and that can be added to others."""
    if key.column.data_type == "bigint":
        return f"ABS({quoted(key.column.name)} % {buckets})"
    if key.column.data_type in INTEGERS:
        return f"ABS({quoted(key.column.name)})"
    return f"CRC32({key.fetch})"


def columns_statement(table: Table, values: KeyValues) -> str:
    """The digest of each column of one row."""
    columns = ",".join(column_digest(column) for column in table.columns)
    return f"SELECT {columns}{_from(table)} WHERE {equals(table, values)}"


def multiset_statement(table: Table, where: str) -> str:
    """Digest and number of each distinct row of a table without a key."""
    return f"SELECT {row_digest(table)} AS digest,COUNT(*){_from(table)}{where} GROUP BY 1"


def rows_by_digest_statement(table: Table, digests: Sequence[str]) -> str:
    """Digest and columns (as text of at most 64 characters) of the rows with these digests."""
    wanted = ",".join(f"'{digest}'" for digest in digests)
    columns = ",".join(_shown_column(column) for column in table.columns)
    return (
        f"SELECT DISTINCT {row_digest(table)} AS digest,{columns}{_from(table)} HAVING digest IN ({wanted})"
    )


def _shown_column(column: Column) -> str:
    name = quoted(column.name)
    if exact_number(column) is not None and column.data_type != "bit":
        return f"CAST(CONCAT({name}) AS CHAR({NUMBER_CHARACTERS_MAX}))"
    if column.data_type in TEXTS or column.data_type == "json":
        return f"LEFT(CONVERT({name} USING utf8mb4),64)"
    return f"LEFT(HEX(CAST({name} AS BINARY)),64)"


# --- writing -------------------------------------------------------------------------------------------


def stored_columns(table: Table) -> tuple[ValueColumn, ...]:
    """The columns that an INSERT has to give."""
    return tuple(ValueColumn(column) for column in table.columns if not column.generated)


def values_statement(table: Table, where: str) -> str:
    """The stored columns of each row, as `values_literal` takes them."""
    columns = ",".join(column.fetch for column in stored_columns(table))
    return f"SELECT {columns}{_from(table)}{where}"


def values_by_digest_statement(table: Table, digests: Sequence[str]) -> str:
    """Digest and stored columns of the rows with these digests, each once."""
    wanted = ",".join(f"'{digest}'" for digest in digests)
    columns = ",".join(column.fetch_whole for column in stored_columns(table))
    return (
        f"SELECT DISTINCT {row_digest(table)} AS digest,{columns}{_from(table)} HAVING digest IN ({wanted})"
    )


def values_literal(table: Table, values: Sequence[str | None]) -> str:
    """One row of an INSERT."""
    pairs = zip(stored_columns(table), values, strict=True)
    return f"({','.join('NULL' if value is None else column.literal(value) for column, value in pairs)})"


def insert_statement(table: Table, rows: Sequence[str]) -> str:
    """`rows` as `values_literal` gives them."""
    names = ",".join(quoted(column.column.name) for column in stored_columns(table))
    return f"INSERT INTO {qualified(table)} ({names}) VALUES {','.join(rows)}"


def delete_statement(table: Table, where: str) -> str:
    """Without an index hint, which DELETE does not take: the key's conditions find it."""
    return f"DELETE FROM {qualified(table)}{where}"


def delete_by_digest_statement(table: Table, digests: Sequence[str], rows: int | None = None) -> str:
    """All rows with these digests, or `rows` of them."""
    limit = "" if rows is None else f" LIMIT {rows}"
    return f"DELETE FROM {qualified(table)}{where_keys(table, [(digest,) for digest in digests])}{limit}"
