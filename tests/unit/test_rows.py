"""The row walker on real binary logs: the library's rows, the slow path's spans, and damaged events."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.errors import ApplierError, CorruptEvent
from applier.events.batch import Batch
from applier.events.column_types import ColumnType
from applier.events.json_value import JsonDiff
from applier.events.rows import RowDecoder, row_cells, row_touches
from applier.events.table_map import Column, TableMap
from applier.events.transaction import TransactionFlag
from applier.events.values import CellState, row_change
from tests import every_type
from tests.decoding import batches_of, changes_of, decoded, first_column_is_key, plan_over
from tests.library_rows import in_our_form, library_rows
from writeset.hashing import TablePlan

FULL = every_type.log("full")
MINIMAL = every_type.log("minimal")
ROWS = int(TransactionFlag.ROWS | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART)
TABLE_MAP, WRITE_ROWS, UPDATE_ROWS = 19, 30, 31
# The library knows no VECTOR, and no row without columns.
UNKNOWN_TO_THE_LIBRARY = ["vectors", "keyless_defaults"]


def library_differs(column: Column, ours: Any) -> bool:
    """Where the library gives another value than the server does; the live oracle covers these."""
    return (
        (column.type is ColumnType.TIME2 and column.metadata > 0 and ours.startswith("-"))
        or (isinstance(ours, str) and ours.startswith("0000-00-00"))
        or (column.type is ColumnType.SET and ours == "")
        or ours == b""
        or column.name == "js_opaque"
        or (isinstance(ours, list) and (not ours or isinstance(ours[0], JsonDiff)))
    )


def test_rows_equal_those_of_the_library_on_the_same_bytes() -> None:
    ours = [
        c for c in changes_of(decoded(batches_of(FULL))) if c.table_map.table not in UNKNOWN_TO_THE_LIBRARY
    ]
    compared: Counter[ColumnType] = Counter()
    for mine, (table, before, after) in zip(ours, library_rows(FULL, UNKNOWN_TO_THE_LIBRARY), strict=False):
        assert mine.table_map.table == table
        for image, theirs in ((mine.before, before), (mine.after, after)):
            assert (image is None) == (theirs is None)
            for column in mine.table_map.columns if image is not None and theirs is not None else ():
                value = image.get(column.label) if image is not None else None
                if value is not None and library_differs(column, value):
                    continue
                assert value == in_our_form(column, theirs and theirs.get(column.label)), column
                compared[column.type] += 1
    assert len(compared) == len(set(ColumnType) - NOT_IN_ANY_TABLE)
    assert sum(compared.values()) > 7000


# Types that no table of MySQL 8 or 9 has in its log: old ones, and those that travel under another name.
NOT_IN_ANY_TABLE = {
    ColumnType.DECIMAL,
    ColumnType.NULL,
    ColumnType.TIMESTAMP,
    ColumnType.TIME,
    ColumnType.DATETIME,
    ColumnType.NEWDATE,
    ColumnType.TYPED_ARRAY,
    ColumnType.VECTOR,
    ColumnType.TINY_BLOB,
    ColumnType.MEDIUM_BLOB,
    ColumnType.LONG_BLOB,
    ColumnType.VAR_STRING,
}


def test_compressed_transactions_hold_the_same_rows_as_uncompressed_ones() -> None:
    changes = [(c.kind, c.table_map.table, c.after) for c in changes_of(decoded(batches_of(FULL)))]
    start = changes.index(next(c for c in changes if c[1] == "not_null"))
    again = len(changes) - next(i for i, c in enumerate(reversed(changes)) if c[2] == changes[start][2]) - 1
    # computed and many_columns start from what the first time left, so only rows before them are the same.
    assert changes[start : start + 10] == changes[again : again + 10]


def test_little_metadata_gives_the_same_values_by_position() -> None:
    with_names = changes_of(decoded(batches_of(FULL)))
    without = changes_of(decoded(batches_of(MINIMAL)))
    assert len(with_names) == len(without)
    for named, numbered in zip(with_names, without, strict=True):
        for image, other in ((named.before, numbered.before), (named.after, numbered.after)):
            expected = None
            if image is not None:
                labels = {c.name: f"@{c.position + 1}" for c in named.table_map.columns if c.values is None}
                expected = {labels[name]: value for name, value in image.items() if name in labels}
            assert expected == (other and {k: v for k, v in other.items() if k in (expected or ())})


def test_vectors_and_documents_are_decoded() -> None:
    changes = [c for c in changes_of(decoded(batches_of(FULL))) if c.table_map.table == "vectors"]
    assert changes[0].after == {
        "id": 1,
        "v": [-1.5, 0.0, pytest.approx(3.4e38)],
        "w": [7.0],
        "n": 1,
    }
    assert [c.dimensions for c in changes[0].table_map.columns] == [None, 3, 16383, None]


def touched(plan: TablePlan, kind: int, before: Any, after: Any) -> Any:
    return plan.touches(kind, image_of(before), image_of(after))


def image_of(cells: list[tuple[int, bytes]] | None) -> list[Any] | None:
    if cells is None:
        return None
    by_state: dict[int, Any] = {CellState.NULL: None, CellState.ABSENT: ...}
    return [by_state.get(state, data) for state, data in cells]


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(lambda count: [[i] for i in range(count)], id="each column is a key"),
        pytest.param(lambda count: [range(count)], id="all columns are one key"),
        pytest.param(lambda count: [[0]], id="the first column"),
        pytest.param(lambda count: [[count - 1]], id="the last column"),
        pytest.param(lambda count: [[i for i in range(count) if i % 3 == 1] or [0]], id="every third column"),
    ],
)
def test_spans_are_those_of_the_slow_walk(keys: Any) -> None:
    plans: dict[TableMap, TablePlan] = {}

    def plan(table_map: TableMap, _: int) -> TablePlan:
        # A key over JSON would get a difference as its value in a partial update.
        documents = {c.position for c in table_map.columns if c.type is ColumnType.JSON}
        chosen = [[p for p in key if p not in documents] for key in keys(len(table_map.columns))]
        return plans.setdefault(table_map, plan_over(table_map, [key for key in chosen if key]))

    rows = 0
    for batch in decoded(batches_of(FULL), plan):
        for t in range(len(batch)):
            transaction = batch.transaction(t)
            if transaction.flags & TransactionFlag.KEYS_UNKNOWN:
                continue
            for i in range(transaction.row_first, transaction.row_first + transaction.row_count):
                kind, table_map, before, after = row_cells(batch, i)
                assert row_touches(batch, i) == touched(plans[table_map], kind, before, after)
                rows += 1
    assert rows > 100


def test_minimal_images_leave_out_columns() -> None:
    states = [
        {state for cells in (before, after) for state, _ in cells or ()}
        for batch in decoded(batches_of(FULL))
        for _, _, before, after in (row_cells(batch, i) for i in range(batch.row_total))
    ]
    assert {CellState.PRESENT, CellState.ABSENT} in states
    assert {CellState.PRESENT, CellState.ABSENT, CellState.PARTIAL} in states
    assert {CellState.ABSENT} in states  # not one column: INSERT INTO t () VALUES ()


def test_a_row_without_its_key_makes_the_transaction_a_barrier() -> None:
    barriers = [
        [c.table_map.table for c in changes_of_transaction(batch, t)]
        for batch in decoded(batches_of(FULL))
        for t in range(len(batch))
        if TransactionFlag.KEYS_UNKNOWN in batch.transaction(t).flags
    ]
    assert barriers == [["keyless_defaults"], ["keyless_defaults"]][: len(barriers)]
    assert barriers


def changes_of_transaction(batch: Batch, t: int) -> list[Any]:
    transaction = batch.transaction(t)
    return [
        row_change(batch, i)
        for i in range(transaction.row_first, transaction.row_first + transaction.row_count)
    ]


# --- plans ----------------------------------------------------------------------------------------------


class Recorder:
    """Plans that remember what they were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, table_map: TableMap, sequence_number: int) -> TablePlan:
        self.asked.append(table_map.table)
        return first_column_is_key(table_map, sequence_number)


