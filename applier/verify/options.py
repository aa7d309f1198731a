"""What to compare, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from applier.errors import UsageError
from applier.verify.definitions import Selection


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """`selection` none named: everything but the system's schemas.

    `connections`: to each side, and so tables or chunks compared at once. `differences_max`: rows listed per
    table. `rounds_max`: how often chunks that differ are read again when no common position is to be had.
    `allow_lock`: hold the source's commits back (FLUSH TABLES WITH READ LOCK) until the target has caught up
    and the snapshots are open. `assume_quiesced`: both sides stand still, ask no GTIDs.
    `row_locks`: settle rows that differed at positions that were not the same under a short shared lock on these
    rows of the source, held for `lock_seconds` at most. `repair`: copy rows that differ again, under such locks.
    `log_repairs`: into the target's binary log, for its own replicas; where the target keeps the source's GTIDs,
    it would then have transactions that the source never had.
    """

    selection: Selection = field(default_factory=Selection)
    chunk_rows: int = 50_000
    wait_seconds: float = 60.0
    connections: int = 2
    differences_max: int = 100
    rounds_max: int = 5
    allow_lock: bool = False
    assume_quiesced: bool = False
    others: bool = True
    row_locks: bool = True
    lock_seconds: float = 1.0
    repair: bool = False
    log_repairs: bool = False

    def __post_init__(self) -> None:
        for name in ("chunk_rows", "connections", "rounds_max"):
            if getattr(self, name) < 1:
                raise UsageError(detail=f"{name.replace('_', '-')} must be at least 1")
        if self.repair and not self.row_locks:
            raise UsageError(detail="rows are repaired under locks on the source's rows: allow row locks")
        if self.lock_seconds <= 0:
            raise UsageError(detail="lock-seconds must be above 0")
        if self.wait_seconds < 0 or self.differences_max < 0:
            raise UsageError(detail="wait-seconds and differences-max cannot be negative")


class Progress(Protocol):
    """Told what goes on, from several threads, one call at a time."""

    def started(self, tables: int, rows_estimated: int) -> None: ...

    def advanced(self, rows: int) -> None: ...


class Silent:
    """Nobody listens."""

    def started(self, tables: int, rows_estimated: int) -> None:
        pass

    def advanced(self, rows: int) -> None:
        pass
