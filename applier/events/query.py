"""Statement events: queries and the session state they were written under. Rare in a row-based log, so plain Python.

Layouts: the descriptions of Query_event, Intvar_event, Rand_event, User_var_event and XA_prepare_event in the
documentation of MySQL's source. Parsers take the whole event without its checksum and raise CorruptEvent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from applier.errors import CorruptEvent, UnsupportedEvent
from applier.events.headers import HEADER_BYTES

SUPPRESS_USE = 0x08  # LOG_EVENT_SUPPRESS_USE_F: the statement must not depend on the default database


@dataclass(frozen=True, slots=True)
class Query:
    """A statement as the source wrote it; `variables` are session variables as the server's own client sets them."""

    database: str
    text: bytes
    timestamp: str  # seconds since the epoch, with microseconds if the statement used them
    variables: dict[str, str] = field(default_factory=dict)
    error_code: int = 0
    use_database: bool = True
    invoker: str | None = None  # `user`@`host` who ran it, where the statement means him without naming him
    databases: tuple[str, ...] | None = None  # that a DDL changes; None: not told


@dataclass(frozen=True, slots=True)
class XaPrepare:
    """The end of an XA transaction's first phase, or of all of it."""

    xid: str  # as XA statements take it
    one_phase: bool


@dataclass(frozen=True, slots=True)
class UserVariable:
    """A user variable that the next statement reads. `value` is None for NULL, else the raw bytes of its type."""

    name: str
    kind: int  # 0 text, 1 double, 2 integer, 4 decimal
    value: bytes | None
    collation_id: int = 0
    unsigned: bool = False


