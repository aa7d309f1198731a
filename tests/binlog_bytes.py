"""Real binary logs kept in `tests/data`, and events put together by hand, for tests of the parsers.

`every_kind.bin` and `many_row_events.bin` were written by MySQL 9.7.4; the second with
`binlog_row_event_max_size=256`, so that one statement makes many row events.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.transaction import TransactionFlag

DATA = Path(__file__).parent / "data"
EVERY_KIND = (DATA / "every_kind.bin").read_bytes()
MANY_ROW_EVENTS = (DATA / "many_row_events.bin").read_bytes()
MAGIC = b"\xfebin"
SOURCE_UUID = "f4389e8f-e545-11f1-b20b-02fc00000001"

QUERY, ROTATE, FORMAT, XID, TABLE_MAP, INCIDENT, HEARTBEAT = 2, 4, 15, 16, 19, 26, 27
USER_VAR, ROWS_QUERY = 14, 29
WRITE_ROWS, GTID, ANONYMOUS, PAYLOAD, HEARTBEAT_V2, GTID_TAGGED = 30, 33, 34, 40, 41, 42
IGNORABLE, ARTIFICIAL, RELAY_LOG = 0x80, 0x20, 0x40
STATEMENT_END = 1


def events_of(log: bytes) -> list[bytes]:
    """The events of a binary log file, checksums included."""
    found, at = [], len(MAGIC)
    while at < len(log):
        length = int.from_bytes(log[at + 9 : at + 13], "little")
        found.append(log[at : at + length])
        at += length
    return found


def event(kind: int, body: bytes = b"", *, log_pos: int = 0, flags: int = 0, checksum: bool = True) -> bytes:
    length = 19 + len(body) + (4 if checksum else 0)
    data = struct.pack("<IBIIIH", 0, kind, 1, length, log_pos, flags) + body
    return data + struct.pack("<I", zlib.crc32(data)) if checksum else data


def format_event(*, flags: int = 0, log_pos: int = 126, checksum: bool = True) -> bytes:
    body = struct.pack("<H50sIB", 4, b"9.7.4", 7, 19) + bytes(43) + bytes([checksum])
    if checksum:
        return event(FORMAT, body, flags=flags, log_pos=log_pos)
    return event(FORMAT, body + bytes(4), flags=flags, log_pos=log_pos, checksum=False)


def gtid_event(
    gno: int, *, last_committed: int = 0, sequence_number: int = 0, checksum: bool = True
) -> bytes:
    sid = bytes.fromhex(SOURCE_UUID.replace("-", ""))
    body = struct.pack("<B16sqBqq", 0, sid, gno, 2, last_committed, sequence_number)
    return event(GTID, body, checksum=checksum)


def query_event(text: str, *, checksum: bool = True) -> bytes:
    return event(QUERY, struct.pack("<IIBHH", 1, 0, 1, 0, 0) + b"d\0" + text.encode(), checksum=checksum)


def rows_event(payload: bytes = b"", *, end: bool = True, checksum: bool = True) -> bytes:
    body = (7).to_bytes(6, "little") + struct.pack("<HH", STATEMENT_END if end else 0, 2) + payload
    return event(WRITE_ROWS, body, checksum=checksum)


def table_map_event(*, checksum: bool = True) -> bytes:
    return event(TABLE_MAP, (7).to_bytes(6, "little") + bytes(2) + b"\1d\0\1t\0\1\3\0\0", checksum=checksum)


def xid_event(*, checksum: bool = True) -> bytes:
    return event(XID, bytes(8), checksum=checksum)


def rotate_event(file: str, position: int = 4, *, flags: int = 0, checksum: bool = True) -> bytes:
    return event(ROTATE, struct.pack("<Q", position) + file.encode(), flags=flags, checksum=checksum)


def transaction(gno: int, payload: bytes = b"") -> list[bytes]:
    return [gtid_event(gno), query_event("BEGIN"), table_map_event(), rows_event(payload), xid_event()]


def packets(events: Iterable[bytes], first_sequence_id: int = 1) -> bytes:
    """The events as the source of a dump sends them."""
    return frame([b"\0" + data for data in events], first_sequence_id)


def frame(payloads: Iterable[bytes], first_sequence_id: int = 1) -> bytes:
    """Payloads in protocol packets; those beyond 16 MB - 1 go on in further packets."""
    out, sequence_id = [], first_sequence_id
    for payload in payloads:
        at = 0
        while True:
            part = payload[at : at + 0xFFFFFF]
            out.append(len(part).to_bytes(3, "little") + bytes([sequence_id & 255]) + part)
            sequence_id += 1
            at += len(part)
            if len(part) < 0xFFFFFF:
                break
    return b"".join(out)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the assembler makes of one transaction or part, whatever batch it is in."""

    sequence_number: int
    gtid: str
    flags: TransactionFlag
    source_last_committed: int
    source_sequence_number: int
    end_log_pos: int
    events: tuple[tuple[int, bytes], ...]

    @property
    def types(self) -> list[int]:
        return [kind for kind, _ in self.events]

    def __repr__(self) -> str:
        return f"Seen{astuple(self)[:6]!r}{self.types}"


def seen_in(batch: Batch) -> Iterator[Seen]:
    for i in range(len(batch)):
        info = batch.transaction(i)
        yield Seen(
            info.sequence_number,
            info.gtid,
            info.flags,
            info.source_last_committed,
            info.source_sequence_number,
            info.end_log_pos,
            tuple(batch.event(info.event_first + j) for j in range(info.event_count)),
        )


def take_all(assembler: StreamAssembler, *, flush: bool = True) -> list[Batch]:
    batches = []
    while (batch := assembler.take(flush)) is not None:
        batches.append(batch)
    return batches


def of_file(log: bytes, **options: object) -> StreamAssembler:
    """An assembler that has been fed a whole file."""
    assembler = StreamAssembler(packets=False, **options)  # type: ignore[arg-type]
    assembler.begin_file("binlog.000001")
    assembler.feed(log)
    return assembler


def of_events(events: Iterable[bytes], **options: object) -> StreamAssembler:
    """An assembler that has been fed events as a dump sends them."""
    assembler = StreamAssembler(**options)  # type: ignore[arg-type]
    assembler.feed(packets(events))
    return assembler


def seen_by(assembler: StreamAssembler) -> list[Seen]:
    return [seen for batch in take_all(assembler) for seen in seen_in(batch)]


def failure_of(assembler: StreamAssembler) -> Exception | None:
    """What the last batch carries."""
    batches = take_all(assembler)
    return batches[-1].failure if batches else None
