"""Where the mutations begin: real logs of every type and kind of event, cut into inputs for each target."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import zstandard

from tests import every_type
from tests.binlog_bytes import EVERY_KIND, MANY_ROW_EVENTS, events_of
from tests.fuzz import records, targets
from tests.fuzz.records import Record

FINDINGS = Path(__file__).parent / "findings"
"""Inputs that once found something, `findings/TARGET/NAME`."""

BODY_BYTES_MAX = 600
OPTIONS = b"\x01\x18\xff\x01"
TABLE_MAP, PAYLOAD, JSON_TYPE = 19, 40, 245
ROW_EVENTS = frozenset({23, 24, 25, 30, 31, 32, 39})
ENDS = frozenset({2, 16, 33, 34, 42})
CONTROL_KINDS = (15, 4, 27, 41, 26)
STATEMENT_KINDS = (2, 5, 13, 14, 38)


@cache
def log_records() -> tuple[Record, ...]:
    """Events of all the logs that tests have, those inside of compressed transactions marked so."""
    logs = (EVERY_KIND, MANY_ROW_EVENTS, every_type.log("full"), every_type.log("minimal"))
    return tuple(record for log in logs for event in events_of(log) for record in _records_of(event[:-4]))


def _records_of(event: bytes) -> Iterator[Record]:
    kind, body = event[4], event[19:]
    if kind == PAYLOAD:
        start = body.find(b"\x28\xb5\x2f\xfd")
        if start >= 0:
            plain, at = zstandard.ZstdDecompressor().decompressobj().decompress(body[start:]), 0
            while at < len(plain):
                length = int.from_bytes(plain[at + 9 : at + 13], "little")
                yield Record(plain[at + 4], plain[at + 19 : at + length], records.INSIDE)
                at += length
            return
    yield Record(kind, body)


@cache
def pool() -> tuple[Record, ...]:
    """Distinct events of all kinds, the large ones left out: what a mutation may put in."""
    small = [record for record in log_records() if len(record.body) <= BODY_BYTES_MAX]
    by_hand = [
        Record(27, b"binlog.000002"),
        Record(41, b"\x01\x0dbinlog.000002\x02\x04\xfc\x00\x10\x00"),
        Record(26, b"\x01\x00\x05hello"),
        Record(28, b"ignored", records.FLAG_IGNORABLE),
        Record(28, b"", records.FLAG_ARTIFICIAL),
        Record(100, b"unknown"),
        Record(30, (0xFFFFFF).to_bytes(6, "little") + b"\1\0\2\0\0"),
        Record(23, b"\x6c\0\0\0\0\0\1\0\1\xff\xfe\1\0\0\0"),
        Record(0, b""),
    ]
    return tuple(dict.fromkeys(small + by_hand))


def of(target: str) -> list[bytes]:
    """Inputs to begin with, findings of before included."""
    made = _SEEDS.get(target, lambda: iter(()))()
    size_max = targets.TARGETS[target].size_max
    kept = [path.read_bytes() for path in sorted((FINDINGS / target).glob("*"))]
    return [seed for seed in dict.fromkeys(made) if len(seed) <= 2 * size_max] + kept


def _streams() -> Iterator[bytes]:
    """Transactions, a few at a time."""
    pieces: list[Record] = []
    for record in log_records():
        if record.kind in (33, 34, 42) and sum(len(piece.body) for piece in pieces) > 100:
            for options in (OPTIONS, b"\0\x18\xff\2", b"\x09\x02\x02\3"):
                yield options + records.encode(pieces)
            pieces = []
        if len(record.body) <= BODY_BYTES_MAX:
            pieces.append(record)
    yield OPTIONS + records.encode(pieces)


def _row_batches() -> Iterator[bytes]:
    """Statements: table maps and row events, each a transaction, several of them in a group."""
    pieces: list[Record] = []
    for record in log_records():
        if record.kind in ENDS and pieces and pieces[-1].kind != 0:
            pieces.append(Record(0, b""))
        if sum(len(piece.body) for piece in pieces) > 250 and record.kind in ENDS:
            yield OPTIONS[:3] + bytes([len(pieces) * 7 & 255]) + records.encode(pieces)
            pieces = []
        if record.kind in ROW_EVENTS | {TABLE_MAP}:
            pieces.append(Record(record.kind, record.body))


def _raw_streams() -> Iterator[bytes]:
    for log in (EVERY_KIND, MANY_ROW_EVENTS):
        yield b"\0\x18\xff\1" + log
        events = events_of(log)
        yield b"\1\x18\xff\1" + b"".join(targets._framed(events))
        for at in range(1, len(events) - 6, 5):
            yield b"\5\2\xff\1" + b"".join(targets._framed(events[at : at + 6]))


def _payloads() -> Iterator[bytes]:
    inside = [record for record in log_records() if record.options & records.INSIDE]
    group: list[Record] = []
    for record in inside:
        group.append(record)
        if record.kind == 16:
            for options in (0, records.PLAIN, records.LIE_SIZE, records.CUT):
                yield records.payload([Record(group[0].kind, group[0].body, options), *group[1:]]).body
            group = []


def _bodies(kinds: tuple[int, ...]) -> Iterator[bytes]:
    for record in pool():
        if record.kind in kinds:
            event = record.event(checksum=record.kind == 15)
            yield bytes([kinds.index(record.kind)]) + event


def _table_maps() -> Iterator[bytes]:
    for record in log_records():
        if record.kind == TABLE_MAP:
            yield record.body[6:]


@cache
def _json() -> tuple[bytes, ...]:
    return tuple(_find_json())


def _find_json() -> Iterator[bytes]:
    """Pieces of rows that begin as a JSON document does: an object or an array of less than 64 KB."""
    for record in log_records():
        if record.kind not in ROW_EVENTS:
            continue
        body = record.body
        for at in range(10, len(body) - 6):
            size = int.from_bytes(body[at + 3 : at + 5], "little")
            if (
                body[at] in (0, 2)
                and 4 < size <= len(body) - at - 1
                and 0 < body[at + 1] < 20
                and not body[at + 2]
            ):
                yield body[at : at + 1 + size]
    yield b"\x0c\x05hello"
    yield b"\x04\x01"


def _json_diffs() -> Iterator[bytes]:
    for number, document in enumerate(_json()):
        if len(document) < 250:
            yield bytes([number % 2, 4]) + b"$[0]" + bytes([len(document)]) + document
    yield b"\x02\x03$.a"


def _values() -> Iterator[bytes]:
    data = bytes(range(0x70, 0x90)) * 2
    for kind in range(len(targets._KINDS)):
        for metadata in (0, 1, 2, 3, 4, 6, 8, 0x0A02, 0x411E, 0x0102, 300):
            for collation in (255, 63, 8, 35, 60, 28):
                yield bytes([kind]) + struct.pack("<HBH", metadata, kind & 3, collation) + data


def _replies() -> Iterator[bytes]:
    ok = b"\x07\0\0\1\0\1\0\2\0\0\0"
    error = b"\x17\0\0\2\xff\x26\x04#42000syntax error."
    yield b"\1\xff" + ok
    yield b"\3\0" + ok * 3
    yield b"\2\x03" + ok + error
    yield b"\1\x40" + b"\x0c\0\0\1\0\xfe\1\0\0\0\0\0\0\0\0\0"


def _gtid_texts() -> Iterator[bytes]:
    uuid = "f4389e8f-e545-11f1-b20b-02fc00000001"
    for intervals in ("1", "1-5", "1-5:7:9-11", "a:1-3:b:5", "3:1:2", "1-9223372036854775806", "5-4"):
        yield f"{uuid}:{intervals}".encode()
        yield f"{uuid}:{intervals},\n{uuid[::-1]}:1:{intervals}".encode()


def _gtid_sets() -> Iterator[bytes]:
    from applier.events.gtid import GtidSet

    for text in _gtid_texts():
        if b"\n" not in text:
            yield GtidSet.parse(text.decode()).encode()
    for record in log_records():
        if record.kind == 35:
            yield record.body


def _hash_images() -> Iterator[bytes]:
    for number in range(200):
        kind = bytes([number % 6, number % 3, number, number // 7])
        values = (b"\x05Hello", b"\xff", b"\xfe", b"\x03a  ", b"\x08" + bytes(7) + b"\x80", b"\0")
        yield kind + b"".join(values[(number + at * at) % 6] for at in range(14))


def _texts() -> Iterator[bytes]:
    for record in log_records():
        if record.kind == 2:
            yield record.body[20:]
    yield b"CREATE TABLE IF NOT EXISTS `a``b`.`c` (x INT) /* no */ -- end"
    yield b"DROP TABLE a, `b`.c , d"
    yield b"CREATE UNIQUE INDEX i USING BTREE ON t (a)"
    yield b"CREATE DEFINER=`a`@`b` SQL SECURITY INVOKER VIEW v AS SELECT 1"

    for start in (b"CREATE EVENT e ON SCHEDULE EVERY 1 DAY", b"ALTER DEFINER=`a`@`b` EVENT `e` RENAME TO f"):
        yield start + b" ENABLE COMMENT 'no; \\' yes' DO BEGIN SELECT '/*'; END"
    yield b"/* a *//**/ GRANT ALL ON *.* TO `u`@`h`"


def _log_files() -> Iterator[bytes]:
    yield b"./binlog.000001\n/nowhere/binlog.000002\n"
    yield b"\xfdbin" + bytes(20)
    for log in (EVERY_KIND, MANY_ROW_EVENTS):
        yield from (log[:size] for size in (4, 126, 300, 700))
    events = events_of(EVERY_KIND)
    yield b"\xfebin" + events[0] + Record(4, bytes(8) + b"relay.000002").event(checksum=True)


def _everything() -> Iterator[bytes]:
    grouped: dict[int, list[Record]] = defaultdict(list)
    for record in pool():
        grouped[record.kind].append(record)
    for found in grouped.values():
        yield found[0].body


_SEEDS = {
    "stream": _streams,
    "raw_stream": _raw_streams,
    "rows": _row_batches,
    "payload": _payloads,
    "relay": _streams,
    "log_file": _log_files,
    "hashing": _hash_images,
    "reply": _replies,
    "first_packet": _replies,
    "encodings": _everything,
    "control_event": lambda: _bodies(CONTROL_KINDS),
    "statement_event": lambda: _bodies(STATEMENT_KINDS),
    "statement_text": _texts,
    "gtid_text": _gtid_texts,
    "gtid_binary": _gtid_sets,
    "table_map": _table_maps,
    "json": _json,
    "json_diffs": _json_diffs,
    "value": _values,
}
