"""What `/status` says, as typed records: the JSON has these names. Units are last in a name; all counts are of the run.

A field that cannot be known now is null (a server that does not answer, a run that has not begun). Names of
enumerations (`State`, `Cause`, `Stage`) never change their meaning; new ones may come, and so may fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA_VERSION = 1


class State(StrEnum):
    """Of a run."""

    STARTING = "starting"
    RUNNING = "running"
    RECONNECTING = "reconnecting"  # a link is lost, another attempt follows
    DRAINING = "draining"
    STOPPED = "stopped"  # ended as asked
    FAILED = "failed"  # ended by an error: see `error`


class Cause(StrEnum):
    """What the flow is held up by. Exactly one at a time; `idle` when nothing is behind."""

    HOT_KEY = "hot_key"  # rows that an earlier transaction holds: see `hot_keys`
    NO_PRIMARY_KEY = "no_primary_key"  # a table without a usable key: its transactions wait for each other
    BARRIER = "barrier"  # DDL, statements and the like run alone
    LOCK_WAIT = "lock_wait"  # a lock of somebody else on the target
    COMMIT_TURN = "commit_turn"  # executed ones wait for an earlier one: strict commit order
    EXECUTION = "execution"  # the target works on rows
    FSYNC = "fsync"  # the target makes commits durable
    NETWORK = "network"  # round trips to the target, or the link from the source
    DECODING = "decoding"  # the applier's own front: read, decode, schedule
    IDLE = "idle"  # nothing to do


class Stage(StrEnum):
    """Where time is spent, in the order of the flow."""

    READ = "read"
    DECODE = "decode"
    SCHEDULE = "schedule"
    DEPENDENCY_WAIT = "dependency_wait"
    EXECUTE = "execute"
    COMMIT_TURN = "commit_turn"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Process:
    """The applier itself. Times are seconds since the epoch."""

    version: str
    host: str
    pid: int
    started: float
    cpu_seconds: float
    http: str | None  # HOST:PORT it listens on


@dataclass(frozen=True, slots=True)
class Source:
    """`file`, `position`: where the reader is. `clock_offset_seconds`: the source's clock minus ours."""

    place: str
    user: str
    connected: bool
    server_id: int | None = None
    server_uuid: str | None = None
    version: str | None = None
    file: str = ""
    position: int = 0
    executed_gtid_set: str | None = None
    received_gtid_set: str | None = None
    silent_seconds: float = 0.0  # since its last byte; heartbeats count
    reconnects: int = 0
    clock_offset_seconds: float | None = None
    round_trip_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """`applied_gtid_set`: of the source, committed here. `file`, `position`: its end in the source's log."""

    place: str
    user: str
    connected: bool
    server_uuid: str | None = None
    version: str | None = None
    applied_gtid_set: str | None = None
    file: str = ""
    position: int = 0
    reconnects: int = 0
    round_trip_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CauseShare:
    """`share` of the time, 0 … 1; all shares of a list add up to 1. `detail` names the table, lock, link …"""

    cause: Cause
    share: float
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the target is behind the source's commits, and what it is held up by.

    `transactions` counts what is not yet read too, when the source answers. `causes` (largest first) are of the last
    `window_seconds`, `run_causes` of the whole run. `because` is one sentence of the largest."""

    seconds: float
    transactions: int
    growing: bool
    cause: Cause
    because: str
    window_seconds: float
    causes: tuple[CauseShare, ...] = ()
    run_causes: tuple[CauseShare, ...] = ()


@dataclass(frozen=True, slots=True)
class Rates:
    """A second, over the last few seconds."""

    transactions: float = 0.0
    rows: float = 0.0
    units: float = 0.0  # target commits
    bytes_read: float = 0.0
    source_transactions: float | None = None  # what the source commits


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the run. `low_water_mark`: all transactions up to this sequence number (of this connection to the target)
    are committed; `read` is the last one read."""

    low_water_mark: int = 0
    read: int = 0
    transactions: int = 0
    rows: int = 0
    units: int = 0
    bytes_read: int = 0
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    statements: int = 0
    net_rows_in: int = 0
    net_rows_saved: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)  # by reason, see metrics
    barriers: Mapping[str, int] = field(default_factory=dict)  # by reason
    lock_waits: Mapping[str, int] = field(default_factory=dict)  # resolved, by how


