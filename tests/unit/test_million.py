"""A run of 1,000,000 transactions has no forced barrier, and exact dependencies all along."""

from __future__ import annotations

import random
from array import array

from writeset.buckets import BucketIndex
from writeset.definitions import Access

TRANSACTIONS = 1_000_000
PER_BATCH = 200
KEYS = 25  # a new-order: warehouse and district, ten stock rows, order, new-order and order lines
BEHIND = 500  # sequence numbers that the low-water mark is behind
DISTRICTS, STOCK = 1_000, 20_000


def test_a_million_tpcc_like_transactions_without_a_checkpoint() -> None:
    dice = random.Random(7)
    districts, stock = ([dice.getrandbits(64) for _ in range(count)] for count in (DISTRICTS, STOCK))
    index = BucketIndex()
    ends = array("I", range(KEYS, KEYS * PER_BATCH + 1, KEYS))
    modes = array("B", bytes([Access.EXCLUSIVE]) * (KEYS * PER_BATCH))
    answers = array("Q", bytes(8 * PER_BATCH))
    last_writer: dict[int, int] = {}
    higher_than_needed = 0
    for first in range(1, TRANSACTIONS + 1, PER_BATCH):
        low_water_mark = max(0, first - 1 - BEHIND)
        hashes = array("Q", dice.randbytes(8 * KEYS * PER_BATCH))  # rows that are new
        hashes[0::KEYS] = array("Q", dice.choices(districts, k=PER_BATCH))
        for position in range(1, 11):
            hashes[position::KEYS] = array("Q", dice.choices(stock, k=PER_BATCH))
        index.assign_batch(hashes, modes, ends, first, low_water_mark, answers)
        for number in range(PER_BATCH):
            keys = hashes[number * KEYS : number * KEYS + 11]
            exact = max(last_writer.get(key, 0) for key in keys)
            assert max(answers[number], low_water_mark) >= exact
            higher_than_needed += answers[number] > max(exact, low_water_mark)
            last_writer.update(dict.fromkeys(keys, first + number))
    assert index.sequence_number == TRANSACTIONS
    assert index.checkpoints == {"bucket_full": 0, "window": 0, "too_many_keys": 0}
    assert index.floor == 0
    assert higher_than_needed == 0
