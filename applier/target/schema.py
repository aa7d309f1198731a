"""The target's keys as they are at a given place of the log.

Decoders run ahead of the workers, so a DDL that they have passed may not have run on the target yet. A table that it
may have changed is read again only once the DDL has committed; until then the decoder that needs the table waits.
No batch from behind the DDL can have been scheduled by then, so no later DDL can have run either.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection

from applier.events.table_map import TableMap
from scheduler.clock import Clock
from writeset.hashing import TablePlan

TableName = tuple[str, str]
ReadTable = Callable[[str, str], TablePlan]

DDL_REMEMBERED_MAX = 4096


class Catalog:
    """Thread-safe. `read_table(schema, table)` reads the keys from the target now."""

    def __init__(self, read_table: ReadTable, clock: Clock) -> None:
        self._read_table = read_table
        self._clock = clock
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._ddl: list[int] = []  # sequence numbers, ascending
        # What each may have changed, names in lower case; None is everything.
        self._ddl_tables: list[Collection[TableName] | None] = []
        self._plans: dict[TableName, tuple[int, TablePlan]] = {}  # with the last DDL that it is later than
        self.reads = 0

    def note_ddl(self, sequence_number: int, tables: Collection[TableName] | None = None) -> None:
        """A DDL was met that may have changed `tables` (names in lower case; None: any).

        Must be called in log order, before any later batch reaches a decoder."""
        with self._lock:
            if len(self._ddl) >= DDL_REMEMBERED_MAX:
                # Older ones fold into one that may have changed everything.
                keep = DDL_REMEMBERED_MAX // 2
                self._ddl = self._ddl[-keep:]
                self._ddl_tables = [None, *self._ddl_tables[-keep + 1 :]]
            self._ddl.append(sequence_number)
            self._ddl_tables.append(tables)

    def version_at(self, sequence_number: int) -> int:
        """A number that differs wherever a DDL lies between: the last DDL's sequence number before this one."""
        with self._lock:
            at = bisect_left(self._ddl, sequence_number)
            return self._ddl[at - 1] if at else 0

    def plan(self, table_map: TableMap, sequence_number: int) -> TablePlan:
        """The keys of a table for a transaction. Waits for a DDL before it; raises ClockStopped."""
        name = (table_map.schema, table_map.table)
        with self._lock:
            cached = self._plans.get(name)
        # Keys of a table with foreign keys depend on other tables too.
        by_any = cached is not None and cached[1].has_foreign_keys
        changed = self._last_change(name, sequence_number, by_any=by_any)
        if cached is not None and cached[0] == changed:
            return cached[1]
        plan = self._read_after(changed, name)
        if plan.has_foreign_keys and not by_any:  # which only reading it has told
            last = self._last_change(name, sequence_number, by_any=True)
            if last > changed:
                changed, plan = last, self._read_after(last, name)
        with self._lock:
            self._plans[name] = (changed, plan)
        return plan

    def _read_after(self, sequence_number: int, name: TableName) -> TablePlan:
        """The keys of a table once this DDL has committed. Raises ClockStopped."""
        self._clock.wait_for(sequence_number)
        with self._reading:
            self.reads += 1
            return self._read_table(*name)

    def _last_change(self, name: TableName, sequence_number: int, *, by_any: bool) -> int:
        lower = (name[0].lower(), name[1].lower())
        with self._lock:
            for at in range(bisect_left(self._ddl, sequence_number) - 1, -1, -1):
                tables = self._ddl_tables[at]
                if tables is None or lower in tables or (by_any and tables):
                    return self._ddl[at]
        return 0
