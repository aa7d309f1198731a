"""Relay logs for tests: written from events as a dump sends them, read as the flow reads them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from applier.errors import LinkLost, SourceError
from applier.events.assembler import StreamAssembler
from applier.events.gtid import GtidSet
from applier.source.relay.directory import RelayDirectory
from applier.source.relay.log import RelayLog
from applier.source.relay.reader import RelayStream
from applier.source.relay.receiver import Receiver
from tests.binlog_bytes import (
    ARTIFICIAL,
    SOURCE_UUID,
    Seen,
    format_event,
    packets,
    rotate_event,
    seen_in,
    take_all,
    transaction,
)
from tests.waiting import wait_until

FILE_BYTES_MAX = 1 << 20


def gtids(first: int, last: int) -> GtidSet:
    return GtidSet.parse(f"{SOURCE_UUID}:{first}-{last}")


def sent(numbers: Iterable[int], payload: bytes = b"") -> list[bytes]:
    """What a source sends at the start of a dump, and transactions."""
    head = [rotate_event("binlog.000007", 4, flags=ARTIFICIAL), format_event()]
    return head + [event for number in numbers for event in transaction(number, payload)]


class SentStream:
    """A dump session that sends `events`, in pieces, and then is silent until it is closed, or `lost`."""

    packets = True

    def __init__(self, events: Iterable[bytes], *, piece_bytes: int = 1 << 16, lost: bool = False) -> None:
        self._left = packets(events)
        self._piece_bytes = piece_bytes
        self._lost = lost
        self._closed = threading.Event()

    def read_into(self, buffer: memoryview, timeout_seconds: float) -> int:
        piece = self._left[: min(self._piece_bytes, len(buffer))]
        self._left = self._left[len(piece) :]
        buffer[: len(piece)] = piece
        if not piece and (self._lost or self._closed.wait(timeout_seconds)):
            raise LinkLost(role="source", detail="the test has cut it")
        return len(piece)

    def has_more(self) -> bool:
        return bool(self._left)

    def gather(self, seconds: float) -> None:
        pass

    def refusal(self, code: int, message: str) -> SourceError:
        return SourceError(detail=message)

    def explained(self, failure: Exception) -> Exception:
        return failure

    def reached(self, sequence_number: int) -> None:
        pass

    def close(self) -> None:
        self._closed.set()


@contextlib.contextmanager
def relay_log(path: Path, executed: GtidSet | None = None) -> Iterator[RelayLog]:
    """The relay log in a folder, taken over."""
    with contextlib.closing(RelayDirectory(path)) as directory:
        yield RelayLog(directory, executed or GtidSet())


def receive(
    relay: RelayLog, *streams: SentStream, file_bytes_max: int = FILE_BYTES_MAX, space_bytes_max: int = 0
) -> Receiver:
    """A receiver that gets these connections, one after the other."""
    left = list(streams)

    def connect(received: GtidSet) -> SentStream:
        return left.pop(0) if left else SentStream([])

    receiver = Receiver(connect, relay, file_bytes_max=file_bytes_max, space_bytes_max=space_bytes_max)
    receiver.start()
    return receiver


def write(
    path: Path,
    events: Iterable[bytes],
    wanted: GtidSet,
    *,
    executed: GtidSet | None = None,
    piece_bytes: int = 1 << 16,
    **sizes: int,
) -> None:
    """Writes what a source sends into a relay log; returns once `wanted` is in it."""
    with relay_log(path, executed) as relay:
        receiver = receive(relay, SentStream(events, piece_bytes=piece_bytes), **sizes)
        wait_until(lambda: wanted <= relay.received or relay.failure)
        receiver.end()
        if relay.failure is not None:
            raise relay.failure


def read(relay: RelayLog, executed: GtidSet | None = None) -> list[Seen]:
    """What the flow gets of it."""
    received = executed or GtidSet()
    assembler = StreamAssembler(received, packets=False)
    seen = []
    with contextlib.closing(RelayStream(relay, received)) as stream:
        while stream.has_more():
            assembler.received(stream.read_into(assembler.writable(), 0))
            for batch in take_all(assembler, flush=not stream.has_more()):
                seen += seen_in(batch)
                if batch.failure is not None:
                    raise stream.explained(batch.failure)
    return seen


def numbers(seen: Iterable[Seen]) -> list[int]:
    return [int(one.gtid.rpartition(":")[2]) for one in seen]
