"""Medians, spread and ratios of repeated measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum of one value or more."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def best(rates: Mapping[str, Sequence[float]]) -> str | None:
    """The name with the highest median rate; None when there is none."""
    return max(rates, key=lambda name: median(rates[name]), default=None)


def ratios(rates: Mapping[str, Sequence[float]], base: str) -> dict[str, dict[str, float]]:
    """Rate of each name over that of `base`, taken round by round: what slows a whole round down cancels out."""
    return {
        name: spread([rate / reference for rate, reference in zip(values, rates[base], strict=True)])
        for name, values in rates.items()
        if name != base
    }
