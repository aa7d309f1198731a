"""The memory budget: what is held is counted, who waits for room waits, and the oldest batch always gets through."""

from __future__ import annotations

import gc
import random
import threading

from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch, Buffer
from scheduler.budget import MemoryBudget
from tests import binlog_bytes as log
from tests.threads import ended, started
from tests.waiting import wait_until

BEGIN, XID = log.query_event("BEGIN"), log.xid_event()


def test_what_is_charged_is_held_until_it_is_given_back() -> None:
    budget = MemoryBudget(1000)
    budget.add(700)
    budget.add(600)
    budget.release(700)
    assert (budget.used, budget.peak, budget.limit) == (600, 1300, 1000)


def test_a_buffer_counts_as_long_as_it_lives() -> None:
    budget = MemoryBudget(1 << 20)
    buffer = Buffer(5000, budget)
    view = memoryview(buffer)
    del buffer
    assert budget.used == 5000
    del view
    assert budget.used == 0


def test_a_batch_counts_with_its_arrays_and_leaves_when_it_is_freed() -> None:
    budget = MemoryBudget(1 << 20)
    batch = Batch(7, budget=budget)
    batch.append_transaction([bytes(19)] * 1000, 0, 1)
    assert budget.used == 0
    batch.enter()
    assert budget.batches == 1
    assert budget.used > 1000 * 16
    assert batch.memory_bytes == budget.used + 19_000  # its buffer was made without the budget
    del batch
    assert (budget.used, budget.batches) == (0, 0)


def test_buffers_that_batches_share_count_once() -> None:
    budget = MemoryBudget(1 << 30)
    assembler = StreamAssembler(packets=False, budget=budget, buffer_bytes=1 << 16)
    assembler.begin_file("binlog.000001")
    assembler.feed(log.MAGIC + log.format_event())
    batches = []
    for number in range(1, 40):
        assembler.feed(log.gtid_event(number) + BEGIN + XID)
        batches.append(assembler.take(flush=True))
        assert batches[-1] is not None
        batches[-1].enter()
    assert budget.batches == 39
    assert 1 << 16 < budget.used < 39 << 16
    batches.clear()
    del assembler
    assert (budget.used, budget.batches) == (0, 0)


def test_who_needs_room_waits_until_there_is_some() -> None:
    budget = MemoryBudget(100)
    budget.enter(0)
    budget.enter(1)
    budget.add(150)
    waiter = started(budget.wait_for_room, 100, 1)
    wait_until(lambda: budget.waits == 1)
    budget.release(20)
    assert waiter.is_alive()
    budget.release(30)
    assert ended(waiter)
    assert budget.wait_seconds > 0


def test_the_oldest_batch_gets_through_however_little_room_there_is() -> None:
    budget = MemoryBudget(100)
    older, younger = Batch(3, budget=budget), Batch(4, budget=budget)
    older.enter()
    younger.enter()
    budget.add(1000)
    budget.wait_for_room(0, 3)
    waiter = started(budget.wait_for_room, 0, 4)
    wait_until(lambda: budget.waits == 1)
    del older
    assert ended(waiter)
    assert younger.number == 4


def test_the_reader_gets_through_when_nothing_is_in_flight() -> None:
    budget = MemoryBudget(100)
    budget.add(1000)
    budget.wait_for_room(50)
    batch = Batch(0, budget=budget)
    batch.enter()
    reader = started(budget.wait_for_room, 50)
    wait_until(lambda: budget.waits == 1)
    del batch
    assert ended(reader)


def test_a_batch_that_only_a_circle_holds_does_not_stop_the_flow() -> None:
    """As tracebacks do: a frame holds the exception that holds the frame."""
    budget = MemoryBudget(100)
    budget.add(1000)
    circle: list[object] = [Batch(0, budget=budget)]
    circle[0].enter()  # type: ignore[attr-defined]
    circle.append(circle)
    gc.disable()
    try:
        del circle
        assert budget.batches == 1
        assert ended(started(budget.wait_for_room, 50))
    finally:
        gc.enable()


def test_nobody_waits_once_the_flow_ends() -> None:
    budget = MemoryBudget(100)
    budget.enter(0)
    budget.add(1000)
    threads = [started(budget.wait_for_room, 0, number) for number in (1, 2, None)]
    wait_until(lambda: budget.waits == 3)
    budget.lift()
    assert all(ended(thread) for thread in threads)
    budget.wait_for_room(0, 7)


def test_many_threads_never_miss_a_wake_up() -> None:
    budget = MemoryBudget(100)
    budget.enter(0)
    lock = threading.Lock()
    done = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(500):
            size = chance.randrange(1, 60)
            budget.wait_for_room(100 - size, 1 + seed)
            with lock:
                budget.add(size)
            budget.release(size)
        done.append(seed)

    threads = [started(work, seed) for seed in range(8)]
    assert all(ended(thread) for thread in threads)
    assert len(done) == 8
    assert budget.used == 0


def test_room_that_one_has_reserved_is_not_given_to_another() -> None:
    budget = MemoryBudget(100)
    budget.enter(0)
    budget.reserve(60, 1)
    waiter = started(budget.reserve, 60, 2)
    wait_until(lambda: budget.waits == 1)
    assert budget.used == 60
    budget.release(60)
    assert ended(waiter)
    assert (budget.used, budget.peak) == (60, 60)
