"""Rows that seemed to differ, compared at one position while writes go on; and copied again, if wanted.

A snapshot of a busy server shows no GTID set that we could name. A row can: under a shared lock on it nobody on the
source changes it, and every transaction that did is among the GTIDs executed or owned *after* the lock was granted (a
lock is released at the engine's commit, the GTID joins gtid_executed a little later, and is owned until then). Once
the target has committed these, nothing that is still under way touches the row: what the target shows for it is
final, and may be written over without losing a change. A key that the source does not have is locked by the gap it
would stand in.

The locks last as long as the target needs to catch up with the moment before, at most `VerifyOptions.lock_seconds`.
Several rows are locked only if none has to be waited for (NOWAIT), and a single one holds nothing while it waits: so
our locks are never part of a deadlock.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pymysql

from applier.connection import error_code
from applier.verify import expressions as sql
from applier.verify.comparison import Comparer, Part, Tally
from applier.verify.definitions import Session, query
from applier.verify.options import VerifyOptions
from applier.verify.position import TargetPosition, executed, union
from applier.verify.repair import Repairer, UniqueConflict
from applier.verify.report import Difference
from applier.verify.sessions import Pair

LOCK_NOWAIT, LOCK_WAIT_TIMEOUT, DEADLOCK, INTERRUPTED = 3572, 1205, 1213, 3024
BUSY = frozenset({LOCK_NOWAIT, LOCK_WAIT_TIMEOUT, DEADLOCK, INTERRUPTED})

KEYS_LOCKED_MAX = 200
CONFLICTING_KEYS_LOCKED_MAX = 10_000
ATTEMPTS_MAX = 20
PAUSE_SECONDS = 0.05
# All rows of a table without a key are locked at once: not of a large one, unless the source may be locked anyway.
KEYLESS_ROWS_MAX = 200_000

_OWNER = re.compile(r"#\d+")


class Busy(Exception):
    """The rows are locked by others, or the target did not catch up in time: try again."""


@dataclass(slots=True)
class Settled:
    """What is left of a part: `unresolved`, and `conflicts`, whose unique values rows outside the part still hold."""

    unresolved: list[Part] = field(default_factory=list)
    conflicts: list[Part] = field(default_factory=list)


class Recheck:
    """Settles parts; used by several threads, each with a pair of sessions of its own without open snapshots.

    `position` None: both sides stand still.
    """

    def __init__(
        self, options: VerifyOptions, position: TargetPosition | None, repairer: Repairer | None
    ) -> None:
        self._options = options
        self._position = position
        self._repairer = repairer
        self._comparer = Comparer(options, exact=True, first_round=False)

    def prepare(self, pair: Pair) -> None:
        """Once for each pair of sessions."""
        seconds = max(1, round(self._options.lock_seconds))
        query(pair.source, f"SET SESSION innodb_lock_wait_timeout = {seconds}")
        if self._repairer is not None:
            self._repairer.prepare(pair.target)

    def settle(self, pair: Pair, part: Part, tally: Tally, keys_max: int = KEYS_LOCKED_MAX) -> Settled:
        """Compare a part for good, in batches of `keys_max` rows; report, and repair, what differs."""
        settled = Settled()
        pending = [(batch, 0) for batch in self._batches(pair, part, keys_max)]
        while pending:
            batch, attempts = pending.pop()
            try:
                self._settle(pair, batch, tally)
            except UniqueConflict:
                # Without a key the others that hold the value are in the table as a whole.
                settled.conflicts.append(batch if batch.table.key else Part(batch.table))
            except Busy:
                if batch.table.key and len(batch.keys) > 1:
                    pending += [(half, attempts) for half in _halves(batch)]
                elif attempts < ATTEMPTS_MAX:
                    pending.insert(0, (batch, attempts + 1))
                    threading.Event().wait(PAUSE_SECONDS)
                else:
                    settled.unresolved.append(batch)
        return settled

    def _batches(self, pair: Pair, part: Part, step: int) -> list[Part]:
        if not part.table.key:
            return [part]
        # As it is now, which may be too many rows: those that keep changing.
        keys = part.keys or self._comparer.unequal(pair, part).keys
        return [Part(part.table, keys=keys[at : at + step]) for at in range(0, len(keys), step)]

    def _settle(self, pair: Pair, part: Part, tally: Tally) -> None:
        try:
            self._catch_up(pair, self._options.wait_seconds)
            with self._locked(pair.source, part):
                self._catch_up(pair, self._options.lock_seconds)
                if part.table.key:
                    self._settle_rows(pair, part, tally)
                else:
                    self._settle_keyless(pair, part, tally)
        except pymysql.MySQLError as error:
            if error_code(error) not in BUSY:
                raise
            raise Busy from error

    def _settle_rows(self, pair: Pair, part: Part, tally: Tally) -> None:
        unequal = self._comparer.unequal(pair, part)
        if not unequal.keys:
            return
        described = self._comparer.describe(pair, part.table, unequal, tally)
        repaired = 0
        if self._repairer is not None and self._repairer.may_write(pair.target, part.table, tally):
            self._repairer.rows(pair, part.table, unequal.keys)
            repaired = unequal.rows
        self._record(tally, unequal.rows, described, repaired)

    def _settle_keyless(self, pair: Pair, part: Part, tally: Tally) -> None:
        table, comparer, repairer = part.table, self._comparer, self._repairer
        slices = comparer.slices(pair, part)
        if not slices:
            return
        if repairer is None or not repairer.may_write(pair.target, table, tally):
            if comparer.record_keyless(pair, table, slices, tally):
                self._record(tally, 0, [], 0)
            return
        described: list[Difference] = []
        repaired = 0
        # What is extra in any slice may hold a unique value of what is missing in another.
        for where in slices:
            surplus = comparer.surplus(pair, table, where)
            described = described or comparer.describe_surplus(pair, table, surplus, tally)
            repaired += repairer.delete_extra(pair, table, surplus)
        try:
            for where in slices:
                repaired += repairer.insert_missing(pair, table, comparer.surplus(pair, table, where))
        finally:
            if repaired:
                self._record(tally, repaired, described, repaired)

    def _record(self, tally: Tally, rows: int, described: list[Difference], repaired: int) -> None:
        self._comparer.record(tally, rows, described)
        with tally.lock:
            tally.ended = time.monotonic()
            tally.chunks_different += 1
            tally.rows_repaired += repaired

    # --- the source's rows -----------------------------------------------------------------------------

    def _catch_up(self, pair: Pair, seconds: float) -> None:
        """Until the target has what the source has executed, or is about to."""
        if self._position is None:
            return
        if not self._position.wait(pair.target, executed_or_owned(pair.source), seconds):
            raise Busy

    @contextmanager
    def _locked(self, source: Session, part: Part) -> Iterator[None]:
        """No other session changes these rows of the source meanwhile."""
        query(source, "START TRANSACTION")
        try:
            if part.table.key:
                nowait = " NOWAIT" if len(part.keys) > 1 else ""
                query(source, f"{sql.keys_statement(part.table, part.where)} FOR SHARE{nowait}")
            else:
                self._lock_table(source, part)
            yield
        finally:
            query(source, "ROLLBACK")

    def _lock_table(self, source: Session, part: Part) -> None:
        if part.table.rows_estimated > KEYLESS_ROWS_MAX and not self._options.allow_lock:
            raise Busy
        query(source, f"{sql.checksum_statement(part.table, part.where)} FOR SHARE")


def executed_or_owned(session: Session) -> str:
    """GTIDs of everything that the engine has committed, gtid_owned read first: from there they go to gtid_executed."""
    ((owned,),) = query(session, "SELECT @@GLOBAL.gtid_owned")
    return union(_OWNER.sub("", str(owned)).replace("\n", ""), executed(session))


def _halves(part: Part) -> tuple[Part, Part]:
    middle = len(part.keys) // 2
    return Part(part.table, keys=part.keys[:middle]), Part(part.table, keys=part.keys[middle:])
