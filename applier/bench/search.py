"""The search for the highest rate that a replica keeps up with. Pure: what a trial is, is the caller's business."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

TRIALS_MAX = 40
RATE_MIN = 1.0  # transactions a second: who cannot hold this holds nothing


class Outcome(Protocol):
    """What came of a trial at a rate."""

    @property
    def held(self) -> bool:
        """The lag did not grow."""

    @property
    def source_limited(self) -> bool:
        """The source did not reach the rate that it was asked for, so the rate was not really tried."""


Tried = TypeVar("Tried", bound=Outcome)


@dataclass(frozen=True, slots=True)
class SearchRule:
    """`resolution`: how far the lowest rate that failed may be above the highest that held, as a fraction.
    `confirmations`: further trials at the rate found; more than half of all trials at it must hold."""

    start_rate: float = 500.0
    resolution: float = 0.05
    confirmations: int = 2


@dataclass(slots=True)
class Search(Generic[Tried]):
    """All trials, and what they say. `rate` is 0.0 when nothing held; `above` is infinite when nothing failed."""

    rate: float = 0.0
    above: float = math.inf
    source_limited: bool = False
    trials: list[tuple[float, Tried]] = field(default_factory=list)

    def at(self, rate: float) -> list[Tried]:
        """Outcomes of the trials at this rate."""
        return [outcome for tried, outcome in self.trials if tried == rate]

    @property
    def held(self) -> tuple[int, int]:
        """(trials at `rate` that held, all trials at it)."""
        outcomes = self.at(self.rate)
        return sum(outcome.held for outcome in outcomes), len(outcomes)


def highest_held(trial: Callable[[float], Tried], rule: SearchRule) -> Search[Tried]:
    """Doubles the rate until a trial fails (or the source is at its limit), halves the interval, then confirms.

    Trials are noisy, so a rate that has failed by accident is not tried again, but one that held by accident is found
    out by its confirmations: the search then goes on below it.
    """
    search: Search[Tried] = Search()
    while len(search.trials) < TRIALS_MAX:
        _narrow(search, trial, rule)
        if search.rate == 0.0 or _confirmed(search, trial, rule):
            break
        search.above, search.rate, search.source_limited = search.rate, _highest_below(search), False
    return search


def _narrow(search: Search[Tried], trial: Callable[[float], Tried], rule: SearchRule) -> None:
    """Until `above` is close enough to `rate`, or the source is the limit."""
    while search.above > search.rate * (1 + rule.resolution) and not search.source_limited:
        if len(search.trials) >= TRIALS_MAX:
            return
        rate = _next_rate(search, rule)
        if rate < RATE_MIN:
            return
        outcome = trial(rate)
        search.trials.append((rate, outcome))
        if not outcome.held:
            search.above = rate
        else:
            search.rate, search.source_limited = rate, outcome.source_limited


def _next_rate(search: Search[Tried], rule: SearchRule) -> float:
    if math.isinf(search.above):
        return search.rate * 2 or rule.start_rate
    return math.sqrt(search.rate * search.above) if search.rate else search.above / 2


def _confirmed(search: Search[Tried], trial: Callable[[float], Tried], rule: SearchRule) -> bool:
    for _ in range(rule.confirmations):
        search.trials.append((search.rate, trial(search.rate)))
    held, tried = search.held
    return held * 2 > tried


def _highest_below(search: Search[Tried]) -> float:
    """The highest rate below `search.rate` whose trials held; 0.0 when there is none."""
    rates = {rate for rate, outcome in search.trials if rate < search.rate and outcome.held}
    return max(rates, default=0.0)
