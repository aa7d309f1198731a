"""Units as packets for the target, and what to say when one fails."""

from __future__ import annotations

from applier.errors import ApplyError
from applier.events.batch import Batch
from applier.events.net_changes import fold
from applier.events.net_events import folded_packets
from applier.events.net_group import FoldedGroup
from applier.events.scheduling import is_barrier, is_rows, tables_of
from applier.events.statement import rows_packets, transaction_packets
from applier.target.retry import HINTS
from applier.target.wire import ServerReplied
from scheduler.grouping import Unit

Packets = list[tuple[bytes, int]]


class UnitEncoder:
    """Stateless; shared by the workers. `packet_bytes_max` is the target's max_allowed_packet."""

    def __init__(self, *, packet_bytes_max: int = 64 << 20) -> None:
        self.packet_bytes_max = packet_bytes_max

    def is_rows(self, unit: Unit[Batch]) -> bool:
        """Whether the unit can pass through BINLOG."""
        return is_rows(unit.slices[0].batch, unit.slices[0].first)

    def rows_packets(self, unit: Unit[Batch], *, commit: bool = False) -> Packets:
        """SET gtid_next; BEGIN; BINLOG, and COMMIT if asked for: an error in BINLOG keeps the server from it.

        More than one packet only for what exceeds max_allowed_packet."""
        piece = unit.slices[0]
        begins = unit.first_part
        return transaction_packets(
            piece.batch,
            piece.first,
            gtid=begins,
            begin=begins,
            commit=commit,
            packet_bytes_max=self.packet_bytes_max,
        )

    def group_packets(self, unit: Unit[Batch]) -> Packets:
        """BEGIN; BINLOG with the rows of all its transactions, in their order."""
        slices = [(piece.batch, piece.first, piece.end) for piece in unit.slices]
        head = (b"BEGIN", 1) if unit.first_part else (b"", 0)
        return rows_packets(slices, *head, packet_bytes_max=self.packet_bytes_max)

    def folds(self, unit: Unit[Batch]) -> bool:
        """Whether the net changes of the unit may be sent instead of its events."""
        piece = unit.slices[0]
        return not is_barrier(piece.batch, piece.first)

    def fold(self, unit: Unit[Batch]) -> FoldedGroup:
        """The net changes of a unit."""
        return fold([(piece.batch, piece.first, piece.end) for piece in unit.slices])

    def folded_packets(self, group: FoldedGroup, part: int, *, begins: bool) -> Packets:
        """BEGIN (if it begins with them); BINLOG with the net changes of the part."""
        head = (b"BEGIN", 1) if begins else (b"", 0)
        return folded_packets(group, *head, packet_bytes_max=self.packet_bytes_max, part=part)

    def gtid(self, unit: Unit[Batch]) -> str:
        """Of the unit's first transaction, for messages."""
        piece = unit.slices[0]
        info = piece.batch.transaction(piece.first)
        return info.gtid or f"(anonymous, ends at {piece.batch.file}:{info.end_log_pos})"

    def explain(self, unit: Unit[Batch], error: ServerReplied) -> ApplyError:
        """The error to stop with."""
        piece = unit.slices[0]
        info = piece.batch.transaction(piece.first)
        tables = tables_of(piece.batch, piece.first)
        hint = HINTS.get(error.code)
        detail = f"{error} at {piece.batch.file}:{info.end_log_pos}"
        if tables:
            detail += f", tables {', '.join(tables)}"
        if hint:
            detail += f" ({hint})"
        return ApplyError(gtid=self.gtid(unit), detail=detail)
