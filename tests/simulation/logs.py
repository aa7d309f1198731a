"""Random logs for the simulation: real binary log bytes, and what their transactions really need of each other.

The needs come from the rows as they were generated, not from any hash: which row, which unique value, which parent.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.gtid import Gtid, GtidSet
from applier.events.rows import RowDecoder
from applier.events.table_map import TableMap
from applier.events.transaction import TransactionFlag
from tests.binlog_bytes import (
    SOURCE_UUID,
    TABLE_MAP,
    event,
    format_event,
    gtid_event,
    packets,
    query_event,
    rotate_event,
    xid_event,
)
from writeset.definitions import Access, KeyColumnDefinition, KeyDefinition, TableDefinition
from writeset.hashing import TablePlan

ITEM, PARENT, CHILD, LOOSE = "item", "parent", "child", "loose"
TABLE_IDS = {ITEM: 1, PARENT: 2, CHILD: 3, LOOSE: 4}
WRITE, UPDATE, DELETE = 30, 31, 32
EXCLUSIVE, SHARED = int(Access.EXCLUSIVE), int(Access.SHARED)
MIXTURES = ((ITEM, ITEM, PARENT, CHILD, CHILD, LOOSE), (ITEM, LOOSE), (PARENT, CHILD, CHILD), (ITEM,))
Row = tuple[int, int]
Plans = Callable[[TableMap, int], TablePlan]


def definitions() -> dict[str, TableDefinition]:
    """item(id PRIMARY, u UNIQUE), parent(id PRIMARY, v), child(id PRIMARY, parent_id → parent), loose(v, w)."""

    def key(table: str, name: str, column: int, access: Access = Access.EXCLUSIVE) -> KeyDefinition:
        return KeyDefinition(("d", table, name), (KeyColumnDefinition(column),), access)

    return {
        ITEM: TableDefinition("d", ITEM, 2, (key(ITEM, "PRIMARY", 0), key(ITEM, "u", 1)), has_identity=True),
        PARENT: TableDefinition(
            "d", PARENT, 2, (key(PARENT, "PRIMARY", 0, Access.EXCLUSIVE_OVER_SHARED),), has_identity=True
        ),
        CHILD: TableDefinition(
            "d",
            CHILD,
            2,
            (key(CHILD, "PRIMARY", 0), key(PARENT, "PRIMARY", 1, Access.SHARED)),
            has_identity=True,
        ),
        LOOSE: TableDefinition("d", LOOSE, 2),
    }


def plans_of(tables: dict[str, TableDefinition]) -> Plans:
    plans = {name: TablePlan(definition) for name, definition in tables.items()}
    return lambda table_map, sequence_number: plans[table_map.table]


@dataclass(frozen=True, slots=True)
class Change:
    table: str
    before: Row | None
    after: Row | None


@dataclass(slots=True)
class Needs:
    """What a transaction touches, as numbers of things in a world of rows."""

    barrier: bool = False
    keys: array[int] = field(default_factory=lambda: array("Q"))
    modes: bytearray = field(default_factory=bytearray)
    rows: bytearray = field(default_factory=bytearray)  # of which row change each is, from 0
    row_count: int = 0

    def add(self, thing: str, number: int, mode: int) -> None:
        """For the row change that `row_count` will count next."""
        self.keys.append(ord(thing) << 32 | number)
        self.modes.append(mode)
        self.rows.append(self.row_count)

    def conflict(self, earlier: Needs) -> bool:
        if self.barrier or earlier.barrier:
            return True
        theirs: dict[int, int] = {}
        for key, mode in zip(earlier.keys, earlier.modes, strict=True):
            theirs[key] = theirs.get(key, SHARED) & mode
        return any(
            key in theirs and not mode & theirs[key] for key, mode in zip(self.keys, self.modes, strict=True)
        )


@dataclass(frozen=True, slots=True)
class SimulatedLog:
    batches: list[Batch]
    needs: list[Needs]  # of sequence number 1, 2, 3 …
    large: bool  # some transactions come in parts
    row_by_row: bool  # a batch that is scheduled again keeps what each touch waits for


class World:
    """The rows on the source; makes changes that are possible there."""

    def __init__(self, random_source: random.Random, size: int, tables: Sequence[str]) -> None:
        self.random = random_source
        self.size = size
        self.tables = tables
        self.rows: dict[str, dict[int, int]] = {ITEM: {}, PARENT: {}, CHILD: {}}
        self.loose: list[int] = []

    def change(self) -> Change | None:
        table = self.random.choice(self.tables)
        if table == LOOSE:
            return self._loose()
        rows = self.rows[table]
        number = self.random.randrange(self.size)
        value = self._value(table)
        if number not in rows:
            return self._put(table, number, value)
        if self.random.random() < 0.4:
            if table == PARENT and number in self.rows[CHILD].values():
                return None
            return Change(table, (number, rows.pop(number)), None)
        return self._put(table, number, value)

    def _loose(self) -> Change:
        if self.loose and self.random.random() < 0.5:
            value = self.loose.pop(self.random.randrange(len(self.loose)))
            return Change(LOOSE, (value, value), None)
        value = self.random.randrange(3)
        self.loose.append(value)
        return Change(LOOSE, None, (value, value))

    def _value(self, table: str) -> int | None:
        if table == CHILD:
            return self.random.choice(list(self.rows[PARENT]) or [None])
        if table == PARENT:
            return self.random.randrange(1000)
        value = self.random.randrange(self.size)
        return None if value in self.rows[ITEM].values() else value

    def _put(self, table: str, number: int, value: int | None) -> Change | None:
        if value is None:
            return None
        before = self.rows[table].get(number)
        self.rows[table][number] = value
        return Change(table, None if before is None else (number, before), (number, value))


def touch(needs: Needs, change: Change) -> None:
    """What the change needs to itself or in common with others."""
    rows = [row for row in (change.before, change.after) if row is not None]
    if change.table == LOOSE:
        # Rows that are equal in every column; the scheduler knows the table only, a source may know better.
        needs.add("L", rows[0][0], SHARED if change.before is None else EXCLUSIVE)
        return
    needs.add(change.table[0], rows[0][0], EXCLUSIVE)
    values = {row[1] for row in rows}
    if change.table == ITEM and (len(rows) == 1 or len(values) == 2):
        for value in values:
            needs.add("u", value, EXCLUSIVE)
    elif change.table == CHILD and (len(rows) == 1 or len(values) == 2):
        for value in values:
            needs.add("R", value, SHARED)
    elif change.table == PARENT and len(rows) == 1:
        needs.add("R", rows[0][0], EXCLUSIVE)


# --- bytes ------------------------------------------------------------------------------------------------


def _table_map(table: str) -> bytes:
    body = TABLE_IDS[table].to_bytes(6, "little") + b"\1\0\1d\0" + bytes([len(table)]) + table.encode()
    return event(TABLE_MAP, body + b"\0\2\3\3\0\0", checksum=False)


TABLE_MAPS = {table: _table_map(table) for table in TABLE_IDS}
BEGIN, XID = query_event("BEGIN", checksum=False), xid_event(checksum=False)
ROTATION = (rotate_event("binlog.000002", checksum=False), format_event(checksum=False))
DDL = query_event("CREATE TABLE d.other (a INT)", checksum=False)


def _row_event(change: Change) -> bytes:
    kind = WRITE if change.before is None else DELETE if change.after is None else UPDATE
    images = b"".join(
        b"\0" + struct.pack("<II", *row) for row in (change.before, change.after) if row is not None
    )
    bitmaps = b"\3\3" if kind == UPDATE else b"\3"
    head = TABLE_IDS[change.table].to_bytes(6, "little") + struct.pack("<HHB", 1, 2, 2)
    return event(kind, head + bitmaps + images, checksum=False)


def _transaction(gtid: bytes, changes: Sequence[Change], barrier: bool) -> list[bytes]:
    if barrier:
        return [gtid, DDL]
    events = [gtid, BEGIN]
    for change in changes:
        events += (TABLE_MAPS[change.table], _row_event(change))
    return [*events, XID]


@dataclass(slots=True)
class SourceNumbers:
    """The source's own dependencies: exact, or as loose as commit order may be; from 1 again in each file."""

    random: random.Random
    exactness: float
    file: list[Needs] = field(default_factory=list)

    def next(self, needs: Needs) -> tuple[int, int]:
        """last_committed, sequence_number."""
        last = max((n for n, other in enumerate(self.file, start=1) if needs.conflict(other)), default=0)
        self.file.append(needs)
        if self.random.random() > self.exactness:
            last = self.random.randint(last, len(self.file) - 1)
        return last, len(self.file)


