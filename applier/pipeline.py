"""The flow of one replay, from the source's bytes to commits on the target: its threads, and how it ends.

    reader → decoders → scheduler → workers

A pipeline runs once. It ends when the source's end or the wanted GTID set is reached, when it is drained, aborted, or
when something fails; who wants to go on after a failure starts another one from what the target has executed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from applier.address import ServerAddress
from applier.decoder import Decoder
from applier.errors import ApplierError, UnexpectedFailure, UsageError
from applier.events.batch import Batch
from applier.events.gtid import GtidSet
from applier.events.schedule_record import transaction_records
from applier.events.scheduling import Dependencies, cut, next_sequence_number
from applier.observe import counting
from applier.observe.histogram import LogHistogram
from applier.reader import Reader, Stream
from applier.selection import Schemas
from applier.target.checkpoint import GtidMode
from applier.target.groups import Groups
from applier.target.lock_waits import LockWaits
from applier.target.recorded_worker import RecordedWorker
from applier.target.schema import Catalog, ReadTable
from applier.target.units import UnitEncoder
from applier.target.worker import Worker
from scheduler.budget import MemoryBudget
from scheduler.clock import Clock, ClockStopped
from scheduler.dispatch import WorkQueue
from scheduler.grouping import GroupLimits, Unit
from scheduler.queues import BoundedQueue, QueueAborted
from scheduler.recording import ScheduleRecorder
from scheduler.reorder import Reorder
from writeset.buckets import BucketIndex

log = logging.getLogger(__name__)

WORKERS: Final = 8
GROUP_WORKERS: Final = 3  # more only make groups smaller: measured on two cores
BATCHES_MAX: Final = 256  # between reader and decoders: small at low load, where a batch is one transaction
INTERPRETER_BYTES: Final = 64 << 20  # of the process, beside queues and buffers: 55 MiB were seen
# How much of the budget may be held before a stage begins with more: the earlier the stage, the less.
READ_SHARE: Final = 0.5
DECODE_SHARE: Final = 0.75


def default_workers(group_transactions: int) -> int:
    """Sessions on the target where the user does not say."""
    return WORKERS if group_transactions == 1 else GROUP_WORKERS


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """How wide the flow is. Sizes in bytes."""

    workers: int = WORKERS
    decoders: int = 4
    ordered: bool = True
    group: GroupLimits = GroupLimits()
    memory_bytes_max: int = 512 << 20
    use_source_bounds: bool = True
    target_gtids: Literal["preserve", "own"] = "preserve"
    net_changes: bool = False
    idempotent: bool = False  # rbr_exec_mode: missing and duplicate rows are no errors
    record_schedule: Path | None = None  # appended to, see scheduler.recording

    def __post_init__(self) -> None:
        """Raises UsageError for what contradicts itself."""
        if self.gtid_mode is not GtidMode.KEPT and not self.ordered:
            raise UsageError(
                detail="a progress row tells one place in the log: groups and --target-gtids own need strict order"
            )

    @property
    def budget_bytes_max(self) -> int:
        """For all queues and buffers together: what the interpreter leaves of the memory, at least half of it."""
        return max(self.memory_bytes_max // 2, self.memory_bytes_max - INTERPRETER_BYTES)

    @property
    def group_limits(self) -> GroupLimits:
        """A group takes up to four times its bytes while it is applied: several must fit at once."""
        return replace(self.group, bytes_max=min(self.group.bytes_max, self.budget_bytes_max // 8))

    @property
    def part_bytes_max(self) -> int:
        """A larger transaction is handed on in parts of this size."""
        return self.memory_bytes_max // 64

    @property
    def gtid_mode(self) -> GtidMode:
        if self.target_gtids == "own":
            return GtidMode.OWN
        return GtidMode.KEPT if self.group.transactions_max == 1 else GtidMode.PURGED


class Pipeline:
    """`start`, then `join`; `drain` or `abort` from any thread."""

    def __init__(
        self,
        settings: PipelineSettings,
        *,
        open_stream: Callable[[GtidSet], Stream],
        target: ServerAddress,
        read_table: ReadTable,
        executed: GtidSet,
        until: GtidSet | None = None,
        groups: Groups | None = None,
        packet_bytes_max: int = 64 << 20,
        selection: Schemas | None = None,
    ) -> None:
        """`groups` is needed unless settings.gtid_mode is KEPT; `packet_bytes_max`: the target's max_allowed_packet.

        Raises UsageError when the schedule cannot be recorded."""
        self.settings = settings
        self.stopping = threading.Event()
        self.failure: ApplierError | None = None
        self._failed_at: int | None = None
        self._lock = threading.Lock()
        self.clock = Clock(ordered=settings.ordered)
        self.budget = MemoryBudget(settings.budget_bytes_max)
        limit = self.budget.limit
        self.undecoded: BoundedQueue[Batch] = BoundedQueue(items_max=BATCHES_MAX, bytes_max=limit)
        self.decoded: Reorder[Batch] = Reorder(bytes_max=limit)
        self.work: WorkQueue[Batch] = WorkQueue(
            cut,
            limits=settings.group_limits,
            bytes_max=limit,
            on_take=None if groups is None else groups.mark,
        )
        self.catalog = Catalog(read_table, self.clock)
        self.reader = Reader(
            open_stream,
            self.undecoded,
            self.catalog,
            executed=executed,
            until=until,
            stopping=self.stopping,
            part_bytes_max=settings.part_bytes_max,
            budget=self.budget,
            used_max=int(limit * READ_SHARE),
            delay_seconds=settings.group.delay_seconds,
            selection=selection,
        )
        self.dependencies = Dependencies(
            BucketIndex(),
            use_source_bounds=settings.use_source_bounds,
            row_by_row=settings.group.transactions_max > 1,
        )
        encoder = UnitEncoder(packet_bytes_max=packet_bytes_max, narrow=not settings.idempotent)
        self.schedule_times = LogHistogram()
        self.barriers = [0] * len(counting.REASONS)
        self.recorder = _recorder(settings)
        variables = {} if groups is None else groups.session_variables
        if settings.idempotent:
            variables = variables | {"rbr_exec_mode": "'IDEMPOTENT'"}
        new_worker = Worker if self.recorder is None else partial(RecordedWorker, recorder=self.recorder)
        self.workers: list[Worker] = [
            new_worker(number, target, self.work, self.clock, encoder, self, self.budget, groups, variables)
            for number in range(settings.workers)
        ]
        self.lock_waits = LockWaits(target, self.workers, self.clock, encoder.gtid)
        self._front = [threading.Thread(target=self._guard, args=(self._read,), name="reader", daemon=True)]
        self.decoders = [
            Decoder(
                self.undecoded, self.decoded, self.catalog, self.budget, int(limit * DECODE_SHARE), selection
            )
            for _ in range(settings.decoders)
        ]
        self._front += [
            threading.Thread(target=self._guard, args=(decoder.run,), name=f"decoder-{number}", daemon=True)
            for number, decoder in enumerate(self.decoders)
        ]
        self._front.append(
            threading.Thread(target=self._guard, args=(self._schedule,), name="scheduler", daemon=True)
        )

    @property
    def threads(self) -> list[threading.Thread]:
        """All of the flow: workers, then reader, decoders and scheduler. Not started before `start`."""
        return [*self.workers, *self._front]

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.recorder is not None:
            self.recorder.start()
        for thread in self.threads:
            thread.start()
        self.lock_waits.start()

    def join(self, seconds: float | None = None) -> bool:
        """Waits for the end of the flow; False when `seconds` were not enough. Does not raise the failure."""
        for worker in self.workers:
            worker.join(seconds)
            if worker.is_alive():
                return False
        self.lock_waits.stop()
        self._end_front()
        self.clock.stop()
        for thread in self._front:
            thread.join()
        if self.recorder is not None:
            self.recorder.close(self.clock.low_water_mark)
        return True

    def drain(self) -> None:
        """Ends soon and cleanly: what workers have begun is committed, what waits in queues will be read again."""
        self.stopping.set()
        self._end_front()
        self.work.drain()

    def abort(self) -> None:
        """Ends now: nothing more commits, but for a COMMIT that is on its way."""
        self.stopping.set()
        self._end_front()
        self.work.abort()
        self.clock.stop()
        for worker in self.workers:
            worker.session.shutdown()

    def fail(self, error: ApplierError, sequence_number: int | None = None) -> None:
        """Ends the flow because of `error`. With a sequence number everything before it still commits.

        Of several failures the one earliest in the log counts, and one that is in the log before one that is not."""
        with self._lock:
            known = self._failed_at
            if self.failure is None or (
                sequence_number is not None and (known is None or sequence_number < known)
            ):
                self.failure, self._failed_at = error, sequence_number
        if sequence_number is None:
            self.abort()
            return
        self.clock.fail(sequence_number)
        self.stopping.set()
        self._end_front()
        self.work.drain()

    def _end_front(self) -> None:
        self.undecoded.abort()
        self.decoded.abort()
        self.budget.lift()
        self.reader.interrupt()

    # --- threads ---------------------------------------------------------------------------------

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except (QueueAborted, ClockStopped):
            pass
        except ApplierError as error:
            self.fail(error)
        except Exception as error:
            if not self.stopping.is_set():
                log.debug("stage failed", exc_info=True)
                self.fail(UnexpectedFailure(detail=f"{type(error).__name__}: {error}"))

    def _read(self) -> None:
        self.reader.run()
        self.undecoded.close()
        self.decoded.close(self.reader.batches)

    def _schedule(self) -> None:
        scheduled = index_bytes = 0
        while (batch := self.decoded.get()) is not None:
            begin = time.monotonic()
            self.dependencies.schedule(batch, self.clock.low_water_mark)
            self.schedule_times.observe(time.monotonic() - begin)
            self.barriers = [a + b for a, b in zip(self.barriers, counting.barriers(batch), strict=True)]
            used = self.dependencies.index.used_bytes
            self.budget.add(used - index_bytes)
            index_bytes = used
            if len(batch):
                scheduled = next_sequence_number(batch) - 1  # a transaction that goes on may never end
                self.work.put(batch)
            if batch.failure is not None:
                # The log is bad behind this batch: apply what came before, then stop.
                self.clock.wait_for(scheduled)
                raise batch.failure
            del batch  # else it is held, and counts as in flight, until there is another
        self.work.close()


def _recorder(settings: PipelineSettings) -> ScheduleRecorder[Batch] | None:
    if settings.record_schedule is None:
        return None
    try:
        return ScheduleRecorder(
            settings.record_schedule,
            _describe,
            ordered=settings.ordered,
            source_bounds=settings.use_source_bounds,
            workers=settings.workers,
        )
    except OSError as error:
        raise UsageError(detail=f"--record-schedule {settings.record_schedule}: {error.strerror}") from error


def _describe(unit: Unit[Batch], held: list[bytes] | None) -> bytes:
    flags = held if held is not None else [None] * len(unit.slices)
    return b"".join(
        transaction_records(piece.batch, piece.first, piece.end, rows)
        for piece, rows in zip(unit.slices, flags, strict=True)
    )
