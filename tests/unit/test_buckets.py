"""The bucket index against a plain dict that never forgets."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from writeset.buckets import NO_BOUND, BucketIndex
from writeset.definitions import Access

EXCLUSIVE, SHARED, OVER_SHARED = Access.EXCLUSIVE, Access.SHARED, Access.EXCLUSIVE_OVER_SHARED
Touch = tuple[int, int]


@dataclass
class DictModel:
    """The oracle: exact last writers and last sharers, without limits."""

    writers: dict[int, int] = field(default_factory=dict)
    sharers: dict[int, int] = field(default_factory=dict)

    def assign(self, touches: Sequence[Touch], sequence_number: int) -> int:
        answer = self.peek(touches, sequence_number)
        for key, access in touches:
            (self.sharers if access == SHARED else self.writers)[key] = sequence_number
        return answer

    def peek(self, touches: Sequence[Touch], sequence_number: int) -> int:
        answer = 0
        for key, access in touches:
            seen = [self.writers.get(key, 0), self.sharers.get(key, 0) if access == OVER_SHARED else 0]
            answer = max(answer, *(number for number in seen if number != sequence_number))
        return answer


def spread(key: int) -> int:
    """Small key numbers as well-mixed 64-bit hashes."""
    return (key + 1) * 0x9FB21C651E98DF25 % (1 << 64)


# --- meaning ---------------------------------------------------------------------------------------------


def test_a_writer_waits_for_the_last_writer_of_any_of_its_keys() -> None:
    index = BucketIndex()
    assert index.assign([(spread(1), EXCLUSIVE)], 1) == 0
    assert index.assign([(spread(2), EXCLUSIVE)], 2) == 0
    assert index.assign([(spread(1), EXCLUSIVE), (spread(2), EXCLUSIVE)], 3) == 2
    assert index.assign([(spread(1), EXCLUSIVE)], 4) == 3


def test_sharers_commute_and_a_writer_waits_for_the_last_of_them() -> None:
    index = BucketIndex()
    key = spread(7)
    assert index.assign([(key, OVER_SHARED)], 1) == 0
    assert index.assign([(key, SHARED)], 2) == 1
    assert index.assign([(key, SHARED)], 3) == 1
    assert index.assign([(key, OVER_SHARED)], 4) == 3
    assert index.assign([(key, SHARED)], 5) == 4


def test_a_transaction_that_shares_and_then_writes_a_key_still_sees_older_sharers() -> None:
    index = BucketIndex()
    key = spread(7)
    index.assign([(key, SHARED)], 1)
    assert index.assign([(key, SHARED), (key, OVER_SHARED)], 2) == 1


def test_parts_of_one_transaction_do_not_wait_for_each_other() -> None:
    index = BucketIndex()
    index.assign([(spread(1), EXCLUSIVE)], 1)
    assert index.assign([(spread(2), EXCLUSIVE)], 2) == 0
    assert index.assign([(spread(2), EXCLUSIVE), (spread(1), EXCLUSIVE)], 2) == 1


def test_barrier_waits_for_everything_and_everything_later_waits_for_it() -> None:
    index = BucketIndex()
    index.assign([(spread(1), EXCLUSIVE)], 1)
    assert index.assign([], 2, barrier=True) == 1
    assert index.assign([(spread(9), EXCLUSIVE)], 3) == 2
    assert index.assign([], 4) == 2
    assert index.floor == 2


def test_the_smaller_of_ours_and_the_sources_bound_counts_but_never_below_a_barrier() -> None:
    index = BucketIndex()
    for sequence_number in (1, 2, 3):
        index.assign([(spread(1), EXCLUSIVE)], sequence_number)
    assert index.assign([(spread(1), EXCLUSIVE)], 4, bound=1) == 1
    assert index.assign([(spread(1), EXCLUSIVE)], 5, bound=NO_BOUND) == 4, (
        "the index was updated all the same"
    )
    index.assign([], 6, barrier=True)
    assert index.assign([(spread(2), EXCLUSIVE)], 7, bound=3) == 6


def test_a_collision_only_adds_a_dependency() -> None:
    index = BucketIndex(bucket_bits=1)
    same_bucket_same_tag = (spread(5), spread(5) ^ (1 << 50))
    index.assign([(same_bucket_same_tag[0], EXCLUSIVE)], 1)
    assert index.assign([(same_bucket_same_tag[1], EXCLUSIVE)], 2) == 1


# --- against the oracle ----------------------------------------------------------------------------------

accesses = st.sampled_from([EXCLUSIVE, SHARED, OVER_SHARED])
histories = st.lists(st.lists(st.tuples(st.integers(0, 30), accesses), max_size=8), max_size=120)


@settings(max_examples=300)
@given(history=histories, lag=st.integers(0, 40))
def test_exact_while_nothing_overflows(history: list[list[Touch]], lag: int) -> None:
    index, model = BucketIndex(), DictModel()
    for sequence_number, touches in enumerate(_exclusive_or_shared(history), start=1):
        low_water_mark = max(0, sequence_number - 1 - lag)
        exact = model.assign(touches, sequence_number)
        answer = index.assign(touches, sequence_number, low_water_mark)
        assert max(answer, low_water_mark) == max(exact, low_water_mark)


@settings(max_examples=300)
@given(
    history=histories,
    lag=st.integers(0, 40),
    bits=st.integers(1, 3),
    entries=st.integers(1, 20),
    keys_max=st.integers(1, 8),
)
def test_never_too_low_in_a_table_that_overflows(
    history: list[list[Touch]], lag: int, bits: int, entries: int, keys_max: int
) -> None:
    index, model = BucketIndex(bits, entries, keys_max), DictModel()
    for sequence_number, touches in enumerate(_exclusive_or_shared(history), start=1):
        low_water_mark = max(0, sequence_number - 1 - lag)
        exact = model.assign(touches, sequence_number)
        floor = index.floor
        answer = index.assign(touches, sequence_number, low_water_mark)
        assert max(answer, low_water_mark) == max(exact, floor, low_water_mark)


def _exclusive_or_shared(history: list[list[Touch]]) -> list[list[Touch]]:
    """A key is either never shared (EXCLUSIVE) or written over its sharers; keys as hashes."""
    return [
        [(spread(key), EXCLUSIVE if key % 2 else (OVER_SHARED if access == EXCLUSIVE else access))
         for key, access in touches]
        for touches in history
    ]  # fmt: skip


@pytest.mark.parametrize(("bits", "entries", "lag"), [(6, 16, 300), (10, 511, 30_000), (4, 511, 60_000)])
def test_long_run_stays_exact_or_higher(bits: int, entries: int, lag: int) -> None:
    """200,000 transactions: 16-bit numbers wrap three times while the low-water mark crawls and leaps."""
    rng = random.Random(bits)
    index, model = BucketIndex(bits, entries), DictModel()
    low_water_mark = 0
    unforced = 0
    for sequence_number in range(1, 200_001):
        keys = (rng.randrange(400) if rng.random() < 0.5 else rng.randrange(20_000) for _ in range(3))
        touches = [(spread(key), rng.choice((SHARED, OVER_SHARED))) for key in keys]
        if rng.random() < 0.01:
            low_water_mark = max(low_water_mark, sequence_number - 1 - rng.randrange(1, lag))
        floor = index.floor
        exact = max(model.assign(touches, sequence_number), floor, low_water_mark)
        answer = max(index.assign(touches, sequence_number, low_water_mark), low_water_mark)
        assert answer == exact
        unforced += floor <= low_water_mark
    assert unforced > 1_000


def test_batch_and_single_calls_agree() -> None:
    rng = random.Random(3)
    one_by_one, batched = BucketIndex(), BucketIndex()
    history = [
        [(spread(rng.randrange(50)), OVER_SHARED) for _ in range(rng.randrange(6))] for _ in range(500)
    ]
    barriers = array("B", [rng.random() < 0.02 for _ in history])
    bounds = array("Q", [rng.choice((NO_BOUND, max(0, at - 3))) for at in range(len(history))])
    expected = [
        one_by_one.assign(touches, at + 1, 0, bool(barriers[at]), bounds[at])
        for at, touches in enumerate(history)
    ]
    ends = array("I")
    for touches in history:
        ends.append((ends[-1] if ends else 0) + len(touches))
    hashes = array("Q", [key for touches in history for key, _ in touches])
    modes = array("B", [access for touches in history for _, access in touches])
    answers = array("Q", bytes(8 * len(history)))
    batched.assign_batch(hashes, modes, ends, 1, 0, answers, barriers, bounds)
    assert list(answers) == expected
    assert batched.barrier_total == sum(barriers)


def test_rows_are_told_apart_and_the_transaction_has_the_highest() -> None:
    index = BucketIndex()
    a, b, c = spread(1), spread(2), spread(3)
    for sequence_number, key in enumerate((a, b), start=1):
        index.assign([(key, EXCLUSIVE)], sequence_number)
    per_row = array("Q", [0, 0, 0])
    result = index.assign_row_batch(
        array("Q", [a, c, b, c]), array("B", [EXCLUSIVE] * 4), array("I", [1, 3, 4]), 3, 0, per_row
    )
    assert (result, list(per_row)) == (2, [1, 2, 0])
    assert index.assign([(c, EXCLUSIVE)], 4) == 3


def test_rows_that_share_a_key_of_the_group_all_see_the_older_writer() -> None:
    index = BucketIndex()
    key = spread(1)
    index.assign([(key, OVER_SHARED)], 1)
    per_row = array("Q", [0, 0])
    index.assign_row_batch(
        array("Q", [key, key]), array("B", [OVER_SHARED, SHARED]), array("I", [1, 2]), 2, 0, per_row
    )
    assert list(per_row) == [1, 1]


# --- retirement and checkpoints --------------------------------------------------------------------------


def test_a_million_transactions_force_no_barrier() -> None:
    """25 keys a transaction would fill the table every 1.3 million touches if nothing retired."""
    index = BucketIndex()
    per_call = 1_000
    rng = random.Random(1)
    ends = array("I", range(8, 8 * per_call + 1, 8))
    modes = array("B", bytes(8 * per_call))
    answers = array("Q", bytes(8 * per_call))
    for first in range(1, 1_000_001, per_call):
        hashes = array("Q", rng.randbytes(64 * per_call))
        index.assign_batch(hashes, modes, ends, first, max(0, first - 5_000), answers)
    assert index.sequence_number == 1_000_000
    assert sum(index.checkpoints.values()) == 0
    assert index.floor == 0


def test_key_that_comes_back_after_the_numbers_have_wrapped_waits_for_nothing() -> None:
    index = BucketIndex()
    index.assign([(spread(1), EXCLUSIVE)], 1)
    for sequence_number in range(2, 65_538):
        index.assign([(spread(2), EXCLUSIVE)], sequence_number, sequence_number - 2)
    assert index.assign([(spread(1), EXCLUSIVE)], 65_538) <= 65_535, "1 and 65,537 look alike in 16 bits"
    assert index.floor == 0


def test_full_line_drops_its_dead_entries_before_the_bucket_grows() -> None:
    index = BucketIndex(bucket_bits=14)
    rng = random.Random(1)
    empty = index.used_bytes
    for sequence_number in range(1, 20_001):
        touches = [(rng.getrandbits(64), EXCLUSIVE) for _ in range(8)]
        index.assign(touches, sequence_number, max(0, sequence_number - 2))
    assert index.used_bytes == empty


def test_low_water_mark_that_stands_still_costs_one_checkpoint_a_window() -> None:
    index = BucketIndex()
    for sequence_number in range(1, 120_001):
        index.assign([(spread(1), EXCLUSIVE)], sequence_number)
    assert index.checkpoints == {"bucket_full": 0, "window": 2, "too_many_keys": 0}


def test_full_bucket_drops_its_dead_entries_before_it_gives_up() -> None:
    index = BucketIndex(bucket_bits=1, bucket_entries=8)
    for sequence_number in range(1, 101):
        index.assign([(spread(sequence_number) >> 1, EXCLUSIVE)], sequence_number, sequence_number - 1)
    assert index.checkpoints["bucket_full"] == 0
    for sequence_number in range(101, 120):
        index.assign([(spread(sequence_number) >> 1, EXCLUSIVE)], sequence_number, 100)
    assert index.checkpoints["bucket_full"] == 2


def test_transaction_with_too_many_keys_waits_for_its_own_keys_and_holds_up_the_rest() -> None:
    index = BucketIndex(keys_max=10)
    index.assign([(spread(1), EXCLUSIVE)], 1)
    index.assign([(spread(2), EXCLUSIVE)], 2)
    large = [(spread(key), EXCLUSIVE) for key in (1, *range(100, 120))]
    assert index.assign(large, 3) == 1
    assert index.assign([(spread(999), EXCLUSIVE)], 4) == 3
    assert index.checkpoints["too_many_keys"] == 1


def test_numbers_may_start_anywhere() -> None:
    index = BucketIndex()
    start = 10**12
    assert index.assign([(spread(1), EXCLUSIVE)], start, start - 1) <= start - 1
    assert index.assign([(spread(1), EXCLUSIVE)], start + 1, start - 1) == start
    assert index.assign([(spread(1), EXCLUSIVE)], start + 40_000, start - 1) == start + 1


def test_memory_is_reported_and_follows_the_geometry() -> None:
    large, small = BucketIndex(), BucketIndex(bucket_bits=8, bucket_entries=64)
    assert 256 << 20 <= large.memory_bytes <= 272 << 20
    assert small.memory_bytes < 4 << 20
    assert large.used_bytes < 8 << 20, "what is never used is never mapped"


@pytest.mark.parametrize(("bits", "entries"), [(0, 8), (17, 8), (8, 0), (8, 70_000)])
def test_impossible_geometry_is_refused(bits: int, entries: int) -> None:
    with pytest.raises(ValueError, match="geometry"):
        BucketIndex(bits, entries)


def test_falling_sequence_number_is_refused() -> None:
    index = BucketIndex()
    index.assign([], 5)
    with pytest.raises(ValueError, match="sequence number 4"):
        index.assign([], 4)
    with pytest.raises(ValueError, match="sequence number 6"):
        index.assign([], 6, low_water_mark=6)
