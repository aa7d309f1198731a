"""The search of the balanced replay speed, on simulated replicas of known capacity."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from applier.bench.search import TRIALS_MAX, SearchRule, highest_held

RULE = SearchRule(start_rate=500.0, resolution=0.05, confirmations=2)


@dataclass(frozen=True)
class Seen:
    held: bool
    source_limited: bool = False


class SimulatedReplica:
    """Holds every rate up to its capacity; a trial sees the capacity with some noise."""

    def __init__(
        self, capacity: float, *, noise: float = 0.0, source: float = math.inf, seed: int = 1
    ) -> None:
        self.capacity = capacity
        self.noise = noise
        self.source = source
        self._random = random.Random(seed)

    def trial(self, rate: float) -> Seen:
        made = min(rate, self.source)
        capacity = self.capacity * self._random.gauss(1.0, self.noise)
        return Seen(held=made <= capacity, source_limited=made < rate)


@pytest.mark.parametrize("capacity", [3.0, 130.0, 499.0, 500.0, 1234.0, 40_000.0])
def test_the_capacity_is_found_from_below_within_the_resolution(capacity: float) -> None:
    search = highest_held(SimulatedReplica(capacity).trial, RULE)
    assert search.rate <= capacity <= search.above
    assert search.above <= search.rate * 1.05
    assert search.held == (3, 3)
    assert not search.source_limited


@pytest.mark.parametrize("seed", range(30))
def test_noisy_trials_lead_near_the_capacity(seed: int) -> None:
    search = highest_held(SimulatedReplica(2000.0, noise=0.05, seed=seed).trial, RULE)
    assert search.rate == pytest.approx(2000.0, rel=0.2)
    held, tried = search.held
    assert held * 2 > tried
    assert len(search.trials) <= TRIALS_MAX


def test_a_source_at_its_limit_ends_the_search() -> None:
    search = highest_held(SimulatedReplica(10_000.0, source=1500.0).trial, RULE)
    assert search.source_limited
    assert search.rate == 2000.0
    assert math.isinf(search.above)


def test_a_replica_that_holds_nothing_is_given_up() -> None:
    search = highest_held(SimulatedReplica(0.1).trial, RULE)
    assert search.rate == 0.0
    assert search.at(0.0) == []
    assert len(search.trials) <= 12


def test_a_rate_that_held_by_accident_is_found_out() -> None:
    accidents = iter([True])

    def trial(rate: float) -> Seen:
        return Seen(held=rate <= 800 or (rate == 1000 and next(accidents, False)))

    search = highest_held(trial, RULE)
    assert search.rate <= 800 < search.above
    assert search.held == (3, 3)
