"""The reader: bytes of the source → batches of whole transactions, numbered in log order.

One thread. It survives a lost link by connecting again and asking for what it has not read yet; a transaction whose
first parts were already handed out starts again with the same sequence number.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final, Protocol

from applier.backoff import Backoff
from applier.errors import ApplierError, LinkLost, SourceError, SourceLost, Unreachable
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.ddl import TableName, changed_tables
from applier.events.gtid import GtidSet
from applier.events.query import parse_query
from applier.events.scheduling import (
    changes_schema,
    clear_failure,
    end_position,
    gtid_ranges,
    keep_first,
    last_commit_microseconds,
    next_sequence_number,
)
from applier.observe.histogram import LogHistogram
from applier.observe.lag import CommitTimes
from applier.selection import Schemas
from applier.target.schema import Catalog
from scheduler.budget import MemoryBudget
from scheduler.queues import BoundedQueue

log = logging.getLogger(__name__)

QUERY_EVENT: Final = 2
STABLE_SECONDS: Final = 30.0  # a link that has held so long without news is not a failing one
READ_TIMEOUT_SECONDS: Final = 0.25  # how soon a stop is noticed on a silent link


class Stream(Protocol):
    """Where the bytes come from: a dump session, or the relay log."""

    @property
    def packets(self) -> bool:
        """The bytes are protocol packets; else they are events, one behind the other."""

    def read_into(self, buffer: memoryview, timeout_seconds: float) -> int:
        """Raises LinkLost, and ReceivingEnded when nothing more can come."""

    def has_more(self) -> bool: ...
    def gather(self, seconds: float) -> None:
        """Let more come before the next read: for `seconds`, but not where a good deal is there, or after `close`."""

    def refusal(self, code: int, message: str) -> ApplierError: ...
    def explained(self, failure: ApplierError) -> ApplierError:
        """What bad bytes of this stream mean to the operator."""

    def reached(self, sequence_number: int) -> None:
        """Everything read so far belongs to transactions up to this one."""

    def close(self) -> None: ...


class ReceivingEnded(Exception):
    """Whoever fills the stream has ended with `error`; everything before that has been read."""

    def __init__(self, error: ApplierError) -> None:
        self.error = error
        super().__init__(str(error))


class Reader:
    """Puts batches into `output` until told to stop, until `until` is read, or until the stream ends."""

    def __init__(
        self,
        open_stream: Callable[[GtidSet], Stream],
        output: BoundedQueue[Batch],
        catalog: Catalog,
        *,
        executed: GtidSet,
        until: GtidSet | None = None,
        stopping: threading.Event,
        backoff: Callable[[], Backoff] = Backoff,
        part_bytes_max: int = 8 << 20,
        selection: Schemas | None = None,
        budget: MemoryBudget,
        used_max: int,
        delay_seconds: float = 0.0,
    ) -> None:
        """Nothing is read while more than `used_max` bytes of the budget are held and batches are in flight.
        `delay_seconds`: between reads, where all that had come is read."""
        self._open_stream = open_stream
        self._selection = selection
        self._output = output
        self._catalog = catalog
        self._until = until
        self._until_read = until is not None and until <= executed
        self._stopping = stopping
        self._backoff = backoff
        self._part_bytes_max = part_bytes_max
        self._budget = budget
        self._used_max = used_max
        self.delay_seconds = delay_seconds
        self._stream: Stream | None = None
        self._ended = False
        self.received = executed.copy()  # everything handed out, and everything that was there before
        self.next_sequence_number = 1
        self.last_read_monotonic = time.monotonic()
        self.bytes = 0
        self.batches = 0
        self.reconnects = 0
        self.file = ""
        self.position = 0
        self.marks = CommitTimes()
        self.waiting = False  # for bytes of the source
        self.times = LogHistogram()  # of putting a batch together

    def run(self) -> None:
        """Raises ApplierError when the source is lost for good or its bytes are bad."""
        backoff = self._backoff()
        while not self._done():
            try:
                self._stream = self._open_stream(self.received)
                assembler = StreamAssembler(
                    self.received,
                    self.next_sequence_number,
                    packets=self._stream.packets,
                    batch_number=self.batches,
                    part_bytes_max=self._part_bytes_max,
                    source_epoch=self.reconnects << 32,  # source numbers do not compare across connections
                    budget=self._budget,
                )
                self._read(assembler, backoff)
            except ReceivingEnded as end:
                self._end_with(end.error)
            except (LinkLost, Unreachable) as error:
                if self._done():
                    return
                # The frames that the error came through hold the last batch, and through it they are held themselves:
                # what it has of the memory budget would be free only after a garbage collection.
                traceback.clear_frames(error.__traceback__)
                self.reconnects += 1
                log.warning("source link lost", extra={"detail": str(error), "attempt": backoff.attempts + 1})
                if not backoff.wait(self._stopping):
                    raise SourceLost(attempts=backoff.attempts, detail=str(error)) from error
            finally:
                self.interrupt()

    def interrupt(self) -> None:
        """Ends the present connection; also from another thread."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    @property
    def connected(self) -> bool:
        """A link to the source is there."""
        return self._stream is not None

    def _done(self) -> bool:
        return self._stopping.is_set() or self._ended or self._until_read

    def _read(self, assembler: StreamAssembler, backoff: Backoff) -> None:
        stream = self._stream
        assert stream is not None
        opened, begun = time.monotonic(), self.next_sequence_number
        while not self._done():
            self._budget.wait_for_room(self._used_max)
            self.waiting = True
            got = stream.read_into(assembler.writable(), READ_TIMEOUT_SECONDS)
            self.waiting = False
            if got == 0:
                continue
            self.last_read_monotonic = begin = time.monotonic()
            self.bytes += got
            assembler.received(got)
            flush = not stream.has_more()
            while not self._done() and (batch := assembler.take(flush)) is not None:
                self.times.observe(time.monotonic() - begin)
                self._hand_out(batch)
                del batch  # else it counts as in flight while we wait
                self._budget.wait_for_room(self._used_max)  # a payload may hold far more than was read
                begin = time.monotonic()
            if not self._done():  # else what was read last may not all have been taken
                stream.reached(assembler.next_sequence_number - 1)
            self.file, self.position = assembler.file, assembler.position
            if self.next_sequence_number > begun or self.last_read_monotonic - opened > STABLE_SECONDS:
                backoff.reset()
            if flush and self.delay_seconds:
                stream.gather(self.delay_seconds)
            if assembler.ended:
                # So a source that shuts down ends a waiting dump, before it closes the link (seen with 9.7).
                raise LinkLost(role="source", detail="the source ended the dump: it is shutting down")

    def _hand_out(self, batch: Batch) -> None:
        before = self.received if self._until is None else self.received.copy()
        self._receive(batch, 0, len(batch))
        if self._until is not None and self._until <= self.received:
            self._until_read = True
            self._cut_at_until(batch, self._until, before)
        if len(batch):
            self.next_sequence_number = next_sequence_number(batch)
            self.marks.add(
                self.next_sequence_number - 1,
                last_commit_microseconds(batch),
                (batch.file, end_position(batch, len(batch) - 1)),
            )
            if self._selection is not None:
                self._selection.note(batch)
            if changes_schema(batch):
                self._catalog.note_ddl(batch.last_sequence_number, tables_changed_last(batch))
        self.batches += 1
        failure = self._explained(batch)
        refusal = self._refusal(batch)
        if refusal is not None or failure is not batch.failure:
            clear_failure(batch)
        batch.enter()
        self._output.put(batch, batch.memory_bytes)
        if refusal is not None:
            raise refusal
        if failure is not batch.failure and failure is not None:
            self._end_with(failure)
        if batch.failure is not None:  # raised by the scheduler once everything before it is applied
            self._ended = True

    def _end_with(self, error: ApplierError) -> None:
        """Nothing more comes; everything before is applied first."""
        last = Batch(self.batches, failure=error)
        self.batches += 1
        self._output.put(last, last.memory_bytes)
        self._ended = True

    def _explained(self, batch: Batch) -> ApplierError | None:
        failure, stream = batch.failure, self._stream
        return failure if failure is None or stream is None else stream.explained(failure)

    def _refusal(self, batch: Batch) -> LinkLost | None:
        """An error of the source that only means: connect again (it is shutting down, our session was killed …)."""
        failure, stream = batch.failure, self._stream
        if isinstance(failure, SourceError) and "code" in failure.facts and stream is not None:
            meaning = stream.refusal(failure.facts["code"], failure.facts["message"])
            return meaning if isinstance(meaning, LinkLost) else None
        return None

    def _receive(self, batch: Batch, first: int, end: int) -> None:
        for sid, tag, first_number, last_number in gtid_ranges(batch, first, end):
            self.received.add_range(sid, tag, first_number, last_number)

    def _cut_at_until(self, batch: Batch, until: GtidSet, before: GtidSet) -> None:
        """Leaves out what comes after the transaction that completes the wanted set."""
        self.received = before
        for index in range(len(batch)):
            self._receive(batch, index, index + 1)
            if until <= self.received:
                keep_first(batch, index + 1)
                return


def tables_changed_last(batch: Batch) -> frozenset[TableName] | None:
    """Tables whose keys the last transaction may have changed; None for any."""
    info = batch.transaction(len(batch) - 1)
    changed: frozenset[TableName] = frozenset()
    for number in range(info.event_first, info.event_first + info.event_count):
        kind, data = batch.event(number)
        if kind != QUERY_EVENT:
            continue
        try:
            query = parse_query(data)
        except ApplierError:
            return None  # applying it will say what is wrong
        tables = changed_tables(query.text.decode("utf-8", "replace"), query.database)
        if tables is None:
            return None
        changed |= tables
    return changed