def random_log(
    seed: int,
    *,
    transactions: int = 14,
    plans: Plans | None = None,
    source_gtid: Callable[..., bytes] = gtid_event,
    rotation: Sequence[bytes] = ROTATION,
) -> SimulatedLog:
    """A log of about so many transactions: rotated, with barriers, gaps and large transactions, in random batches.

    `source_gtid` and `rotation` are what a source writes before a transaction and between two files."""
    dice = random.Random(seed)
    world = World(dice, dice.choice((3, 6, 20)), dice.choice(MIXTURES))
    numbers = SourceNumbers(dice, exactness=dice.random())
    large = dice.random() < 0.15
    barrier_share = dice.choice((0.0, 0.0, 0.1))
    skip_share = dice.choice((0.0, 0.0, 0.15))
    executed = GtidSet()
    events = [format_event(checksum=False)]
    kept: list[Needs] = []
    for gno in range(1, transactions + 1):
        if dice.random() < 0.08:
            events += rotation
            numbers.file.clear()
        needs = Needs(barrier=dice.random() < barrier_share)
        wanted = 0 if needs.barrier else dice.choice((0, 1, 1, 2, 3)) + 6 * (large and dice.random() < 0.15)
        changes = [change for _ in range(wanted) if (change := world.change()) is not None]
        for change in changes:
            touch(needs, change)
            needs.row_count += 1
        last, number = numbers.next(needs)
        gtid = source_gtid(gno, last_committed=last, sequence_number=number, checksum=False)
        events += _transaction(gtid, changes, needs.barrier)
        if dice.random() < skip_share:
            executed.add(Gtid.parse(f"{SOURCE_UUID}:{gno}"))
        else:
            kept.append(needs)
    part_bytes_max = 500 if large else 1 << 20
    assembler = StreamAssembler(
        executed, batch_bytes_max=dice.choice((1, 600, 1500)), part_bytes_max=part_bytes_max
    )
    assembler.feed(packets(events))
    return _decoded(assembler, kept, plans or plans_of(definitions()), dice.random() < 0.5)


def _decoded(assembler: StreamAssembler, kept: list[Needs], plans: Plans, row_by_row: bool) -> SimulatedLog:
    decoder = RowDecoder()
    batches, large = [], False
    while (batch := assembler.take(True)) is not None:
        decoder.decode(batch, plans)
        assert batch.failure is None, batch.failure
        batches.append(batch)
        for i in range(len(batch)):
            info = batch.transaction(i)
            if not info.flags & TransactionFlag.LAST_PART:
                large = True
                kept[info.sequence_number - 1].barrier = True
    return SimulatedLog(batches, kept, large, row_by_row)