def test_a_plan_is_asked_for_once_per_table_map_content() -> None:
    plans = Recorder()
    decoded(batches_of(FULL, batch_bytes_max=4096), plans)
    assert Counter(plans.asked) == Counter(set(plans.asked))


def test_another_schema_version_asks_for_the_plans_again() -> None:
    plans = Recorder()
    decoder = RowDecoder()
    for version in (1, 1, 2):
        for batch in batches_of(FULL):
            decoder.decode(batch, plans, version)
    assert set(Counter(plans.asked).values()) == {2}


def events_of_table(table: str, log: bytes = FULL) -> list[bytes]:
    """Table map and first row event about a table."""
    for batch in batches_of(log):
        events = [batch.event(i) for i in range(batch.event_total)]
        for (kind, data), (_, following) in pairwise(events):
            if kind == TABLE_MAP and f"\0{chr(len(table))}{table}\0".encode() in data:
                return [data, following]
    raise AssertionError(f"no events of {table}")


def batch_of(*transactions: list[bytes], flags: int = ROWS) -> Batch:
    batch = Batch(0, "binlog.000042")
    for number, events in enumerate(transactions, 1):
        batch.append_transaction(events, flags, number)
    return batch


def test_a_schema_change_within_the_batch_asks_for_the_plans_again() -> None:
    events = events_of_table("not_null")
    batch = batch_of(events, events)
    batch.append_transaction([], int(TransactionFlag.STATEMENTS | TransactionFlag.DDL), 3)
    batch.append_transaction(events, ROWS, 4)
    plans = Recorder()
    decoded([batch], plans)
    assert plans.asked == ["not_null", "not_null"]
    assert len(batch.tables) == 2
    assert batch.row_total == 9


