"""How far a target is behind its source, sampled from outside, and whether that grows."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from statistics import fmean
from types import TracebackType
from typing import Any, Self

import pymysql

from applier.events.gtid import GNO_MAX, GtidSet
from applier.sandbox import Server

BINS = 10
STUDENT_95 = 1.860  # one-sided, BINS - 2 degrees of freedom
NOT_THERE = (1049, 1146)  # no progress row: no applier, or one that keeps GTIDs
GROWTH_MAX = 0.02  # of the source's rate
LAG_SECONDS_MAX = 5.0

RULE = (
    f"Lag grows when the slope of transactions behind over time (least squares on {BINS} means) is above "
    f"{GROWTH_MAX:.0%} of the source's rate with 95 % confidence, or when the lag at the end is above "
    f"{LAG_SECONDS_MAX:g} s."
)


@dataclass(frozen=True, slots=True)
class LagSample:
    """`seconds` since the trial's start; `applied` and `source_transactions` since then too."""

    seconds: float
    source_transactions: int
    applied: int
    lag_seconds: float

    @property
    def behind(self) -> int:
        """Transactions."""
        return max(0, self.source_transactions - self.applied)

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {
            "seconds": round(self.seconds, 2),
            "transactions": self.behind,
            "lag_seconds": round(self.lag_seconds, 2),
        }


class LagWatcher:
    """Samples both servers while the block runs, from a thread of its own.

    Lag in seconds is the age of the oldest state that the target has not reached: how long ago the source had as many
    transactions as the target has now. It asks the target, not the applier, so it is the same rule for everybody.
    """

    def __init__(self, made: SourceTransactions, applied: SourceTransactions, sample_seconds: float) -> None:
        self.samples: list[LagSample] = []
        self.failure: BaseException | None = None
        self._made = made
        self._applied = applied
        self._started = time.monotonic()
        self._sample_seconds = sample_seconds
        self._first: tuple[int, int] | None = None
        self._history: list[tuple[float, int]] = []  # time, transactions of the source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None and self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while True:
                self._sample()
                if self._stop.wait(self._sample_seconds):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the block ends
            self.failure = error

    def _sample(self) -> None:
        applied = self._applied()  # first: a source asked later is never behind its target
        now, made = time.monotonic(), self._made()
        if self._first is None:
            self._first = made, applied
        self._history.append((now, made))
        self.samples.append(
            LagSample(
                now - self._started, made - self._first[0], applied - self._first[0], self._lag(now, applied)
            )
        )

    def _lag(self, now: float, applied: int) -> float:
        return max(0.0, now - reached_at(self._history, applied))


def reached_at(history: list[tuple[float, int]], transactions: int) -> float:
    """When the source had that many transactions and began the next: between samples by interpolation."""
    later = history[-1]
    if later[1] <= transactions:
        return later[0]
    for earlier in reversed(history[:-1]):
        if earlier[1] <= transactions:
            share = (transactions - earlier[1]) / (later[1] - earlier[1])
            return earlier[0] + share * (later[0] - earlier[0])
        later = earlier
    return history[0][0]


class SourceTransactions:
    """The source's transactions on a server, less those in `before`; what only the applier's progress row tells
    included, the server's own left out."""

    def __init__(self, server: Server, before: GtidSet, of_source: GtidSet) -> None:
        """`of_source`: `gtids_of` the source."""
        self._connection: Any = server.connect()
        self._before = before
        self._of_source = of_source

    def __call__(self) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT @@GLOBAL.gtid_executed")
            executed = GtidSet.parse(cursor.fetchone()[0])
            try:
                cursor.execute("SELECT executed FROM applier.progress")
            except pymysql.err.MySQLError as error:
                if error.args[0] not in NOT_THERE:
                    raise
                return self._count(executed)
            for (progress,) in cursor.fetchall():
                executed.update(GtidSet.parse(progress))
        return self._count(executed)

    def _count(self, executed: GtidSet) -> int:
        return ((executed & self._of_source) - self._before).count

    def close(self) -> None:
        self._connection.close()


def gtids_of(server: Server) -> GtidSet:
    """All that the server itself may ever give out, untagged."""
    ((uuid,),) = server.execute("SELECT @@GLOBAL.server_uuid")
    return GtidSet.parse(f"{uuid}:1-{GNO_MAX}")


@dataclass(frozen=True, slots=True)
class Growth:
    """Slope of the lag in transactions a second, and the bound that it is above with 95 % confidence."""

    slope: float
    lower_bound: float


def growth(samples: list[LagSample], warm_up_seconds: float) -> Growth:
    """Of the samples after the warm-up, which must be BINS at least."""
    points = [
        (sample.seconds, float(sample.behind)) for sample in samples if sample.seconds >= warm_up_seconds
    ]
    if len(points) < BINS:
        raise ValueError(f"{len(points)} samples are too few to tell a trend")
    bins = [points[len(points) * i // BINS : len(points) * (i + 1) // BINS] for i in range(BINS)]
    xs = [fmean(x for x, _ in one) for one in bins]
    ys = [fmean(y for _, y in one) for one in bins]
    x_mean, y_mean = fmean(xs), fmean(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    errors = [y - y_mean - slope * (x - x_mean) for x, y in zip(xs, ys, strict=True)]
    deviation = math.sqrt(sum(error * error for error in errors) / (BINS - 2) / spread)
    return Growth(slope, slope - STUDENT_95 * deviation)


def grows(samples: list[LagSample], source_rate: float, warm_up_seconds: float) -> bool:
    """See RULE."""
    if samples[-1].lag_seconds > LAG_SECONDS_MAX:
        return True
    return growth(samples, warm_up_seconds).lower_bound > GROWTH_MAX * source_rate
