"""What is in the relay log that an earlier run left, and mending its end.

A file that was ended in good order says so with its last event; what it holds follows from the GTIDs before it and
before the next one. Any other file is read through: the one that was being written when the applier ended, and those
that were so at earlier ends.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from applier.errors import ApplierError, CorruptEvent, RelayLogCorrupt, RelayLogFailed
from applier.events.gtid import GtidSet
from applier.events.headers import CHECKSUM_BYTES, HEADER_BYTES, MAGIC, EventHeader
from applier.events.relay_scanner import RelayScanner
from applier.source.relay.directory import file_name
from applier.source.relay.events import PREVIOUS_GTIDS_EVENT, RELAY_LOG, ROTATE_EVENT, closing_rotate


@dataclass(slots=True)
class RelayFile:
    """One file. `readable`: bytes up to the end of its last whole transaction, all that the flow may see."""

    number: int
    path: Path
    previous: GtidSet  # received, or executed, before it
    gtids: GtidSet = field(default_factory=GtidSet)  # of its transactions
    readable: int = 0
    transactions: int = 0  # of this run
    closed: bool = False


def read_previous(path: Path) -> GtidSet | None:
    """The GTIDs before the file, or None when its head is not whole. Raises RelayLogFailed."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            size_max = os.fstat(file.fileno()).st_size  # memory is taken before bytes are read
            for _ in range(2):
                head = file.read(HEADER_BYTES)
                if len(head) < HEADER_BYTES:
                    return None
                header = EventHeader.parse(head)
                size = header.length - HEADER_BYTES
                body = file.read(max(0, min(size, size_max)))
                if size < CHECKSUM_BYTES or len(body) < size:
                    return None
                if header.type == PREVIOUS_GTIDS_EVENT:
                    return GtidSet.decode(body[:-CHECKSUM_BYTES])
    except OSError as error:
        raise RelayLogFailed(file=path, detail=error.strerror) from error
    except ApplierError:
        pass
    return None


def ended_in_order(path: Path, number: int) -> bool:
    """Its last event names the next file."""
    wanted = closing_rotate(file_name(number + 1), 0, 0)
    size = path.stat().st_size
    if size < len(wanted):
        return False
    with path.open("rb") as file:
        file.seek(size - len(wanted))
        found = file.read()
    header = EventHeader.parse(found)
    return (
        header.type == ROTATE_EVENT
        and bool(header.flags & RELAY_LOG)
        and header.length == len(wanted)
        and found[HEADER_BYTES:-CHECKSUM_BYTES] == wanted[HEADER_BYTES:-CHECKSUM_BYTES]
    )


@dataclass(frozen=True, slots=True)
class Content:
    """`whole_bytes`: up to the end of the last whole transaction; `why` the rest is none, empty when there is none."""

    gtids: GtidSet
    transactions: int
    whole_bytes: int
    why: str


def scan_file(path: Path) -> Content:
    """Reads a file through, every checksum included. Raises RelayLogFailed."""
    scanner = RelayScanner(packets=False)
    gtids = GtidSet()
    failure: ApplierError | None = None
    try:
        with path.open("rb", buffering=0) as file:
            while failure is None and (count := file.readinto(scanner.writable())):
                scanner.received(count)
                while (chunk := scanner.take()) is not None:
                    for sid, tag, first, last in chunk.gtids:
                        gtids.add_range(sid, tag, first, last)
                    failure = chunk.failure
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RelayLogFailed(file=path, detail=error.strerror) from error
    why = ""
    if failure is not None:
        why = str(failure.facts.get("detail", failure))
    elif scanner.whole_offset < size:
        why = "it ends inside a transaction"
    return Content(gtids, scanner.transactions, scanner.whole_offset, why)


def check_middle(file: RelayFile, content: Content, directory: Path) -> None:
    """A file that others follow was cut to whole transactions when they were begun. Raises RelayLogCorrupt."""
    if content.why:
        raise RelayLogCorrupt(
            file=file.path.name, offset=content.whole_bytes, detail=content.why, directory=directory
        )


def corrupt(error: CorruptEvent, path: Path) -> RelayLogCorrupt:
    """What the flow found while it read the file."""
    content = scan_file(path)  # where exactly
    detail = f"{content.why or error.facts['detail']}, in what came from {error.facts['place']} of the source"
    return RelayLogCorrupt(file=path.name, offset=content.whole_bytes, detail=detail, directory=path.parent)