def test_a_table_with_other_columns_than_the_target_makes_a_barrier_and_keeps_its_rows() -> None:
    events = events_of_table("not_null")
    batch = batch_of(events)

    def plan(table_map: TableMap, _: int) -> TablePlan:
        other = decoded([batch_of(events_of_table("keyless"))])[0].tables[0][0]
        return plan_over(other)

    decoded([batch], plan)
    assert batch.transaction(0).flags == ROWS | TransactionFlag.BARRIER | TransactionFlag.KEYS_UNKNOWN
    assert batch.row_total == 3
    assert row_touches(batch, 0) == []


def test_a_plan_that_cannot_be_had_ends_the_batch_before_its_transaction() -> None:
    refusal = ApplierError(detail="no such table on the target")

    def plan(table_map: TableMap, sequence_number: int) -> TablePlan:
        if table_map.table == "keyless":
            raise refusal
        return first_column_is_key(table_map, sequence_number)

    batch = batch_of(events_of_table("not_null"), events_of_table("keyless"), events_of_table("not_null"))
    size = len(b"".join(events_of_table("not_null")))
    RowDecoder().decode(batch, plan)
    assert batch.failure is refusal
    assert (len(batch), batch.row_total, batch.byte_count) == (1, 3, size)


def test_more_tables_than_are_remembered_are_still_decoded() -> None:
    table_map, rows = events_of_table("not_null")
    plans = Recorder()
    decoder = RowDecoder()
    for first in range(0, 12000, 1000):
        batch = batch_of(
            *([table_map.replace(b"not_null", b"t%07d" % n), rows] for n in range(first, first + 1000))
        )
        decoder.decode(batch, plans)
        assert batch.failure is None
        assert batch.row_total == 3000
    assert len(plans.asked) == 12000
    assert decoder.tables_learnt == 12000


# --- events as no server of today writes them --------------------------------------------------------------


def resized(event: bytes) -> bytes:
    return event[:9] + struct.pack("<I", len(event)) + event[13:]


def as_version_1(event: bytes) -> bytes:
    extra = struct.unpack_from("<H", event, 27)[0]
    return resized(event[:4] + bytes([event[4] - 7]) + event[5:27] + event[27 + extra :])


@pytest.mark.parametrize("table", ["not_null", "every_type", "partitioned"])
def test_version_1_row_events_hold_the_same_rows(table: str) -> None:
    table_map, rows = events_of_table(table)
    assert rows[4] in (WRITE_ROWS, UPDATE_ROWS)
    new = decoded([batch_of([table_map, rows])])[0]
    old = decoded([batch_of([table_map, as_version_1(rows)])])[0]
    assert [str(c) for c in changes_of([old])] == [str(c) for c in changes_of([new])]


