"""Writes the relay log: appends, flushes, begins new files, waits for room."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from applier.errors import RelayLogFailed
from applier.events.gtid import GtidSet
from applier.events.headers import EventHeader
from applier.events.relay_chunk import GtidRange
from applier.source.relay.directory import FILE_MODE, file_name
from applier.source.relay.events import closing_rotate, file_head, source_format, with_checksum
from applier.source.relay.log import RelayLog
from applier.source.relay.recovery import RelayFile

log = logging.getLogger(__name__)

T = TypeVar("T")

FLUSH_BYTES_MAX: Final = 8 << 20
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
RETRY_SECONDS: Final = 1.0
REPEAT_SECONDS: Final = 60.0  # how often a wait is told again
ROOM_SECONDS: Final = 0.2


class Stopped(Exception):
    """The run ends while the writer waits for room."""


class RelayWriter:
    """One thread appends. A full disk, or the space limit, makes it wait as long as it takes, as MySQL does: the flow
    goes on applying meanwhile, and that makes room."""

    def __init__(
        self,
        relay: RelayLog,
        stopping: threading.Event,
        *,
        file_bytes_max: int,
        space_bytes_max: int = 0,
    ) -> None:
        """`space_bytes_max`: of all files together, 0: as much as the disk has."""
        self.relay = relay
        self._stopping = stopping
        self._file_bytes_max = file_bytes_max
        self._space_bytes_max = space_bytes_max
        self._descriptor = -1
        self._end = 0  # bytes written to the present file
        self._unflushed = 0
        self._unflushed_gtids = GtidSet()
        self._format = b""  # the source's format description event
        self._source_file = ""
        self._source_position = 4
        self._source_server_id = 0

    @property
    def in_file(self) -> bool:
        return self._descriptor >= 0

    # --- what the receiver says ------------------------------------------------------------------

    def source_file(self, name: str, position: int, plain_event: bytes) -> None:
        """A rotate event, its checksum off: what follows is from that file."""
        self.drop_open()
        self._source_file, self._source_position = name, position
        if self.in_file:
            self._write(with_checksum(plain_event))
            self._publish([], 0)

    def format_description(self, event: bytes) -> None:
        """A format description event, whole: a file of the source begins, or a connection."""
        self.drop_open()
        self._format = event
        if not self.in_file:
            self._begin_file()
        self._write(source_format(event))
        self._publish([], 0)

    def append(
        self, data: memoryview, whole: int, position: int, gtids: list[GtidRange], transactions: int
    ) -> None:
        """Events as a RelayChunk has them. Raises RelayLogFailed, Stopped."""
        if whole >= 0:
            self._write(data[:whole])
            self._source_position = position
            self._publish(gtids, transactions)
            self._make_room()
        # What follows belongs to an open transaction: it has to pass, however large it is.
        self._write(data[max(0, whole) :])
        if self._unflushed >= FLUSH_BYTES_MAX:
            self.flush()

    def _make_room(self) -> None:
        """Between transactions: a new file when this one is full, and a wait when the log is. Raises Stopped."""
        if self._end >= self._file_bytes_max:
            self._next_file()
        limit = self._space_bytes_max
        if not limit or self.relay.bytes < limit:
            return
        if self.relay.files[-1].transactions:
            self._next_file()  # the present file cannot be purged
        self.relay.waits_for_space += 1
        told = -REPEAT_SECONDS
        while len(self.relay.files) > 1 and not self.relay.wait_for_room(limit, ROOM_SECONDS):
            if self._stopping.is_set():
                raise Stopped
            if time.monotonic() - told >= REPEAT_SECONDS:
                told = time.monotonic()
                log.info(
                    "relay log is full: receiving waits for the target", extra={"bytes": self.relay.bytes}
                )

    def flush(self) -> None:
        """What is written survives a power cut."""
        if not self._unflushed:
            return
        self._with_room(lambda: os.fdatasync(self._descriptor))
        self._unflushed = 0
        self.relay.flushes += 1
        self.relay.flushed.update(self._unflushed_gtids)
        self._unflushed_gtids = GtidSet()

    def drop_open(self) -> None:
        """Cuts off the transaction that is open: it will come again. Nobody has read of it."""
        if self.in_file and self._end > self.relay.files[-1].readable:
            self._end = self.relay.files[-1].readable
            os.ftruncate(self._descriptor, self._end)

    def close(self) -> None:
        """May be called twice."""
        if self.in_file:
            try:
                self.drop_open()
                os.fdatasync(self._descriptor)
            except OSError as error:
                log.warning("relay log not flushed", extra={"detail": error.strerror})
            os.close(self._descriptor)
            self._descriptor = -1

    # --- files -----------------------------------------------------------------------------------

    def _publish(self, gtids: list[GtidRange], transactions: int) -> None:
        for sid, tag, first, last in gtids:
            self._unflushed_gtids.add_range(sid, tag, first, last)
        self.relay.publish(self._end, gtids, transactions)

    def _begin_file(self) -> None:
        relay = self.relay
        number = relay.next_number
        path = relay.directory.file(number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = self._with_room(lambda: os.open(path, flags, FILE_MODE))
        self._end = 0
        previous = relay.received.copy()
        self._write(file_head(self._format, previous, self._source_file, self._source_position))
        relay.next_number = number + 1
        relay.add_file(RelayFile(number, path, previous, readable=self._end))
        self._with_room(relay.write_index)

    def _next_file(self) -> None:
        name = file_name(self.relay.next_number)
        server_id = EventHeader.parse(self._format).server_id
        self._write(closing_rotate(name, self._end, server_id))
        self._publish([], 0)
        self.flush()
        os.close(self._descriptor)
        self._descriptor = -1
        self._begin_file()

    def _write(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            piece = left
            count = self._with_room(lambda piece=piece: os.pwrite(self._descriptor, piece, self._end))  # type: ignore[misc]
            self._end += count
            self._unflushed += count
            left = left[count:]

    def _with_room(self, act: Callable[[], T]) -> T:
        """Does it as soon as the disk has room. Raises RelayLogFailed, Stopped."""
        told = -REPEAT_SECONDS
        while True:
            try:
                result = act()
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise RelayLogFailed(file=self.relay.path, detail=error.strerror) from error
                if told < 0:
                    self.relay.waits_for_disk += 1
                if time.monotonic() - told >= REPEAT_SECONDS:
                    told = time.monotonic()
                    log.warning(
                        "no room for the relay log: receiving waits until there is",
                        extra={"directory": str(self.relay.path), "detail": error.strerror},
                    )
                if self._stopping.wait(RETRY_SECONDS):
                    raise Stopped from error
            else:
                if told >= 0:
                    log.info("room for the relay log again", extra={"directory": str(self.relay.path)})
                return result
