"""Net updates and deletes without the columns that the server does not need, as binlog_row_image=MINIMAL has them."""

from __future__ import annotations

from applier.events.net_changes import fold
from applier.events.net_events import folded_batch
from tests.folding import Change, Image, Key, Plans, Table, batch_of, changes_in, statement_events

WIDE = Table("w", "iviv")
COMPOSITE = Table("c", "iiivv", (Key((1, 3)),))
BY_SECOND = Table("s", "vi", (Key((1,)),))
COMPUTED = Table("g", "iii", computed=True)


def update(table: Table, before: Image, after: Image) -> Change:
    return Change(table, before, after)


def sent(*changes: Change, packet_bytes_max: int = 64 << 20) -> list[Change]:
    """What goes to the target for these changes, one transaction each."""
    tables = list({change.table.name: change.table for change in changes}.values())
    plans = Plans(tables)
    batch = batch_of([statement_events([change]) for change in changes], plans)
    written = folded_batch(fold([(batch, 0, len(batch))]), packet_bytes_max)
    return list(changes_in(written, tables, plans))


def test_an_update_has_its_identity_before_and_what_changed_after() -> None:
    assert sent(update(WIDE, (1, "a", 2, "b"), (1, "a", 3, "b"))) == [
        update(WIDE, (1, ..., ..., ...), (..., ..., 3, ...))
    ]


def test_the_updates_of_an_event_have_the_columns_that_any_of_them_changes() -> None:
    changes = sent(
        update(WIDE, (1, "a", 2, "b"), (1, "a", 3, "b")), update(WIDE, (2, "a", 2, "b"), (2, "A", 2, "b"))
    )
    assert [change.after for change in changes] == [(..., "a", 3, ...), (..., "A", 2, ...)]


def test_null_and_the_empty_text_are_different_values() -> None:
    changes = sent(
        update(WIDE, (1, None, 0, "b"), (1, "", 0, "b")), update(WIDE, (2, "x", 0, "b"), (2, None, 0, "b"))
    )
    assert [change.after for change in changes] == [(..., "", ..., ...), (..., None, ..., ...)]


def test_a_value_that_changes_its_length_only_is_a_change() -> None:
    assert sent(update(WIDE, (1, "a", 2, "b"), (1, "a ", 2, "b")))[0].after == (..., "a ", ..., ...)


def test_a_change_that_is_taken_back_is_not_sent_with_its_row() -> None:
    changes = sent(
        update(WIDE, (1, "a", 2, "b"), (1, "x", 2, "c")), update(WIDE, (1, "x", 2, "c"), (1, "a", 2, "c"))
    )
    assert [change.after for change in changes] == [(..., ..., ..., "c")]


def test_all_parts_of_an_identity_are_there_wherever_they_stand() -> None:
    row = (7, 1, 2, "k", None)
    assert sent(update(COMPOSITE, row, (8, 1, 2, "k", None))) == [
        update(COMPOSITE, (..., 1, ..., "k", ...), (8, ..., ..., ..., ...))
    ]
    assert sent(Change(COMPOSITE, row, None)) == [Change(COMPOSITE, (..., 1, ..., "k", ...), None)]


def test_an_identity_behind_a_null_is_found() -> None:
    assert sent(Change(BY_SECOND, (None, 5), None), update(BY_SECOND, (None, 6), ("x", 6))) == [
        Change(BY_SECOND, (..., 5), None),
        update(BY_SECOND, (..., 6), ("x", ...)),
    ]


def test_a_row_that_comes_back_changed_is_an_update_of_what_changed() -> None:
    row, other = (1, "a", 2, "b"), (1, "a", 2, "c")
    assert sent(Change(WIDE, row, None), Change(WIDE, None, other))[0].after == (..., ..., ..., "c")


def test_inserts_are_whole() -> None:
    row = (1, None, 2, "b")
    assert sent(Change(WIDE, None, row)) == [Change(WIDE, None, row)]


def test_rows_with_values_that_the_server_computes_go_whole() -> None:
    change = update(COMPUTED, (1, 2, 3), (1, 2, 4))
    assert sent(change) == [change]


def test_a_table_of_more_columns_than_one_byte_can_count() -> None:
    table = Table("many", "i" * 300)
    row = tuple(range(300))
    for column in (7, 8, 299):
        changed = (*row[:column], -1, *row[column + 1 :])
        assert sent(update(table, row, changed)) == [
            update(table, (0, *[...] * 299), (*[...] * column, -1, *[...] * (299 - column)))
        ]


def test_small_packets_split_narrow_events_too() -> None:
    changes = [update(WIDE, (key, "a", 0, "x" * 90), (key, "b" * 90, 0, "x" * 90)) for key in range(200)]
    assert [change.before for change in sent(*changes, packet_bytes_max=2048)] == [
        (key, ..., ..., ...) for key in range(200)
    ]
