"""How a migration stands, from its state alone."""

from __future__ import annotations

from dataclasses import dataclass

from applier.migrate.state import Phase, State, TableProgress, TableState

WAITS: dict[Phase, str] = {
    Phase.PLANNED: "the schema to be made",
    Phase.SCHEMA: "the schema to be made",
    Phase.COPY: "rows to be copied",
    Phase.INDEXES: "indexes to be built",
    Phase.OBJECTS: "routines, views, triggers and events to be made",
    Phase.CATCH_UP: "cut-over; until then it follows the source",
    Phase.CUTTING_OVER: "the cut-over to end: `cutover` goes on with one that was interrupted, `rollback` undoes it",
    Phase.CUT_OVER: "nothing; `rollback` goes back, `drop-state` ends the migration",
    Phase.ROLLING_BACK: "the rollback to end: `rollback` goes on with one that was interrupted",
}


@dataclass(frozen=True, slots=True)
class Overview:
    """Rates are of the last minute. `applied_seconds_ago`: since the last commit of the replay, if it has begun."""

    name: str
    phase: str
    working: bool
    error: str
    snapshot: str
    held: str
    tables: tuple[TableProgress, ...]
    rows_copied: int
    rows_estimated: int
    rows_per_second: float
    eta_seconds: float | None
    applied_seconds_ago: float | None
    waits_for: str


def overview(state: State) -> Overview:
    """Raises UsageError when there is no such migration."""
    found = state.require()
    tables = tuple(state.tables())
    copied = sum(table.rows_copied for table in tables)
    left = sum(
        max(0, table.rows_estimated - table.rows_copied)
        for table in tables
        if table.state in (TableState.PENDING, TableState.COPYING)
    )
    rate = state.copy_rate()
    waits = WAITS.get(found.phase, "")
    if found.phase is Phase.COPY and any(table.chunks_failed for table in tables):
        waits = "an operator: chunks failed"
    following = found.phase is Phase.CATCH_UP
    return Overview(
        found.name,
        found.phase,
        state.taken() or state.channel_taken(),
        found.error,
        found.snapshot,
        str(found.facts.get("held", "")),
        tables,
        copied,
        copied + left,
        rate,
        left / rate if rate and found.phase is Phase.COPY else None,
        state.applied_seconds_ago() if following else None,
        waits,
    )
