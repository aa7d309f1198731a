"""Histograms with fixed logarithmic buckets, written by one thread and read by any.

A bucket is a power of two: finding it is one `bit_length`, an observation 0.2 microseconds. Units are counted as
integers, so a histogram of seconds counts microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

BUCKETS: Final = 64  # the last one holds whatever is larger than any clock can tell
MICROSECOND: Final = 1e-6


class LogHistogram:
    """Bucket `i` counts values from 2^(i-1) to 2^i units (exclusive); bucket 0 those below one unit.

    `unit` is the size of one unit in what is observed: MICROSECOND for seconds."""

    __slots__ = ("_per_unit", "counts", "total", "unit")

    def __init__(self, unit: float = MICROSECOND) -> None:
        self.unit = unit
        self._per_unit = 1.0 / unit
        self.counts = [0] * BUCKETS
        self.total = 0.0

    def observe(self, value: float) -> None:
        """`value` must not be negative."""
        self.counts[int(value * self._per_unit).bit_length()] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def bounds(self, highest: int) -> Iterator[tuple[float, int]]:
        """(upper bound, observations below it) up to bucket `highest`, then (infinity, all)."""
        seen = 0
        for exponent, count in enumerate(self.counts[: highest + 1]):
            seen += count
            yield self.unit * 2**exponent, seen
        yield float("inf"), self.count

    def quantile(self, share: float) -> float:
        """Upper bound of the bucket in which the quantile lies; 0.0 without observations."""
        counts = list(self.counts)
        wanted = share * sum(counts)
        seen = 0
        for exponent, count in enumerate(counts):
            seen += count
            if count and seen >= wanted:
                return self.unit * float(2**exponent)
        return 0.0


def merged(histograms: Iterable[LogHistogram], unit: float = MICROSECOND) -> LogHistogram:
    """The sum of histograms of one unit."""
    total = LogHistogram(unit)
    for histogram in histograms:
        total.counts = [a + b for a, b in zip(total.counts, histogram.counts, strict=True)]
        total.total += histogram.total
    return total
