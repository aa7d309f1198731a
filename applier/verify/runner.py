"""A whole comparison: snapshots at one position, definitions, chunks in parallel, more rounds if needed."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pymysql

from applier.address import ServerAddress
from applier.errors import UsageError
from applier.verify.comparison import Comparer, Part, Tally
from applier.verify.definitions import Selection, Table, TableName, query, readable_tables
from applier.verify.expressions import KeyValues
from applier.verify.objects import changed_lines, create_table, read_others
from applier.verify.options import Progress, Silent, VerifyOptions
from applier.verify.position import (
    PAIR_ATTEMPTS_MAX,
    AppliedPosition,
    SamePosition,
    Sides,
    TargetPosition,
    quiesced,
    same_position,
)
from applier.verify.recheck import CONFLICTING_KEYS_LOCKED_MAX, KEYS_LOCKED_MAX, Recheck, Settled
from applier.verify.repair import Repairer
from applier.verify.report import Difference, Kind, VerifyReport
from applier.verify.sessions import Pair, cut_off, link_errors, open_sides
from applier.verify.work import Work

# The table is gone or not as it was when the snapshot was taken: DDL came in between.
CHANGED_MEANWHILE = frozenset({1146, 1412, 1054, 1176})
# Rounds of snapshots that what differs at positions not the same is looked at, before rows are locked for it.
ROUNDS_BEFORE_LOCKS = 2
OWN_TRANSACTIONS = "the target has transactions of its own"


def verify(
    source: ServerAddress,
    target: ServerAddress,
    options: VerifyOptions | None = None,
    *,
    position: TargetPosition | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compare the target's data with the source's, at the same position of the source's log.

    `position` tells how far the target is, for one that does not keep the source's GTIDs. Needs SELECT on
    both sides. Raises NotComparable when the target does not get to the source's position, UsageError for
    tables that neither side has, and what `connect` raises.
    """
    options = options or VerifyOptions()
    return link_errors("server", lambda: _verify(source, target, options, position, progress or Silent()))


def _verify(
    source: ServerAddress,
    target: ServerAddress,
    options: VerifyOptions,
    position: TargetPosition | None,
    progress: Progress,
) -> VerifyReport:
    started = time.monotonic()
    with open_sides(source, target, options.connections) as sides:
        if position is None and not options.assume_quiesced:
            _require_gtids(sides)
        found = _Comparison(sides, options, position or AppliedPosition(), progress)
        found.run()
        return found.report(time.monotonic() - started)


def _require_gtids(sides: Sides) -> None:
    for role, session in (("source", sides.source_control), ("target", sides.target_control)):
        ((mode,),) = query(session, "SELECT @@GLOBAL.gtid_mode")
        if mode != "ON":
            raise UsageError(
                detail=f"the {role} has gtid_mode {mode}, so nothing tells whether both sides are at the "
                "same position. Stop all writes, let the target catch up, and compare with --assume-quiesced"
            )


