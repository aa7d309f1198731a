"""What a run tells of itself: histograms, lag by two clocks, and what a moment is blamed on."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from applier.observe import catalogue
from applier.observe.blame import Blame, Front, hold_ups
from applier.observe.causes import Parts, Spent, by_cause, main_cause, parts_of
from applier.observe.histogram import LogHistogram, merged
from applier.observe.lag import MARKS_MAX, CommitTimes
from applier.observe.status import Cause
from applier.target.worker_state import WorkerState
from scheduler.grouping import Unit

NOW = 1000.0
IN_FLIGHT = Front(in_flight=True)
ROOT = Path(__file__).parents[2]


def worker(number: int, activity: str, first: int, **state: float) -> WorkerState:
    """One that has the transaction `first`, since a millisecond."""
    found = WorkerState(number, activity, first, unit=Unit(first, first), since=NOW - 0.001)
    for name, value in state.items():
        setattr(found, name, value)
    return found


def blames(*states: WorkerState, ordered: bool = True, front: Front = IN_FLIGHT) -> dict[Blame, float]:
    found: dict[Blame, float] = {}
    for held in hold_ups(states, 10, front, NOW, ordered=ordered):
        found[held.blame] = found.get(held.blame, 0.0) + held.share
    return found


def test_with_commit_order_the_head_decides() -> None:
    committing = worker(0, "waiting for its commit turn", 11)
    executing = worker(1, "executing", 11)
    behind = worker(2, "waiting for its commit turn", 12)
    assert blames(committing, behind) == {Blame.COMMITTING: 1.0}
    assert blames(executing, behind) == {Blame.ORDER: 1.0}
    assert blames(executing, worker(2, "executing", 12)) == {Blame.EXECUTING: 1.0}
    assert blames(worker(1, "encoding", 11), behind) == {Blame.FRONT: 1.0}


def test_who_waited_longer_than_it_executes_would_be_through_without_the_wait() -> None:
    assert blames(worker(0, "executing", 11, waits_for=9, waited_seconds=0.002)) == {Blame.DEPENDENCY: 1.0}
    assert blames(worker(0, "executing", 11, waits_for=9, waited_seconds=0.0005)) == {Blame.EXECUTING: 1.0}
    assert blames(worker(0, "executing", 11, last_code=1205)) == {Blame.LOCK_WAIT: 1.0}


def test_without_commit_order_each_worker_counts() -> None:
    found = blames(
        worker(0, "executing", 12),
        worker(1, "waiting for a dependency", 13),
        worker(2, "waiting for a dependency", 14),
        worker(3, "waiting for its commit turn", 11),
        ordered=False,
    )
    assert found == {Blame.EXECUTING: 0.25, Blame.DEPENDENCY: 0.5, Blame.COMMITTING: 0.25}


@pytest.mark.parametrize(
    ("front", "blame"),
    [
        (Front(in_flight=False), Blame.IDLE),
        (Front(in_flight=True), Blame.FRONT),
        (Front(in_flight=False, late=True, waiting=True), Blame.SOURCE_LINK),
        (Front(in_flight=False, late=True, waiting=False), Blame.FRONT),
    ],
)
def test_without_a_worker_at_the_head_the_front_decides(front: Front, blame: Blame) -> None:
    assert blames(front=front) == {blame: 1.0}


def test_round_trips_are_told_apart_from_the_servers_work() -> None:
    spent = Spent(execute_seconds=10.0, execute_count=100, exchanges=100, commit_seconds=4.0, commits=100)
    parts = parts_of(spent, 0.02, ordered=True, before=Parts())
    assert (parts.network, parts.commit_network, parts.commit) == (0.2, 0.5, 0.0)
    seconds = by_cause({Blame.EXECUTING: 10.0, Blame.COMMITTING: 4.0}, parts)
    assert seconds == {
        Cause.EXECUTION: pytest.approx(8.0),
        Cause.FSYNC: pytest.approx(2.0),
        Cause.NETWORK: pytest.approx(4.0),
    }
    assert main_cause(seconds) is Cause.EXECUTION


def test_commits_that_travel_with_the_rows_are_counted_by_those_that_do_not() -> None:
    spent = Spent(execute_seconds=10.0, execute_count=100, exchanges=100, commit_seconds=0.5, commits=10)
    parts = parts_of(spent, 0.0, ordered=False, before=Parts())
    assert parts.commit == pytest.approx(0.45)
    assert by_cause({Blame.EXECUTING: 10.0}, parts)[Cause.FSYNC] == pytest.approx(4.5)


@pytest.mark.parametrize("blame", list(Blame))
def test_no_second_is_lost_or_made(blame: Blame) -> None:
    parts = Parts(network=0.3, commit=0.2, commit_network=0.4, keyless=0.5, barrier=0.1)
    assert sum(by_cause({blame: 2.0}, parts).values()) == pytest.approx(2.0)


def test_little_work_in_much_idleness_is_no_cause() -> None:
    assert main_cause({Cause.IDLE: 9.99, Cause.FSYNC: 0.01}) is Cause.IDLE
    assert main_cause({}) is Cause.IDLE


def test_buckets_are_powers_of_two_microseconds() -> None:
    histogram = LogHistogram()
    for seconds in (0.0, 0.000_001, 0.000_003, 0.001, 100.0):
        histogram.observe(seconds)
    bounds = dict(histogram.bounds(10))
    assert [bounds[0.000_001], bounds[0.000_002], bounds[0.000_004], bounds[float("inf")]] == [1, 2, 3, 5]
    assert bounds[0.001_024] == 4
    assert histogram.quantile(0.5) == 0.000_004
    assert merged([histogram, histogram]).count == 10
    assert merged([histogram, histogram]).total == pytest.approx(2 * histogram.total)


def test_lag_is_right_when_the_clocks_differ_and_nothing_when_nothing_comes() -> None:
    times = CommitTimes()
    assert times.lag_seconds(0) == 0.0
    times.clock_offset_seconds = 3600.0  # the source's clock is an hour ahead
    committed = time.time() + 3600.0 - 2.0
    times.add(5, round(committed * 1e6), ("binlog.000001", 400))
    assert times.lag_seconds(0) == pytest.approx(2.0, abs=0.5)
    assert times.applied == ("", 0)
    assert times.lag_seconds(5) == pytest.approx(2.0, abs=0.5)  # so late it was read, just now
    assert times.applied == ("binlog.000001", 400)
    times.last_monotonic -= 2.0
    assert times.lag_seconds(5) == 0.0


def test_lag_that_nobody_asks_for_takes_no_more_memory_with_time() -> None:
    """The last mark then stands for more and more: with the older commit time, and the newer place."""
    times = CommitTimes()
    now = round(time.time() * 1e6)
    for number in range(1, 3 * MARKS_MAX + 1):
        times.add(number, now - 3_600_000_000 + number, ("binlog.000001", number))
    assert times.lag_seconds(0) == pytest.approx(3600.0, abs=10.0)
    assert times.lag_seconds(3 * MARKS_MAX - 1) == pytest.approx(3600.0, abs=10.0)
    times.lag_seconds(3 * MARKS_MAX)
    assert times.applied == ("binlog.000001", 3 * MARKS_MAX)


def test_every_activity_of_a_worker_is_in_the_catalogue() -> None:
    text = "".join((ROOT / "applier/target" / name).read_text() for name in ("worker.py", "worker_state.py"))
    named = set(re.findall(r'enter\("([^"]+)"\)|activity = "([^"]+)"|activity: str = "([^"]+)"', text))
    activities = {one for groups in named for one in groups if one}
    assert "executing" in activities
    assert activities <= set(catalogue.ACTIVITIES)
