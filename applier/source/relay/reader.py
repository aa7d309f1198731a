"""The relay log as the flow reads it: one endless run of events, whole transactions only."""

from __future__ import annotations

from collections import deque
from io import FileIO
from typing import Final

from applier.errors import ApplierError, CorruptEvent, LinkLost, RelayLogFailed
from applier.events.gtid import GtidSet
from applier.events.headers import MAGIC
from applier.reader import ReceivingEnded
from applier.source.relay.log import RelayLog
from applier.source.relay.recovery import RelayFile, corrupt

GATHER_BYTES_MAX: Final = 256 << 10  # so much is worth a read at once


class RelayStream:
    """A single thread reads; any thread may close, or ask what is `finished`.

    Magic numbers are left out: the bytes are events, one file's behind the other's."""

    packets = False

    def __init__(self, relay: RelayLog, received: GtidSet) -> None:
        """From the first file on that holds something not in `received`. Raises RelayLogMismatch."""
        self._relay = relay
        self._number = max(0, relay.first_to_read(received) - 1)  # of the file before the present one
        self._file: RelayFile | None = None
        self._input: FileIO | None = None
        self._offset = 0
        self._last_path = relay.path  # of the file that the last bytes came from
        self._closed = False
        self._read_through: deque[int] = deque()  # files handed out to their end, not yet `reached`
        self._marks: deque[tuple[int, int]] = deque()  # last sequence number of a file, its number

    def read_into(self, buffer: memoryview, timeout_seconds: float) -> int:
        """Put the next bytes at the start of `buffer`; how many. 0: none came within the time-out.

        Raises ReceivingEnded, RelayLogFailed, and LinkLost after `close`."""
        with self._relay.changed:
            self._relay.changed.wait_for(lambda: self._closed or self._advance() > 0, timeout_seconds)
            if self._closed:
                raise LinkLost(role="source", detail="closed on our side")
            count = min(self._advance(), len(buffer))
            if not count:
                if self._relay.failure is not None:
                    raise ReceivingEnded(self._relay.failure)
                return 0
            assert self._file is not None
            assert self._input is not None
            self._last_path = self._file.path
            file = self._input
        return self._read(file, buffer[:count])

    def has_more(self) -> bool:
        with self._relay.changed:
            return not self._closed and self._advance() > 0

    def gather(self, seconds: float) -> None:
        """Let more be written: returns after `seconds`, when GATHER_BYTES_MAX can be read, or after `close`."""
        with self._relay.changed:
            self._relay.changed.wait_for(
                lambda: (
                    self._closed or self._advance() >= GATHER_BYTES_MAX or self._relay.failure is not None
                ),
                seconds,
            )

    def refusal(self, code: int, message: str) -> ApplierError:
        raise AssertionError("a relay log holds no error packets")

    def explained(self, failure: ApplierError) -> ApplierError:
        """Bad bytes were good when they were written: it is our disk."""
        if isinstance(failure, CorruptEvent):
            return corrupt(failure, self._last_path)
        return failure

    def close(self) -> None:
        """May be called twice."""
        with self._relay.changed:
            self._closed = True
            self._relay.changed.notify_all()
            if self._input is not None:
                self._input.close()
                self._input = None

    # --- what can go -----------------------------------------------------------------------------

    def reached(self, sequence_number: int) -> None:
        """All that was handed out so far belongs to transactions up to this one."""
        with self._relay.changed:
            self._advance()
        while self._read_through:
            self._marks.append((sequence_number, self._read_through.popleft()))

    def finished(self, low_water_mark: int) -> int:
        """Number of the last file whose transactions are all committed, 0 when there is none. Called by one thread."""
        number = 0
        while self._marks and self._marks[0][0] <= low_water_mark:
            number = self._marks.popleft()[1]
        return number

    # --- files -----------------------------------------------------------------------------------

    def _advance(self) -> int:
        """Bytes that can be read now; goes on to the next file at the end of one. `changed` is held."""
        while not self._closed:
            file = self._file
            if file is not None:
                left = file.readable - self._offset
                if left or not file.closed:
                    return left
                self._read_through.append(file.number)
                self._number = file.number
                self._file = None
            following = self._relay.file_after(self._number)
            if following is None:
                return 0
            self._open(following)
        return 0

    def _open(self, file: RelayFile) -> None:
        if self._input is not None:
            self._input.close()
        try:
            self._input = FileIO(file.path)
            self._input.seek(len(MAGIC))
        except OSError as error:
            raise RelayLogFailed(file=file.path, detail=error.strerror) from error
        self._file, self._offset = file, len(MAGIC)

    def _read(self, file: FileIO, buffer: memoryview) -> int:
        try:
            count = file.readinto(buffer)
        except ValueError:  # closed by another thread
            raise LinkLost(role="source", detail="closed on our side") from None
        except OSError as error:
            raise RelayLogFailed(file=self._last_path, detail=error.strerror) from error
        if not count:
            raise RelayLogFailed(file=self._last_path, detail="it is shorter than what was written")
        self._offset += count
        return count