@dataclass(slots=True)
class _Comparison:
    sides: Sides
    options: VerifyOptions
    position: TargetPosition
    progress: Progress
    names: list[TableName] = field(default_factory=list)
    tallies: dict[TableName, Tally] = field(default_factory=dict)
    at: SamePosition = field(default_factory=lambda: SamePosition("", exact=False))
    rounds: int = 0
    unresolved: list[Part] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self) -> None:
        parts: list[Part] | None = None
        for _ in range(self._rounds_max()):
            self.at = self._snapshots()
            self.rounds += 1
            if parts is None:
                # Read now: at an exact position both sides have executed the same DDL.
                parts = self._definitions()
            parts = self._round(parts)
            self.sides.release()
            if not parts or self.at.exact:
                break
        if parts and self.options.row_locks:
            parts = self._settle(parts)
        self.unresolved = parts or []

    def _rounds_max(self) -> int:
        return min(self.options.rounds_max, ROUNDS_BEFORE_LOCKS if self.options.row_locks else sys.maxsize)

    def report(self, seconds: float) -> VerifyReport:
        left = Counter((part.table.schema, part.table.name) for part in self.unresolved)
        tables = tuple(self.tallies[name].report(*name, unresolved=left[name]) for name in self.names)
        if self.at.errant:
            self.warnings.append(f"{OWN_TRANSACTIONS}: {self.at.errant}")
        exact = self.at.exact and self.rounds == 1
        return VerifyReport(tables, self.at.gtid_set, exact, self.rounds, seconds, tuple(self.warnings))

    def _snapshots(self) -> SamePosition:
        if self.options.assume_quiesced:
            return quiesced(self.sides)
        options = self.options
        attempts_max = 1 if options.row_locks else PAIR_ATTEMPTS_MAX  # rows get a position of their own
        return same_position(
            self.sides, self.position, options.wait_seconds, options.allow_lock, attempts_max
        )

    # --- definitions -----------------------------------------------------------------------------------

    def _definitions(self) -> list[Part]:
        """Compare what there is; gives the tables whose rows are comparable, the largest last."""
        selection = self.options.selection
        ours = readable_tables(self.sides.source_control, selection)
        theirs = readable_tables(self.sides.target_control, selection)
        for name in selection.tables:
            if name not in ours and name not in theirs:
                shown = ".".join(name)
                raise UsageError(detail=f"neither side has a table {shown} that the account may read")
        self._require_schemas()
        if selection == Selection() and not (ours or theirs):
            raise UsageError(detail="neither side has a table that the account may read: nothing is compared")
        self.names = sorted({*ours, *theirs})
        self.tallies = {name: Tally() for name in self.names}
        comparable = [self._definition(name, ours.get(name), theirs.get(name)) for name in self.names]
        tables = sorted((table for table in comparable if table), key=lambda table: table.rows_estimated)
        tables_only = selection.tables and not selection.schemas
        if self.options.others and not tables_only:
            self.warnings += self._others()
        self.progress.started(len(tables), sum(table.rows_estimated for table in tables))
        return [Part(table, head=True) for table in tables]

    def _require_schemas(self) -> None:
        """Nothing is not identical to nothing when a name is misspelt."""
        there = {
            schema
            for session in (self.sides.source_control, self.sides.target_control)
            for (schema,) in query(session, "SELECT schema_name FROM information_schema.schemata")
        }
        for schema in self.options.selection.schemas:
            if schema not in there:
                raise UsageError(detail=f"neither side has a schema {schema} that the account may see")

    def _definition(self, name: TableName, ours: Table | None, theirs: Table | None) -> Table | None:
        found = self.tallies[name].differences
        if theirs is None or ours is None:
            found.append(Difference(*name, Kind.MISSING_TABLE if ours else Kind.EXTRA_TABLE))
            return None
        texts = (
            create_table(self.sides.source_control, ours),
            create_table(self.sides.target_control, theirs),
        )
        same_shape = ours.shape == theirs.shape
        if texts[0] != texts[1]:
            found.append(Difference(*name, Kind.DEFINITION, detail=changed_lines(*texts)))
        elif not same_shape:
            detail = "information_schema tells of other columns or keys, though SHOW CREATE TABLE is the same"
            found.append(Difference(*name, Kind.DEFINITION, detail=detail))
        return ours if same_shape else None

    def _others(self) -> Iterable[str]:
        ours, theirs = (
            read_others(session, self.options.selection)
            for session in (self.sides.source_control, self.sides.target_control)
        )
        for kind, schema, name in sorted({*ours, *theirs}):
            one, other = ours.get((kind, schema, name)), theirs.get((kind, schema, name))
            if one != other:
                state = "missing on the target" if other is None else "extra on the target"
                shown = f"{kind} {schema}.{name}" if name else f"{kind} {schema}"
                yield f"{shown}: {'different' if one is not None is not other else state}"

    # --- rows ------------------------------------------------------------------------------------------

    def _round(self, parts: list[Part]) -> list[Part]:
        """Compare these parts; gives those to be read again."""
        again: list[Part] = []
        lock = threading.Lock()
        work = Work(parts)
        # What is to be repaired is reported where it is: under a lock.
        exact = self.at.exact and not self.options.repair
        comparer = Comparer(self.options, exact, first_round=self.rounds == 1)

        def worker(pair: Pair) -> None:
            while (part := work.take()) is not None:
                chunk = part
                try:
                    chunk, rest = comparer.next_chunk(pair, part)
                    if rest is not None:
                        work.add([rest])
                    outcome = comparer.compare(pair, chunk, self.tallies[part.table.schema, part.table.name])
                    work.add(outcome.more)
                    with lock:
                        again.extend(outcome.again)
                        self.progress.advanced(outcome.rows)
                except pymysql.MySQLError as error:
                    if error.args[0] not in CHANGED_MEANWHILE:
                        raise
                    with lock:
                        again.append(chunk)
                finally:
                    work.done()

        self._in_pairs(work, worker)
        return again

    def _settle(self, parts: list[Part]) -> list[Part]:
        """Compare, and repair if wanted, what is left, under locks; gives what could not be."""
        repairer = Repairer(self.options.log_repairs) if self.options.repair else None
        position = None if self.options.assume_quiesced else self.position
        recheck = Recheck(self.options, position, repairer)
        settled = self._settle_once(recheck, parts, KEYS_LOCKED_MAX)
        unresolved, conflicts = settled.unresolved, settled.conflicts
        conflicting = math.inf
        while conflicts:
            # A unique value that the repair of other rows has freed meanwhile, or that is held by one of these.
            settled = self._settle_once(recheck, merged(conflicts), CONFLICTING_KEYS_LOCKED_MAX)
            unresolved += settled.unresolved
            before, conflicting = conflicting, sum(len(part.keys) for part in settled.conflicts)
            conflicts = settled.conflicts
            if conflicting >= before:
                return unresolved + conflicts
        return unresolved

    def _settle_once(self, recheck: Recheck, parts: list[Part], keys_max: int) -> Settled:
        total = Settled()
        lock = threading.Lock()
        work = Work(parts)

        def worker(pair: Pair) -> None:
            recheck.prepare(pair)
            while (part := work.take()) is not None:
                settled = Settled(unresolved=[part])
                try:
                    tally = self.tallies[part.table.schema, part.table.name]
                    settled = recheck.settle(pair, part, tally, keys_max)
                except pymysql.MySQLError as error:
                    if error.args[0] not in CHANGED_MEANWHILE:
                        raise
                finally:
                    with lock:
                        total.unresolved += settled.unresolved
                        total.conflicts += settled.conflicts
                    work.done()

        self._in_pairs(work, worker)
        return total

    def _in_pairs(self, work: Work[Part], worker: Callable[[Pair], None]) -> None:
        """Call `worker` in a thread of its own for each pair of sessions."""
        with ThreadPoolExecutor(len(self.sides.targets)) as executor:
            pairs = [
                Pair(source, target, executor)
                for source, target in zip(self.sides.sources, self.sides.targets, strict=True)
            ]
            work.run([partial(worker, pair) for pair in pairs], lambda: cut_off(self.sides))


def merged(parts: Iterable[Part]) -> list[Part]:
    """The keys of each table in one part."""
    keys: dict[Table, tuple[KeyValues, ...]] = defaultdict(tuple)
    for part in parts:
        keys[part.table] += part.keys
    return [Part(table, keys=found) for table, found in keys.items()]
