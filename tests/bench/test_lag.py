"""Whether lag grows: the rule, on made-up samples."""

from __future__ import annotations

import random

import pytest

from applier.bench.lag import LAG_SECONDS_MAX, LagSample, grows, growth, reached_at


def samples(rate: float, applied_rate: float, *, noise: float = 0.0, backlog: int = 0) -> list[LagSample]:
    """20 s, five samples a second, of a source and a target with these rates."""
    chance = random.Random(1)
    found = []
    for number in range(101):
        seconds = number / 5
        made = round(rate * seconds) + backlog
        applied = round(applied_rate * seconds + chance.gauss(0.0, noise))
        behind = max(0, made - applied)
        found.append(LagSample(seconds, made, made - behind, behind / applied_rate))
    return found


def test_lag_of_a_target_that_keeps_up_does_not_grow() -> None:
    assert not grows(samples(1000, 1000, noise=100, backlog=300), 1000, warm_up_seconds=5)


def test_lag_of_a_target_that_is_slower_grows() -> None:
    assert grows(samples(1000, 900, noise=50), 1000, warm_up_seconds=5)


def test_a_slope_within_the_noise_is_no_growth() -> None:
    noisy = samples(1000, 970, noise=900, backlog=2000)
    assert growth(noisy, 5).slope == pytest.approx(30, abs=40)
    assert not grows(noisy, 1000, warm_up_seconds=5)


def test_a_lag_that_is_long_at_the_end_counts_as_growth() -> None:
    late = samples(1000, 1000, backlog=round(1000 * (LAG_SECONDS_MAX + 1)))
    assert growth(late, 5).slope == pytest.approx(0, abs=1)
    assert grows(late, 1000, warm_up_seconds=5)


def test_too_few_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        growth(samples(1000, 1000)[:9], 0)


def test_lag_in_seconds_is_counted_from_when_the_source_was_where_the_target_is() -> None:
    history = [(10.0, 0), (11.0, 100), (12.0, 100), (13.0, 300)]
    assert reached_at(history, 300) == 13.0
    assert reached_at(history, 200) == 12.5
    assert reached_at(history, 100) == 12.0
    assert reached_at(history, 50) == 10.5
    assert reached_at(history, 0) == 10.0
