"""Checks a recorded schedule, knowing nothing of how it came about: no bucket index, no clock, only who touched what
and when.

What must hold:

- *conflict*: of two transactions that touch one key, not both sharing it, the later one in the log did not start
  before the earlier one had committed; within a unit the log's order holds, so what was held back for the unit's
  second step is not needed by anything in its first;
- *barrier*: a barrier ran after everything before it and before everything after it, alone;
- *order*: with strict commit order commits came in the order of the log;
- *missing*, *twice*: every transaction committed once;
- *needs*: when a unit's last step started, what it waited for and what its transactions depend on had committed;
- *times*: a unit starts, executes, commits, in this order.

A source's word that two transactions may run side by side is taken, in its own numbers: they were given in one binary
log file, and the later one's last_committed is below the earlier one's sequence number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from math import inf
from pathlib import Path

from scheduler.recording import HELD, RecordedSection, RecordedTransaction, RecordedUnit, read_recording

ACCESS, SHARED = 0x0F, 1
VIOLATIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class Violation:
    """`later` ran wrongly with respect to `earlier` (sequence numbers)."""

    rule: str
    earlier: int
    later: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a recording without a violation."""

    sections: int
    transactions: int
    units: int
    touches: int
    overlapping: int  # units that started before the one before them had committed


def check_recording(path: Path, *, transactions: int | None = None, complete: bool = True) -> Summary:
    """AssertionError with what is wrong. `transactions`: how many there must be. `complete`: the run was not killed,
    so every section ends properly."""
    sections = list(read_recording(path))
    found = [violation for section in sections for violation in violations(section)]
    if complete and not all(section.low_water_mark is not None for section in sections):
        found.append(Violation("missing", 0, 0, "the recording breaks off"))
    summary = Summary(
        sections=len(sections),
        transactions=sum(len(unit.transactions) for section in sections for unit in section.units),
        units=sum(len(section.units) for section in sections),
        touches=sum(
            len(t.modes) for section in sections for unit in section.units for t in unit.transactions
        ),
        overlapping=sum(overlapping(section.units) for section in sections),
    )
    assert not found, f"{len(found)} violations: {found[:5]}"
    assert sections, f"{path} holds nothing"
    assert transactions in (None, summary.transactions), (
        f"{summary.transactions} of {transactions} transactions"
    )
    return summary


def overlapping(units: list[RecordedUnit]) -> int:
    in_order = sorted(units, key=lambda unit: unit.first)
    return sum(
        after.run.started < before.run.committed
        for before, after in zip(in_order, islice(in_order, 1, None), strict=False)
    )


def violations(section: RecordedSection) -> list[Violation]:
    """At most VIOLATIONS_MAX."""
    units = sorted(section.units, key=lambda unit: unit.first)
    checks: tuple[Iterable[Violation], ...] = (
        _order(section),
        _each_once(section, units),
        _times(units),
        _needs(section, units),
        _barriers(units),
        _conflicts(section, units),
    )
    return list(islice((violation for check in checks for violation in check), VIOLATIONS_MAX))


def _order(section: RecordedSection) -> Iterator[Violation]:
    if not section.ordered:
        return
    last, committed = 0, 0
    for unit in section.units:  # as they were written down
        if unit.first <= last or unit.run.committed < committed:
            yield Violation("order", last, unit.first)
        last, committed = unit.last, unit.run.committed


def _each_once(section: RecordedSection, units: list[RecordedUnit]) -> Iterator[Violation]:
    mark = section.low_water_mark
    # In relaxed order what ran ahead of a failure leaves gaps behind the low-water mark.
    complete_to = mark if mark is not None and not section.ordered else None
    expected = 1
    for unit in units:
        if unit.first < expected:
            yield Violation("twice", unit.first, unit.first)
        elif unit.first > expected and (
            section.ordered or (complete_to is not None and expected <= complete_to)
        ):
            yield Violation("missing", expected, unit.first - 1)
        numbers = [transaction.sequence_number for transaction in unit.transactions]
        if numbers != list(range(unit.first, unit.last + 1)):
            yield Violation("missing", unit.first, unit.last, f"the unit holds {numbers}")
        expected = max(expected, unit.last + 1)
    if mark is not None and (expected - 1 < mark or (section.ordered and expected - 1 != mark)):
        yield Violation("missing", expected, mark, "what the low-water mark says is committed")


def _last_step(unit: RecordedUnit) -> int:
    return unit.run.held_started or unit.run.started


