"""What is fuzzed: each target takes any bytes, and raises nothing.

A target lets pass the errors that its parser documents, by their very class: an IndexError or UnicodeDecodeError out
of a parser that promises ValueError is a finding.
"""

from __future__ import annotations

import atexit
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from applier.errors import (
    ApplierError,
    ApplyError,
    CorruptEvent,
    DataError,
    EncryptedLog,
    SourceError,
    UnsupportedEvent,
    UsageError,
)
from applier.events import control, query
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.column_types import ColumnType, layout
from applier.events.ddl import changed_tables
from applier.events.framing import crc32, crc32_by_tables
from applier.events.gtid import Gtid, GtidSet
from applier.events.headers import EventHeader
from applier.events.json_value import decode_json, decode_json_diffs
from applier.events.payload import inflate
from applier.events.relay_scanner import RelayScanner
from applier.events.statement import encode_format_description, frame_packet
from applier.events.table_map import Column, parse_table_map
from applier.events.transaction import TransactionFlag
from applier.events.values import decode_value
from applier.selection import CopiedTables, Schemas
from applier.source.files import check_magic, files_of_index
from applier.source.relay.events import relay_format
from applier.source.relay.recovery import ended_in_order, read_previous, scan_file
from applier.source.stream import packet_bytes_needed
from applier.target.event_ddl import for_replica
from applier.target.wire import ReplyCounter, ServerReplied, WireProtocolError
from tests.fuzz import flow, guard, records
from tests.fuzz.plans import Plans, plan_of

FORMAT = records.Record(15, struct.pack("<H50sIB", 4, b"9.7.4", 0, 19) + bytes(43) + b"\1")
MAGIC = b"\xfebin"
CHUNKS_MAX = 64
SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
HEAD_BYTES = 4
"""Of a target made of records: its options."""


@dataclass(frozen=True, slots=True)
class Target:
    """`structured`: HEAD_BYTES of options, then records."""

    run: Callable[[bytes], None]
    structured: bool = False
    size_max: int = 4096


def _calls(function: Callable[[bytes], object], *errors: type[Exception]) -> Callable[[bytes], None]:
    """Lets pass errors of exactly these classes."""

    def run(data: bytes) -> None:
        try:
            function(data)
        except errors as error:
            if type(error) not in errors:
                raise

    return run


# --- streams and rows ---------------------------------------------------------------------------------


def stream(data: bytes) -> None:
    """Events → packets or a file → batches → rows → packets for the target."""
    head, pieces = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"), records.decode(data[HEAD_BYTES:])
    checksum = not head[0] & 2
    log = [] if head[0] & 4 else [_format_event(checksum)]
    log += records.events(pieces, checksum=checksum)
    _run_stream(head, b"".join(_framed(log) if head[0] & 1 else [MAGIC, *log]))


def raw_stream(data: bytes) -> None:
    """Bytes as they are: wrong lengths, packets, magic numbers."""
    head, content = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"), data[HEAD_BYTES:]
    if head[0] & 4:
        log = [_format_event(not head[0] & 2)]
        content = b"".join(_framed(log) if head[0] & 1 else [MAGIC, *log]) + content
    _run_stream(head, content)


