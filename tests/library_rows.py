"""Rows as the library mysql-replication decodes them: an oracle that has nothing in common with our code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from pymysql.protocol import MysqlPacket
from pymysqlreplication import row_event
from pymysqlreplication.packet import BinLogPacketWrapper

from applier.events.column_types import ColumnType
from applier.events.table_map import Column
from tests.binlog_bytes import events_of

ROW_EVENTS = frozenset({23, 24, 25, 30, 31, 32, 39})
TABLE_MAP = 19
Image = dict[str, Any]
# The library asks a connection only for these two as long as the log names the columns.
_CONNECTION = SimpleNamespace(charset="utf8mb4", _get_dbms=lambda: "mysql")
_ALLOWED = frozenset(
    {
        row_event.TableMapEvent,
        row_event.WriteRowsEvent,
        row_event.UpdateRowsEvent,
        row_event.DeleteRowsEvent,
        row_event.PartialUpdateRowsEvent,
    }
)


def library_rows(log: bytes, ignored_tables: list[str]) -> Iterator[tuple[str, Image | None, Image | None]]:
    """(table, before, after) of each row of the uncompressed transactions of a file with full metadata."""
    tables: dict[int, Any] = {}
    for event in events_of(log):
        if event[4] not in ROW_EVENTS and event[4] != TABLE_MAP:
            continue
        parsed = _parse(event, tables, ignored_tables)
        if parsed is None or event[4] == TABLE_MAP:
            continue
        for row in parsed.rows:
            if "values" in row:
                image, is_insert = row["values"], event[4] in (23, 30)
                yield parsed.table, None if is_insert else image, image if is_insert else None
            else:
                yield parsed.table, row["before_values"], row["after_values"]


def _parse(event: bytes, tables: dict[int, Any], ignored_tables: list[str]) -> Any:
    return BinLogPacketWrapper(
        MysqlPacket(b"\x00" + event, "utf8"),
        tables,
        _CONNECTION,
        (9, 7, 4),
        True,
        _ALLOWED,
        None,
        ignored_tables,
        None,
        None,
        False,
        False,
        False,
        True,
        False,
    ).event


def in_our_form(column: Column, value: Any) -> Any:
    """A value of the library as `decode_value` gives it."""
    kind = column.type
    if value is not None and kind in _FORMS:
        value = _FORMS[kind](column, value)
    elif isinstance(value, timedelta):
        value = _time_text(value, column.metadata)
    elif isinstance(value, datetime):
        value = value.isoformat(" ", "microseconds")[: 20 + column.metadata if column.metadata else 19]
    elif isinstance(value, date):
        value = value.isoformat()
    return value


def _set_text(column: Column, chosen: set[str]) -> str:
    names = [name.decode() for name in column.values or ()]
    return ",".join(name for name in names if name in chosen)


def _time_text(value: timedelta, digits: int) -> str:
    microseconds = abs(value) // timedelta(microseconds=1)
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    sign = "-" if value < timedelta(0) else ""
    return f"{sign}{text}.{f'{fraction:06d}'[:digits]}" if digits else f"{sign}{text}"


def _json(value: Any) -> Any:
    """The library gives text as bytes and decimals as such."""
    if isinstance(value, dict):
        return {_json(key): _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, Decimal):
        return str(value)
    return value.decode() if isinstance(value, bytes) else value


_FORMS: dict[ColumnType, Callable[[Column, Any], Any]] = {
    ColumnType.BIT: lambda _, value: int(value, 2),
    ColumnType.YEAR: lambda _, value: 0 if value == 1900 else value,
    ColumnType.SET: _set_text,
    ColumnType.JSON: lambda _, value: _json(value),
}
