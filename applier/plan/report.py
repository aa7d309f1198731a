"""A plan as plain records, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from applier.plan.barriers import Barrier
from applier.plan.hot_keys import HotKey
from applier.plan.keys import KeysFrom


@dataclass(slots=True)
class TableTotals:
    """What the log does to one table. `waits`: transactions that its rows held up."""

    name: str
    keys_from: KeysFrom = KeysFrom.NOBODY
    keyless: bool = False
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    transactions: int = 0
    waits: int = 0

    @property
    def rows(self) -> int:
        return self.inserts + self.updates + self.deletes

    @property
    def keys_text(self) -> str:
        """What its rows conflict by."""
        return (
            f"none: the table as a whole ({self.keys_from.value})" if self.keyless else self.keys_from.value
        )

    def add(self, inserts: int, updates: int, deletes: int, transactions: int, waits: int) -> None:
        self.inserts += inserts
        self.updates += updates
        self.deletes += deletes
        self.transactions += transactions
        self.waits += waits

    def as_dict(self) -> dict[str, Any]:
        facts = asdict(self) | {"table": self.name, "rows": self.rows, "keys_from": self.keys_from.value}
        del facts["name"]
        return facts


@dataclass(frozen=True, slots=True)
class Point:
    """A place along the log: up to there so many transactions, their cost, and when each policy has committed them."""

    transactions: int
    cost: float
    ends: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How parallel a log is. Costs are in rows; `speedup` is by policy (`POLICY_NAMES`) and number of workers.

    exact: false when there were more keys than could be remembered; then critical_path, keys and the counts of
    hot keys are not the full story: critical_path and waits are lower bounds, keys is an upper one.
    source_numbers: transactions whose last_committed the source told; the others are serial under `source`.
    """

    files: tuple[str, ...]
    transactions: int
    rows: int
    keys: int
    touches: int
    transaction_cost: float
    cost: float
    critical_path: int
    critical_path_cost: float
    exact: bool
    speedup: Mapping[str, Mapping[int, float]]
    source_numbers: int
    schema_of: str | None
    tables: tuple[TableTotals, ...]
    hot_keys: tuple[HotKey, ...]
    barriers: tuple[Barrier, ...]
    barriers_by_reason: Mapping[str, int]
    barrier_waits: int
    timeline: tuple[Point, ...]
    point_workers: int
    first_commit_microseconds: int
    last_commit_microseconds: int

    @property
    def speedup_limit(self) -> float:
        """What no number of workers exceeds as long as transactions are handed on whole."""
        return self.cost / self.critical_path_cost if self.critical_path_cost else 1.0

    @property
    def keyless(self) -> tuple[TableTotals, ...]:
        """Tables that conflict as a whole: inserts share them, updates and deletes exclude everybody."""
        return tuple(table for table in self.tables if table.keyless)

    @property
    def barrier_total(self) -> int:
        return sum(self.barriers_by_reason.values())

    @property
    def keys_text(self) -> str:
        """Where the keys came from, honestly."""
        counts = Counter(table.keys_from for table in self.tables)
        texts = {
            KeysFrom.SCHEMA: f"the schema of {self.schema_of} as it is now",
            KeysFrom.LOG: "primary keys from the log only (unique and foreign keys are not in it, so the log may be "
            "less parallel than this says)",
            KeysFrom.NOBODY: "unknown, so that each table conflicts as a whole (--schema-from URL tells them; so does "
            "binlog_row_metadata=FULL on the source)",
        }
        told = [
            text if len(counts) == 1 else f"{text}: {counts[who]} of {len(self.tables)} tables"
            for who, text in texts.items()
            if counts[who]
        ]
        return "; ".join(told) or "no rows, so none"

    @property
    def source_text(self) -> str:
        """A remark on the source's numbers; empty when they are all there."""
        if self.source_numbers == self.transactions:
            return ""
        missing = self.transactions - self.source_numbers
        return (
            f"the source told no last_committed for {missing:,} transactions: under `source` each runs alone"
        )

    @property
    def seconds(self) -> float:
        """From the first commit on the source to the last; 0 when the log does not say."""
        if not self.first_commit_microseconds:
            return 0.0
        return max(0.0, (self.last_commit_microseconds - self.first_commit_microseconds) / 1e6)

    def as_dict(self) -> dict[str, Any]:
        return {
            "files": list(self.files),
            "transactions": self.transactions,
            "rows": self.rows,
            "keys": self.keys,
            "touches": self.touches,
            "keys_from": self.keys_text,
            "first_commit": _time(self.first_commit_microseconds),
            "last_commit": _time(self.last_commit_microseconds),
            "transaction_cost": self.transaction_cost,
            "cost": self.cost,
            "critical_path": self.critical_path,
            "critical_path_cost": self.critical_path_cost,
            "speedup_limit": round(self.speedup_limit, 3),
            "exact": self.exact,
            "speedup": {
                policy: {str(workers): round(factor, 3) for workers, factor in factors.items()}
                for policy, factors in self.speedup.items()
            },
            "source_numbers": self.source_numbers,
            "hot_keys": [key_dict(key) for key in self.hot_keys],
            "tables": [table.as_dict() for table in self.tables],
            "tables_without_keys": [table.name for table in self.keyless],
            "barrier_total": self.barrier_total,
            "barriers_by_reason": dict(self.barriers_by_reason),
            "barrier_waits": self.barrier_waits,
            "barriers": [asdict(barrier) for barrier in self.barriers],
        }


def key_dict(key: HotKey) -> dict[str, Any]:
    """Values that JSON does not know come as text."""
    values = key.name.values
    return {
        "table": key.name.table,
        "index": key.name.index,
        "values": None if values is None else {name: plain(value) for name, value in values.items()},
        "waits": key.waits,
        "writes": key.writes,
    }


def plain(value: Any) -> Any:
    """The value as JSON can hold it: bytes as hexadecimal text, decimals as text."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _time(microseconds: int) -> str | None:
    if not microseconds:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds")
