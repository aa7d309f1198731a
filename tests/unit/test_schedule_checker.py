"""Recordings: what is written is read again, and what is wrong with a schedule is seen."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from applier.events.batch import Batch
from applier.events.schedule_record import transaction_records
from applier.events.scheduling import Dependencies
from scheduler.budget import MemoryBudget
from scheduler.grouping import Slice, Unit
from scheduler.recording import (
    HELD,
    RecordedSection,
    RecordedTransaction,
    RecordedUnit,
    ScheduleRecorder,
    UnitRun,
    read_recording,
)
from tests.schedule_checker import check_recording, violations
from tests.simulation.logs import random_log
from tests.waiting import wait_until
from writeset.buckets import BucketIndex

X, S = 2, 1  # EXCLUSIVE_OVER_SHARED, SHARED


def transaction(number: int, *touches: tuple[int, int], **facts: int) -> RecordedTransaction:
    wanted = {
        "last_committed": 0,
        "source_sequence_number": 0,
        "source_last_committed": 0,
        "source_epoch": 0,
        "barrier": False,
    }
    keys = array("Q", [key for key, _ in touches])
    return RecordedTransaction(number, **(wanted | facts), hashes=keys, modes=bytes(m for _, m in touches))


def unit(start: int, end: int, *transactions: RecordedTransaction, held_started: int = 0) -> RecordedUnit:
    """Starts and commits then."""
    run = UnitRun(start, end, end, held_started)
    numbers = [one.sequence_number for one in transactions]
    return RecordedUnit(numbers[0], numbers[-1], 0, run, transactions)


def rules(
    *units: RecordedUnit, ordered: bool = True, mark: int | None = None, source_bounds: bool = False
) -> set[str]:
    section = RecordedSection(ordered, source_bounds, 1, list(units), mark)
    return {violation.rule for violation in violations(section)}


# --- what is seen -----------------------------------------------------------------------------------------


def test_writers_of_one_key_must_not_overlap() -> None:
    first = unit(1, 5, transaction(1, (7, X)))
    assert rules(first, unit(5, 9, transaction(2, (7, X)))) == set()
    assert rules(first, unit(4, 9, transaction(2, (8, X)))) == set()
    assert rules(first, unit(4, 9, transaction(2, (7, X)))) == {"conflict"}


def test_sharers_may_overlap_but_not_with_a_writer() -> None:
    sharers = unit(1, 5, transaction(1, (7, S))), unit(2, 6, transaction(2, (7, S)))
    assert rules(*sharers) == set()
    assert rules(*sharers, unit(5, 9, transaction(3, (7, X)))) == {"conflict"}
    assert rules(*sharers, unit(6, 9, transaction(3, (7, X)))) == set()


def test_an_overlap_is_seen_through_those_in_between() -> None:
    long = unit(1, 20, transaction(1, (7, X)))
    between = unit(2, 21, transaction(2, (9, X)))
    assert rules(long, between, unit(3, 22, transaction(3, (7, X)))) == {"conflict"}


def test_a_barrier_is_alone() -> None:
    before, barrier, after = (
        unit(1, 5, transaction(1, (1, X))),
        unit(5, 6, transaction(2, barrier=True)),
        unit(6, 7, transaction(3, (3, X))),
    )
    assert rules(before, barrier, after) == set()
    assert rules(before, replace(barrier, run=UnitRun(4, 6, 6)), after) == {"barrier"}
    assert rules(before, barrier, replace(after, run=UnitRun(5, 7, 7))) == {"barrier"}
    assert (
        rules(before, barrier, replace(after, run=UnitRun(5, 7, 7), transactions=(transaction(3),))) == set()
    )
    assert rules(unit(1, 5, transaction(1, barrier=True), transaction(2))) == {"barrier"}


def test_rows_held_for_the_second_step_come_after_what_they_wait_for() -> None:
    first = unit(1, 5, transaction(1, (7, X)))
    second = transaction(2, (7, X | HELD), (8, X))
    assert rules(first, unit(3, 9, second, held_started=5)) == set()
    assert rules(first, unit(3, 9, second, held_started=4)) == {"conflict"}
    assert rules(first, unit(3, 9, transaction(2, (7, X), (8, X | HELD)), held_started=5)) == {"conflict"}


def test_within_a_unit_nothing_ready_comes_after_something_held() -> None:
    held, ready = transaction(1, (7, X | HELD)), transaction(2, (7, X))
    assert rules(unit(1, 9, held, ready, held_started=5)) == {"conflict"}
    assert (
        rules(unit(1, 9, replace(held, modes=bytes([X])), replace(ready, modes=bytes([X | HELD])))) == set()
    )


def test_commits_in_another_order_are_seen() -> None:
    one, two = unit(1, 5, transaction(1)), unit(2, 4, transaction(2))
    assert rules(one, two) == {"order"}
    assert rules(two, one) == {"order"}
    assert rules(two, one, ordered=False) == set()


def test_gaps_and_doubles_are_seen() -> None:
    one, three = unit(1, 2, transaction(1)), unit(3, 4, transaction(3))
    assert rules(one, three) == {"missing"}
    assert rules(one, three, ordered=False) == set(), "what ran ahead when the run was killed"
    assert rules(one, three, ordered=False, mark=3) == {"missing"}
    assert "twice" in rules(one, one)
    assert rules(one, mark=2) == {"missing"}
    assert rules(replace(one, last=2)) == {"missing"}


def test_a_unit_that_did_not_wait_is_seen() -> None:
    one = unit(1, 5, transaction(1))
    two = unit(4, 9, transaction(2, last_committed=1))
    assert rules(one, two) == {"needs"}
    assert rules(one, replace(two, run=UnitRun(5, 9, 9))) == set()


def test_the_source_s_word_counts_within_one_file_only() -> None:
    one = unit(1, 5, transaction(1, (7, X), source_sequence_number=10, source_epoch=1))

    def two(**source: int) -> RecordedUnit:
        facts = {"source_sequence_number": 11, "source_last_committed": 9, "source_epoch": 1} | source
        return unit(2, 9, transaction(2, (7, X), **facts))

    assert rules(one, two(), source_bounds=True) == set()
    assert rules(one, two(), source_bounds=False) == {"conflict"}
    assert rules(one, two(source_last_committed=10), source_bounds=True) == {"conflict"}
    assert rules(one, two(source_epoch=2), source_bounds=True) == {"conflict"}


# --- the file ---------------------------------------------------------------------------------------------


def record(path: Path) -> int:
    """Every transaction of a log by itself, one after the other. Returns how many there are."""
    log = random_log(3, transactions=30)
    dependencies = Dependencies(BucketIndex())
    recorder: ScheduleRecorder = ScheduleRecorder(
        path,
        lambda unit, held: transaction_records(
            unit.slices[0].batch, unit.slices[0].first, unit.slices[0].end
        ),
        ordered=True,
        source_bounds=True,
        workers=3,
    )
    recorder.start()
    number = 0
    for batch in log.batches:
        dependencies.schedule(batch, number)
        for at in range(len(batch)):
            number += 1
            one = Unit(number, number, number - 1, [Slice(batch, at, at + 1)])
            recorder.record(number % 3, one, UnitRun(number, number, number + 1))
    recorder.close(number)
    assert number == len(log.needs)
    return number


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "schedule"
    total = record(path)
    again = record(path)
    sections = list(read_recording(path))
    assert [len(section.units) for section in sections] == [total, again]
    assert {(section.ordered, section.source_bounds, section.workers) for section in sections} == {
        (True, True, 3)
    }
    assert sections[0].low_water_mark == total
    assert sections[0].units[-1].run.committed == total + 1
    summary = check_recording(path, transactions=2 * total)
    assert summary.touches == sum(len(t.modes) for s in sections for u in s.units for t in u.transactions) > 0
    batch = random_log(3, transactions=30).batches[0]
    assert sections[0].units[0].transactions[0].barrier == bool(batch.transaction(0).flags & 4)


def test_what_is_recorded_is_not_held_any_longer(tmp_path: Path) -> None:
    """A batch that lives counts as in flight: the reader might wait for it while the recorder waits for another."""
    recorder: ScheduleRecorder[Batch] = ScheduleRecorder(
        tmp_path / "schedule", lambda unit, held: b"", ordered=True, source_bounds=True, workers=1
    )
    recorder.start()
    budget = MemoryBudget(1 << 20)
    batch = Batch(0, budget=budget)
    batch.enter()
    recorder.record(0, Unit(1, 1, 0, [Slice(batch, 0, 0)]), UnitRun(1, 2, 3))
    del batch
    wait_until(lambda: budget.batches == 0)
    recorder.close(1)


def test_a_recording_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "schedule"
    total = record(path)
    whole = path.read_bytes()
    for length in range(16, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        (section,) = read_recording(path)
        assert len(section.units) < total or section.low_water_mark is None
        check_recording(path, complete=False)
        with pytest.raises(AssertionError, match="breaks off"):
            check_recording(path)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "something"
    path.write_bytes(b"something else altogether")
    with pytest.raises(ValueError, match="not a recording"):
        list(read_recording(path))


def test_a_full_disk_ends_the_recording_and_not_the_replay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    record(full)
    assert "schedule not recorded" in caplog.text


def test_hashes_only_are_written_and_rows_can_be_held() -> None:
    batch = next(batch for seed in range(99) for batch in random_log(seed).batches if batch.row_total > 1)
    rows = sum(batch.transaction(i).row_count for i in range(len(batch)))
    plain = transaction_records(batch, 0, len(batch))
    assert transaction_records(batch, 0, len(batch), bytes(rows)) == plain
    held = transaction_records(batch, 0, len(batch), bytes([1]) * rows)
    assert sum(a != b for a, b in zip(plain, held, strict=True)) == sum(
        batch.transaction(i).touch_count for i in range(len(batch))
    )
    with pytest.raises(ValueError, match="flags"):
        transaction_records(batch, 0, len(batch), bytes(rows + 1))
    with pytest.raises(IndexError):
        transaction_records(batch, 0, len(batch) + 1)
