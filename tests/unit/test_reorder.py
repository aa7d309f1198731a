"""Reorder: whatever order things come in, they leave in theirs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from scheduler.queues import QueueAborted
from scheduler.reorder import Reorder
from tests.threads import ended, started, wait_for_waiters


@pytest.mark.parametrize("seed", range(5))
def test_items_leave_by_number(seed: int) -> None:
    numbers = list(range(100))
    random.Random(seed).shuffle(numbers)
    reorder: Reorder[int] = Reorder(bytes_max=1 << 20)
    for number in numbers:
        reorder.put(number, number * 10, 1)
    reorder.close(100)
    assert [reorder.get() for _ in range(101)] == [*range(0, 1000, 10), None]
    assert (len(reorder), reorder.bytes) == (0, 0)


def test_get_waits_for_the_next_one() -> None:
    reorder: Reorder[str] = Reorder(bytes_max=100)
    got: list[str | None] = []
    reorder.put(1, "second", 1)
    consumer = started(lambda: got.extend([reorder.get(), reorder.get()]))
    wait_for_waiters(reorder._next_ready)
    reorder.put(0, "first", 1)
    assert ended(consumer)
    assert got == ["first", "second"]


def test_put_waits_while_too_much_is_ahead_but_never_with_what_is_next() -> None:
    reorder: Reorder[int] = Reorder(bytes_max=20)
    reorder.put(2, 2, 15)
    ahead = started(reorder.put, 1, 1, 10)
    wait_for_waiters(reorder._not_full)
    reorder.put(0, 0, 1000)
    assert [reorder.get(), reorder.get(), reorder.get()] == [0, 1, 2]
    assert ended(ahead)


def test_close_before_the_last_items_have_come() -> None:
    reorder: Reorder[int] = Reorder(bytes_max=20)
    reorder.close(2)
    reorder.put(1, 1, 1)
    reorder.put(0, 0, 1)
    assert [reorder.get(), reorder.get(), reorder.get()] == [0, 1, None]


def test_close_with_nothing_wakes_who_waits() -> None:
    reorder: Reorder[int] = Reorder(bytes_max=20)
    got: list[int | None] = []
    consumer = started(lambda: got.append(reorder.get()))
    wait_for_waiters(reorder._next_ready)
    reorder.close(0)
    assert ended(consumer)
    assert got == [None]


def test_abort_frees_both_ends() -> None:
    reorder: Reorder[int] = Reorder(bytes_max=10)
    reorder.put(5, 5, 10)
    outcomes: list[str] = []

    def note(call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except QueueAborted:
            outcomes.append("aborted")

    threads = [started(note, reorder.put, 4, 4, 10), started(note, reorder.get)]
    wait_for_waiters(reorder._not_full)
    wait_for_waiters(reorder._next_ready)
    reorder.abort()
    assert all(ended(thread) for thread in threads)
    assert outcomes == ["aborted", "aborted"]


def test_parallel_producers_one_consumer() -> None:
    reorder: Reorder[int] = Reorder(bytes_max=30)
    numbers = iter(range(500))
    lock = threading.Lock()

    def produce() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            reorder.put(number, number, 1 + number % 20)

    producers = [started(produce) for _ in range(4)]
    reorder.close(500)
    got = []
    while (item := reorder.get()) is not None:
        got.append(item)
    assert got == list(range(500))
    assert all(ended(producer) for producer in producers)
