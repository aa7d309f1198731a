"""Decoders: inflate compressed transactions, find rows and keys. Pure, several threads, no sockets of their own."""

from __future__ import annotations

import time
from typing import Final

from applier.errors import ApplierError
from applier.events.batch import Batch
from applier.events.payload import inflate
from applier.events.rows import RowDecoder
from applier.events.scheduling import compressed, end_with
from applier.observe.counting import row_kinds
from applier.observe.histogram import LogHistogram
from applier.selection import Schemas
from applier.target.schema import Catalog
from scheduler.budget import MemoryBudget
from scheduler.queues import BoundedQueue
from scheduler.reorder import Reorder

PIECES: Final = 16  # of the budget: so many of several decoders, and of what waits for the target, fit


class Decoder:
    """Takes batches in any order and hands them on by number. One thread runs one decoder."""

    def __init__(
        self,
        batches: BoundedQueue[Batch],
        output: Reorder[Batch],
        catalog: Catalog,
        budget: MemoryBudget,
        used_max: int,
        selection: Schemas | None = None,
    ) -> None:
        """Nothing is decoded while more than `used_max` bytes of the budget are held, but for the oldest batch."""
        self._selection = selection
        self._seen: dict[bytes, bool] = {}
        self._budget = budget
        self._used_max = used_max
        self._piece_bytes_max = budget.limit // PIECES
        self._batches = batches
        self._output = output
        self._catalog = catalog
        self._rows = RowDecoder()
        self.times = LogHistogram()
        self.inserts = self.updates = self.deletes = 0

    def run(self) -> None:
        """Returns when no more batches come. Raises ClockStopped, QueueAborted."""
        while (batch := self._batches.get()) is not None:
            self._open(batch)
            rest: Batch | None = batch
            while rest is not None:
                batch = rest
                self._budget.wait_for_room(self._used_max, batch.number, batch.piece)
                begin = time.monotonic()
                rest = self.decode(batch)
                self.times.observe(time.monotonic() - begin)
                self._count(batch)
                if rest is not None:
                    rest.enter()
                self._output.put(batch.number, batch, batch.memory_bytes, last=rest is None)
            del batch  # else it is held, and counts as in flight, until there is another

    def decode(self, batch: Batch) -> Batch | None:
        """Returns what was put off: what is known of the rows would be too much at once."""
        version = self._catalog.version_at(batch.first_sequence_number)
        return self._rows.decode(batch, self._catalog.plan, version, self._piece_bytes_max)

    def _open(self, batch: Batch) -> None:
        """What cannot be opened ends the batch, as bad rows do: everything before is applied."""
        for index in compressed(batch):
            self._budget.wait_for_room(self._used_max, batch.number)
            try:
                inflate(batch, index)
            except ApplierError as error:
                end_with(batch, index, error)
                break
        if self._selection is not None:
            try:
                self._selection.select(batch, self._seen)
            except ApplierError as error:
                end_with(batch, len(batch), error)

    def _count(self, batch: Batch) -> None:
        inserts, updates, deletes = row_kinds(batch)
        self.inserts += inserts
        self.updates += updates
        self.deletes += deletes
