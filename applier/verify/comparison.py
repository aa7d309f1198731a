"""Two tables, chunk by chunk: first checksums, then, where they differ, rows, then columns."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from applier.verify import expressions as sql
from applier.verify.definitions import Record, Session, Table
from applier.verify.expressions import KeyValues
from applier.verify.options import VerifyOptions
from applier.verify.report import Difference, Kind, TableReport
from applier.verify.sessions import Pair, read

Digests = dict[KeyValues, str]


@dataclass(frozen=True, slots=True)
class Surplus:
    """Of a table without a key. `rows`: how much more often the source has the row with a digest than the target;
    `kept`: of those that it has less often, how often it has them."""

    rows: dict[str, int]
    kept: dict[str, int]

    @property
    def total(self) -> int:
        return sum(map(abs, self.rows.values()))


@dataclass(frozen=True, slots=True)
class Unequal:
    """Keys of the rows of a chunk that differ. `respelt`: keys of the source that the target spells
    otherwise, while its collation holds them to be equal; they are in `missing` and `extra` too."""

    missing: list[KeyValues]
    extra: list[KeyValues]
    different: list[KeyValues]
    respelt: dict[KeyValues, KeyValues] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[KeyValues, ...]:
        return (*self.missing, *self.extra, *self.different)

    @property
    def rows(self) -> int:
        return len(self.keys) - len(self.respelt)


# A chunk with more rows than this many chunks (on the target, whose extra rows no boundary counts) is split
# before its rows are fetched: what we hold in memory is bounded.
ROWS_FETCHED_CHUNKS_MAX = 2
# The servers tell first in which of so many buckets, by a hash of the key, rows of a chunk differ. While writes go on
# nearly every chunk has a few such rows, and to fetch all the others takes longer than it took to compare them.
BUCKETS = 1021
# A table without a key is one chunk: of the buckets that differ as many are looked into at once as have so many rows,
# at least one. A row takes some 250 bytes here.
KEYLESS_ROWS_FETCHED_MAX = 500_000
# Rows that differ and are read again one by one in the next round; a part with more is read again whole.
KEYS_REREAD_MAX = 500
DIGESTS_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a table: those above `lower` and not above `upper` (None is open), or those with one of `keys`
    (without a key: digests).

    `head` parts are cut into chunks as they are taken.
    """

    table: Table
    lower: KeyValues | None = None
    upper: KeyValues | None = None
    keys: tuple[KeyValues, ...] = ()
    head: bool = False

    @property
    def where(self) -> str:
        if self.keys:
            return sql.where_keys(self.table, self.keys)
        return sql.where_range(self.table, self.lower, self.upper)


@dataclass(slots=True)
class Tally:
    """What is known of one table so far; several threads add to it, under `lock`."""

    rows_source: int = 0
    rows_target: int = 0
    chunks: int = 0
    chunks_different: int = 0
    rows_different: int = 0
    truncated: bool = False
    rows_repaired: int = 0
    repair_error: str = ""
    differences: list[Difference] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self, schema: str, table: str, unresolved: int) -> TableReport:
        return TableReport(
            schema,
            table,
            self.rows_source,
            self.rows_target,
            self.chunks,
            self.chunks_different,
            self.rows_different,
            self.truncated,
            unresolved,
            tuple(sorted(self.differences, key=_in_order)),
            round(max(0.0, self.ended - self.started), 3),
            self.rows_repaired,
            self.repair_error,
        )


