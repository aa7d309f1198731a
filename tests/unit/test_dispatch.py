"""The work queue: units leave in log order, groups grow with the backlog, parts stay with one worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from scheduler.dispatch import WorkQueue
from scheduler.grouping import Cut, GroupLimits, Unit
from scheduler.pace import Pace
from scheduler.queues import QueueAborted
from tests.threads import ended, started, wait_for_waiters


@dataclass(frozen=True)
class One:
    """A transaction as the queue sees it."""

    number: int
    size_bytes: int = 10
    last_committed: int = 0
    alone: bool = False
    first_part: bool = True
    last_part: bool = True


class Transactions(list[One]):
    """A batch."""

    memory_bytes = 100


def cut(batch: Transactions, start: int, transactions_max: int, bytes_max: int, unit_first: int) -> Cut:
    """The rules of `CutFunction`, one transaction after the other."""
    head = batch[start]
    if head.alone:
        return Cut(
            start + 1,
            head.number,
            head.number,
            head.number - 1,
            head.size_bytes,
            True,
            head.first_part,
            head.last_part,
        )
    end, size, needs, first = start, 0, 0, unit_first or head.number
    while end < len(batch) and not batch[end].alone:
        one = batch[end]
        if end > start and (end - start >= transactions_max or size + one.size_bytes > bytes_max):
            break
        if one.last_committed < first:
            needs = max(needs, one.last_committed)
        size += one.size_bytes
        end += 1
    return Cut(end, head.number, batch[end - 1].number, needs, size, False, True, True)


def queue_of(
    *batches: list[One], limits: GroupLimits | None = None, bytes_max: int = 1000
) -> WorkQueue[Transactions]:
    queue: WorkQueue[Transactions] = WorkQueue(cut, limits=limits or GroupLimits(), bytes_max=bytes_max)
    for batch in batches:
        queue.put(Transactions(batch))
    return queue


def numbers(unit: Unit[Transactions] | None) -> list[int]:
    assert unit is not None
    return [one.number for piece in unit.slices for one in piece.batch[piece.first : piece.end]]


def singles(first: int, last: int) -> list[One]:
    return [One(number) for number in range(first, last + 1)]


# --- units -------------------------------------------------------------------------------------------


def test_one_by_one_in_log_order_over_batches() -> None:
    queue = queue_of(singles(1, 2), singles(3, 3))
    queue.close()
    assert queue.transactions == 3
    assert [numbers(queue.take()) for _ in range(3)] == [[1], [2], [3]]
    assert queue.take() is None
    assert (queue.transactions, queue.bytes) == (0, 0)


def test_a_group_takes_what_waits_up_to_its_limit_over_batches() -> None:
    queue = queue_of(singles(1, 3), singles(4, 9), limits=GroupLimits(5))
    assert [numbers(queue.take()), numbers(queue.take())] == [[1, 2, 3, 4, 5], [6, 7, 8, 9]]


def test_a_group_is_bounded_in_bytes_and_holds_at_least_one() -> None:
    queue = queue_of([One(1), One(2), One(3, 500), One(4)], limits=GroupLimits(100, bytes_max=25))
    assert [numbers(queue.take()) for _ in range(3)] == [[1, 2], [3], [4]]


def test_a_group_is_bounded_by_how_long_groups_took_before() -> None:
    queue = queue_of(singles(1, 9), limits=GroupLimits(100, seconds_max=0.3))
    queue.pace.note(size_bytes=10, seconds=0.1)  # one transaction of 10 bytes
    assert [numbers(queue.take()) for _ in range(3)] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_the_pace_follows_what_was_seen_last_and_begins_without_a_bound() -> None:
    pace = Pace()
    assert pace.bytes_in(1.0) is None
    for _ in range(50):
        pace.note(100, 1.0)
    for _ in range(50):
        pace.note(100, 0.01)
    assert pace.bytes_in(1.0) == pytest.approx(10_000, rel=0.01)
    pace.note(0, 1.0)
    pace.note(100, 0.0)
    assert pace.bytes_in(1.0) == pytest.approx(10_000, rel=0.01)


def test_a_barrier_is_a_group_of_its_own() -> None:
    queue = queue_of([One(1), One(2, alone=True), One(3)], [One(4, alone=True)], limits=GroupLimits(100))
    assert [numbers(queue.take()) for _ in range(4)] == [[1], [2], [3], [4]]


def test_what_a_unit_needs_is_the_most_that_its_transactions_need_from_outside() -> None:
    queue = queue_of(
        [One(7, last_committed=2), One(8, last_committed=7), One(9, last_committed=4)], limits=GroupLimits(9)
    )
    unit = queue.take()
    assert unit is not None
    assert (unit.sequence_first, unit.sequence_last, unit.last_committed) == (7, 9, 4)


# --- parts -------------------------------------------------------------------------------------------


def test_parts_go_to_who_took_the_first_and_the_others_wait() -> None:
    parts = [One(1, alone=True, last_part=False), One(1, alone=True, first_part=False, last_part=False)]
    queue = queue_of([parts[0]])
    owner = queue.take()
    assert owner is not None
    assert not owner.last_part
    others: list[list[int]] = []
    other = started(lambda: others.append(numbers(queue.take())))
    wait_for_waiters(queue._not_empty)
    queue.put(Transactions([parts[1]]))
    assert not queue.take_part().last_part
    queue.put(Transactions([One(1, alone=True, first_part=False), One(2)]))
    assert others == []
    assert queue.take_part().last_part
    assert ended(other)
    assert others == [[2]]


def test_who_waits_for_a_part_is_woken_by_it() -> None:
    queue = queue_of([One(1, alone=True, last_part=False)])
    queue.take()
    got: list[Unit[Transactions]] = []
    owner = started(lambda: got.append(queue.take_part()))
    wait_for_waiters(queue._part_ready)
    queue.put(Transactions([One(1, alone=True, first_part=False)]))
    assert ended(owner)
    assert got[0].last_part


@pytest.mark.parametrize("end", [WorkQueue.close, WorkQueue.drain, WorkQueue.abort])
def test_a_part_that_will_not_come_is_not_waited_for(end: Callable[[WorkQueue[Transactions]], None]) -> None:
    queue = queue_of([One(1, alone=True, last_part=False)])
    queue.take()
    outcomes: list[str] = []

    def owner() -> None:
        try:
            queue.take_part()
        except QueueAborted:
            outcomes.append("aborted")

    thread = started(owner)
    wait_for_waiters(queue._part_ready)
    end(queue)
    assert ended(thread)
    assert outcomes == ["aborted"]


# --- limits and ends ---------------------------------------------------------------------------------


def test_put_waits_while_the_workers_are_behind() -> None:
    queue = queue_of(singles(1, 2), bytes_max=150)
    producer = started(queue.put, Transactions(singles(3, 3)))
    wait_for_waiters(queue._not_full)
    assert numbers(queue.take()) == [1]
    assert producer.is_alive()
    assert numbers(queue.take()) == [2]
    assert ended(producer)
    assert numbers(queue.take()) == [3]


def test_drain_gives_out_nothing_more_and_frees_everybody() -> None:
    queue = queue_of(singles(1, 5), bytes_max=100)
    outcomes: list[str] = []

    def produce() -> None:
        try:
            queue.put(Transactions(singles(6, 6)))
        except QueueAborted:
            outcomes.append("aborted")

    producer = started(produce)
    wait_for_waiters(queue._not_full)
    queue.drain()
    assert ended(producer)
    assert outcomes == ["aborted"]
    assert queue.take() is None
    assert (queue.transactions, queue.bytes) == (0, 0)


def test_abort_raises_for_who_waits_and_who_comes() -> None:
    queue = queue_of()
    outcomes: list[str] = []

    def work() -> None:
        try:
            queue.take()
        except QueueAborted:
            outcomes.append("aborted")

    workers = [started(work) for _ in range(3)]
    wait_for_waiters(queue._not_empty, 3)
    queue.abort()
    assert all(ended(worker) for worker in workers)
    assert outcomes == ["aborted"] * 3
    with pytest.raises(QueueAborted):
        queue.put(Transactions(singles(1, 1)))


def test_close_lets_idle_workers_go() -> None:
    queue = queue_of()
    got: list[object] = []
    workers = [started(lambda: got.append(queue.take())) for _ in range(3)]
    wait_for_waiters(queue._not_empty, 3)
    queue.close()
    assert all(ended(worker) for worker in workers)
    assert got == [None, None, None]


@pytest.mark.parametrize("transactions_max", [1, 7])
def test_many_workers_take_everything_once(transactions_max: int) -> None:
    queue = queue_of(limits=GroupLimits(transactions_max), bytes_max=250)
    taken: list[list[int]] = []

    def work() -> None:
        while (unit := queue.take()) is not None:
            taken.append(numbers(unit))

    workers = [started(work) for _ in range(5)]
    for first in range(1, 600, 6):
        queue.put(Transactions(singles(first, first + 5)))
    queue.close()
    assert all(ended(worker) for worker in workers)
    assert sorted(number for unit in taken for number in unit) == list(range(1, 601))
    assert all(unit == list(range(unit[0], unit[-1] + 1)) for unit in taken)
