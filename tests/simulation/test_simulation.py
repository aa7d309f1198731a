"""The scheduler under simulated workers: whatever the timing, conflicts keep their order and nothing is lost."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.schedule_checker import overlapping
from tests.simulation.campaign import campaign
from tests.simulation.execution import Schedule, Script, faults
from tests.simulation.logs import random_log
from tests.simulation.runtime import ThreadRuntime

SCHEDULES = 40_000
CHUNKS = 10
THREADED = 150


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_schedule_breaks_an_order_or_loses_a_transaction(chunk: int) -> None:
    each = SCHEDULES // CHUNKS
    for ran in campaign(chunk * each, each):
        assert not ran.faults, f"{ran.script}: {ran.faults[:3]}"


def test_the_simulation_meets_everything_that_can_happen() -> None:
    """Else the test above would prove little."""
    met: Counter[str] = Counter()
    for ran in campaign(10_000_000, 2_000):
        units = ran.outcome.section.units
        met["side by side"] += overlapping(units) > 0
        met["out of order"] += [unit.first for unit in units] != sorted(unit.first for unit in units)
        met["a barrier"] += any(t.barrier for unit in units for t in unit.transactions)
        met["a group"] += any(unit.first < unit.last for unit in units)
        met["rolled back"] += any(unit.run.runs > 1 for unit in units)
        met["in two steps"] += any(unit.run.held_started for unit in units)
        met["failed"] += ran.script.fail_at > 0
        met["stopped before the end"] += bool(units) and ran.script.stop_at > 0
        met["drained before the end"] += bool(units) and ran.script.drain_at > 0
    assert min(met.values()) >= 15, met
    assert len(met) == 9, met


def test_a_seed_gives_the_same_schedule_again() -> None:
    once, again = (list(campaign(4_000, 100)) for _ in range(2))
    assert [ran.outcome.section.units for ran in once] == [ran.outcome.section.units for ran in again]


def test_real_threads_keep_the_order_too() -> None:
    side_by_side = 0
    for seed in range(THREADED):
        log = random_log(seed, transactions=40)
        script = Script.random(seed, log)
        outcome = Schedule(log, script, ThreadRuntime()).run()
        found = faults(log, script, outcome)
        assert not found, f"{script}: {found[:3]}"
        side_by_side += overlapping(outcome.section.units)
    assert side_by_side > 10 * THREADED


@pytest.mark.long
def test_hundreds_of_times_as_many_schedules() -> None:
    for ran in campaign(random.SystemRandom().randrange(1 << 40) * 20, 10_000_000):
        assert not ran.faults, f"{ran.script}: {ran.faults[:3]}"