@dataclass(frozen=True, slots=True)
class Queue:
    """Between two stages; `items_max` null: bounded in bytes only. Items are batches."""

    name: str  # undecoded, decoded, work
    items: int
    items_max: int | None
    bytes: int
    bytes_max: int
    transactions: int | None = None

    @property
    def fill(self) -> float:
        """0 … 1 of the limit that is nearer."""
        by_items = self.items / self.items_max if self.items_max else 0.0
        return min(1.0, max(by_items, self.bytes / self.bytes_max if self.bytes_max else 0.0))


@dataclass(frozen=True, slots=True)
class StageTime:
    """Of one piece: a batch up to `schedule`, a unit from there on. Quantiles are upper bounds of log buckets."""

    stage: Stage
    count: int
    seconds: float
    mean_seconds: float
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """`activity` is one of `catalogue.ACTIVITIES`."""

    number: int
    activity: str
    activity_seconds: float
    sequence_number: int = 0
    transactions_in_unit: int = 0
    gtid: str = ""  # of the first transaction that it applies now
    waits_for: int = 0  # sequence number
    attempts: int = 0  # failed ones of the present unit
    last_applied_gtid: str = ""
    transactions: int = 0
    rows: int = 0
    units: int = 0
    retries: int = 0
    rolled_back_for_others: int = 0
    last_error: str = ""
    last_error_number: int = 0
    last_error_at: float | None = None


@dataclass(frozen=True, slots=True)
class HotKey:
    """`share` of the samples of the last minute in which a worker was seen waiting for a row. `key` is
    `column=value, …`, or empty when all rows of the table wait for each other."""

    table: str
    key: str
    share: float
    samples: int


@dataclass(frozen=True, slots=True)
class Index:
    """The bucket index of last writers."""

    entries: int
    entries_max: int
    checkpoints: Mapping[str, int]
    touches: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the process against `--memory-max`."""

    resident_bytes: int
    resident_bytes_max: int
    budget_bytes: int
    queued_bytes: int


@dataclass(frozen=True, slots=True)
class RelayLog:
    """Null in the status when the run keeps none."""

    folder: str
    bytes: int
    bytes_max: int | None
    files: int
    transactions_ahead: int | None = None


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A warning or error, the newest last. `fields` hold no row data."""

    at: float
    level: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict)
    repeated: int = 0  # more of the same since


@dataclass(frozen=True, slots=True)
class Settings:
    """What the run was asked for."""

    channel: str
    workers: int
    decoders: int
    commit_order: str
    group_transactions: int
    net_changes: bool
    target_gtids: str
    memory_bytes_max: int


@dataclass(frozen=True, slots=True)
class Status:
    """A moment of a run. `at`: seconds since the epoch."""

    at: float
    state: State
    error: str
    process: Process
    settings: Settings
    source: Source
    target: Target
    lag: Lag
    rates: Rates
    totals: Totals
    queues: tuple[Queue, ...]
    stages: tuple[StageTime, ...]
    workers: tuple[WorkerStatus, ...]
    hot_keys: tuple[HotKey, ...] = ()
    index: Index | None = None
    memory: Memory | None = None
    relay_log: RelayLog | None = None
    events: tuple[LogEvent, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class History:
    """`/history`: one point a second, the oldest first, at most 15 minutes; the lists are of equal length."""

    at: list[float] = field(default_factory=list)
    lag_seconds: list[float] = field(default_factory=list)
    lag_transactions: list[int] = field(default_factory=list)
    transactions_per_second: list[float] = field(default_factory=list)
    rows_per_second: list[float] = field(default_factory=list)
    cause: list[str] = field(default_factory=list)
    queue_fill: list[float] = field(default_factory=list)
    workers_busy: list[int] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
