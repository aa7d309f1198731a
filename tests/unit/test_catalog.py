"""The catalog: the keys of a table are those of its place in the log, and no DDL makes more be read than it must."""

from __future__ import annotations

import threading

import pytest

from applier.events.table_map import TableMap
from applier.target import schema
from applier.target.schema import Catalog
from scheduler.clock import Clock, ClockStopped
from tests.waiting import wait_until
from writeset.definitions import TableDefinition
from writeset.hashing import TablePlan


class Target:
    """A target whose DDL have run as far as the clock says; `family` are tables with foreign keys."""

    def __init__(self, *, family: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.catalog = Catalog(self._read, self.clock)
        self._family = family

    def _read(self, schema: str, table: str) -> TablePlan:
        """The number of columns tells how far the target was."""
        columns = self.clock.low_water_mark
        return TablePlan(TableDefinition(schema, table, columns, has_foreign_keys=table in self._family))

    def read_at(self, table: str, sequence_number: int) -> int:
        """How far the target was when the keys were read that a transaction gets."""
        return self.catalog.plan(TableMap(b"", 0, "d", table, (), None), sequence_number).column_total

    def run_up_to(self, sequence_number: int) -> None:
        self.clock.committed(self.clock.low_water_mark + 1, sequence_number)


def test_keys_are_read_once_while_nothing_changes_them() -> None:
    target = Target()
    assert target.read_at("t", 1) == 0
    target.run_up_to(5)
    assert target.read_at("t", 6) == 0
    assert target.catalog.reads == 1


def test_keys_behind_a_ddl_are_read_when_it_has_run_and_not_before() -> None:
    target = Target()
    assert target.read_at("t", 1) == 0
    target.catalog.note_ddl(7, {("d", "t")})
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.append(target.read_at("t", 8)), daemon=True)
    reader.start()
    wait_until(lambda: bool(target.clock._waits))
    assert target.catalog.reads == 1
    target.run_up_to(7)
    reader.join(10)
    assert found == [7]


def test_transactions_before_a_ddl_keep_their_keys() -> None:
    target = Target()
    assert target.read_at("t", 1) == 0
    target.catalog.note_ddl(7, {("d", "t")})
    assert target.read_at("t", 6) == 0
    assert target.catalog.reads == 1
    assert target.catalog.version_at(7) != target.catalog.version_at(8)


def test_ddl_of_one_table_leaves_the_others_alone() -> None:
    target = Target()
    assert target.read_at("t", 1) == 0
    target.catalog.note_ddl(7, {("d", "other")})
    assert target.read_at("t", 8) == 0
    assert target.catalog.reads == 1


def test_ddl_of_unknown_tables_changes_all() -> None:
    target = Target()
    assert target.read_at("t", 1) == 0
    target.catalog.note_ddl(7)
    target.run_up_to(7)
    assert target.read_at("t", 8) == 7


def test_keys_of_a_family_change_with_any_of_its_tables() -> None:
    """What a child touches depends on the columns and keys of its parent."""
    target = Target(family=("child",))
    assert target.read_at("child", 1) == 0
    target.catalog.note_ddl(7, {("d", "parent")})
    target.run_up_to(7)
    assert target.read_at("child", 8) == 7
    assert target.read_at("child", 9) == 7
    assert target.catalog.reads == 2


def test_family_is_waited_for_even_if_only_reading_tells_that_there_is_one() -> None:
    target = Target(family=("child",))
    target.catalog.note_ddl(7, {("d", "parent")})
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.append(target.read_at("child", 8)), daemon=True)
    reader.start()
    wait_until(lambda: bool(target.clock._waits))
    target.run_up_to(7)
    reader.join(10)
    assert found == [7]


def test_wait_for_a_ddl_that_will_not_run_ends() -> None:
    target = Target()
    target.catalog.note_ddl(7, {("d", "t")})
    target.clock.stop()
    with pytest.raises(ClockStopped):
        target.read_at("t", 8)


def test_ddl_beyond_what_is_remembered_may_have_changed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "DDL_REMEMBERED_MAX", 8)
    target = Target()
    assert target.read_at("t", 1) == 0
    for number in range(2, 12):
        target.catalog.note_ddl(number, {("d", "other")})
    target.run_up_to(11)
    assert target.read_at("t", 12) > 0
