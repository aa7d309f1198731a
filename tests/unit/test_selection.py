"""Rows and statements that a replay of some schemas leaves out."""

from __future__ import annotations

import struct

import pytest

from applier.errors import ApplyError
from applier.events.batch import Batch
from applier.events.query import Query
from applier.events.selection import leave_out
from applier.events.transaction import TransactionFlag
from applier.selection import Schemas

TABLE_MAP, WRITE_ROWS = 19, 30
WHOLE = TransactionFlag.ROWS | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART


def event(kind: int, body: bytes) -> bytes:
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body), 0, 0) + body


def table_map(number: int, schema: bytes, table: bytes) -> bytes:
    name = bytes([len(schema)]) + schema + b"\0" + bytes([len(table)]) + table + b"\0"
    return event(TABLE_MAP, number.to_bytes(6, "little") + b"\x01\x00" + name + b"\x01\x03\x00\x00")


def rows(number: int, *, end: bool) -> bytes:
    return event(WRITE_ROWS, number.to_bytes(6, "little") + struct.pack("<HH", end, 2) + b"\x01\xff\x00abcd")


def kept(*events: bytes) -> list[tuple[int, int, bool]]:
    """(kind, table id, end of statement) of what is left when schema `a` is wanted."""
    batch = Batch()
    batch.append_transaction(list(events), WHOLE, 1)
    leave_out(batch, {}, lambda schema, table: schema == "a", lambda event: None)
    info = batch.transaction(0)
    found = []
    for index in range(info.event_first, info.event_first + info.event_count):
        kind, data = batch.event(index)
        found.append((kind, data[19], kind == WRITE_ROWS and bool(data[25] & 1)))
    return found


def test_rows_of_other_schemas_are_left_out() -> None:
    events = (table_map(1, b"b", b"t"), rows(1, end=True), table_map(2, b"a", b"t"), rows(2, end=True))
    assert kept(*events) == [(TABLE_MAP, 2, False), (WRITE_ROWS, 2, True)]


def test_the_end_of_a_statement_goes_to_the_rows_that_are_kept() -> None:
    maps = (table_map(1, b"a", b"t"), table_map(2, b"b", b"t"))
    assert kept(*maps, rows(1, end=False), rows(2, end=True)) == [
        (TABLE_MAP, 1, False),
        (WRITE_ROWS, 1, True),
    ]


def test_table_maps_without_rows_go_with_their_statement() -> None:
    maps = (table_map(1, b"a", b"t"), table_map(2, b"b", b"t"))
    assert kept(*maps, rows(2, end=True)) == []


def test_a_table_id_may_be_another_table_in_the_next_statement() -> None:
    events = (table_map(1, b"b", b"t"), rows(1, end=True), table_map(1, b"a", b"t"), rows(1, end=True))
    assert kept(*events) == [(TABLE_MAP, 1, False), (WRITE_ROWS, 1, True)]


def query(text: str, database: str = "", databases: tuple[str, ...] | None = None) -> Query:
    return Query(database, text.encode(), "0", databases=databases)


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        (query("ALTER TABLE t ADD c INT", "a", ("a",)), True),
        (query("ALTER TABLE a.t ADD c INT", "b", ("a",)), True),
        (query("TRUNCATE TABLE a.t", "b"), True),
        (query("TRUNCATE TABLE t", "b"), False),
        (query("TRUNCATE TABLE t", "a"), True),
        (query("INSERT INTO a.t VALUES (1)", "b"), True),
        (query("CREATE USER x", "a", ("a",)), False),
        (query("GRANT ALL ON a.* TO x", "a"), False),
        (query("CREATE TABLE `A`.t (id INT)", "", ("b",)), False),
    ],
)
def test_statements_belong_to_the_schemas_that_they_change(statement: Query, wanted: bool) -> None:
    assert Schemas(["a"]).concerns(statement) is wanted


def test_a_statement_on_both_sides_of_the_line_is_refused() -> None:
    with pytest.raises(ApplyError, match="changes a, b, of which only a"):
        Schemas(["a"]).concerns(query("RENAME TABLE a.t TO b.t", "a", ("a", "b")))
