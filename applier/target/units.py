"""Units as packets for the target, and what to say when one fails."""

from __future__ import annotations

import re
from typing import Final

from applier.errors import ApplyError
from applier.events.batch import Batch
from applier.events.net_changes import fold
from applier.events.net_events import folded_packets
from applier.events.net_group import FoldedGroup
from applier.events.scheduling import is_barrier, is_rows, tables_of
from applier.events.statement import rows_packets, transaction_packets
from applier.events.transaction import TransactionInfo
from applier.events.values import RowKind, row_change
from applier.target import retry
from applier.target.wire import ServerReplied
from scheduler.grouping import Unit

# As in: Can't find record in 't'; Duplicate entry '1' for key 't.PRIMARY'.
TABLE_NAMED: Final = re.compile(r"record in '([^']+)'|for key '([^.']+)\.")
SUSPECT_KINDS: Final = {1032: (RowKind.UPDATE, RowKind.DELETE), 1062: (RowKind.INSERT, RowKind.UPDATE)}
SUSPECTS_MAX: Final = 3

Packets = list[tuple[bytes, int]]


class UnitEncoder:
    """Stateless; shared by the workers. `packet_bytes_max` is the target's max_allowed_packet. `narrow`: net changes
    go without the columns that the server does not need; not for idempotent replay, where the whole image wins."""

    def __init__(self, *, packet_bytes_max: int = 64 << 20, narrow: bool = True) -> None:
        self.packet_bytes_max = packet_bytes_max
        self._narrow = narrow

    def is_rows(self, unit: Unit[Batch]) -> bool:
        """Whether the unit can pass through BINLOG."""
        return is_rows(unit.slices[0].batch, unit.slices[0].first)

    def rows_packets(self, unit: Unit[Batch], *, commit: bool = False) -> Packets:
        """SET gtid_next; BEGIN; BINLOG, and COMMIT if asked for: an error in BINLOG keeps the server from it.

        More than one packet only for what exceeds max_allowed_packet."""
        piece = unit.slices[0]
        begins = unit.first_part
        return self._sendable(
            transaction_packets(
                piece.batch,
                piece.first,
                gtid=begins,
                begin=begins,
                commit=commit,
                packet_bytes_max=self.packet_bytes_max,
            )
        )

    def group_packets(self, unit: Unit[Batch]) -> Packets:
        """BEGIN; BINLOG with the rows of all its transactions, in their order."""
        slices = [(piece.batch, piece.first, piece.end) for piece in unit.slices]
        head = (b"BEGIN", 1) if unit.first_part else (b"", 0)
        return self._sendable(rows_packets(slices, *head, packet_bytes_max=self.packet_bytes_max))

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
        return self._sendable(
            folded_packets(
                group, *head, packet_bytes_max=self.packet_bytes_max, part=part, narrow=self._narrow
            )
        )

    def _sendable(self, packets: Packets) -> Packets:
        """Raises what the server would answer to a packet that is too large: it closes the link with its answer, which
        then mostly does not arrive, and looks like a lost link again and again."""
        largest = max((len(packet) for packet, _ in packets), default=0)
        if largest > self.packet_bytes_max:
            raise ServerReplied(
                retry.PACKET_TOO_LARGE,
                "08S01",
                f"a row needs a packet of {largest} bytes, max_allowed_packet of the target is {self.packet_bytes_max}",
                0,
            )
        return packets

    def gtid(self, unit: Unit[Batch]) -> str:
        """Of the unit's first transaction, for messages."""
        piece = unit.slices[0]
        info = piece.batch.transaction(piece.first)
        return info.gtid or f"(anonymous, ends at {piece.batch.file}:{info.end_log_pos})"

    def explain(self, unit: Unit[Batch], error: ServerReplied) -> ApplyError:
        """The error to stop with: where in the log, which tables and rows, what to do."""
        piece = unit.slices[0]
        info = piece.batch.transaction(piece.first)
        detail = f"{error} at {piece.batch.file}:{info.end_log_pos}"
        tables = tables_of(piece.batch, piece.first)
        if tables:
            detail += f", tables {', '.join(tables)}"
        rows = self._suspects(piece.batch, info, error)
        if rows:
            detail += f"; of these rows: {'; '.join(rows)}"
        hint = retry.HINTS.get(error.code)
        if hint:
            detail += f" ({hint})"
        if info.gtid:
            detail += f". To leave the transaction out for good: --skip-gtid {info.gtid}"
        return ApplyError(gtid=self.gtid(unit), detail=detail)

    def _suspects(self, batch: Batch, info: TransactionInfo, error: ServerReplied) -> list[str]:
        """The rows that the server's words may mean: of the table it names, and the kind of change that fails so."""
        kinds = SUSPECT_KINDS.get(error.code, tuple(RowKind))
        told = TABLE_NAMED.search(error.message)
        table = (told[1] or told[2]) if told else None
        found: list[str] = []
        for index in range(info.row_first, info.row_first + info.row_count):
            row = row_change(batch, index)
            if row.kind in kinds and table in (None, row.table_map.table):
                found.append(str(row))
                if len(found) == SUSPECTS_MAX:
                    break
        return found
