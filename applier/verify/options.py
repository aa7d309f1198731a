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

    def __post_init__(self) -> None:
        for name in ("chunk_rows", "connections", "rounds_max"):
            if getattr(self, name) < 1:
                raise UsageError(detail=f"{name.replace('_', '-')} must be at least 1")
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
