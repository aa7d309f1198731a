"""Names and values of hot keys: the few that are hottest are found again in the row images and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from applier.events.batch import Batch
from applier.events.rows import row_cells
from applier.events.values import CellState, decode_value
from applier.plan.chains import Chains
from applier.plan.keys import PlanKeys
from writeset.definitions import KeyDefinition, RowKind, TableDefinition
from writeset.hashing import TablePlan, hash_name

DESCRIPTIONS_MAX = 65_536
WHOLE_TABLE, ANY_VALUE = "whole table", "any value"
_STATES = {CellState.NULL: None, CellState.ABSENT: ..., CellState.PARTIAL: ...}

Cells = Sequence[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class KeyName:
    """What a key is called. `values` by column name, as `decode_value` gives them; None: no single value.

    `index` is the index or foreign key that the rows touch, or why no index can be named."""

    table: str
    index: str
    values: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key that held up `waits` transactions (see `Chains`); `writes` transactions wrote it."""

    name: KeyName
    waits: int
    writes: int


class HotKeys:
    """Call `look` after each batch that `chains` was fed with: the rows are at hand then only."""

    def __init__(self, chains: Chains, keys: PlanKeys) -> None:
        self._chains = chains
        self._keys = keys
        self._names: dict[int, KeyName] = {}

    def look(self, batch: Batch) -> None:
        """Names the hot keys that have no name yet."""
        hottest = self._chains.hottest()
        for key_hash, _, _, row in hottest:
            if row >= 0 and key_hash not in self._names:
                self._names[key_hash] = self._name(batch, row, key_hash)
        if len(self._names) > DESCRIPTIONS_MAX:
            kept = {key_hash for key_hash, *_ in hottest}
            self._names = {key_hash: name for key_hash, name in self._names.items() if key_hash in kept}

    def hottest(self, count: int) -> tuple[HotKey, ...]:
        """Most waits first."""
        return tuple(
            HotKey(self._names[key_hash], waits, writes)
            for key_hash, waits, writes, _ in self._chains.hottest()[:count]
            if key_hash in self._names
        )

    def _name(self, batch: Batch, row: int, key_hash: int) -> KeyName:
        _, table_map, before, after = row_cells(batch, row)
        known = self._keys.known(table_map)
        labels = known.columns or tuple(column.label for column in table_map.columns)
        definition = known.plan.definition
        if key_hash == hash_name(definition.schema, definition.table):
            return KeyName(str(table_map), WHOLE_TABLE, None)
        for key in definition.keys:
            table = ".".join(key.seed_name[:2])
            for image in (before, after):
                touched = _touched(definition, key, image)
                if key_hash not in touched:
                    continue
                if touched[0] != key_hash or image is None:
                    return KeyName(table, f"{key.index_name} ({ANY_VALUE})", None)
                positions = [part.position for part in key.columns]
                return KeyName(
                    table,
                    key.index_name,
                    {labels[at]: _value(image[at], table_map.columns[at]) for at in positions},
                )
        return KeyName(str(table_map), "?", None)


def _value(cell: tuple[int, bytes], column: Any) -> Any:
    return decode_value(column, cell[1]) if cell[0] == CellState.PRESENT else None


def _touched(definition: TableDefinition, key: KeyDefinition, image: Cells | None) -> list[int]:
    """Hashes of what this one key touches in a row with this image: its value, then "any value"."""
    if image is None:
        return []
    plan = TablePlan(
        TableDefinition(
            definition.schema, definition.table, definition.column_total, keys=(key,), has_identity=True
        )
    )
    values = [_STATES.get(CellState(state), data) for state, data in image]
    touches = plan.touches(RowKind.INSERT, None, values) or []
    return [key_hash for key_hash, _ in touches]