def _times(units: list[RecordedUnit]) -> Iterator[Violation]:
    for unit in units:
        run = unit.run
        steps = [run.started, _last_step(unit), run.executed, run.committed]
        if steps != sorted(steps) or run.started <= 0:
            yield Violation("times", unit.first, unit.last, str(run))


def _needs(section: RecordedSection, units: list[RecordedUnit]) -> Iterator[Violation]:
    """A last_committed that the source gave need not be waited for, where a transaction's keys say that less is enough:
    their last writers may be in the unit, although the source's number is before it."""
    firsts = [unit.first for unit in units]
    committed_by = list(accumulate((unit.run.committed for unit in units), max))
    for unit in units:
        own = [t.last_committed for t in unit.transactions if t.last_committed < unit.first]
        if section.source_bounds and len(unit.transactions) > 1:
            own = []
        needed = max(unit.run.waited_for, *own, 0)
        before = bisect_right(firsts, needed) - 1
        if needed >= unit.first or (before >= 0 and committed_by[before] > _last_step(unit)):
            yield Violation("needs", needed, unit.first)


def _barriers(units: list[RecordedUnit]) -> Iterator[Violation]:
    committed_by = list(accumulate((unit.run.committed for unit in units), max))
    earliest_effect = _earliest(map(_first_effect, units))
    for at, unit in enumerate(units):
        if not any(transaction.barrier for transaction in unit.transactions):
            continue
        if len(unit.transactions) > 1:
            yield Violation("barrier", unit.first, unit.last, "not alone")
        if at and committed_by[at - 1] > unit.run.started:
            yield Violation("barrier", unit.first - 1, unit.first)
        if at + 1 < len(units) and earliest_effect[at + 1] < unit.run.committed:
            yield Violation("barrier", unit.first, unit.first + 1)


def _first_effect(unit: RecordedUnit) -> float:
    """When its first row was changed. What touches nothing, and is no barrier, has no rows."""
    touches = {mode & HELD for transaction in unit.transactions for mode in transaction.modes}
    if 0 in touches or any(transaction.barrier for transaction in unit.transactions):
        return unit.run.started
    return _last_step(unit) if touches else inf


def _earliest(times: Iterable[float]) -> list[float]:
    """Of each unit and those behind it."""
    return list(accumulate(reversed(list(times)), min))[::-1]


@dataclass(slots=True)
class _Access:
    """What one transaction did to a key."""

    shared: bool
    held: bool
    unit: RecordedUnit
    transaction: RecordedTransaction


def _conflicts(section: RecordedSection, units: list[RecordedUnit]) -> Iterator[Violation]:
    """Every access is compared with all earlier ones to its key that were not yet committed when it, or anything
    later, started: nothing is inferred from chains of dependencies."""
    accesses: dict[int, list[_Access]] = {}
    starts = _earliest(unit.run.started for unit in units)
    for unit, earliest_start in zip(units, starts, strict=True):
        for transaction in unit.transactions:
            for key, mode in zip(transaction.hashes, transaction.modes, strict=True):
                mine = _Access(mode & ACCESS == SHARED, bool(mode & HELD), unit, transaction)
                earlier = accesses.get(key)
                if earlier is None:
                    accesses[key] = [mine]
                    continue
                if _repeats(mine, earlier[-1]):  # a million rows of a table without a key, say
                    continue
                earlier[:] = [one for one in earlier if one.unit.run.committed > earliest_start]
                for other in earlier:
                    if not (other.shared and mine.shared) and _collide(section, other, mine):
                        yield Violation(
                            "conflict",
                            other.transaction.sequence_number,
                            transaction.sequence_number,
                            hex(key),
                        )
                earlier.append(mine)


def _repeats(mine: _Access, last: _Access) -> bool:
    """Whether it would be compared as the last one was."""
    return mine.transaction is last.transaction and (mine.shared, mine.held) == (last.shared, last.held)


def _collide(section: RecordedSection, earlier: _Access, later: _Access) -> bool:
    if earlier.unit is later.unit:
        return earlier.held and not later.held
    start = _last_step(later.unit) if later.held else later.unit.run.started
    if earlier.unit.run.committed <= start:
        return False
    return not (section.source_bounds and _source_allows(earlier.transaction, later.transaction))


def _source_allows(earlier: RecordedTransaction, later: RecordedTransaction) -> bool:
    return (
        earlier.source_epoch == later.source_epoch
        and 0 < earlier.source_sequence_number < later.source_sequence_number
        and later.source_last_committed < earlier.source_sequence_number
    )
