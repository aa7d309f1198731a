"""All counters of a flow at one moment, read from the slots in which its threads keep them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from applier.observe.counting import REASONS
from applier.observe.histogram import LogHistogram, merged
from applier.observe.status import Stage
from applier.pipeline import Pipeline

# By the server's error number; what is not here was looked at a second time before it is believed.
RETRY_REASON: Final = {
    1205: "lock_wait_timeout",
    1213: "deadlock",
    1206: "lock_table_full",
    1613: "xa_rollback",
    1614: "xa_rollback",
    3101: "certification",
    3572: "nowait",
    1317: "interrupted",
}
OTHER_RETRY: Final = "second_look"


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one pipeline, or of several one after the other."""

    transactions: int = 0
    rows: int = 0
    units: int = 0
    bytes_read: int = 0
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    rows_folded: int = 0
    rows_saved: int = 0
    touches: int = 0
    source_reconnects: int = 0
    rolled_back: int = 0  # units, because they held what an earlier one needed
    retries: Counter[str] = field(default_factory=Counter)
    barriers: Counter[str] = field(default_factory=Counter)
    checkpoints: Counter[str] = field(default_factory=Counter)
    lock_waits: Counter[str] = field(default_factory=Counter)
    stages: dict[Stage, LogHistogram] = field(default_factory=dict)
    unit_transactions: LogHistogram = field(default_factory=lambda: LogHistogram(1.0))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.transactions + other.transactions,
            self.rows + other.rows,
            self.units + other.units,
            self.bytes_read + other.bytes_read,
            self.inserts + other.inserts,
            self.updates + other.updates,
            self.deletes + other.deletes,
            self.rows_folded + other.rows_folded,
            self.rows_saved + other.rows_saved,
            self.touches + other.touches,
            self.source_reconnects + other.source_reconnects,
            self.rolled_back + other.rolled_back,
            self.retries + other.retries,
            self.barriers + other.barriers,
            self.checkpoints + other.checkpoints,
            self.lock_waits + other.lock_waits,
            {
                stage: merged(one.stages[stage] for one in (self, other) if stage in one.stages)
                for stage in Stage
            },
            merged((self.unit_transactions, other.unit_transactions), 1.0),
        )


def counts_of(pipeline: Pipeline) -> Counts:
    """Now, from any thread."""
    states = [worker.state for worker in pipeline.workers]
    decoders, index, waits = pipeline.decoders, pipeline.dependencies.index, pipeline.lock_waits
    retries: Counter[str] = Counter()
    for state in states:
        for code, count in tuple(state.retry_codes.items()):
            retries[RETRY_REASON.get(code, OTHER_RETRY)] += count
    return Counts(
        transactions=pipeline.clock.low_water_mark,
        rows=sum(state.rows for state in states),
        units=sum(state.units for state in states),
        bytes_read=pipeline.reader.bytes,
        inserts=sum(decoder.inserts for decoder in decoders),
        updates=sum(decoder.updates for decoder in decoders),
        deletes=sum(decoder.deletes for decoder in decoders),
        rows_folded=sum(state.rows_folded for state in states),
        rows_saved=sum(state.rows_saved for state in states),
        touches=index.touch_total,
        source_reconnects=pipeline.reader.reconnects,
        rolled_back=sum(state.rolled_back_for_others for state in states),
        retries=retries,
        barriers=Counter(dict(zip(REASONS, pipeline.barriers, strict=True))),
        checkpoints=Counter(index.checkpoints),
        lock_waits=Counter(
            resolved=waits.resolved, suspected=waits.fallback, metadata=waits.metadata, outside=waits.outside
        ),
        stages={
            Stage.READ: merged([pipeline.reader.times]),
            Stage.DECODE: merged(decoder.times for decoder in decoders),
            Stage.SCHEDULE: merged([pipeline.schedule_times]),
            Stage.DEPENDENCY_WAIT: merged(state.dependency_wait for state in states),
            Stage.EXECUTE: merged(state.execute for state in states),
            Stage.COMMIT_TURN: merged(state.commit_turn for state in states),
            Stage.COMMIT: merged(state.commit for state in states),
        },
        unit_transactions=merged((state.unit_transactions for state in states), 1.0),
    )
