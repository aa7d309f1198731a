"""Latencies in a histogram of fixed size: 32 buckets for each power of two of microseconds, so 3 % exact."""

from __future__ import annotations

_SUB_BITS = 5
_SUB_BUCKETS = 1 << _SUB_BITS
_EXPONENTS = 32  # up to 2**36 microseconds, 19 hours
PERCENTILES = (50.0, 95.0, 99.0)


class LatencyHistogram:
    """Counts of latencies, in microseconds."""

    __slots__ = ("counts", "highest")

    def __init__(self) -> None:
        self.counts = [0] * (_SUB_BUCKETS * (_EXPONENTS + 1))
        self.highest = 0

    def record(self, microseconds: int) -> None:
        """Counts one latency of 0 or more."""
        exponent = max(microseconds.bit_length() - _SUB_BITS - 1, 0)
        # Exponent 0 covers 0..63 exactly; above, the five bits after the leading one choose the bucket.
        self.counts[min((exponent << _SUB_BITS) + (microseconds >> exponent), len(self.counts) - 1)] += 1
        self.highest = max(self.highest, microseconds)

    def add(self, other: LatencyHistogram) -> None:
        """Adds the counts of another histogram to this one."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.highest = max(self.highest, other.highest)

    def percentile(self, percent: float) -> int:
        """Microseconds that `percent` of the latencies do not exceed, at most 3 % too high; 0 without any."""
        wanted = sum(self.counts) * percent / 100
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min(_upper_bound(bucket), self.highest)
        return self.highest

    def milliseconds(self) -> dict[str, float]:
        """`p50`, `p95`, `p99` and `max`, in milliseconds."""
        found = {f"p{percent:g}": self.percentile(percent) / 1000 for percent in PERCENTILES}
        return {**found, "max": self.highest / 1000}


def _upper_bound(bucket: int) -> int:
    """The highest number of microseconds that falls into the bucket."""
    if bucket < 2 * _SUB_BUCKETS:
        return bucket
    exponent = (bucket >> _SUB_BITS) - 1
    return (((bucket - (exponent << _SUB_BITS)) + 1) << exponent) - 1
