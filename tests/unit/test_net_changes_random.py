"""Net changes and hand-off against a database of dicts: random transactions over tables of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from applier.events.batch import Batch
from applier.events.hand_off import split
from applier.events.net_changes import fold
from applier.events.net_events import HELD, READY, folded_batch
from applier.events.scheduling import Dependencies
from applier.events.transaction import TransactionFlag
from tests.folding import (
    ROWS,
    Change,
    ConstraintViolated,
    Database,
    Image,
    Key,
    Plans,
    Table,
    batch_of,
    changes_in,
    decode,
    statement_events,
)
from writeset.buckets import BucketIndex
from writeset.definitions import Form

PLAIN = Table("plain", "ii")
UNIQUE = Table("unique", "iii", (Key((0,)), Key((1,)), Key((2,))))
COMPOSITE = Table("composite", "iivi", (Key((1, 2)), Key((0, 3))))
TEXT = Table("text", "vi", (Key((0,), Form.FOLDED), Key((1,))))
PREFIX = Table("prefix", "iv", (Key((0,)), Key((1,), prefix=1)))
HIDDEN = Table("hidden", "ii", (Key((0,)), Key((1,), Form.ANY)))
KEYLESS = Table("keyless", "ii", (), keyless=True)
MINIMAL = Table("minimal", "iii", minimal=True)
PARENT = Table("parent", "ii", is_parent=True)
CHILD = Table("child", "iii", parent=("parent", 1))
TABLES = (PLAIN, UNIQUE, COMPOSITE, TEXT, PREFIX, HIDDEN, KEYLESS, MINIMAL, PARENT, CHILD)
BY_NAME = {table.name: table for table in TABLES}
PLANS = Plans(TABLES)

Statement = list[Change]
Transaction = list[Statement]


class Source:
    """Makes up transactions that a server would have let through."""

    def __init__(self, seed: int, tables: Sequence[Table] = TABLES, keys: int = 4) -> None:
        self.random = Random(seed)
        self.tables = tables
        self.keys = keys
        self.database = Database(BY_NAME)

    def value(self, table: Table, column: int) -> int | str | None:
        if table.columns[column] == "v":
            return self.random.choice(("a", "A", "b", "ab", "é"))
        in_identity = bool(table.keys) and column in table.keys[0].columns
        if not in_identity and self.random.random() < 0.15:
            return None
        return self.random.randrange(self.keys)

    def row(self, table: Table) -> Image:
        return tuple(self.value(table, column) for column in range(len(table.columns)))

    def change(self) -> Change | None:
        table = self.random.choice(self.tables)
        rows = self.database.rows[table.name]
        kind = self.random.random()
        if not rows or kind < 0.35:
            change = Change(table, None, self.row(table))
        elif kind < 0.6:
            change = Change(table, self.random.choice(rows), None)
        else:
            before = self.random.choice(rows)
            column = self.random.randrange(len(before))
            after = (*before[:column], self.value(table, column), *before[column + 1 :])
            if after == before:
                return None
            change = Change(table, before, after)
        try:
            self.database.apply(change)
        except ConstraintViolated:
            return None
        return change.minimal() if table.minimal else change

    def statement(self) -> Statement:
        changes = [self.change() for _ in range(self.random.choice((1, 1, 1, 2, 3)))]
        return [change for change in changes if change is not None]

    def transaction(self) -> Transaction:
        statements = [self.statement() for _ in range(self.random.choice((1, 1, 2, 3)))]
        return [statement for statement in statements if statement]

    def batch(self, transactions: Sequence[Transaction], first_number: int = 1) -> Batch:
        """Table ids change from transaction to transaction, as they do on a server that restarts."""
        events = []
        for transaction in transactions:
            ids = {name: self.random.randrange(10) * 100 + i for i, name in enumerate(BY_NAME)}
            events.append([data for statement in transaction for data in statement_events(statement, ids)])
        return batch_of(events, PLANS, first_number)


def flat(transactions: Sequence[Transaction]) -> list[Change]:
    return [change for transaction in transactions for statement in transaction for change in statement]


def written(batch: Batch) -> list[Change]:
    return list(changes_in(batch, TABLES, PLANS))


def subset_of_tables(random: Random) -> Sequence[Table]:
    return random.sample(TABLES, random.randint(1, len(TABLES)))


@settings(max_examples=400)
@given(
    st.integers(0, 1 << 32),
    st.integers(1, 40),
    st.sampled_from((0, 2, 64)),
    st.integers(1, 600),
    st.booleans(),
)
def test_a_folded_group_leads_to_the_same_rows_and_breaks_no_constraint_on_the_way(
    seed: int, length: int, hash_bits: int, packet_bytes_max: int, narrow: bool
) -> None:
    source = Source(seed, subset_of_tables(Random(seed)))
    for _ in range(5):
        source.transaction()
    replica = source.database.copy()
    transactions = [source.transaction() for _ in range(length)]
    batch = source.batch(transactions)
    cut = source.random.randint(0, len(batch))
    group = fold([(batch, 0, cut), (batch, cut, len(batch))], hash_bits=hash_bits)
    changes = written(folded_batch(group, packet_bytes_max, narrow=narrow))
    replica.apply_all(changes)
    assert replica.contents() == source.database.contents()
    assert group.rows_in == len(flat(transactions))
    assert group.rows_out == len(changes)
    assert group.events_out <= max(group.rows_in, len(changes))


def hand_off(seed: int, tables: Sequence[Table], before: int, in_flight: int, length: int) -> tuple[int, int]:
    """Applies the ready part before the groups in flight, the held part after them. Returns (held, rows)."""
    source = Source(seed, tables)
    for _ in range(5):
        source.transaction()
    replica = source.database.copy()
    transactions = [source.transaction() for _ in range(before + in_flight + length)]
    batch = source.batch(transactions)
    Dependencies(BucketIndex(), use_source_bounds=False, row_by_row=True).schedule(batch, 0)
    group = fold([(batch, before + in_flight, len(batch))])
    wait_for = split(group, before)
    assert wait_for == 0 or before < wait_for < group.group_first
    ready, held = folded_batch(group, part=READY), folded_batch(group, part=HELD)
    replica.apply_all(flat(transactions[:before]))
    replica.apply_all(written(ready))
    replica.apply_all(flat(transactions[before : before + in_flight]))
    replica.apply_all(written(held))
    assert replica.contents() == source.database.contents()
    assert (wait_for > 0) == (group.rows_held > 0)
    return group.rows_held, group.rows_in


@settings(max_examples=600)
@given(st.integers(0, 1 << 32), st.integers(0, 5), st.integers(0, 10), st.integers(1, 20))
def test_ready_rows_may_run_before_the_groups_in_flight_and_held_rows_after_them(
    seed: int, before: int, in_flight: int, length: int
) -> None:
    hand_off(seed, subset_of_tables(Random(seed)), before, in_flight, length)


@settings(max_examples=400)
@given(st.integers(0, 1 << 32), st.integers(1, 10), st.integers(1, 20))
@example(seed=0, in_flight=1, length=1)
def test_unique_values_that_move_between_groups_are_handed_over(
    seed: int, in_flight: int, length: int
) -> None:
    hand_off(seed, (UNIQUE, COMPOSITE, PREFIX), 0, in_flight, length)


@settings(max_examples=300)
@given(st.integers(0, 1 << 32), st.integers(1, 10), st.integers(1, 20))
def test_parents_and_children_are_handed_over(seed: int, in_flight: int, length: int) -> None:
    hand_off(seed, (PARENT, CHILD), 0, in_flight, length)


def held_share(make: Callable[[int], tuple[int, int]]) -> float:
    counts = [make(seed) for seed in range(60)]
    held, rows = sum(count[0] for count in counts), sum(count[1] for count in counts)
    assert rows > 100
    return held / rows


def test_some_rows_are_ready_and_some_are_held() -> None:
    assert 0.1 < held_share(lambda seed: hand_off(seed, (PLAIN, UNIQUE), 0, 4, 10)) < 0.9
    assert 0.1 < held_share(lambda seed: hand_off(seed, TABLES, 0, 2, 10)) < 0.9


def test_nothing_is_held_once_everything_before_has_committed() -> None:
    for seed in range(40):
        assert hand_off(seed, TABLES, 10, 0, 10)[0] == 0


def test_children_of_one_parent_do_not_hold_each_other() -> None:
    """They share the parent's key: only the parent's own changes are ordered by it."""
    plans = Plans((PARENT, CHILD))
    changes = [
        [Change(PARENT, None, (1, 0))],
        [Change(CHILD, (5, 1, 0), (5, 1, 1))],  # in flight
        [Change(CHILD, (5, 1, 1), None)],  # held by it
        [Change(CHILD, None, (6, 1, 0))],
        [Change(CHILD, None, (7, 1, 0))],
    ]
    batch = batch_of([statement_events(statement) for statement in changes], plans)
    Dependencies(BucketIndex(), use_source_bounds=False, row_by_row=True).schedule(batch, 1)
    group = fold([(batch, 2, 5)])
    assert split(group, 1) == 2
    assert [change.before for change in written(folded_batch(group, part=HELD))] == [(5, 1, 1)]
    assert [change.after for change in written(folded_batch(group, part=READY))] == [(6, 1, 0), (7, 1, 0)]


def test_a_row_waits_for_the_group_before_although_its_last_writer_is_inside() -> None:
    """A value that the group before frees, that a row of the group takes and frees, and another takes."""
    plans = Plans((UNIQUE,))
    changes = [
        [Change(UNIQUE, (1, 7, 1), None)],  # in flight
        [Change(UNIQUE, None, (2, 7, 2))],
        [Change(UNIQUE, (2, 7, 2), None)],
        [Change(UNIQUE, None, (3, 7, 3)), Change(UNIQUE, None, (4, 8, 4))],
    ]
    batch = batch_of([statement_events(statement) for statement in changes], plans)
    Dependencies(BucketIndex(), use_source_bounds=False, row_by_row=True).schedule(batch, 0)
    group = fold([(batch, 1, 4)])
    assert split(group, 0) == 1
    assert group.rows_held == 3
    assert [change.after for change in written(folded_batch(group, part=READY))] == [(4, 8, 4)]
    assert [change.after for change in written(folded_batch(group, part=HELD))] == [(3, 7, 3)]
    assert split(group, 1) == 0
    assert folded_batch(group, part=HELD).row_total == 0


def test_a_parent_written_twice_waits_for_its_children_in_flight_and_no_more() -> None:
    plans = Plans((PARENT, CHILD))
    writes = [
        Change(PARENT, None, (1, 0)),
        Change(PARENT, None, (2, 0)),
        Change(CHILD, None, (5, 1, 0)),  # in flight
        Change(PARENT, (2, 0), (2, 1)),
        Change(CHILD, None, (6, 2, 0)),
        Change(
            PARENT, (2, 1), (2, 2)
        ),  # its last sharer is inside, behind a change that waited for all before
        Change(CHILD, None, (7, 1, 0)),
        Change(PARENT, (1, 0), (1, 1)),  # its last sharer is inside and hides the one in flight
    ]
    batch = batch_of([statement_events([change]) for change in writes], plans)
    Dependencies(BucketIndex(), use_source_bounds=False, row_by_row=True).schedule(batch, 2)
    group = fold([(batch, 3, 8)])
    assert split(group, 2) == 3
    assert written(folded_batch(group, part=READY)) == writes[3:7]
    assert written(folded_batch(group, part=HELD)) == writes[7:]


def test_a_barrier_inside_a_group_comes_after_all_before_it_and_before_all_after_it() -> None:
    batch = Batch()
    for number in range(1, 6):
        barrier = int(TransactionFlag.BARRIER) if number == 3 else 0
        batch.append_transaction(statement_events([Change(PLAIN, None, (number, 0))]), ROWS | barrier, number)
    decode(batch, PLANS)
    Dependencies(BucketIndex(), use_source_bounds=False, row_by_row=True).schedule(batch, 0)
    group = fold([(batch, 1, 5)])
    assert split(group, 0) == 1
    assert [change.after for change in written(folded_batch(group, part=READY))] == [(2, 0)]
    assert [change.after for change in written(folded_batch(group, part=HELD))] == [(3, 0), (4, 0), (5, 0)]
