"""The clock: waits end when they may, turns come in order, whatever the threads do."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from scheduler.clock import Clock, ClockStopped, Decision, Ticket
from tests.waiting import wait_until


class Unit:
    """A unit's ticket, and what it was told."""

    def __init__(self, first: int, last: int | None = None) -> None:
        self.told: list[Decision] = []
        self.ticket = Ticket(first, last or first, self.told.append)


class Waiting:
    """A call that blocks, in a thread of its own, until `outcome` has its result or its error."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.outcome: list[object] = []
        self._call = call
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.outcome.append(self._call())
        except ClockStopped as stopped:
            self.outcome.append(type(stopped))

    def result(self) -> object:
        self.thread.join(10)
        assert not self.thread.is_alive(), "still waiting"
        return self.outcome[0]


def waiting(clock: Clock, sequence_number: int) -> Waiting:
    """A thread that is inside `wait_for`."""
    before = len(clock._waits)
    thread = Waiting(lambda: clock.wait_for(sequence_number))
    wait_until(lambda: len(clock._waits) > before)
    return thread


# --- waiting -----------------------------------------------------------------------------------------


def test_what_is_committed_is_not_waited_for() -> None:
    clock = Clock()
    assert clock.wait_for(0)
    clock.committed(1, 3)
    assert clock.wait_for(3)
    assert not clock.wait_for(4, seconds=0.01)


def test_a_commit_wakes_exactly_those_who_can_go_on() -> None:
    clock = Clock()
    two, five, again = waiting(clock, 2), waiting(clock, 5), waiting(clock, 2)
    clock.committed(1, 1)
    assert (two.outcome, again.outcome) == ([], [])
    clock.committed(2, 4)
    assert two.result() is True
    assert again.result() is True
    assert five.outcome == []
    clock.committed(5, 5)
    assert five.result() is True


def test_stop_ends_every_wait() -> None:
    clock = Clock()
    threads = [waiting(clock, number) for number in (1, 7)]
    clock.stop()
    assert [thread.result() for thread in threads] == [ClockStopped, ClockStopped]
    with pytest.raises(ClockStopped):
        clock.wait_for(1)


def test_failure_ends_the_waits_for_what_will_never_be() -> None:
    clock = Clock()
    before, at, after = waiting(clock, 2), waiting(clock, 3), waiting(clock, 9)
    clock.fail(3)
    assert at.result() is ClockStopped
    assert after.result() is ClockStopped
    assert before.outcome == []
    clock.committed(1, 2)
    assert before.result() is True
    with pytest.raises(ClockStopped):
        clock.wait_for(3)


def test_the_earliest_of_several_failures_counts() -> None:
    clock = Clock()
    clock.fail(5)
    clock.fail(9)
    assert clock.failed_at == 5
    clock.fail(2)
    assert clock.failed_at == 2


# --- turns -------------------------------------------------------------------------------------------


def test_turns_are_passed_on_by_who_commits() -> None:
    clock = Clock()
    first, second, third = Unit(1, 2), Unit(3), Unit(4)
    clock.executed(third.ticket)
    clock.executed(second.ticket)
    assert second.told == third.told == []
    clock.executed(first.ticket)
    assert first.told == [Decision.COMMIT]
    assert second.told == []
    clock.committed(1, 2)
    assert second.told == [Decision.COMMIT]
    assert third.told == []
    clock.committed(3, 3)
    assert third.told == [Decision.COMMIT]
    assert third.ticket.decision is Decision.COMMIT
    clock.committed(4, 4)
    assert clock.low_water_mark == 4


def test_a_commit_out_of_turn_is_a_programming_error() -> None:
    clock = Clock()
    with pytest.raises(AssertionError, match="out of turn"):
        clock.committed(2, 2)


def test_relaxed_order_commits_at_once_and_the_mark_follows_over_what_is_contiguous() -> None:
    clock = Clock(ordered=False)
    units = {number: Unit(number) for number in (1, 2, 3, 4)}
    for number in (3, 2, 4):
        clock.executed(units[number].ticket)
        assert units[number].told == [Decision.COMMIT]
        clock.committed(number, number)
        assert clock.low_water_mark == 0
    clock.executed(units[1].ticket)
    clock.committed(1, 1)
    assert clock.low_water_mark == 4


@pytest.mark.parametrize("ordered", [True, False])
def test_after_a_failure_nothing_behind_it_commits_and_everything_before_it_does(ordered: bool) -> None:
    clock = Clock(ordered=ordered)
    before, behind, later = Unit(2), Unit(4), Unit(5)
    if ordered:
        clock.executed(behind.ticket)
    clock.fail(3)
    clock.executed(later.ticket)
    assert later.told == [Decision.ABANDON]
    assert behind.told == ([Decision.ABANDON] if ordered else [])
    clock.executed(before.ticket)
    clock.committed(1, 1)
    assert before.told == [Decision.COMMIT]


def test_stop_abandons_who_waits_for_a_turn() -> None:
    clock = Clock()
    waits, late = Unit(2), Unit(3)
    clock.executed(waits.ticket)
    clock.stop()
    clock.executed(late.ticket)
    assert waits.told == late.told == [Decision.ABANDON]


# --- lock waits that the server cannot see -----------------------------------------------------------


def test_later_units_are_rolled_back_for_a_blocked_one_and_let_it_go_first() -> None:
    clock = Clock()
    earlier, later, last = Unit(2), Unit(4), Unit(5)
    clock.executed(earlier.ticket)
    clock.executed(later.ticket)
    assert clock.roll_back_later_than(3) == 1
    assert earlier.told == []
    assert later.told == [Decision.ROLLBACK]
    # One that comes to its turn meanwhile would hold the lock as well.
    clock.executed(last.ticket)
    assert last.told == [Decision.ROLLBACK]
    gives_way = Waiting(lambda: clock.give_way(4))
    wait_until(lambda: clock._waits)
    clock.committed(1, 1)
    clock.committed(2, 2)
    assert gives_way.outcome == []
    clock.committed(3, 3)
    assert gives_way.result() is None
    clock.give_way(5)
    clock.executed(last.ticket)
    clock.executed(later.ticket)
    assert later.told[-1] is Decision.COMMIT
    assert last.told == [Decision.ROLLBACK]


def test_a_unit_gives_way_to_earlier_ones_only() -> None:
    clock = Clock()
    clock.roll_back_later_than(7)
    clock.give_way(7)
    clock.give_way(3)
    unit = Unit(6)
    clock.executed(unit.ticket)
    assert unit.told == []


def test_a_blocked_unit_that_fails_for_good_frees_who_gave_way() -> None:
    clock = Clock()
    clock.roll_back_later_than(3)
    gives_way = Waiting(lambda: clock.give_way(4))
    wait_until(lambda: clock._waits)
    clock.fail(3)
    assert gives_way.result() is ClockStopped


def test_units_that_wait_with_locks_held_are_told_to_roll_back() -> None:
    clock = Clock()
    holds = Waiting(lambda: clock.wait_holding(5, 2))
    wait_until(lambda: clock._holders)
    assert clock.roll_back_later_than(3) == 1
    assert holds.result() is False
    assert clock.wait_holding(6, 2) is False
    clock.committed(1, 3)
    assert clock.wait_holding(5, 2) is True


def test_units_that_wait_with_locks_held_go_on_when_they_may() -> None:
    clock = Clock()
    holds = Waiting(lambda: clock.wait_holding(3, 1))
    wait_until(lambda: clock._holders)
    clock.roll_back_later_than(4)
    assert holds.outcome == []
    clock.committed(1, 1)
    assert holds.result() is True


def test_only_the_guilty_unit_is_rolled_back_and_runs_again_after_the_one_it_blocked() -> None:
    clock = Clock()
    guilty, innocent = Unit(4), Unit(5)
    clock.executed(guilty.ticket)
    clock.executed(innocent.ticket)
    assert clock.roll_back(4, blocked=2)
    assert (guilty.told, innocent.told) == ([Decision.ROLLBACK], [])
    gives_way = Waiting(lambda: clock.give_way(4))
    wait_until(lambda: clock._waits)
    clock.committed(1, 1)
    assert gives_way.outcome == []
    clock.committed(2, 2)
    assert gives_way.result() is None
    clock.executed(guilty.ticket)  # not refused a second time
    clock.committed(3, 3)
    assert guilty.told[1:] == [Decision.COMMIT]


def test_a_unit_that_waits_with_locks_held_can_be_the_guilty_one() -> None:
    clock = Clock()
    holds = Waiting(lambda: clock.wait_holding(5, 3))
    wait_until(lambda: clock._holders)
    assert clock.roll_back(5, blocked=2)
    assert holds.result() is False
    gives_way = Waiting(lambda: clock.give_way(5))
    wait_until(lambda: clock._waits)
    clock.committed(1, 2)
    assert gives_way.result() is None
    assert clock._waits == []


def test_nobody_is_rolled_back_for_a_later_unit_or_one_that_has_committed_or_while_executing() -> None:
    clock = Clock()
    waits = Unit(4)
    clock.executed(waits.ticket)
    clock.committed(1, 2)
    assert not clock.roll_back(4, blocked=4)
    assert not clock.roll_back(4, blocked=9)
    assert not clock.roll_back(4, blocked=2)
    assert not clock.roll_back(5, blocked=3)
    assert waits.told == []
    clock.committed(3, 3)
    assert not clock.roll_back(4, blocked=3)
    assert waits.told == [Decision.COMMIT]


def test_who_was_woken_but_does_not_run_yet_is_not_woken_again() -> None:
    """Its rows are free: it goes on, whoever waits for its locks finds it later."""
    clock = Clock()
    holds = Waiting(lambda: clock.wait_holding(5, 1))
    wait_until(lambda: clock._holders)
    with clock._lock:  # it cannot leave `wait_holding`
        clock._advance(1, 1)
        (wake,) = clock._due()
        wake.release()
        assert clock._take_holders([5]) == []
    assert holds.result() is True


# --- all together ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ordered", [True, False])
def test_any_interleaving_commits_everything_once_and_in_order(seed: int, ordered: bool) -> None:
    """Threads take units in order, wait for their dependencies, commit when told, roll back when told."""
    choose = random.Random(seed)
    clock = Clock(ordered=ordered)
    needs = {number: choose.randrange(max(0, number - 9), number) for number in range(1, 301)}
    blocked = {number for number in needs if choose.random() < 0.05}
    units, lock = iter(sorted(needs)), threading.Lock()
    commits: list[int] = []

    def apply(number: int) -> None:
        while True:
            clock.wait_for(needs[number])
            if number in blocked:
                blocked.discard(number)
                if number % 2:
                    clock.roll_back_later_than(number)
                else:
                    for later in range(number + 1, number + 7):
                        clock.roll_back(later, number)
            decided = threading.Semaphore(0)
            ticket = Ticket(number, number, lambda decision, decided=decided: decided.release())  # type: ignore[misc]
            clock.executed(ticket)
            decided.acquire()
            if ticket.decision is Decision.COMMIT:
                commits.append(number)
                clock.committed(number, number)
                return
            assert ticket.decision is Decision.ROLLBACK
            clock.give_way(number)

    def work() -> None:
        while True:
            with lock:
                number = next(units, None)
            if number is None:
                return
            apply(number)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert clock.low_water_mark == 300
    assert sorted(commits) == list(range(1, 301))
    place = {number: at for at, number in enumerate(commits)}
    if ordered:
        assert commits == sorted(commits)
    assert all(place[need] < place[number] for number, need in needs.items() if need)
