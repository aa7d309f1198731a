"""A comparison of two servers at rest that ends when its time is over: the last look before clients are let in.

First the rows with the highest keys of every table, where most of what was written last is; then whole tables, the
small ones first, as far as the time goes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

import pymysql

from applier.address import ServerAddress
from applier.connection import error_code
from applier.verify import expressions as sql
from applier.verify.comparison import Comparer, Part, Tally
from applier.verify.definitions import Selection, Table, TableName, query, readable_tables
from applier.verify.options import VerifyOptions
from applier.verify.position import Sides
from applier.verify.sessions import Pair, cut_off, link_errors, open_sides, read
from applier.verify.work import Work

TAIL_ROWS: Final = 1000
CHUNK_ROWS: Final = 5000
KEYLESS_ROWS_MAX: Final = 5000
CONNECTIONS: Final = 4
DIFFERENCES_SHOWN_MAX: Final = 10
TIME_OVER: Final = frozenset({1205, 3024})  # waiting for a lock, executing


@dataclass(slots=True)
class QuickResult:
    """`complete`: every row of every table was compared."""

    tables: int = 0
    rows: int = 0
    complete: bool = True
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        extent = "all rows" if self.complete else "as far as the time went"
        return f"{self.tables} tables, {self.rows:,} rows, {extent}"


class QuickComparison:
    """Sessions are opened and definitions read before the clock starts."""

    def __init__(self, sides: Sides, selection: Selection) -> None:
        self._sides = sides
        self._options = VerifyOptions(chunk_rows=CHUNK_ROWS, differences_max=DIFFERENCES_SHOWN_MAX)
        ours = readable_tables(sides.source_control, selection)
        theirs = readable_tables(sides.target_control, selection)
        self._tables = [ours[name] for name in sorted(ours.keys() & theirs.keys())]
        self._definitions = [
            f"{'.'.join(name)}: only on one side" for name in sorted(ours.keys() ^ theirs.keys())
        ]
        self._definitions += [
            f"{table}: other columns" for table in self._tables
            if table.shape != theirs[table.schema, table.name].shape
        ]  # fmt: skip

    @classmethod
    @contextmanager
    def opened(cls, source: ServerAddress, target: ServerAddress, selection: Selection) -> Iterator[Self]:
        """Raises what `connect` raises."""
        with open_sides(source, target, CONNECTIONS) as sides:
            yield cls(sides, selection)

    def run(self, seconds: float) -> QuickResult:
        """Both sides have to be at rest. Raises LinkLost."""
        result = QuickResult(tables=len(self._tables), differences=list(self._definitions))
        if seconds > 0 and not result.differences:
            link_errors("server", lambda: self._run(seconds, result))
        else:
            result.complete = False
        if any(not _whole(table) for table in self._tables):
            result.complete = False
        return result

    def _limit(self, seconds: float) -> None:
        """No statement takes longer, be it for its rows or for somebody who has locked the table."""
        limits = f"max_execution_time = {max(1, round(seconds * 1000))}, lock_wait_timeout = {max(1, round(seconds))}"
        for session in (*self._sides.sources, *self._sides.targets):
            query(session, f"SET SESSION {limits}")

    def _run(self, seconds: float, result: QuickResult) -> None:
        deadline = time.monotonic() + seconds
        self._limit(seconds)
        comparer = Comparer(self._options, exact=True, first_round=False)
        tallies: dict[TableName, Tally] = {(table.schema, table.name): Tally() for table in self._tables}
        lock = threading.Lock()
        work: Work[Table | Part] = Work(self._parts())

        def worker(pair: Pair) -> None:
            while (taken := work.take()) is not None:
                try:
                    if time.monotonic() > deadline:
                        result.complete = False
                        continue
                    part = self._tail(pair, taken) if isinstance(taken, Table) else taken
                    if part is None:
                        continue
                    chunk, rest = comparer.next_chunk(pair, part)
                    if rest is not None:
                        work.add([rest])
                    tally = tallies[part.table.schema, part.table.name]
                    outcome = comparer.compare(pair, chunk, tally)
                    work.add(outcome.more)
                    if outcome.more:  # it differs, whether or not there is time to find out where
                        with tally.lock:
                            tally.chunks_different += 1
                    with lock:
                        result.rows += outcome.rows
                except pymysql.MySQLError as error:
                    if error_code(error) not in TIME_OVER:
                        raise
                    result.complete = False
                finally:
                    work.done()

        with ThreadPoolExecutor(CONNECTIONS) as executor:
            pairs = [
                Pair(source, target, executor)
                for source, target in zip(self._sides.sources, self._sides.targets, strict=True)
            ]
            work.run([partial(worker, pair) for pair in pairs], lambda: cut_off(self._sides))
        for (schema, table), tally in tallies.items():
            if tally.chunks_different:
                keys = "; ".join(f"{one.kind} {one.key}" for one in tally.differences[:3])
                result.differences.append(f"{schema}.{table}: {tally.rows_different} rows ({keys})")

    def _parts(self) -> list[Table | Part]:
        """The last one is taken first."""
        by_size = sorted(self._tables, key=lambda table: table.rows_estimated, reverse=True)
        whole = [Part(table, head=True) for table in by_size if _whole(table)]
        return [*whole, *(table for table in by_size if table.key)]

    def _tail(self, pair: Pair, table: Table) -> Part | None:
        """The rows with the highest keys; None when that is all of them, which are compared anyway."""
        rows = read(pair.source, sql.last_statement(table, TAIL_ROWS))
        if not rows:
            return None
        values = (v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else str(v) for v in rows[0])
        return Part(table, lower=tuple(values))


def _whole(table: Table) -> bool:
    """Whether all of a table can be compared in small parts."""
    return bool(table.key) or table.rows_estimated <= KEYLESS_ROWS_MAX
