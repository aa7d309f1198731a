"""Commit groups on the target: their checkpoint, their commit packet, and what was committed."""

from __future__ import annotations

from collections.abc import Iterator

from applier.events.batch import Batch
from applier.events.gtid import GtidSet
from applier.events.scheduling import end_position
from applier.target.checkpoint import Checkpoint, GtidMode, Progress, ProgressMarker, after_slices
from scheduler.grouping import Unit


class Groups:
    """Shared by the workers of a pipeline. `executed`: what the target has at the start."""

    def __init__(self, checkpoint: Checkpoint, executed: GtidSet, *, net_changes: bool = False) -> None:
        self.checkpoint = checkpoint
        self.net_changes = net_changes
        self._marker = ProgressMarker(executed)
        self._newest: GtidSet | None = None

    @property
    def session_variables(self) -> dict[str, str]:
        """Of the workers' sessions."""
        return {"sql_log_bin": "0"} if self.checkpoint.mode is GtidMode.PURGED else {}

    def mark(self, unit: Unit[Batch]) -> None:
        """Call for every unit, in log order."""
        self._marker.mark(unit)

    def commit_packet(self, unit: Unit[Batch]) -> bytes:
        """Progress row and COMMIT, owed COMMIT_REPLIES."""
        assert isinstance(unit.progress, Progress)
        last = unit.slices[-1]
        position = end_position(last.batch, last.end - 1)
        return self.checkpoint.commit_packet(unit.progress.after, last.batch.file, position)

    def note_committed(self, unit: Unit[Batch]) -> None:
        assert isinstance(unit.progress, Progress)
        self._newest = unit.progress.after

    def to_add(self) -> GtidSet | None:
        """What the target's own GTIDs must contain by now, where commits do not add theirs."""
        return self._newest if self.checkpoint.mode is GtidMode.PURGED else None

    def split(self, unit: Unit[Batch]) -> Iterator[Unit[Batch]]:
        """Units of one transaction each, with their progress."""
        assert isinstance(unit.progress, Progress)
        executed = unit.progress.before
        for single in unit.split():
            before, executed = executed, after_slices(executed, single)
            single.progress = Progress(before, executed)
            yield single
