"""The relay log as receiver and flow share it: its files, how far each may be read, and what can go."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

from applier.errors import ApplierError, RelayLogFailed, RelayLogMismatch
from applier.events.gtid import GtidSet
from applier.events.relay_chunk import GtidRange
from applier.source.relay.directory import RelayDirectory
from applier.source.relay.recovery import (
    RelayFile,
    check_middle,
    ended_in_order,
    read_previous,
    scan_file,
)

log = logging.getLogger(__name__)


class RelayLog:
    """Files in log order; the receiver appends to the last, the flow reads, `purge` takes away from the front.

    Counters for whoever reports: `bytes` and `files` now on disk; since the start `transactions`, `written_bytes`,
    `flushes`, `waits_for_space` (the space limit), `waits_for_disk` (full disk), `files_purged`.
    """

    def __init__(self, directory: RelayDirectory, executed: GtidSet) -> None:
        """Takes over what an earlier run left. `executed`: what the target has.

        Raises RelayLogMismatch, RelayLogCorrupt, RelayLogFailed."""
        self.directory = directory
        self.changed = threading.Condition()
        self.files: list[RelayFile] = []
        self.received = executed.copy()  # executed before, or in the files; changed by the receiver only
        self.flushed = GtidSet()  # of this run; survives a power cut
        self.failure: ApplierError | None = None  # of the receiver: nothing comes after what is there
        self.bytes = 0
        self.transactions = 0
        self.written_bytes = 0
        self.flushes = 0
        self.waits_for_space = 0
        self.waits_for_disk = 0
        self.files_purged = 0
        self.next_number = 1
        self._index_lock = threading.Lock()
        try:
            self._recover(executed)
        except OSError as error:
            raise RelayLogFailed(file=directory.path, detail=error.strerror) from error

    @property
    def path(self) -> Path:
        return self.directory.path

    # --- what an earlier run left ----------------------------------------------------------------

    def _recover(self, executed: GtidSet) -> None:
        numbers = self._existing()
        for index, number in enumerate(numbers):
            path = self.directory.file(number)
            last = index == len(numbers) - 1
            previous = read_previous(path)
            if previous is None:
                if not last:
                    raise RelayLogFailed(
                        file=path, detail="its head is damaged; remove the files of the relay log"
                    )
                self._drop(path, "its head is not whole")
                break
            missing = previous - self.received
            if missing:
                raise RelayLogMismatch(
                    directory=self.path, file=path.name, missing=str(missing).replace("\n", "")
                )
            file = RelayFile(number, path, previous, closed=True)
            following = None if last or numbers[index + 1] != number + 1 else numbers[index + 1]
            self._measure(file, following, last=last)
            if file.gtids:
                self.files.append(file)
                self.received.update(file.gtids)
            else:
                path.unlink()
        if numbers:
            self.next_number = numbers[-1] + 2  # never the name that a last rotate event gives
        self.bytes = sum(file.readable for file in self.files)
        self._purge([file for file in self.files if file.gtids <= executed])
        self.write_index()
        if self.files:
            left = self.received - executed
            log.info("relay log taken over", extra={"files": len(self.files), "transactions": left.count})

    def _existing(self) -> list[int]:
        numbers = [n for n in self.directory.numbers_in_index() if self.directory.file(n).exists()]
        for number in sorted(set(self.directory.numbers_on_disk()) - set(numbers)):
            self._drop(self.directory.file(number), "the index does not name it")
        return numbers

    def _drop(self, path: Path, why: str) -> None:
        log.warning("relay log file removed", extra={"file": path.name, "detail": why})
        path.unlink()

    def _measure(self, file: RelayFile, following: int | None, *, last: bool) -> None:
        """Its transactions and where they end; cuts the last file there."""
        size = file.path.stat().st_size
        file.readable = size
        if following is not None and ended_in_order(file.path, file.number):
            after = read_previous(self.directory.file(following))
            if after is not None:
                file.gtids = after - file.previous
                return
        content = scan_file(file.path)
        file.gtids = content.gtids
        if not last:
            check_middle(file, content, self.path)
            return
        if content.whole_bytes < size:
            log.warning(
                "relay log cut off after its last whole transaction",
                extra={"file": file.path.name, "bytes": size - content.whole_bytes, "detail": content.why},
            )
            with file.path.open("r+b") as damaged:
                damaged.truncate(content.whole_bytes)
                os.fsync(damaged.fileno())
            file.readable = content.whole_bytes

    # --- for the receiver ------------------------------------------------------------------------

    def add_file(self, file: RelayFile) -> None:
        """A file with its head written: what follows goes there. The index has to be written next."""
        with self.changed:
            if self.files:
                self.files[-1].closed = True
            self.files.append(file)
            self.bytes += file.readable
            self.changed.notify_all()

    def publish(self, size: int, gtids: list[GtidRange], transactions: int) -> None:
        """Whole transactions are written up to `size` of the last file: the flow may have them."""
        with self.changed:
            file = self.files[-1]
            self.bytes += size - file.readable
            self.written_bytes += size - file.readable
            file.readable = size
            file.transactions += transactions
            self.transactions += transactions
            for sid, tag, first, last in gtids:
                file.gtids.add_range(sid, tag, first, last)
                self.received.add_range(sid, tag, first, last)
            self.changed.notify_all()

    def fail(self, error: ApplierError) -> None:
        """The receiver has ended: the flow gets this once it has read everything."""
        with self.changed:
            self.failure = error
            self.changed.notify_all()

    def write_index(self) -> None:
        """Raises OSError."""
        with self._index_lock:
            self.directory.write_index([file.number for file in self.files])

    # --- for the flow ----------------------------------------------------------------------------

    def first_to_read(self, received: GtidSet) -> int:
        """Number of the first file that holds something which is not in `received`; 0 when the log is empty.

        Raises RelayLogMismatch when transactions before it are missing, as on a target that went back in time."""
        with self.changed:
            for index, file in enumerate(self.files):
                last = index == len(self.files) - 1
                if last or not file.gtids <= received:
                    missing = file.previous - received
                    if missing:
                        text = str(missing).replace("\n", "")
                        raise RelayLogMismatch(directory=self.path, file=file.path.name, missing=text)
                    return file.number
        return 0

    def purge_through(self, number: int) -> None:
        """The target has committed everything in the files up to `number`. Raises RelayLogFailed."""
        with self.changed:
            done = [file for file in self.files[:-1] if file.number <= number]
        if done:
            try:
                self._purge(done)
            except OSError as error:
                raise RelayLogFailed(file=self.path, detail=error.strerror) from error
            try:
                self.write_index()
            except OSError as error:
                # The index may name files that are gone: they are looked for before they are believed.
                log.warning("relay log index not written", extra={"detail": error.strerror})

    def _purge(self, done: list[RelayFile]) -> None:
        for file in done:
            with contextlib.suppress(FileNotFoundError):
                file.path.unlink()
        with self.changed:
            gone = {file.number for file in done}
            self.files = [file for file in self.files if file.number not in gone]
            self.bytes -= sum(file.readable for file in done)
            self.files_purged += len(done)
            self.changed.notify_all()

    def wait_for_room(self, bytes_max: int, seconds: float) -> bool:
        """Until fewer than `bytes_max` bytes are on disk."""
        with self.changed:
            return self.changed.wait_for(lambda: self.bytes < bytes_max, seconds)

    def file_after(self, number: int) -> RelayFile | None:
        """Call it with `changed` held."""
        return next((file for file in self.files if file.number > number), None)
