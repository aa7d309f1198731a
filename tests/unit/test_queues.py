"""Bounded queues: full ones make the producer wait, closed and aborted ones let everybody go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scheduler.queues import BoundedQueue, QueueAborted
from tests.threads import ended, started, wait_for_waiters


def test_first_in_first_out() -> None:
    queue: BoundedQueue[str] = BoundedQueue(items_max=3, bytes_max=100)
    for item in ("a", "b", "c"):
        queue.put(item, 10)
    assert (len(queue), queue.bytes) == (3, 30)
    assert [queue.get(), queue.get(), queue.get()] == ["a", "b", "c"]
    assert queue.bytes == 0


@pytest.mark.parametrize(("items_max", "bytes_max"), [(2, 1000), (1000, 20)])
def test_put_waits_while_items_or_bytes_are_at_their_limit(items_max: int, bytes_max: int) -> None:
    queue: BoundedQueue[int] = BoundedQueue(items_max=items_max, bytes_max=bytes_max)
    queue.put(1, 10)
    queue.put(2, 10)
    producer = started(queue.put, 3, 10)
    wait_for_waiters(queue._not_full)
    assert len(queue) == 2
    assert queue.get() == 1
    assert ended(producer)
    assert [queue.get(), queue.get()] == [2, 3]


def test_one_item_is_let_in_however_large() -> None:
    queue: BoundedQueue[str] = BoundedQueue(items_max=1, bytes_max=10)
    queue.put("large", 1000)
    assert queue.get() == "large"


def test_get_waits_for_an_item() -> None:
    queue: BoundedQueue[int] = BoundedQueue(items_max=1, bytes_max=10)
    got: list[int | None] = []
    consumer = started(lambda: got.append(queue.get()))
    wait_for_waiters(queue._not_empty)
    queue.put(5, 1)
    assert ended(consumer)
    assert got == [5]


def test_a_closed_queue_gives_out_what_is_in_it() -> None:
    queue: BoundedQueue[int] = BoundedQueue(items_max=5, bytes_max=10)
    queue.put(1, 1)
    queue.close()
    assert [queue.get(), queue.get(), queue.get()] == [1, None, None]


def test_close_wakes_who_waits_for_an_item() -> None:
    queue: BoundedQueue[int] = BoundedQueue(items_max=5, bytes_max=10)
    got: list[int | None] = []
    consumers = [started(lambda: got.append(queue.get())) for _ in range(3)]
    wait_for_waiters(queue._not_empty, 3)
    queue.close()
    assert all(ended(consumer) for consumer in consumers)
    assert got == [None, None, None]


def test_abort_frees_both_ends_and_everybody_who_comes_later() -> None:
    full: BoundedQueue[int] = BoundedQueue(items_max=1, bytes_max=10)
    full.put(1, 1)
    empty: BoundedQueue[int] = BoundedQueue(items_max=1, bytes_max=10)
    outcomes: list[type[BaseException]] = []

    def note(call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except QueueAborted as error:
            outcomes.append(type(error))

    threads = [started(note, full.put, 2, 1), started(note, empty.get)]
    wait_for_waiters(full._not_full)
    wait_for_waiters(empty._not_empty)
    full.abort()
    empty.abort()
    assert all(ended(thread) for thread in threads)
    assert outcomes == [QueueAborted, QueueAborted]
    with pytest.raises(QueueAborted):
        full.get()
    with pytest.raises(QueueAborted):
        empty.put(1, 1)
    assert full.aborted


def test_nothing_is_lost_between_many_producers_and_consumers() -> None:
    queue: BoundedQueue[int] = BoundedQueue(items_max=3, bytes_max=40)
    got: list[int] = []

    def produce(start: int) -> None:
        for number in range(start, start + 200):
            queue.put(number, 1 + number % 30)

    def consume() -> None:
        while (item := queue.get()) is not None:
            got.append(item)

    producers = [started(produce, start) for start in (0, 1000, 2000)]
    consumers = [started(consume) for _ in range(4)]
    assert all(ended(producer) for producer in producers)
    queue.close()
    assert all(ended(consumer) for consumer in consumers)
    assert sorted(got) == sorted(number for start in (0, 1000, 2000) for number in range(start, start + 200))
    assert queue.bytes == 0
