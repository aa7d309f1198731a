"""A transaction larger than `part_bytes_max` is handed out in parts that can be decoded by themselves."""

from __future__ import annotations

import pytest

from applier.events.transaction import TransactionFlag
from tests import binlog_bytes as log
from tests.binlog_bytes import (
    MANY_ROW_EVENTS,
    Seen,
    format_event,
    gtid_event,
    of_events,
    of_file,
    query_event,
    rows_event,
    seen_by,
    seen_in,
    table_map_event,
    transaction,
    xid_event,
)

WHOLE = TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART


def rejoined(parts: list[Seen]) -> list[tuple[int, bytes]]:
    """The events of all parts, less the table maps that were repeated."""
    events: list[tuple[int, bytes]] = []
    for part in parts:
        kept = list(part.events)
        if events and events[-1][0] in (30, 31, 32) and not events[-1][1][25] & log.STATEMENT_END:
            while kept and kept[0][0] == log.TABLE_MAP:
                kept.pop(0)
        events += kept
    return events


@pytest.mark.parametrize("part_bytes_max", [1, 300, 700, 1500])
def test_the_parts_of_a_large_transaction_hold_all_of_it_and_can_be_decoded(part_bytes_max: int) -> None:
    whole = seen_by(of_file(MANY_ROW_EVENTS))
    parts = seen_by(of_file(MANY_ROW_EVENTS, part_bytes_max=part_bytes_max))
    for transaction_ in whole:
        mine = [part for part in parts if part.sequence_number == transaction_.sequence_number]
        first = [TransactionFlag.FIRST_PART in part.flags for part in mine]
        last = [TransactionFlag.LAST_PART in part.flags for part in mine]
        assert first == [True, *[False] * (len(mine) - 1)]
        assert last == first[::-1]
        assert {part.gtid for part in mine} == {transaction_.gtid}
        if transaction_.flags & TransactionFlag.ROWS:
            assert rejoined(mine) == list(transaction_.events)
        for part in mine:
            table_ids = {data[19:25] for kind, data in part.events if kind == log.TABLE_MAP}
            assert all(data[19:25] in table_ids for kind, data in part.events if kind in (30, 31, 32))
    assert len(parts) > len(whole)


def test_a_part_leaves_as_soon_as_it_is_large_enough() -> None:
    assembler = of_events(
        [
            format_event(),
            gtid_event(1),
            query_event("BEGIN"),
            table_map_event(),
            rows_event(bytes(1000), end=False),
        ],
        part_bytes_max=1000,
    )
    batch = assembler.take()
    assert batch is not None
    (part,) = seen_in(batch)
    assert part.flags == TransactionFlag.ROWS | TransactionFlag.FIRST_PART
    assert assembler.next_sequence_number == 1


def test_a_statement_found_late_makes_the_rest_a_barrier() -> None:
    row = rows_event(bytes(1000))
    events = [
        gtid_event(1), query_event("BEGIN"), table_map_event(), row, query_event("SAVEPOINT `a`"),
        table_map_event(), row, xid_event(),
    ]  # fmt: skip
    parts = seen_by(of_events([format_event(), *events], part_bytes_max=1000))
    assert [part.types for part in parts] == [[19, 30], [2, 19, 30], [16]]
    assert [bool(part.flags & TransactionFlag.BARRIER) for part in parts] == [False, True, True]


def test_a_transaction_that_begins_again_after_parts_has_the_same_number() -> None:
    torn = transaction(1, bytes(1000))[:-1]
    assembler = of_events([format_event(), *torn, format_event(), *transaction(1)], part_bytes_max=1000)
    parts = seen_by(assembler)
    assert [part.sequence_number for part in parts] == [1, 1]
    assert [part.flags & WHOLE for part in parts] == [TransactionFlag.FIRST_PART, WHOLE]
