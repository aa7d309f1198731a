"""What a workload is: its settings, its calls, its counters, its result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import pymysql

from applier.errors import UsageError
from applier.workload.latency import LatencyHistogram

ConnectionFactory = Callable[[], "pymysql.Connection[Any]"]
"""Opens one session on the source with the privileges to create, fill and change the workload's database."""

NEW_ORDER = "new_order"
NEW_ORDER_ROLLED_BACK = "new_order_rolled_back"


@dataclass(frozen=True, slots=True)
class Settings:
    """What all workloads share.

    terminals: connections that send transactions, each with its own seeded random numbers.
    seed: same seed and same settings, same rows (of `prepare` always, of `run` with one terminal).
    scale: fraction of the workload's full size, above 0.
    calls_per_packet: transactions sent in one round trip; above 1 only where latency does not matter.
    loaders: connections that fill the tables in `prepare`.
    replace: `prepare` drops the workload's tables where they exist; without it, it refuses.
    """

    database: str
    terminals: int = 8
    seed: int = 1
    scale: float = 1.0
    calls_per_packet: int = 1
    loaders: int = 4
    replace: bool = False

    def __post_init__(self) -> None:
        for name in ("terminals", "calls_per_packet", "loaders"):
            require_positive(name, getattr(self, name))
        require_positive("scale", self.scale)
        if not self.database or "`" in self.database:
            raise UsageError(detail=f"{self.database!r} cannot be the name of a workload's database")

    def scaled(self, full: int, least: int = 1) -> int:
        """`full` at this scale, and never below `least`."""
        return max(least, round(full * self.scale))


def require_positive(name: str, value: float) -> None:
    """Raises UsageError unless `value` is above zero."""
    if not value > 0:
        raise UsageError(detail=f"{name.replace('_', '-')} must be above zero, not {value}")


class Call(NamedTuple):
    """One transaction: a statement that commits by itself. `kind` is what it counts as."""

    kind: str
    sql: str


Load = Iterator[str]
"""Statements, each a transaction of its own, that fill a part of the tables."""


class Scenario(Protocol):
    """The tables and transactions of one workload; the driver does the rest."""

    @property
    def name(self) -> str:
        """The name it is registered under."""

    @property
    def settings(self) -> Settings:
        """Settings of this scenario, fixed."""

    def tables(self) -> Sequence[str]:
        """Names of its tables, children of foreign keys before their parents."""

    def definitions(self) -> Iterable[str]:
        """CREATE TABLE statements, parents of foreign keys before their children."""

    def procedures(self) -> Mapping[str, str]:
        """Name and CREATE PROCEDURE statement of each stored procedure."""

    def loads(self) -> Iterable[Sequence[Load]]:
        """Phases, one after the other; the loads within a phase do not need each other."""

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """The endless sequence of transactions of terminal 0, 1, … in the run with number `run`."""


@dataclass(slots=True)
class TerminalCounters:
    """Written by one thread only (a terminal, or a loader), read by anyone."""

    transactions: int = 0
    rows_loaded: int = 0
    retries: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)


@dataclass(frozen=True, slots=True)
class Counters:
    """Progress of a run or of a load, safe to read from another thread while it goes on."""

    terminals: tuple[TerminalCounters, ...] = ()

    @property
    def transactions(self) -> int:
        """Transactions completed so far, with those that rolled back on purpose."""
        return sum(terminal.transactions for terminal in self.terminals)

    @property
    def rows_loaded(self) -> int:
        """Rows that `prepare` has inserted so far."""
        return sum(terminal.rows_loaded for terminal in self.terminals)

    @property
    def retries(self) -> int:
        """Times that a deadlock or a lock wait time-out made a transaction run again."""
        return sum(terminal.retries for terminal in self.terminals)

    @property
    def by_kind(self) -> dict[str, int]:
        """Completed transactions of each kind."""
        total: dict[str, int] = {}
        for terminal in self.terminals:
            for kind, count in tuple(terminal.by_kind.items()):
                total[kind] = total.get(kind, 0) + count
        return total

    def latency(self) -> LatencyHistogram:
        """Latencies of all terminals together."""
        merged = LatencyHistogram()
        for terminal in self.terminals:
            merged.add(terminal.latency)
        return merged


@dataclass(frozen=True, slots=True)
class WorkloadResult:
    """What a run did. Counts are transactions; latencies are milliseconds.

    Under a controlled rate the latency counts from the moment the transaction was due, so a source that
    cannot keep up shows it. `tpmc` is new orders a minute, those rolled back on purpose included (TPC-C 5.11,
    clauses 2.4.1.4 and 5.4), without keying and think times; it is 0 for other workloads.
    """

    workload: str
    seconds: float
    transactions: int
    new_orders: int
    rolled_back: int
    retries: int
    by_kind: Mapping[str, int]
    latency_milliseconds: Mapping[str, float]

    @property
    def transactions_per_second(self) -> float:
        """Of all kinds, read-only ones included."""
        return self.transactions / self.seconds if self.seconds else 0.0

    @property
    def tpmc(self) -> float:
        """New orders a minute."""
        return self.new_orders * 60 / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "workload": self.workload,
            "seconds": round(self.seconds, 3),
            "transactions": self.transactions,
            "transactions_per_second": round(self.transactions_per_second, 1),
            "new_orders": self.new_orders,
            "tpmc": round(self.tpmc, 1),
            "rolled_back": self.rolled_back,
            "retries": self.retries,
            "by_kind": dict(self.by_kind),
            "latency_milliseconds": dict(self.latency_milliseconds),
        }


Progress = Callable[[Counters], None]


class Workload(Protocol):
    """A load that can be put on a source."""

    @property
    def name(self) -> str:
        """As in `workload_named`."""

    @property
    def settings(self) -> Settings:
        """Settings, fixed."""

    @property
    def counters(self) -> Counters:
        """Of the run (or load) that is going on, else of the last one."""

    def prepare(
        self,
        connection_factory: ConnectionFactory,
        *,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Creates the database, tables and procedures, and fills them; all of it through the binary log.

        `stop`, when it is set, ends it early with part of the rows missing. `progress` is called about twice
        a second by the calling thread. Raises UsageError when the tables exist and the settings do not allow
        to replace them, SourceError for what the source refuses, SourceLost for a lost connection.
        """

    def run(
        self,
        connection_factory: ConnectionFactory,
        *,
        seconds: float | None = None,
        transactions: int | None = None,
        rate: float | None = None,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> WorkloadResult:
        """Sends transactions until the first of: `seconds` are over, `transactions` are done, `stop` is set.

        `rate` is in transactions a second for all terminals together: an open-loop schedule, fixed at the
        start, that a slow source falls behind but does not bend. Without it each terminal sends as fast as it
        gets answers. Deadlocks and lock wait time-outs are tried again. Raises as `prepare` does.
        """