def _in_order(difference: Difference) -> tuple[object, ...]:
    return tuple((isinstance(value, str), value) for value in difference.key.values() if value is not None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one part: rows on the source, and what is still to do: `more` parts of this round that are to be
    compared too, and `again`, which differed at positions that were not the same."""

    rows: int = 0
    more: tuple[Part, ...] = ()
    again: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Sums:
    """Count and checksum of a part on both sides, as a whole or bucket by bucket. `unequal`: those that differ, and
    how many rows they have on the side that has more."""

    rows_source: int
    rows_target: int
    buckets: int
    unequal: dict[int, int]


class Comparer:
    """Compares parts in sessions whose snapshots are open; `exact` when both show the same position."""

    def __init__(self, options: VerifyOptions, exact: bool, first_round: bool) -> None:
        self._options = options
        self._exact = exact
        self._first_round = first_round

    def next_chunk(self, pair: Pair, part: Part) -> tuple[Part, Part | None]:
        """A chunk from the beginning of a part, and the rest."""
        if not (part.head and part.table.key):
            return part, None
        boundary = self._boundary(pair.source, part)
        if boundary is None:
            return Part(part.table, part.lower, part.upper), None
        chunk = Part(part.table, part.lower, boundary)
        return chunk, Part(part.table, boundary, part.upper, head=True)

    def compare(self, pair: Pair, chunk: Part, tally: Tally) -> Outcome:
        """One chunk."""
        # Most chunks of a table that is written to differ at positions that are not the same.
        expected = chunk.table.changing and not (self._exact or chunk.keys)
        sums = self._sums(pair, chunk, BUCKETS if expected else 1)
        again: tuple[Part, ...] = ()
        if sums.unequal:
            halves = self._halves(pair, chunk, sums)
            if halves:
                return Outcome(more=halves)
            again = self._difference(pair, chunk, sums, tally)
        with tally.lock:
            tally.ended = time.monotonic()
            if self._first_round:
                tally.rows_source += sums.rows_source
                tally.rows_target += sums.rows_target
                tally.chunks += 1
        return Outcome(sums.rows_source, again=again)

    @staticmethod
    def _sums(pair: Pair, chunk: Part, buckets: int) -> Sums:
        if buckets == 1:
            answers = pair.both(sql.checksum_statement(chunk.table, chunk.where))
            ours, theirs = ({0: answer[0]} for answer in answers)
        else:
            answers = pair.both(sql.buckets_statement(chunk.table, chunk.where, buckets))
            ours, theirs = ({int(bucket): tuple(sums) for bucket, *sums in answer} for answer in answers)
        unequal = {
            bucket: max(int(side[bucket][0]) for side in (ours, theirs) if bucket in side)
            for bucket in sorted(ours.keys() | theirs.keys())
            if ours.get(bucket) != theirs.get(bucket)
        }
        return Sums(_rows(ours.values()), _rows(theirs.values()), buckets, unequal)

    def _boundary(self, session: Session, part: Part) -> KeyValues | None:
        rows = read(session, sql.boundary_statement(part.table, part.where, self._options.chunk_rows))
        return tuple(map(_text, rows[0])) if rows else None

    def _halves(self, pair: Pair, chunk: Part, sums: Sums) -> tuple[Part, ...]:
        """A chunk with too many rows to fetch, cut in two."""
        if chunk.keys or not chunk.table.key:
            return ()
        ours, theirs = sums.rows_source, sums.rows_target
        if max(ours, theirs) <= ROWS_FETCHED_CHUNKS_MAX * self._options.chunk_rows:
            return ()
        boundary = self._boundary(pair.source if ours > theirs else pair.target, chunk)
        if boundary is None:
            return ()
        return Part(chunk.table, chunk.lower, boundary), Part(chunk.table, boundary, chunk.upper)

    # --- rows ------------------------------------------------------------------------------------------

    def _difference(self, pair: Pair, chunk: Part, sums: Sums, tally: Tally) -> tuple[Part, ...]:
        """Look into a chunk that differs; gives what has to be read again at another position."""
        if self._exact:
            with tally.lock:
                tally.chunks_different += 1
                if len(tally.differences) >= self._options.differences_max:
                    tally.truncated = True
                    return ()
        if not chunk.table.key:
            return self._keyless_difference(pair, chunk, sums, tally)
        unequal = self.unequal(pair, chunk, sums)
        if not self._exact:
            return _to_be_reread(chunk, unequal.keys)
        described = self.describe(pair, chunk.table, unequal, tally)
        self.record(tally, unequal.rows, described)
        return ()

    def _keyless_difference(self, pair: Pair, chunk: Part, sums: Sums, tally: Tally) -> tuple[Part, ...]:
        slices = self.slices(pair, chunk, sums)
        if self._exact:
            self.record_keyless(pair, chunk.table, slices, tally)
            return ()
        if len(slices) != 1:
            return (chunk,) if slices else ()
        surplus = self.surplus(pair, chunk.table, slices[0])
        return _to_be_reread(chunk, [(digest,) for digest in surplus.rows])

    def unequal(self, pair: Pair, chunk: Part, sums: Sums | None = None) -> Unequal:
        """Which rows of a chunk of a table with a key differ. `sums` of this chunk, if they are known."""
        sums = self._bucket_sums(pair, chunk, sums)
        if sums is not None and not sums.unequal:
            return Unequal([], [], [])
        where = _where(chunk, sums.unequal if sums else ())
        ours, theirs = (_digests(rows) for rows in pair.both(sql.rows_statement(chunk.table, where)))
        return Unequal(
            missing=[key for key in ours if key not in theirs],
            extra=[key for key in theirs if key not in ours],
            different=[key for key, digest in ours.items() if theirs.get(key, digest) != digest],
        )

    def _bucket_sums(self, pair: Pair, chunk: Part, sums: Sums | None) -> Sums | None:
        """None for single rows, which need no buckets."""
        if chunk.keys:
            return None
        return sums if sums is not None and sums.buckets == BUCKETS else self._sums(pair, chunk, BUCKETS)

    def describe(self, pair: Pair, table: Table, unequal: Unequal, tally: Tally) -> list[Difference]:
        """These rows, as many of them as there is room for in the report."""
        self._match_respelt(pair, table, unequal)
        return self._described(pair, table, unequal, self._room(tally))

    def _match_respelt(self, pair: Pair, table: Table, unequal: Unequal) -> None:
        if not (unequal.extra and any(key.folds for key in sql.key_columns(table))):
            return
        unmatched = set(unequal.extra)
        for key in unequal.missing[: self._options.differences_max]:
            rows = read(pair.target, sql.rows_statement(table, sql.where_keys(table, [key])))
            for other in _digests(rows):
                if other in unmatched:
                    unequal.respelt[key] = other
                    unmatched.remove(other)

    def _described(self, pair: Pair, table: Table, unequal: Unequal, limit: int) -> list[Difference]:
        respelt = set(unequal.respelt.values())

        def one(kind: Kind, key: KeyValues, columns: tuple[str, ...] = ()) -> Difference:
            return Difference(table.schema, table.name, kind, dict(sql.shown_key(table, key)), columns)

        changed = [*unequal.respelt, *unequal.different][:limit]
        return [
            *(one(Kind.MISSING, key) for key in unequal.missing[:limit] if key not in unequal.respelt),
            *(one(Kind.EXTRA, key) for key in unequal.extra[:limit] if key not in respelt),
            *(one(Kind.DIFFERENT, key, self._changed_columns(pair, table, key)) for key in changed),
        ]

    def _changed_columns(self, pair: Pair, table: Table, key: KeyValues) -> tuple[str, ...]:
        ours, theirs = pair.both(sql.columns_statement(table, key))
        if not (ours and theirs):
            return ()
        pairs = zip(table.columns, ours[0], theirs[0], strict=True)
        return tuple(column.name for column, our, their in pairs if our != their)

    def slices(self, pair: Pair, chunk: Part, sums: Sums | None = None) -> list[str]:
        """Conditions of rows of a table without a key that may differ; those of one can be held in memory. `sums` of
        this chunk, if they are known."""
        sums = self._bucket_sums(pair, chunk, sums)
        if sums is None:
            return [chunk.where]
        return [_where(chunk, buckets) for buckets in _portions(sums.unequal, KEYLESS_ROWS_FETCHED_MAX)]

    def surplus(self, pair: Pair, table: Table, where: str) -> Surplus:
        """Rows of a table without a key that differ in number."""
        ours, theirs = (
            {_text(digest): int(rows) for digest, rows in answer}
            for answer in pair.both(sql.multiset_statement(table, where))
        )
        rows = {d: n - theirs.get(d, 0) for d, n in ours.items() if n != theirs.get(d, 0)}
        rows |= {d: -n for d, n in theirs.items() if d not in ours}
        return Surplus(rows, {d: ours.get(d, 0) for d, n in rows.items() if n < 0})

    def record_keyless(self, pair: Pair, table: Table, slices: Sequence[str], tally: Tally) -> int:
        """Report rows of the first of these `slices`, and whether there are more; gives their number."""
        if not slices:
            return 0
        surplus = self.surplus(pair, table, slices[0])
        self.record(tally, surplus.total, self.describe_surplus(pair, table, surplus, tally))
        with tally.lock:
            tally.truncated |= len(slices) > 1
        return surplus.total

    def describe_surplus(self, pair: Pair, table: Table, surplus: Surplus, tally: Tally) -> list[Difference]:
        """These rows, as many of them as there is room for in the report."""
        listed = list(surplus.rows)[: min(DIGESTS_SHOWN_MAX, self._room(tally))]
        contents = self._contents(pair, table, listed)
        return [
            Difference(
                table.schema,
                table.name,
                Kind.MISSING if surplus.rows[digest] > 0 else Kind.EXTRA,
                contents.get(digest, {}),
                rows=abs(surplus.rows[digest]),
                detail="the table has no key: all its columns are shown",
            )
            for digest in listed
        ]

    def _contents(self, pair: Pair, table: Table, digests: list[str]) -> dict[str, dict[str, Any]]:
        names = [column.name for column in table.columns]
        answers = pair.both(sql.rows_by_digest_statement(table, digests)) if digests else ()
        return {
            _text(digest): {name: None if v is None else _text(v) for name, v in zip(names, row, strict=True)}
            for answer in answers
            for digest, *row in answer
        }

    def _room(self, tally: Tally) -> int:
        return max(0, self._options.differences_max - len(tally.differences))

    def record(self, tally: Tally, rows: int, differences: Iterable[Difference]) -> None:
        """Report `rows` rows that differ, of which some are described."""
        with tally.lock:
            tally.rows_different += rows
            room = self._options.differences_max - len(tally.differences)
            listed = list(differences)
            tally.differences += listed[:room]
            tally.truncated |= len(listed) > room or rows > sum(one.rows for one in listed)


def _where(chunk: Part, buckets: Collection[int]) -> str:
    """The condition of a chunk's rows in these buckets; none means that it is not cut into any."""
    if not buckets or len(buckets) == BUCKETS:
        return chunk.where
    return sql.in_buckets(chunk.table, chunk.where, BUCKETS, sorted(buckets))


def _portions(rows: dict[int, int], rows_max: int) -> list[list[int]]:
    """These buckets, one after the other: as many at once as together have no more rows than that, at least one."""
    portions: list[list[int]] = []
    room = 0
    for bucket, count in rows.items():
        if count > room or not portions:
            portions.append([])
            room = rows_max
        portions[-1].append(bucket)
        room -= count
    return portions


def _to_be_reread(chunk: Part, keys: Sequence[KeyValues]) -> tuple[Part, ...]:
    if len(keys) > KEYS_REREAD_MAX:
        return (chunk,)
    return (Part(chunk.table, keys=tuple(keys)),) if keys else ()


def _rows(sums: Iterable[Record]) -> int:
    return sum(int(count) for count, *_ in sums)


def _digests(rows: list[Record]) -> Digests:
    return {tuple(map(_text, key)): _text(digest) for digest, *key in rows}


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
