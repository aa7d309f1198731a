"""Binary logs made byte by byte for plans: two tables of INT columns, and the transactions that a test wants."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.binlog_bytes import (
    MAGIC,
    TABLE_MAP,
    WRITE_ROWS,
    event,
    format_event,
    gtid_event,
    query_event,
    xid_event,
)

UPDATE_ROWS, DELETE_ROWS = WRITE_ROWS + 1, WRITE_ROWS + 2
STATEMENT_END = 1
KEYED, KEYLESS, UNKNOWN = "keyed", "keyless", "unknown"
_TABLE_IDS = {KEYED: 11, KEYLESS: 12, UNKNOWN: 13}


@dataclass(frozen=True, slots=True)
class Change:
    """Of the row `before`, `after` or both: (id, v). `id` is the primary key of the table KEYED; of KEYLESS the log
    says that it has none, of UNKNOWN it says nothing."""

    table: str
    before: tuple[int, int] | None
    after: tuple[int, int] | None


def insert(key: int, table: str = KEYED) -> Change:
    return Change(table, None, (key, 0))


def update(key: int, new_key: int | None = None, table: str = KEYED) -> Change:
    return Change(table, (key, 0), (key if new_key is None else new_key, 1))


def delete(key: int, table: str = KEYED) -> Change:
    return Change(table, (key, 0), None)


@dataclass(frozen=True, slots=True)
class Logged:
    """A transaction: changes, or one statement. `last_committed` None: the source gives no numbers."""

    changes: Sequence[Change] = ()
    statement: str = ""
    last_committed: int | None = None
    events: Sequence[bytes] = field(default=(), repr=False)


def binlog(transactions: Iterable[Logged]) -> bytes:
    parts = [MAGIC, format_event()]
    for number, one in enumerate(transactions, 1):
        clock = (
            {}
            if one.last_committed is None
            else {"last_committed": one.last_committed, "sequence_number": number}
        )
        parts.append(gtid_event(number, **clock))
        if one.statement:
            parts.append(query_event(one.statement))
            continue
        parts.append(query_event("BEGIN"))
        tables = dict.fromkeys(change.table for change in one.changes)
        parts += [table_map(table) for table in tables]
        for place, change in enumerate(one.changes, 1):
            parts.append(rows([change], end=place == len(one.changes) and not one.events))
        parts += [*one.events, xid_event()]
    return b"".join(parts)


def table_map(table: str) -> bytes:
    name = table.encode()
    body = _TABLE_IDS[table].to_bytes(6, "little") + struct.pack("<H", 1)
    body += b"\1d\0" + bytes([len(name)]) + name + b"\0"
    body += b"\2\3\3" + b"\0" + b"\0"  # two columns of type INT, no metadata, none nullable
    body += b"\1\1\0"  # both signed
    if table != UNKNOWN:
        body += b"\4\5\2id\1v"
    if table == KEYED:
        body += b"\x08\1\0"
    return event(TABLE_MAP, body)


def rows(changes: Sequence[Change], *, end: bool = True) -> bytes:
    """One row event; the changes are of one table and kind."""
    first = changes[0]
    kind = WRITE_ROWS if first.before is None else DELETE_ROWS if first.after is None else UPDATE_ROWS
    head = _TABLE_IDS[first.table].to_bytes(6, "little") + struct.pack(
        "<HHB", STATEMENT_END if end else 0, 2, 2
    )
    head += b"\3" * (2 if kind == UPDATE_ROWS else 1)
    images = (image for change in changes for image in (change.before, change.after) if image is not None)
    return event(kind, head + b"".join(b"\0" + struct.pack("<ii", *image) for image in images))
