"""A recording of what a run did: for every committed unit its transactions, the keys they touch, and when it ran.

For proofs and post-mortems: whoever has a recording can check without the scheduler's help that conflicting
transactions ran one after the other and that commits came in order. It holds hashes of keys, never values.

The file is a row of sections, one for each pipeline of the run (sequence numbers restart with each). All numbers are
little-endian, times are monotonic nanoseconds.

    section      SECTION
      unit       UNIT, then for each of its transactions (or the first part of a very large one):
                 TRANSACTION, its key hashes (8 bytes each), how each is touched (1 byte each: Access, | HELD)
      end        END, with the low-water mark; missing when the run was killed

Units are in the file in the order in which their commits were known, and each was written down before the clock passed
on the turn: with strict commit order the order of the file is the order of the commits.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Generic

from scheduler.grouping import B, Unit
from scheduler.queues import BoundedQueue, QueueAborted

log = logging.getLogger(__name__)

VERSION: Final = 1
SECTION: Final = struct.Struct("<c7sBBH")  # kind, name, version, flags, workers
UNIT: Final = struct.Struct("<cHHI7Q")  # kind, worker, runs, transactions, first, last, waited for, times
TRANSACTION: Final = struct.Struct("<QQqqQB3xI")  # as TransactionRecord, then the number of touches
END: Final = struct.Struct("<cQ")  # kind, low-water mark
SECTION_KIND, UNIT_KIND, END_KIND = b"S", b"U", b"E"
NAME: Final = b"chedule"

ORDERED, SOURCE_BOUNDS = 1, 2  # flags of a section
HELD: Final = 0x10  # flag of a touch: executed in the unit's second step, see RecordedUnit.held_started
QUEUE_UNITS_MAX: Final = 4096
QUEUE_BYTES_MAX: Final = 64 << 20
BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class UnitRun:
    """The run of a unit that was committed; times in monotonic nanoseconds."""

    started: int  # from here on statements are sent: what the unit depends on has committed
    executed: int  # every statement is answered, but for the COMMIT
    committed: int  # the COMMIT is answered
    held_started: int = 0  # of a unit executed in two steps: when the second began; 0: there was one step
    waited_for: int = (
        0  # the sequence number up to which everything had to be committed before its (last) step
    )
    runs: int = 1  # this one and those that were rolled back before


@dataclass(frozen=True, slots=True)
class RecordedTransaction:
    """One transaction. Touch i is of the key `hashes[i]`, with the Access `modes[i] & 0x0f`, and `modes[i] & HELD`."""

    sequence_number: int
    last_committed: int  # what the scheduler found
    source_sequence_number: int  # 0: the source gave none
    source_last_committed: int
    source_epoch: int
    barrier: bool
    hashes: array[int] = field(repr=False)
    modes: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecordedUnit:
    first: int
    last: int
    worker: int
    run: UnitRun
    transactions: tuple[RecordedTransaction, ...]


@dataclass(frozen=True, slots=True)
class RecordedSection:
    """What one pipeline did."""

    ordered: bool  # commit order was strict
    source_bounds: bool  # the source's own last_committed counted as well
    workers: int
    units: list[RecordedUnit]
    low_water_mark: int | None  # at the end; None when the recording breaks off


class ScheduleRecorder(Generic[B]):
    """Writes one section, in a thread of its own: `record` costs the worker a place in a queue.

    `describe(unit, held)` gives what is written of a unit's transactions: TRANSACTION, hashes and modes of each.
    `held` is None, or for each slice one byte for each of its rows: 1 when it was executed in the second step.
    A recording that cannot be written ends with a message; the replay goes on."""

    def __init__(
        self,
        path: Path,
        describe: Callable[[Unit[B], list[bytes] | None], bytes],
        *,
        ordered: bool,
        source_bounds: bool,
        workers: int,
    ) -> None:
        """Appends to the file, from `start` on. Raises OSError."""
        self._describe = describe
        self._queue: BoundedQueue[tuple[int, Unit[B], UnitRun, list[bytes] | None]] = BoundedQueue(
            items_max=QUEUE_UNITS_MAX, bytes_max=QUEUE_BYTES_MAX
        )
        self._file: BinaryIO = path.open("ab", buffering=BUFFER_BYTES)
        flags = ORDERED * ordered | SOURCE_BOUNDS * source_bounds
        self._file.write(SECTION.pack(SECTION_KIND, NAME, VERSION, flags, workers))
        self._thread = threading.Thread(target=self._run, name="schedule-recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def record(self, worker: int, unit: Unit[B], run: UnitRun, held: list[bytes] | None = None) -> None:
        """Call when the unit's commit is known, before anybody else is told."""
        with contextlib.suppress(QueueAborted):  # it could not be written; that was said
            self._queue.put((worker, unit, run, held), unit.size_bytes)

    def close(self, low_water_mark: int) -> None:
        """Writes what is left and the end of the section. Call once no worker runs any more."""
        self._queue.close()
        self._thread.join()
        try:
            with self._file:
                if not self._queue.aborted:
                    self._file.write(END.pack(END_KIND, low_water_mark))
        except OSError as error:
            log.warning("schedule not recorded", extra={"detail": str(error)})

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                self._write(*item)
                del item  # else its batches are held, and count as in flight, until there is another
        except Exception as error:  # noqa: BLE001 - whatever it is, workers must not wait for a thread that has gone
            self._queue.abort()
            log.warning("schedule not recorded", extra={"detail": f"{type(error).__name__}: {error}"})

    def _write(self, worker: int, unit: Unit[B], run: UnitRun, held: list[bytes] | None) -> None:
        count = sum(piece.end - piece.first for piece in unit.slices)
        numbers = (unit.sequence_first, unit.sequence_last, run.waited_for)
        times = (run.started, run.held_started, run.executed, run.committed)
        self._file.write(
            UNIT.pack(UNIT_KIND, worker, min(run.runs, 0xFFFF), count, *numbers, *times)
            + self._describe(unit, held)
        )