class _Reader:
    """Takes things off the front; CorruptEvent when they are not there."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = HEADER_BYTES
        self.what = what

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise CorruptEvent(place="the stream", detail=f"a {self.what} event ends too early")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def short_text(self) -> bytes:
        return self.take(self.number(1))

    @property
    def left(self) -> int:
        return len(self.data) - self.at


def quoted(text: str | bytes) -> str:
    """A string literal that no sql_mode and no character set can misread."""
    raw = text.encode() if isinstance(text, str) else text
    return "_utf8mb4 X'" + raw.hex() + "'"


def identifier(name: str) -> str:
    """A quoted identifier."""
    return "`" + name.replace("`", "``") + "`"


FLAGS = {  # bits of flags2 → variable, value when the bit is set, value when not
    1 << 14: ("sql_auto_is_null", "1", "0"),
    1 << 26: ("foreign_key_checks", "0", "1"),
    1 << 27: ("unique_checks", "0", "1"),
}


def _flags2(reader: _Reader, variables: dict[str, str]) -> None:
    bits = reader.number(4)
    for bit, (name, when_set, otherwise) in FLAGS.items():
        variables[name] = when_set if bits & bit else otherwise


def _charset(reader: _Reader, variables: dict[str, str]) -> None:
    for name in ("character_set_client", "collation_connection", "collation_server"):
        variables[name] = str(reader.number(2))


def _auto_increment(reader: _Reader, variables: dict[str, str]) -> None:
    variables["auto_increment_increment"] = str(reader.number(2))
    variables["auto_increment_offset"] = str(reader.number(2))


def _updated_databases(reader: _Reader) -> tuple[str, ...] | None:
    count = reader.number(1)
    if count == 254:  # more than the event can name
        return None
    names = []
    for _ in range(count):
        end = reader.data.find(b"\0", reader.at)
        names.append(reader.take(end + 1 - reader.at)[:-1].decode("utf-8", "replace"))
    return tuple(names)


def _number(name: str, count: int) -> Callable[[_Reader, dict[str, str]], None]:
    def read(reader: _Reader, variables: dict[str, str]) -> None:
        variables[name] = str(reader.number(count))

    return read


def _skip(count: int) -> Callable[[_Reader, dict[str, str]], None]:
    def read(reader: _Reader, variables: dict[str, str]) -> None:
        reader.take(count)

    return read


def _time_zone(reader: _Reader, variables: dict[str, str]) -> None:
    variables["time_zone"] = quoted(reader.short_text())


def _invoker(reader: _Reader) -> str:
    user, host = (reader.short_text().decode("utf-8", "replace") for _ in range(2))
    return f"{identifier(user)}@{identifier(host)}"


def _catalog(reader: _Reader, variables: dict[str, str]) -> None:
    reader.short_text()  # always "std"


def _old_catalog(reader: _Reader, variables: dict[str, str]) -> None:
    reader.short_text()
    reader.take(1)


INVOKER_CODE, DATABASES_CODE, MICROSECONDS_CODE = 11, 12, 13
STATUS: dict[int, Callable[[_Reader, dict[str, str]], None]] = {
    0: _flags2,
    1: _number("sql_mode", 8),
    2: _old_catalog,
    3: _auto_increment,
    4: _charset,
    5: _time_zone,
    6: _catalog,
    7: _number("lc_time_names", 2),
    8: _number("collation_database", 2),
    9: _skip(8),  # tables of a multi-table update
    10: _skip(4),  # size on the original source
    16: _number("explicit_defaults_for_timestamp", 1),
    17: _skip(8),  # xid of a DDL
    18: _number("default_collation_for_utf8mb4", 2),
    19: _number("sql_require_primary_key", 1),
    20: _number("default_table_encryption", 1),
    21: _skip(1),  # whether InnoDB checked foreign keys itself: since 9.6, with statements that change rows
}


def parse_query(data: bytes) -> Query:
    """Raises CorruptEvent; UnsupportedEvent for a status variable that this version does not know."""
    reader = _Reader(data, "query")
    reader.take(8)  # thread id and run time on the source
    database_length, error_code, status_length = reader.number(1), reader.number(2), reader.number(2)
    status = _Reader(data[:HEADER_BYTES] + reader.take(status_length), "query")
    variables: dict[str, str] = {}
    microseconds, invoker, databases = 0, None, None
    while status.left:
        code = status.number(1)
        if code == MICROSECONDS_CODE:
            microseconds = status.number(3)
        elif code == INVOKER_CODE:
            invoker = _invoker(status)
        elif code == DATABASES_CODE:
            databases = _updated_databases(status)
        elif code in STATUS:
            STATUS[code](status, variables)
        else:
            raise UnsupportedEvent(event_type=f"2 (query, with status variable {code})", place="the stream")
    database = reader.take(database_length).decode("utf-8", "replace")
    reader.take(1)
    seconds = int.from_bytes(data[0:4], "little")
    return Query(
        database=database,
        text=reader.take(reader.left),
        timestamp=f"{seconds}.{microseconds:06d}" if microseconds else str(seconds),
        variables=variables,
        error_code=error_code,
        use_database=bool(database) and not int.from_bytes(data[17:19], "little") & SUPPRESS_USE,
        invoker=invoker,
        databases=databases,
    )


def parse_integer_variable(data: bytes) -> tuple[str, int]:
    """`last_insert_id` or `insert_id`, and its value."""
    reader = _Reader(data, "integer variable")
    kind = reader.number(1)
    names = {1: "last_insert_id", 2: "insert_id"}
    if kind not in names:
        raise CorruptEvent(place="the stream", detail=f"integer variable of unknown kind {kind}")
    return names[kind], reader.number(8)


def parse_random_seeds(data: bytes) -> tuple[int, int]:
    reader = _Reader(data, "random seed")
    return reader.number(8), reader.number(8)


def parse_user_variable(data: bytes) -> UserVariable:
    reader = _Reader(data, "user variable")
    name = reader.take(reader.number(4)).decode("utf-8", "replace")
    if reader.number(1):
        return UserVariable(name, 0, None)
    kind, collation_id = reader.number(1), reader.number(4)
    value = reader.take(reader.number(4))
    return UserVariable(name, kind, value, collation_id, unsigned=bool(reader.left and reader.number(1) & 1))


def parse_xa_prepare(data: bytes) -> XaPrepare:
    reader = _Reader(data, "XA prepare")
    one_phase = bool(reader.number(1))
    (format_id,) = struct.unpack("<i", reader.take(4))
    gtrid_length, bqual_length = reader.number(4), reader.number(4)
    if gtrid_length > 64 or bqual_length > 64:
        raise CorruptEvent(place="the stream", detail="an XA identifier is longer than 64 bytes")
    gtrid, bqual = reader.take(gtrid_length), reader.take(bqual_length)
    return XaPrepare(f"X'{gtrid.hex()}',X'{bqual.hex()}',{format_id}", one_phase)
