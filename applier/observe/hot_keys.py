"""Which rows workers wait for, found while they wait: the row that the waiting unit and the other one both touch.

Both units are in memory then, so nothing has to be kept for it. One pair is looked at for each sample, and the key of a
row is decoded once.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from applier.events.batch import Batch
from applier.events.rows import row_cells, row_touches
from applier.events.values import CellState, decode_value
from applier.observe.blame import waiting
from applier.observe.counting import barrier_reason, ends_index, shared_row, table_of
from applier.observe.status import Cause, HotKey
from applier.target.worker_state import WorkerState
from scheduler.grouping import Unit

WINDOW_SECONDS: Final = 60.0
SLICES: Final = 12
ROWS_MAX: Final = 4096
FOUND_MAX: Final = 1024
VALUE_CHARACTERS_MAX: Final = 40
OTHER_ROWS_TEXT: Final = "(other rows)"

ColumnNames = Callable[[str, str], Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class Row:
    """A row by its key: (column's position from 0, its name if the log has it, its value). No key: any row of the
    table. No table: it could not be found, as with coarse keys or a bound that the source gave."""

    schema: str = ""
    table: str = ""
    key: tuple[tuple[int, str | None, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """What a unit waits for."""

    cause: Cause
    row: Row = Row()


OTHER_ROWS: Final = Row()


class HotKeys:
    """Written by the sampler's thread, read by any."""

    def __init__(self, column_names: ColumnNames = lambda schema, table: None) -> None:
        self.column_names = column_names
        self.run: Counter[Row] = Counter()  # over the whole run
        self.causes: Counter[Cause] = Counter()  # since the last `restart_causes`
        self._found: OrderedDict[int, Hold] = OrderedDict()  # by first sequence number of the waiting unit
        self._rows: OrderedDict[int, Row] = OrderedDict()  # by hash of the row's first key
        self._slices: deque[tuple[float, Counter[Row]]] = deque(maxlen=SLICES)

    def look(self, states: Sequence[WorkerState], now: float) -> None:
        """Notes whom the workers wait for; looks one of them up that is not known yet."""
        looked = False
        for state in waiting(states):
            unit = state.unit
            if unit is None:
                continue
            hold = self._found.get(unit.sequence_first)
            if hold is None and not looked:
                looked = True
                hold = self._look_up(unit, state.waits_for, states)
            if hold is not None:
                self._count(hold, now)

    def hold_of(self, state: WorkerState) -> Hold | None:
        """What the unit of a worker waits or waited for, if it was seen."""
        unit = state.unit
        return None if unit is None else self._found.get(unit.sequence_first)

    def top(self, count: int, now: float) -> tuple[HotKey, ...]:
        """Of the last minute."""
        total: Counter[Row] = Counter()
        for began, counts in tuple(self._slices):
            if now - began <= WINDOW_SECONDS:
                total.update(dict(counts))
        return self._ranked(total, count)

    def top_of_run(self, count: int) -> tuple[HotKey, ...]:
        return self._ranked(Counter(dict(self.run)), count)

    def restart_causes(self) -> Counter[Cause]:
        """What was counted since the last call."""
        counted, self.causes = self.causes, Counter()
        return counted

    def _count(self, hold: Hold, now: float) -> None:
        self.causes[hold.cause] += 1
        if hold.cause is Cause.BARRIER:
            return
        row = hold.row
        if not self._slices or now - self._slices[-1][0] >= WINDOW_SECONDS / SLICES:
            self._slices.append((now, Counter()))
        slice_counts = self._slices[-1][1]
        if row not in slice_counts and len(slice_counts) >= ROWS_MAX:
            row = OTHER_ROWS
        slice_counts[row] += 1
        self.run[row if row in self.run or len(self.run) < ROWS_MAX else OTHER_ROWS] += 1

    def _look_up(self, unit: Unit[Batch], sequence_number: int, states: Sequence[WorkerState]) -> Hold | None:
        for state in states:
            held = state.unit
            if held is None or held is unit or not held.slices:
                continue
            if held.sequence_first <= sequence_number <= held.sequence_last:
                hold = self._between(unit, held)
                self._found[unit.sequence_first] = hold
                if len(self._found) > FOUND_MAX:
                    self._found.popitem(last=False)
                return hold
        return None  # it has just committed, or is not on its way yet

    def _between(self, unit: Unit[Batch], held: Unit[Batch]) -> Hold:
        for one in (unit, held):
            if barrier_reason(one.slices[0].batch, one.slices[0].first) is not None:
                return Hold(Cause.BARRIER)
        for mine, theirs in itertools.product(unit.slices, held.slices):
            found = shared_row(mine.batch, mine.first, mine.end, theirs.batch, theirs.first, theirs.end)
            if found is not None:
                return self._name(mine.batch, found[0])
        last = held.slices[-1]
        if ends_index(last.batch, last.end - 1):
            return Hold(Cause.BARRIER)
        return Hold(Cause.HOT_KEY)

    def _name(self, batch: Batch, number: int) -> Hold:
        table_map, plan = batch.tables[table_of(batch, number)]
        schema, table = table_map.schema, table_map.table
        if plan.keyless:
            return Hold(Cause.NO_PRIMARY_KEY, Row(schema, table))
        if not plan.has_identity:
            return Hold(Cause.HOT_KEY, Row(schema, table))
        first_key = row_touches(batch, number)[0][0]
        row = self._rows.get(first_key)
        if row is None:
            self.column_names(schema, table)  # asks for them, so that they are there when the row is shown
            row = self._rows[first_key] = Row(schema, table, tuple(_key_of(batch, number)))
            if len(self._rows) > ROWS_MAX:
                self._rows.popitem(last=False)
        return Hold(Cause.HOT_KEY, row)

    def _ranked(self, counts: Counter[Row], count: int) -> tuple[HotKey, ...]:
        total = counts.total()
        return tuple(
            HotKey(
                f"{row.schema}.{row.table}" if row.table else OTHER_ROWS_TEXT,
                self._key_text(row),
                round(seen / total, 4),
                seen,
            )
            for row, seen in counts.most_common(count)
        )

    def _key_text(self, row: Row) -> str:
        """`w_id=3, d_id=1`; the names come from the target where the log has none."""
        if not row.key:
            return ""
        known = self.column_names(row.schema, row.table) or ()
        parts = []
        for position, name, value in row.key:
            label = name or (known[position] if position < len(known) else f"@{position + 1}")
            parts.append(f"{label}={value}")
        return ", ".join(parts)


def _key_of(batch: Batch, number: int) -> Iterator[tuple[int, str | None, str]]:
    _, table_map, before, after = row_cells(batch, number)
    cells = before if before is not None else after
    assert cells is not None
    plan = batch.tables[table_of(batch, number)][1]
    for part in plan.definition.keys[0].columns:
        at = part.position
        if at < len(cells) and cells[at][0] == CellState.PRESENT:
            column = table_map.columns[at]
            yield at, column.name, str(decode_value(column, cells[at][1]))[:VALUE_CHARACTERS_MAX]