def test_extra_row_info_is_stepped_over() -> None:
    table_map, rows = events_of_table("not_null")
    longer = resized(rows[:27] + struct.pack("<H", 40) + bytes(38) + rows[29:])
    assert len(changes_of(decoded([batch_of([table_map, longer])]))) == 3


def test_the_dummy_event_that_ends_a_statement_is_accepted() -> None:
    table_map, rows = events_of_table("not_null")
    dummy = resized(rows[:19] + struct.pack("<IHHH", 0xFFFFFF, 0, 1, 2) + b"\x00")
    assert decoded([batch_of([table_map, rows, dummy])])[0].row_total == 3


# --- damage ---------------------------------------------------------------------------------------------


def failure_of(*transactions: list[bytes]) -> ApplierError | None:
    batch = batch_of(*transactions)
    RowDecoder().decode(batch, first_column_is_key)
    return batch.failure


def test_a_row_event_without_its_table_map_is_corrupt_and_names_the_place() -> None:
    table_map, rows = events_of_table("not_null")
    batch = batch_of([table_map, rows], [rows], [table_map, rows])
    RowDecoder().decode(batch, first_column_is_key)
    assert isinstance(batch.failure, CorruptEvent)
    assert "binlog.000042" in str(batch.failure)
    assert "no table map in force" in str(batch.failure)
    assert (len(batch), batch.row_total) == (1, 3)


def test_a_table_map_is_in_force_until_its_statement_ends() -> None:
    table_map, rows = events_of_table("not_null")
    unended = rows[:25] + bytes([rows[25] & 0xFE]) + rows[26:]
    assert failure_of([table_map, unended, rows]) is None
    assert isinstance(failure_of([table_map, rows, rows]), CorruptEvent)


def test_every_cut_of_a_row_event_is_corrupt_or_ends_between_rows() -> None:
    table_map, rows = events_of_table("not_null")
    whole = 0
    for length in range(27, len(rows)):
        failure = failure_of([table_map, resized(rows[:length])])
        assert failure is None or isinstance(failure, CorruptEvent)
        whole += failure is None
    assert whole == 3  # no row, one row, two rows


def test_a_cut_value_names_its_table_and_column() -> None:
    table_map, rows = events_of_table("not_null")
    assert "types.not_null: column note ends after" in str(failure_of([table_map, resized(rows[:-1])]))


def test_an_unknown_column_type_names_table_and_column() -> None:
    table_map, rows = events_of_table("keyless")
    at = table_map.index(b"keyless\0\x02") + 9
    broken = table_map[:at] + b"\x63" + table_map[at + 1 :]
    assert "types.keyless: column 1: column type 99 is not known" in str(failure_of([broken, rows]))


SAMPLES = [batch.event(i)[1] for batch in batches_of(FULL) for i in range(batch.event_total)]
PAIRS = [
    [first, second] for first, second in pairwise(SAMPLES) if first[4] == TABLE_MAP and len(second) < 20000
]


@settings(max_examples=1500)
@given(st.data())
def test_damaged_events_are_rows_or_corrupt_but_never_anything_else(data: st.DataObject) -> None:
    events = [bytearray(event) for event in data.draw(st.sampled_from(PAIRS))]
    for _ in range(data.draw(st.integers(1, 4))):
        event = events[data.draw(st.integers(0, 1))]
        at = data.draw(st.integers(19, max(19, min(len(event) - 1, 400))))
        if data.draw(st.booleans()) and len(event) > at:
            event[at] = data.draw(
                st.sampled_from([0, 1, 0x7F, 0x80, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF, at & 0xFF])
            )
        else:
            del event[at:]
    batch = batch_of([bytes(event) for event in events])
    RowDecoder().decode(batch, lambda table_map, _: plan_over(table_map, [[0]] if table_map.columns else []))
    assert batch.failure is None or isinstance(batch.failure, CorruptEvent)
    for change in changes_of([batch]):
        assert str(change)
