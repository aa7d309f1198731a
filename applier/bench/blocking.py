"""Which rows the workers waited for: from samples of waiting workers, and one pass over the backlog.

A worker that was seen waiting for what its unit needs, waited for the latest earlier transaction that had changed a row
of the unit. So the row is found again by whoever reads the backlog: among the rows of the unit, the one whose last
writer is the latest one that was still on its way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from applier.bench.backlog import Backlog
from applier.bench.log_files import Plans, plans_of, read_decoded
from applier.bench.study import touches_of
from applier.events.batch import Batch
from applier.events.rows import row_touches
from applier.events.values import row_change
from applier.sandbox import Server
from writeset.definitions import Access

UNITS_MAX = 200  # the ones seen most often, of each configuration
ROWS_SHOWN = 5
NO_ROW = "no row: a barrier"


@dataclass(frozen=True, slots=True)
class Waits:
    """Of one configuration. `seen`: how often a worker waited with a unit that begins at that sequence number;
    `unit`: transactions of a unit at most; `on_the_way`: how far before it an unfinished transaction may be."""

    seen: Mapping[int, int]
    unit: int
    on_the_way: int


@dataclass(slots=True)
class _Open:
    """A unit whose rows are being looked at."""

    name: str
    first: int
    lowest: int
    weight: int
    writer: int = 0
    row: str = ""


def blocking_rows(backlog: Backlog, waits: Mapping[str, Waits]) -> dict[str, dict[str, float]]:
    """For each configuration the rows waited for and their share of all waits, the largest first."""
    wanted = _by_transaction(waits)
    if not wanted:
        return {}
    finder = _Finder(backlog.source)
    units: dict[tuple[str, int], _Open] = {}
    with plans_of(backlog.source) as plans:
        finder.run(backlog, plans, wanted, units)
    found: dict[str, Counter[str]] = {}
    for unit in units.values():
        found.setdefault(unit.name, Counter())[unit.row or NO_ROW] += unit.weight
    return {name: _largest(counts) for name, counts in found.items()}


def _by_transaction(waits: Mapping[str, Waits]) -> dict[int, list[tuple[str, int, Waits]]]:
    wanted: dict[int, list[tuple[str, int, Waits]]] = {}
    for name, one in waits.items():
        for first, _ in Counter(one.seen).most_common(UNITS_MAX):
            for number in range(first, first + one.unit):
                wanted.setdefault(number, []).append((name, first, one))
    return wanted


def _largest(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {row: round(count / total, 3) for row, count in counts.most_common(ROWS_SHOWN)}


class _Finder:
    """One pass over the backlog: last writers by key, and the rows of the transactions of interest."""

    def __init__(self, source: Server) -> None:
        self._source = source
        self._last: dict[int, int] = {}
        self._keys: dict[tuple[str, str], list[tuple[int, str]]] = {}

    def run(
        self,
        backlog: Backlog,
        plans: Plans,
        wanted: Mapping[int, list[tuple[str, int, Waits]]],
        units: dict[tuple[str, int], _Open],
    ) -> None:
        for batch in read_decoded(backlog.files, plans, backlog.start_gtids):
            hashes, modes, ends = touches_of(batch)
            first = 0
            for index, end in enumerate(ends):
                number = batch.first_sequence_number + index
                for name, unit_first, one in wanted.get(number, ()):
                    unit = units.setdefault(
                        (name, unit_first),
                        _Open(name, unit_first, unit_first - one.on_the_way, one.seen[unit_first]),
                    )
                    self._look(batch, index, unit)
                for key, mode in zip(hashes[first:end], modes[first:end], strict=True):
                    if mode != Access.SHARED:
                        self._last[key] = number
                first = end

    def _look(self, batch: Batch, index: int, unit: _Open) -> None:
        info = batch.transaction(index)
        for row in range(info.row_first, info.row_first + info.row_count):
            for key, _ in row_touches(batch, row):
                writer = self._last.get(key, 0)
                if unit.lowest <= writer < unit.first and writer > unit.writer:
                    unit.writer, unit.row = writer, self._name(batch, row)

    def _name(self, batch: Batch, row: int) -> str:
        """`warehouse(w_id=3)`."""
        change = row_change(batch, row)
        image = list((change.before or change.after or {}).values())
        table = (change.table_map.schema, change.table_map.table)
        if table not in self._keys:
            self._keys[table] = self._primary_key(*table)
        values = ", ".join(f"{name}={image[at]}" for at, name in self._keys[table] if at < len(image))
        return f"{table[1]}({values})" if values else table[1]

    def _primary_key(self, schema: str, table: str) -> list[tuple[int, str]]:
        """(position from 0, name) of its columns."""
        rows = self._source.execute(
            "SELECT c.ordinal_position - 1, c.column_name FROM information_schema.statistics s"
            " JOIN information_schema.columns c USING (table_schema, table_name, column_name)"
            " WHERE s.table_schema = %s AND s.table_name = %s AND s.index_name = 'PRIMARY' ORDER BY s.seq_in_index",
            (schema, table),
        )
        return [(int(position), str(name)) for position, name in rows]