def _run_stream(head: bytes, content: bytes) -> None:
    packets = bool(head[0] & 1)
    assembler = StreamAssembler(
        flow.EXECUTED if head[0] & 8 else None,
        packets=packets,
        buffer_bytes=64 << head[1] % 8,
        part_bytes_max=1 << (4 + head[2] % 16),
        batch_bytes_max=1 << (4 + head[2] // 16),
        payload_bytes_max=flow.PARTS_BYTES_MAX,
        verify_checksums=not head[0] & 16,
    )
    if not packets:
        assembler.begin_file("binlog.000001", 4 + head[2] * (head[0] >> 5 & 1))
    chunk_bytes = max((1, 7, 64, 1000, 1 << 20)[head[1] // 8 % 5], len(content) // CHUNKS_MAX)
    flow.replay(flow.feed(assembler, content, chunk_bytes), Plans(head[3]))


def _format_event(checksum: bool) -> bytes:
    if checksum:
        return FORMAT.event(checksum=True)
    return records.Record(15, FORMAT.body[:-1] + b"\0\0\0\0\0").event(checksum=False)


def _framed(log: list[bytes]) -> list[bytes]:
    return [
        (len(one) + 1).to_bytes(3, "little") + bytes([number + 1 & 255, 0]) + one
        for number, one in enumerate(log)
    ]


def relay(data: bytes) -> None:
    """A dump on its way into a relay log, or a relay log file read again."""
    head, pieces = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"), records.decode(data[HEAD_BYTES:])
    packets, checksum = bool(head[0] & 1), not head[0] & 2
    log = [_format_event(checksum), *records.events(pieces, checksum=checksum)]
    content = b"".join(_framed(log) if packets else [MAGIC, *log])
    scanner = RelayScanner(packets=packets, buffer_bytes=64 << head[1] % 8)
    step = max(1 + head[2], len(content) // CHUNKS_MAX)
    for at in range(0, len(content), step):
        scanner.feed(content[at : at + step])
        while (chunk := scanner.take(head[3])) is not None:
            assert chunk.failure is None or isinstance(chunk.failure, ApplierError)
            assert chunk.whole <= len(chunk.data)
            if chunk.failure is not None:
                return
            if chunk.control and chunk.control[4] == FORMAT.kind:
                relay_format(chunk.control)


def log_file(data: bytes) -> None:
    """Files that are not what they should be: an index, a log, a relay log."""
    path = SCRATCH / "relay.000001"
    path.write_bytes(data)
    try:
        for named in files_of_index(path):
            check_magic(named)
    except (UsageError, EncryptedLog, SourceError):
        pass
    read_previous(path)
    ended_in_order(path, 1)
    scan_file(path)


def rows(data: bytes) -> None:
    """Table maps and row events, as they stand in a batch."""
    head, pieces = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"), records.decode(data[HEAD_BYTES:])
    flow.replay([flow.batch_of(pieces)], Plans(head[3]))


def payload(data: bytes) -> None:
    """The content of a payload event, and what is inside."""
    batch = Batch(0, "binlog.000001")
    event = records.Record(records.PAYLOAD_EVENT, data).event(checksum=False)
    flags = TransactionFlag.COMPRESSED | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART
    batch.append_transaction([event], int(flags), 1)
    guard.active.isolate(batch)
    inflate(batch, 0, flow.PAYLOAD_BYTES_MAX)


def hashing(data: bytes) -> None:
    """Keys of one row: columns are cut out of the data by lengths in front of them."""
    head, rest = data[:4].ljust(4, b"\0"), data[4:]
    count, kind = 1 + head[0] % 6, head[1] % 3
    plan = plan_of("d", "t", count, head[2] | head[3] << 8)
    images: list[list[object]] = []
    at = 0
    for _ in range(2):
        image: list[object] = []
        for _ in range(plan.column_total):
            length = rest[at] if at < len(rest) else 0
            image.append(None if length == 255 else ... if length == 254 else rest[at + 1 : at + 1 + length])
            at += 1 + (length if length < 254 else 0)
        images.append(image)
    plan.touches(kind, None if kind == 0 else images[0], None if kind == 2 else images[1])


# --- replies and packets ------------------------------------------------------------------------------


def reply(data: bytes) -> None:
    """What the target answers, in pieces."""
    owed, size = (data[0] % 20, 1 + data[1]) if len(data) > 1 else (1, 1)
    counter = ReplyCounter()
    counter.expect(owed)
    try:
        for at in range(2, len(data), size):
            if counter.feed(guard.active.exact(data[at : at + size])):
                break
    except ServerReplied as error:
        str(error)
    except WireProtocolError:
        return
    for number in range(min(counter.received, 16)):
        counter.affected_rows(number)


def first_packet(data: bytes) -> None:
    if len(data) >= packet_bytes_needed(data) > 4 and data[4] == 0xFF:
        str(control.parse_error_packet(data[4:]))


def encodings(data: bytes) -> None:
    """Of any bytes: both ways to a checksum, and packets."""
    view = guard.active.exact(data)
    assert crc32(view) == crc32_by_tables(view)
    assert frame_packet(view)[4:] == data
    encode_format_description(data)


# --- events that are parsed in Python -----------------------------------------------------------------

_CONTROLS = (
    control.parse_format_description,
    control.parse_rotate,
    control.parse_heartbeat,
    control.parse_heartbeat_v2,
    control.parse_incident,
)
_STATEMENTS = (
    query.parse_query,
    query.parse_integer_variable,
    query.parse_random_seeds,
    query.parse_user_variable,
    query.parse_xa_prepare,
)


def control_event(data: bytes) -> None:
    parser = _CONTROLS[data[0] % len(_CONTROLS)] if data else control.parse_rotate
    _calls(parser, CorruptEvent, DataError)(data[1:])
    _calls(EventHeader.parse, CorruptEvent)(data[1:])


def statement_event(data: bytes) -> None:
    parser = _STATEMENTS[data[0] % len(_STATEMENTS)] if data else query.parse_query
    _calls(parser, CorruptEvent, UnsupportedEvent)(data[1:])


def statement_text(data: bytes) -> None:
    """Tables of a statement, what becomes of one about events, and whose it is."""
    changed_tables(data.decode("utf-8", "replace"), "d")
    for_replica(data, "`u`@`h`")
    event = records.Record(2, bytes(8) + b"\1\0\0\0\0d\0" + data).event(checksum=False)
    copied = CopiedTables(["d"], [("d", "t")], lambda table: None)
    _calls(lambda event: copied._note(query.parse_query(event)), ApplyError)(event)
    _calls(Schemas(["d"]).wants_statement, ApplyError)(event)


def gtid_text(data: bytes) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    _calls(lambda _: _check_set(GtidSet.parse(text)), UsageError)(data)
    _calls(lambda _: str(Gtid.parse(text)), UsageError)(data)


def gtid_binary(data: bytes) -> None:
    _calls(lambda raw: _check_set(GtidSet.decode(raw)), CorruptEvent)(data)


def _check_set(found: GtidSet) -> None:
    """What was read is a set in good order: it can be written and read again."""
    assert GtidSet.parse(str(found)) == found
    assert GtidSet.decode(found.encode()) == found
    assert not found - found


def table_map(data: bytes) -> None:
    def run(content: bytes) -> None:
        for column in parse_table_map(content).columns:
            decode_value(column, content)

    _calls(run, ValueError)(data)


def json(data: bytes) -> None:
    _calls(lambda raw: repr(decode_json(raw)), ValueError)(data)


def json_diffs(data: bytes) -> None:
    _calls(lambda raw: repr(decode_json_diffs(raw)), ValueError)(data)


_KINDS = tuple(ColumnType)


def value(data: bytes) -> None:
    """One column's value, whatever the table map says of the column."""
    head, raw = data[:6].ljust(6, b"\0"), data[6:]
    kind, metadata = _KINDS[head[0] % len(_KINDS)], head[1] | head[2] << 8
    try:
        size = layout(kind, metadata)
    except ValueError:
        return
    names = (b"a", b"", b"\xff") if head[3] & 1 else None
    column = Column(0, kind, metadata, size, True, None, bool(head[3] & 2), head[4] | head[5] << 8, names)
    decode_value(column, raw if size.prefix_bytes else raw[: size.fixed_bytes])


TARGETS: dict[str, Target] = {
    "stream": Target(stream, structured=True),
    "raw_stream": Target(raw_stream),
    "rows": Target(rows, structured=True),
    "payload": Target(_calls(payload, CorruptEvent, UnsupportedEvent)),
    "relay": Target(relay, structured=True),
    "log_file": Target(log_file, size_max=512),
    "hashing": Target(hashing, size_max=1024),
    "reply": Target(reply, size_max=3000),
    "first_packet": Target(first_packet, size_max=256),
    "encodings": Target(encodings, size_max=1024),
    "control_event": Target(control_event, size_max=512),
    "statement_event": Target(statement_event, size_max=512),
    "statement_text": Target(statement_text, size_max=1024),
    "gtid_text": Target(gtid_text, size_max=512),
    "gtid_binary": Target(gtid_binary, size_max=512),
    "table_map": Target(table_map, size_max=1024),
    "json": Target(json, size_max=1024),
    "json_diffs": Target(json_diffs, size_max=1024),
    "value": Target(value, size_max=256),
}
