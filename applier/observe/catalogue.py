"""Every metric of the applier: its name, what it means, its labels and all values that they can take.

The collector gives out these and no others; `process_…` and `python_…` of the Prometheus client come on top. No label
has values that data decide, so the number of time series is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from applier.observe.status import Cause, Stage, State

Kind = Literal["counter", "gauge", "histogram", "info"]

QUEUES: Final = ("undecoded", "decoded", "work")
LINKS: Final = ("source", "target")
ACTIVITIES: Final = (
    "starting",
    "idle",
    "encoding",
    "waiting for a dependency",
    "waiting for rows of an earlier group",
    "executing",
    "waiting for its commit turn",
    "committing",
    "waiting for more of a large transaction",
    "stopped",
)
ROW_KINDS: Final = ("insert", "update", "delete")
BARRIER_REASONS: Final = ("ddl", "statement", "keys_unknown", "large_transaction", "other")
CHECKPOINT_REASONS: Final = ("bucket_full", "window", "too_many_keys")
RETRY_REASONS: Final = (
    "lock_wait_timeout",
    "deadlock",
    "lock_table_full",
    "xa_rollback",
    "certification",
    "nowait",
    "interrupted",
    "second_look",
)
LOCK_WAIT_RESOLUTIONS: Final = ("resolved", "suspected", "metadata", "outside")
LEVELS: Final = ("warning", "error")


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` as it is scraped (counters end in _total). `labels`: each with its possible values."""

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _counter(name: str, text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(f"applier_{name}_total", "counter", text, labels)


def _gauge(name: str, text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(f"applier_{name}", "gauge", text, labels)


def _histogram(name: str, text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(f"applier_{name}", "histogram", text, labels)


CAUSES: Final = tuple(str(cause) for cause in Cause)
STAGES: Final = tuple(str(stage) for stage in Stage)
STATES: Final = tuple(str(state) for state in State)

METRICS: Final = (
    Metric("applier_build_info", "info", "Version of the applier, and the channel it works on; always 1."),
    _gauge("state", "1 for the state that the run is in, 0 for the others.", state=STATES),
    # How far behind, and why.
    _gauge("lag_seconds", "Age of the oldest source commit that the target does not have."),
    _gauge("lag_transactions", "Source transactions that the target does not have."),
    _gauge("lag_cause_ratio", "Share of the last seconds by what held the flow up.", cause=CAUSES),
    _counter(
        "lag_cause_seconds", "Time by what held the flow up; idle when nothing was behind.", cause=CAUSES
    ),
    _gauge("last_progress_timestamp_seconds", "When the low-water mark moved last, or nothing was behind."),
    # Progress.
    _gauge("low_water_mark", "All transactions up to this sequence number are committed."),
    _gauge("read_sequence_number", "Sequence number of the last transaction read from the source."),
    _counter("transactions", "Transactions committed on the target."),
    _counter("rows", "Row changes of committed transactions, before net changes."),
    _counter("rows_decoded", "Row changes decoded, by kind.", kind=ROW_KINDS),
    _counter("read_bytes", "Bytes of binary log read from the source."),
    _histogram("group_transactions", "Transactions that shared a commit on the target."),
    _counter("net_rows_in", "Row changes that went into net changes."),
    _counter("net_rows_saved", "Row changes that net changes left out."),
    # The flow.
    _histogram("stage_seconds", "Time of one batch (read to schedule) or one commit unit.", stage=STAGES),
    _gauge("queue_items", "Batches waiting.", queue=QUEUES),
    _gauge("queue_items_limit", "Most batches that may wait.", queue=("undecoded",)),
    _gauge("queue_bytes", "Bytes waiting.", queue=QUEUES),
    _gauge("queue_bytes_limit", "Most bytes that may wait.", queue=QUEUES),
    _gauge("workers", "Workers by what they do now.", activity=ACTIVITIES),
    # What makes it wait.
    _counter("barriers", "Transactions that had to run alone, by reason.", reason=BARRIER_REASONS),
    _gauge("index_entries", "Keys in the index of last writers."),
    _gauge("index_entries_limit", "Most keys that it can hold."),
    _counter("index_checkpoints", "Times the index forgot everything, by reason.", reason=CHECKPOINT_REASONS),
    _counter("index_touches", "Keys looked up in the index."),
    _counter("retries", "Units that were run again after an error, by reason.", reason=RETRY_REASONS),
    _counter(
        "lock_waits",
        "Waits for locks of later units that were ended (resolved; suspected: without seeing the lock; metadata: a "
        "metadata lock), and waits for locks of other clients (outside), which are not.",
        resolution=LOCK_WAIT_RESOLUTIONS,
    ),
    _counter("rolled_back", "Units rolled back and run again because they held what an earlier one needed."),
    # Links.
    _gauge("link_up", "1 while the link works.", link=LINKS),
    _counter("reconnects", "Links made again.", link=LINKS),
    _gauge("round_trip_seconds", "Shortest of the last round trips.", link=LINKS),
    _gauge("source_silent_seconds", "Since the source's last byte; heartbeats count."),
    _gauge("source_clock_offset_seconds", "The source's clock minus ours."),
    # Resources.
    _gauge("memory_budget_bytes", "Memory that queues and buffers are laid out for."),
    _gauge("memory_queued_bytes", "Memory of the batches in queues."),
    _gauge("relay_log_bytes", "Size of the relay log on disk; 0 without one."),
    _gauge("relay_log_bytes_limit", "Most bytes that the relay log may take; 0 without one."),
    _gauge("relay_log_files", "Files of the relay log; 0 without one."),
    _counter("log_messages", "Log messages by level.", level=LEVELS),
)

BY_NAME: Final = {metric.name: metric for metric in METRICS}
