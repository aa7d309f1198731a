"""Statement events: every status variable, values of every kind, and bytes that end too early."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier.errors import CorruptEvent, UnsupportedEvent
from applier.events.headers import HEADER_BYTES, EventHeader
from applier.events.query import (
    Query,
    UserVariable,
    identifier,
    parse_integer_variable,
    parse_query,
    parse_random_seeds,
    parse_user_variable,
    parse_xa_prepare,
    quoted,
)

SECONDS = 1_700_000_000
SUPPRESS_USE = 8


def event(body: bytes, kind: int = 2, flags: int = 0) -> bytes:
    return EventHeader(SECONDS, kind, 1, HEADER_BYTES + len(body), 0, flags).pack() + body


def query_event(
    text: bytes, *, database: str = "d", status: bytes = b"", error: int = 0, flags: int = 0
) -> bytes:
    name = database.encode()
    body = struct.pack("<IIBHH", 7, 1, len(name), error, len(status)) + status + name + b"\0" + text
    return event(body, flags=flags)


def variables(status: bytes) -> dict[str, str]:
    return parse_query(query_event(b"DO 0", status=status)).variables


def test_a_plain_statement() -> None:
    query = parse_query(query_event(b"CREATE TABLE t (a INT)", error=1062))
    assert query == Query("d", b"CREATE TABLE t (a INT)", str(SECONDS), {}, 1062, True, None)


def test_the_default_database_is_used_only_where_it_matters() -> None:
    assert parse_query(query_event(b"x", database="")).use_database is False
    assert parse_query(query_event(b"DROP DATABASE d", flags=SUPPRESS_USE)).use_database is False
    assert parse_query(query_event(b"x", database="données")).database == "données"


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (
            b"\x00" + struct.pack("<I", 0),
            {"sql_auto_is_null": "0", "foreign_key_checks": "1", "unique_checks": "1"},
        ),
        (
            b"\x00" + struct.pack("<I", 1 << 14 | 1 << 26 | 1 << 27 | 1 << 19),
            {"sql_auto_is_null": "1", "foreign_key_checks": "0", "unique_checks": "0"},
        ),
        (b"\x01" + struct.pack("<Q", 0x45A00020), {"sql_mode": "1168113696"}),
        (b"\x02\x03std\x00", {}),
        (b"\x03" + struct.pack("<HH", 7, 3), {"auto_increment_increment": "7", "auto_increment_offset": "3"}),
        (
            b"\x04" + struct.pack("<HHH", 8, 255, 46),
            {"character_set_client": "8", "collation_connection": "255", "collation_server": "46"},
        ),
        (b"\x05\x06+05:00", {"time_zone": "_utf8mb4 X'2b30353a3030'"}),
        (b"\x06\x03std", {}),
        (b"\x07\x05\x00", {"lc_time_names": "5"}),
        (b"\x08\x2e\x00", {"collation_database": "46"}),
        (b"\x09" + bytes(8), {}),
        (b"\x0a" + bytes(4), {}),
        (b"\x0c\x02one\0two\0", {}),
        (b"\x0c\xfe", {}),
        (b"\x10\x01", {"explicit_defaults_for_timestamp": "1"}),
        (b"\x11" + bytes(8), {}),
        (b"\x12\xff\x00", {"default_collation_for_utf8mb4": "255"}),
        (b"\x13\x01", {"sql_require_primary_key": "1"}),
        (b"\x14\x00", {"default_table_encryption": "0"}),
        (b"\x15\x00", {}),
    ],
)
def test_every_status_variable(status: bytes, wanted: dict[str, str]) -> None:
    assert variables(status) == wanted
    # Whatever comes behind it is found.
    assert variables(status + b"\x07\x01\x00")["lc_time_names"] == "1"
    for end in range(1, len(status)):
        with pytest.raises(CorruptEvent):
            variables(status[:end])


def test_who_ran_it() -> None:
    status = b"\x0b\x03b`b\x09127.0.0.1"
    assert parse_query(query_event(b"ALTER EVENT e DISABLE", status=status)).invoker == "`b``b`@`127.0.0.1`"


@pytest.mark.parametrize(
    ("microseconds", "wanted"), [(0, "1700000000"), (5, ".000005"), (999_999, ".999999")]
)
def test_time_with_microseconds(microseconds: int, wanted: str) -> None:
    status = b"\x0d" + microseconds.to_bytes(3, "little")
    assert parse_query(query_event(b"x", status=status)).timestamp.endswith(wanted)


def test_an_unknown_status_variable_stops() -> None:
    with pytest.raises(UnsupportedEvent, match="status variable 99"):
        variables(b"\x63\x00")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_query_or_refused(body: bytes) -> None:
    for parse in (
        parse_query,
        parse_integer_variable,
        parse_random_seeds,
        parse_user_variable,
        parse_xa_prepare,
    ):
        try:
            parse(event(body))
        except (CorruptEvent, UnsupportedEvent):
            continue


def test_integer_variables_and_random_seeds() -> None:
    assert parse_integer_variable(event(b"\x01" + struct.pack("<Q", 7))) == ("last_insert_id", 7)
    assert parse_integer_variable(event(b"\x02" + struct.pack("<Q", 2**64 - 1))) == ("insert_id", 2**64 - 1)
    with pytest.raises(CorruptEvent, match="unknown kind"):
        parse_integer_variable(event(b"\x03" + bytes(8)))
    assert parse_random_seeds(event(struct.pack("<QQ", 11, 2**60))) == (11, 2**60)


def test_user_variables() -> None:
    name = "ü".encode()
    head = struct.pack("<I", len(name)) + name
    assert parse_user_variable(event(head + b"\x01")) == UserVariable("ü", 0, None)
    value = b"\x00" + b"\x02" + struct.pack("<I", 63) + struct.pack("<I", 8) + struct.pack("<q", -5)
    assert parse_user_variable(event(head + value)) == UserVariable("ü", 2, struct.pack("<q", -5), 63)
    assert parse_user_variable(event(head + value + b"\x01")).unsigned
    for end in range(len(head + value)):
        with pytest.raises(CorruptEvent):
            parse_user_variable(event((head + value)[:end]))


@pytest.mark.parametrize(("format_id", "one_phase"), [(1, False), (-1, True)])
def test_xa_prepare(format_id: int, one_phase: bool) -> None:
    data = bytes([one_phase]) + struct.pack("<iII", format_id, 4, 2) + b"it's\x00\xff"
    prepare = parse_xa_prepare(event(data, 38))
    assert (prepare.xid, prepare.one_phase) == (f"X'69742773',X'00ff',{format_id}", one_phase)
    too_long = bytes(1) + struct.pack("<iII", 1, 65, 0) + bytes(65)
    with pytest.raises(CorruptEvent, match="64"):
        parse_xa_prepare(event(too_long, 38))


def test_quoting_that_nothing_can_misread() -> None:
    assert identifier("a`b") == "`a``b`"
    assert quoted("ä'\\") == "_utf8mb4 X'c3a4275c'"
    assert quoted(b"\xff") == "_utf8mb4 X'ff'"
