"""Decoders: inflate compressed transactions, find rows and keys. Pure, several threads, no sockets of their own."""

from __future__ import annotations

from applier.events.batch import Batch
from applier.events.payload import inflate
from applier.events.rows import RowDecoder
from applier.events.scheduling import compressed
from applier.target.schema import Catalog
from scheduler.queues import BoundedQueue
from scheduler.reorder import Reorder


class Decoder:
    """Takes batches in any order and hands them on by number. One thread runs one decoder."""

    def __init__(self, batches: BoundedQueue[Batch], output: Reorder[Batch], catalog: Catalog) -> None:
        self._batches = batches
        self._output = output
        self._catalog = catalog
        self._rows = RowDecoder()

    def run(self) -> None:
        """Returns when no more batches come. Raises ApplierError, ClockStopped, QueueAborted."""
        while (batch := self._batches.get()) is not None:
            self.decode(batch)
            self._output.put(batch.number, batch, batch.memory_bytes)

    def decode(self, batch: Batch) -> None:
        for index in compressed(batch):
            inflate(batch, index)
        version = self._catalog.version_at(batch.first_sequence_number)
        self._rows.decode(batch, self._catalog.plan, version)