def read_recording(path: Path) -> Iterator[RecordedSection]:
    """The sections of a recording. Raises ValueError when it is none; one that breaks off is read up to there."""
    data = memoryview(path.read_bytes())
    at = 0
    while at + SECTION.size <= len(data):
        kind, name, version, flags, workers = SECTION.unpack_from(data, at)
        if (kind, name, version) != (SECTION_KIND, NAME, VERSION):
            raise ValueError(f"{path} is not a recording of version {VERSION}: byte {at}")
        units: list[RecordedUnit] = []
        at, low_water_mark = _read_units(data, at + SECTION.size, units)
        yield RecordedSection(
            bool(flags & ORDERED), bool(flags & SOURCE_BOUNDS), workers, units, low_water_mark
        )


def _read_units(data: memoryview, at: int, units: list[RecordedUnit]) -> tuple[int, int | None]:
    """Where the section ends, and its low-water mark."""
    try:
        while bytes(data[at : at + 1]) == UNIT_KIND:
            unit, at = _read_unit(data, at)
            units.append(unit)
        if bytes(data[at : at + 1]) == END_KIND:
            return at + END.size, END.unpack_from(data, at)[1]
    except (struct.error, EOFError):
        return len(data), None  # killed while this one was being written
    return at, None


def _read_unit(data: memoryview, at: int) -> tuple[RecordedUnit, int]:
    numbers = UNIT.unpack_from(data, at)
    _, worker, runs, count, first, last, waited_for, started, held_started, executed, committed = numbers
    at += UNIT.size
    transactions = []
    for _ in range(count):
        number, last_committed, source, source_bound, epoch, barrier, touch_count = TRANSACTION.unpack_from(
            data, at
        )
        hashes_at = at + TRANSACTION.size
        modes_at = hashes_at + 8 * touch_count
        at = modes_at + touch_count
        if at > len(data):
            raise EOFError
        hashes = array("Q", data[hashes_at:modes_at].tobytes())
        transactions.append(
            RecordedTransaction(
                number,
                last_committed,
                source,
                source_bound,
                epoch,
                bool(barrier),
                hashes,
                bytes(data[modes_at:at]),
            )
        )
    run = UnitRun(started, executed, committed, held_started, waited_for, runs)
    return RecordedUnit(first, last, worker, run, tuple(transactions)), at
