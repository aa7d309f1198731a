"""The bytes of a dump session, kept in a file, and a stream that gives them again as fast as they are taken."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from applier.address import parse_url
from applier.bench.backlog import Backlog
from applier.connection import connect
from applier.errors import ApplierError, SourceError
from applier.events.assembler import StreamAssembler
from applier.source.dump import FromGtids
from applier.source.registration import ReplicaIdentity
from applier.source.stream import DumpStream

CAPTURE = "dump.packets"
TIMEOUT_SECONDS = 5.0


def captured(backlog: Backlog) -> Path:
    """The file with what the backlog's source sends, made at the first call. Raises what a dump session raises."""
    path = backlog.sandbox.directory / CAPTURE
    if not path.is_file():
        making = path.with_suffix(".making")
        _capture(backlog, making)
        making.rename(path)
    return path


def _capture(backlog: Backlog, path: Path) -> None:
    address = parse_url(backlog.source.url, "source", prompt=False)
    connection = connect(address)
    try:
        identity = ReplicaIdentity.choose(connection, address)
    finally:
        connection.close()
    assembler = StreamAssembler(None)  # only to see where the source ends
    start = FromGtids(backlog.start_gtids)
    with DumpStream.open(address, start, identity, non_blocking=True) as stream, path.open("wb") as file:
        while not assembler.ended:
            view = assembler.writable()
            count = stream.read_into(view, TIMEOUT_SECONDS)
            file.write(view[:count])
            assembler.received(count)
            while (batch := assembler.take()) is not None:
                if batch.failure is not None:
                    raise batch.failure


class CapturedStream:
    """A stream as the reader wants it, from a captured file."""

    packets = True

    def __init__(self, path: Path) -> None:
        self._file = FileIO(path)
        self._left = os.fstat(self._file.fileno()).st_size

    def read_into(self, buffer: memoryview, timeout_seconds: float) -> int:
        """The next bytes; 0 at the end, where a live stream would wait."""
        count = self._file.readinto(buffer) or 0
        self._left -= count
        return count

    def has_more(self) -> bool:
        return self._left > 0

    def gather(self, seconds: float) -> None:
        """Nothing more will come."""

    def refusal(self, code: int, message: str) -> ApplierError:
        """What an error packet in the capture stands for."""
        return SourceError(detail=f"{message} ({code})")

    def explained(self, failure: ApplierError) -> ApplierError:
        return failure

    def reached(self, sequence_number: int) -> None:
        """Nothing is kept that could go."""

    def close(self) -> None:
        self._file.close()
