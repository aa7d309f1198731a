"""Net changes: each rule by itself."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from applier.events.batch import Batch
from applier.events.net_changes import fold
from applier.events.net_events import folded_batch, folded_packets
from applier.events.net_group import FoldedGroup
from tests.folding import (
    DELETE,
    INSERT,
    NO_FOREIGN_KEY_CHECKS,
    ROWS,
    STMT_END,
    UPDATE,
    Change,
    Image,
    Key,
    Plans,
    Table,
    batch_of,
    changes_in,
    decode,
    rows_event,
    statement_events,
)
from writeset.definitions import Form

T = Table("t", "ii")
UNIQUE = Table("u", "iii", (Key((0,)), Key((1,))))
TEXT = Table("x", "vi", (Key((0,), Form.FOLDED),))


def insert(table: Table, row: Image) -> Change:
    return Change(table, None, row)


def update(table: Table, before: Image, after: Image) -> Change:
    return Change(table, before, after)


def delete(table: Table, row: Image) -> Change:
    return Change(table, row, None)


def group_of(changes: Iterable[Change], *, hash_bits: int = 64) -> tuple[FoldedGroup, list[Table], Plans]:
    """The changes, one transaction each, folded."""
    changes = list(changes)
    tables = list({change.table.name: change.table for change in changes}.values())
    plans = Plans(tables)
    batch = batch_of([statement_events([change]) for change in changes], plans)
    return fold([(batch, 0, len(batch))], hash_bits=hash_bits), tables, plans


def whole_batch(group: FoldedGroup, packet_bytes_max: int = 64 << 20) -> Batch:
    """With whole row images, whose rules these tests are about; see test_narrow_images for the others."""
    return folded_batch(group, packet_bytes_max, narrow=False)


def net(*changes: Change, hash_bits: int = 64) -> list[Change]:
    group, tables, plans = group_of(changes, hash_bits=hash_bits)
    return list(changes_in(whole_batch(group), tables, plans))


def unfolded(*changes: Change) -> dict[str, str]:
    return group_of(changes)[0].tables_unfolded


# --- one row --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([insert(T, (1, 1)), update(T, (1, 1), (1, 2))], [insert(T, (1, 2))]),
        ([insert(T, (1, 1)), delete(T, (1, 1))], []),
        ([update(T, (1, 1), (1, 2)), update(T, (1, 2), (1, 3))], [update(T, (1, 1), (1, 3))]),
        ([update(T, (1, 1), (1, 2)), update(T, (1, 2), (1, 1))], []),
        ([update(T, (1, 1), (1, 2)), delete(T, (1, 2))], [delete(T, (1, 1))]),
        ([delete(T, (1, 1)), insert(T, (1, 2))], [update(T, (1, 1), (1, 2))]),
        ([delete(T, (1, 1)), insert(T, (1, 1))], []),
        ([delete(T, (1, 1)), insert(T, (1, 2)), delete(T, (1, 2))], [delete(T, (1, 1))]),
        ([insert(T, (1, 1)), delete(T, (1, 1)), insert(T, (1, 3))], [insert(T, (1, 3))]),
        ([update(T, (1, None), (1, 2))], [update(T, (1, None), (1, 2))]),
    ],
    ids=lambda value: "-".join(change.kind.name.lower() for change in value) or "nothing",
)
def test_changes_of_one_row_become_one(changes: list[Change], expected: list[Change]) -> None:
    assert net(*changes) == expected


def test_a_change_of_key_is_a_delete_and_an_insert() -> None:
    assert net(update(T, (1, 5), (2, 5))) == [delete(T, (1, 5)), insert(T, (2, 5))]


def test_a_row_that_gets_its_key_back_is_updated() -> None:
    there_and_back = [update(T, (1, 5), (2, 5)), update(T, (2, 5), (1, 6))]
    assert net(*there_and_back) == [update(T, (1, 5), (1, 6))]


def test_a_key_that_another_row_takes_over() -> None:
    changes = [delete(T, (2, 7)), update(T, (1, 5), (2, 5))]
    assert net(*changes) == [delete(T, (1, 5)), update(T, (2, 7), (2, 5))]


def test_rows_of_one_kind_travel_together_in_key_order() -> None:
    keys = [5, -3, 0, 2_000_000_000, -2_000_000_000, 70000, 255, 256]
    group, tables, plans = group_of([insert(T, (key, 0)) for key in keys])
    batch = whole_batch(group)
    assert group.events_out == 1
    assert [change.after for change in changes_in(batch, tables, plans)] == [(key, 0) for key in sorted(keys)]


def test_composite_keys_are_ordered_by_the_order_of_the_key() -> None:
    table = Table("c", "iiv", (Key((1, 0)),))
    rows: list[Image] = [(2, 1, "a"), (1, 2, "b"), (1, 1, "c")]
    written = net(*(insert(table, row) for row in rows))
    assert [change.after for change in written] == [(1, 1, "c"), (2, 1, "a"), (1, 2, "b")]


def test_deletes_come_before_updates_before_inserts() -> None:
    changes = [insert(T, (1, 0)), update(T, (2, 0), (2, 1)), delete(T, (3, 0))]
    assert [change.kind for change in net(*changes)] == [DELETE, UPDATE, INSERT]


def test_counts_tell_rows_in_and_out() -> None:
    group, _, _ = group_of(
        [insert(T, (1, 0)), update(T, (1, 0), (1, 1)), update(UNIQUE, (1, 1, 1), (1, 2, 1))]
    )
    assert (group.rows_in, group.rows_out, group.events_out) == (3, 3, 0)
    assert (group.tables_folded, group.tables_unfolded) == (2, {})
    folded_packets(group)
    assert group.events_out == 3
    assert (group.group_first, group.group_last) == (1, 3)


def test_a_group_may_span_batches_whose_decoders_do_not_know_each_other() -> None:
    first, second = Plans([T]), Plans([T])
    one = batch_of([statement_events([insert(T, (1, 1))])], first, 1)
    two = batch_of([statement_events([update(T, (1, 1), (1, 2))])], second, 2)
    group = fold([(one, 0, 1), (two, 0, 1)])
    assert list(changes_in(whole_batch(group), [T], first)) == [insert(T, (1, 2))]


def test_only_the_transactions_of_the_slice_are_folded() -> None:
    plans = Plans([T])
    batch = batch_of([statement_events([insert(T, (key, 0))]) for key in range(5)], plans)
    group = fold([(batch, 1, 2), (batch, 3, 3), (batch, 3, 4)])
    assert [change.after for change in changes_in(whole_batch(group), [T], plans)] == [(1, 0), (3, 0)]


def test_a_group_without_rows_makes_no_packet() -> None:
    assert folded_packets(fold([])) == []
    (packet,) = folded_packets(fold([]), b"BEGIN", 1, b"COMMIT", 1)
    assert packet[1] == 2


def test_transactions_that_are_not_there_or_not_rows_are_refused() -> None:
    batch = Batch()
    batch.append_transaction([], 2, 1)
    with pytest.raises(IndexError):
        fold([(batch, 0, 2)])
    with pytest.raises(ValueError, match="not made of rows only"):
        fold([(batch, 0, 1)])


# --- other unique keys ----------------------------------------------------------------------------------


def test_a_row_whose_unique_value_changes_is_deleted_and_inserted() -> None:
    changes = net(update(UNIQUE, (1, 10, 0), (1, 11, 0)))
    assert changes == [delete(UNIQUE, (1, 10, 0)), insert(UNIQUE, (1, 11, 0))]


def test_a_row_whose_unique_value_stays_is_updated() -> None:
    assert net(update(UNIQUE, (1, 10, 0), (1, 10, 5))) == [update(UNIQUE, (1, 10, 0), (1, 10, 5))]
    assert net(update(UNIQUE, (1, None, 0), (1, None, 5))) == [update(UNIQUE, (1, None, 0), (1, None, 5))]


def test_a_unique_value_that_comes_back_has_not_changed() -> None:
    changes = [update(UNIQUE, (1, 10, 0), (1, 11, 0)), update(UNIQUE, (1, 11, 0), (1, 10, 1))]
    assert net(*changes) == [update(UNIQUE, (1, 10, 0), (1, 10, 1))]
    changes = [delete(UNIQUE, (1, 10, 0)), insert(UNIQUE, (1, 10, 1))]
    assert net(*changes) == [update(UNIQUE, (1, 10, 0), (1, 10, 1))]


def test_a_row_that_returns_with_another_unique_value_is_deleted_and_inserted() -> None:
    changes = [delete(UNIQUE, (1, 10, 0)), insert(UNIQUE, (1, 11, 0))]
    assert net(*changes) == changes


def test_swapped_unique_values_are_freed_before_they_are_taken() -> None:
    changes = [
        update(UNIQUE, (1, 10, 0), (1, 99, 0)),
        update(UNIQUE, (2, 20, 0), (2, 10, 0)),
        update(UNIQUE, (1, 99, 0), (1, 20, 0)),
    ]
    assert net(*changes) == [
        delete(UNIQUE, (1, 10, 0)),
        delete(UNIQUE, (2, 20, 0)),
        insert(UNIQUE, (1, 20, 0)),
        insert(UNIQUE, (2, 10, 0)),
    ]


def test_a_unique_value_known_to_the_server_only_counts_as_changed() -> None:
    table = Table("a", "iii", (Key((0,)), Key((1,), Form.ANY)))
    assert net(update(table, (1, 1, 0), (1, 1, 1))) == [delete(table, (1, 1, 0)), insert(table, (1, 1, 1))]


# --- tables that do not fold ----------------------------------------------------------------------------


def kept(*changes: Change) -> list[Change]:
    """What is sent, after asserting that it is just what came."""
    written = net(*changes)
    assert written == list(changes)
    return written


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (Table("k", "ii", (), keyless=True), "no primary key and no unique key without NULLs"),
        (Table("k", "ii", (Key((0,)),), keyless=True), "no primary key and no unique key without NULLs"),
        (Table("p", "ii", is_parent=True), "child or parent of a foreign key"),
        (Table("c", "ii", parent=("p", 1)), "child or parent of a foreign key"),
        (Table("a", "ii", (Key((0,), Form.ANY),)), "a key column whose equality is known to the server only"),
    ],
)
def test_tables_without_a_usable_identity_or_with_foreign_keys_keep_their_events(
    table: Table, why: str
) -> None:
    changes = [insert(table, (1, 1)), delete(table, (1, 1)), insert(table, (1, 2))]
    assert unfolded(*changes) == {f"d.{table.name}": why}
    kept(*changes)


@pytest.mark.parametrize("before", [(1, 0), (1, ...)])
def test_partial_images_do_not_fold(before: Image) -> None:
    changes = [update(T, before, (..., 1)), update(T, (1, 1), (1, 2))]
    assert unfolded(*changes) == {"d.t": "row images without some columns (binlog_row_image)"}
    kept(*changes)


def test_rows_under_different_settings_do_not_fold() -> None:
    changes = [insert(T, (1, 1)), Change(T, None, (2, 2), NO_FOREIGN_KEY_CHECKS)]
    assert unfolded(*changes) == {"d.t": "row events under different session settings"}
    group, _, _ = group_of(changes)
    assert flags_of(whole_batch(group)) == [STMT_END, STMT_END | NO_FOREIGN_KEY_CHECKS]


def flags_of(batch: Batch) -> list[int]:
    return [
        int(struct.unpack_from("<H", data, 25)[0])
        for kind, data in map(batch.event, range(batch.event_total))
        if kind != 19
    ]


def test_tables_that_fold_keep_their_flags_in_statements_of_their_own() -> None:
    other = Table("o", "ii")
    group, tables, plans = group_of([insert(T, (1, 1)), Change(other, None, (2, 2), NO_FOREIGN_KEY_CHECKS)])
    batch = whole_batch(group)
    assert flags_of(batch) == [0, NO_FOREIGN_KEY_CHECKS]
    assert len(batch) == 2
    assert group.tables_unfolded == {}
    assert len(list(changes_in(batch, tables, plans))) == 2


def test_a_table_that_changes_its_definition_does_not_fold() -> None:
    plans = Plans([T])
    unsigned = b"\x01\x01\xc0"
    first = [T.map_event(7), rows_event([insert(T, (1, 1))], 7, STMT_END)]
    second = [T.map_event(7, metadata=unsigned), rows_event([delete(T, (1, 1))], 7, STMT_END)]
    group = fold([(batch_of([first, second], plans), 0, 2)])
    assert group.tables_unfolded == {"d.t": "its definition changes within the group"}
    assert [change.kind for change in changes_in(whole_batch(group), [T], plans)] == [INSERT, DELETE]


def test_a_table_whose_keys_change_does_not_fold() -> None:
    other_keys = Table("t", "ii", (Key((1,)),))
    one = batch_of([statement_events([insert(T, (1, 1))])], Plans([T]), 1)
    two = batch_of([statement_events([delete(T, (1, 1))])], Plans([other_keys]), 2)
    group = fold([(one, 0, 1), (two, 0, 1)])
    assert group.tables_unfolded == {"d.t": "its definition changes within the group"}


def test_old_row_events_do_not_fold() -> None:
    plans = Plans([T])
    events = [T.map_event(7), rows_event([insert(T, (1, 1))], 7, STMT_END, kind=23)]
    group = fold([(batch_of([events], plans), 0, 1)])
    assert group.tables_unfolded == {"d.t": "row events of version 1"}


def test_partial_json_updates_do_not_fold() -> None:
    plans = Plans([T])
    body = rows_event([update(T, (1, 1), (1, 2))], 7, STMT_END, kind=39)
    options = body[: -len(b"\0" + bytes(8))] + b"\0" + body[-9:]  # value options before the after image
    events = [T.map_event(7), struct.pack("<9sI", options[:9], len(options)) + options[13:]]
    group = fold([(batch_of([events], plans), 0, 1)])
    assert group.tables_unfolded == {"d.t": "a partial JSON update"}


def test_changes_that_contradict_each_other_do_not_fold() -> None:
    for changes in (
        [insert(T, (1, 1)), insert(T, (1, 2))],
        [delete(T, (1, 1)), update(T, (1, 1), (1, 2))],
        [delete(T, (1, 1)), delete(T, (1, 1))],
    ):
        assert unfolded(*changes) == {"d.t": "changes of a row that do not follow from one another"}
        kept(*changes)


def test_extra_row_info_of_partitions_is_dropped() -> None:
    plans = Plans([T])
    events = [T.map_event(7), rows_event([insert(T, (1, 1))], 7, STMT_END, extra=b"\x01\x05\x00")]
    group = fold([(batch_of([events], plans), 0, 1)])
    batch = whole_batch(group)
    assert group.tables_unfolded == {}
    assert struct.unpack_from("<H", batch.event(1)[1], 27)[0] == 2
    assert list(changes_in(batch, [T], plans)) == [insert(T, (1, 1))]


def test_other_tables_fold_beside_one_that_does_not() -> None:
    keyless = Table("k", "i", (), keyless=True)
    changes = [insert(T, (1, 1)), insert(keyless, (1,)), update(T, (1, 1), (1, 2)), delete(keyless, (1,))]
    assert net(*changes) == [insert(T, (1, 2)), insert(keyless, (1,)), delete(keyless, (1,))]


def test_a_statement_about_several_tables_leaves_only_what_does_not_fold() -> None:
    keyless, other = Table("k", "i", (), keyless=True), Table("o", "i", (), keyless=True)
    plans = Plans([T, keyless, other])
    statement = [insert(T, (1, 1)), insert(keyless, (1,)), insert(other, (2,)), insert(T, (2, 2))]
    group = fold([(batch_of([statement_events(statement)], plans), 0, 1)])
    batch = whole_batch(group)
    assert [batch.event(i)[0] for i in range(batch.event_total)] == [19, 30, 19, 19, 30, 30]
    assert [change.after for change in changes_in(batch, [T, keyless, other], plans)] == [
        (1, 1),
        (2, 2),
        (1,),
        (2,),
    ]


# --- identities that may be equal although their bytes differ -------------------------------------------


def test_text_keys_fold_when_their_bytes_are_equal() -> None:
    assert net(insert(TEXT, ("a", 1)), update(TEXT, ("a", 1), ("a", 2))) == [insert(TEXT, ("a", 2))]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            [insert(TEXT, ("a", 1)), delete(TEXT, ("a", 1)), insert(TEXT, ("A", 1))],
            "keys of different bytes that may be equal",
        ),
        ([update(TEXT, ("a", 1), ("A", 1))], "an update of a text key"),
        ([update(TEXT, ("a", 1), ("b", 1))], "an update of a text key"),
        # Equal to "ss" in some collations: nothing is proven of it.
        ([insert(TEXT, ("ß", 1)), delete(TEXT, ("ß", 1))], "a change whose keys could not be named"),
    ],
)
def test_text_keys_that_may_be_equal_do_not_fold(changes: list[Change], why: str) -> None:
    assert unfolded(*changes) == {"d.x": why}
    kept(*changes)


def test_keys_with_one_prefix_do_not_fold() -> None:
    table = Table("p", "vi", (Key((0,), prefix=3),))
    same_prefix = [delete(table, ("abcd", 1)), insert(table, ("abce", 1))]
    assert unfolded(*same_prefix) == {"d.p": "keys of different bytes that may be equal"}
    kept(*same_prefix)
    assert net(insert(table, ("abc", 1)), delete(table, ("abc", 1))) == []


@pytest.mark.parametrize("hash_bits", [0, 1, 3])
def test_rows_whose_hashes_collide_are_told_apart_by_their_keys(hash_bits: int) -> None:
    changes = [insert(T, (key, 0)) for key in range(50)]
    changes += [update(T, (key, 0), (key, 1)) for key in range(50)]
    changes += [insert(UNIQUE, (key, key, 0)) for key in range(50)]
    changes += [delete(T, (key, 1)) for key in range(25)]
    assert net(*changes, hash_bits=hash_bits) == [
        *(insert(T, (key, 1)) for key in range(25, 50)),
        *(insert(UNIQUE, (key, key, 0)) for key in range(50)),
    ]


def test_text_rows_whose_hashes_collide_stop_the_table_from_folding() -> None:
    changes = [insert(TEXT, ("a", 1)), insert(TEXT, ("b", 1)), delete(TEXT, ("a", 1))]
    assert net(*changes, hash_bits=0) == changes


def test_keys_of_several_text_columns_keep_their_boundaries() -> None:
    table = Table("v", "vvi", (Key((0, 1)),))
    changes = [insert(table, ("ab", "c", 1)), insert(table, ("a", "bc", 2)), delete(table, ("ab", "c", 1))]
    assert net(*changes, hash_bits=0) == [insert(table, ("a", "bc", 2))]


def test_a_null_before_the_key_moves_it_in_the_image() -> None:
    table = Table("n", "iivi", (Key((3,)),))
    changes = [
        insert(table, (None, 1, "x", 5)),
        insert(table, (1, None, None, 6)),
        update(table, (None, 1, "x", 5), (2, 1, "y", 5)),
        delete(table, (1, None, None, 6)),
    ]
    assert net(*changes) == [insert(table, (2, 1, "y", 5))]


# --- events ---------------------------------------------------------------------------------------------


def test_events_end_before_they_get_longer_than_a_packet_allows() -> None:
    rows = [(key, "x" * 90) for key in range(1000)]
    table = Table("w", "iv")
    group, tables, plans = group_of([insert(table, row) for row in rows])
    packets = folded_packets(group, packet_bytes_max=4096)
    assert len(packets) > 20
    assert all(len(packet) <= 4096 for packet, _ in packets)
    batch = whole_batch(group, 4096)
    assert all(len(batch.event(i)[1]) <= 2048 for i in range(batch.event_total))
    assert [change.after for change in changes_in(batch, tables, plans)] == rows


def test_every_table_is_mapped_once_before_the_first_row_event() -> None:
    tables = [Table(name, "ii") for name in "cab"]
    group, _, _ = group_of([insert(table, (key, 0)) for key in range(3) for table in tables])
    batch = whole_batch(group)
    assert [batch.event(i)[0] for i in range(batch.event_total)] == [19, 19, 19, 30, 30, 30]
    assert [bytes(batch.event(i)[1][31:32]) for i in range(3)] == [b"a", b"b", b"c"]


def test_server_id_and_timestamp_are_those_of_the_log() -> None:
    plans = Plans([T])
    events = [
        struct.pack("<IBI", 77, data[4], 1234) + data[9:] for data in statement_events([insert(T, (1, 1))])
    ]
    batch = Batch()
    batch.append_transaction(events, ROWS, 1)
    written = folded_batch(fold([(decode(batch, plans), 0, 1)]))
    for i in range(written.event_total):
        assert struct.unpack_from("<IBI", written.event(i)[1])[::2] == (77, 1234)
