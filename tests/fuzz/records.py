"""Events as records that survive mutation: lengths, checksums and compression are made when the log is built.

A record is kind u8, options u8, length u16, body. A changed body thus stays an event whose length and checksum are
right, and gets past the framing to the parsers behind it; the options lie where a lie is wanted. Records marked
INSIDE are gathered into one compressed transaction.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from random import Random

import zstandard

INSIDE = 0x01
LIE_LENGTH = 0x02  # the length in the header is another than that of the event
BAD_CHECKSUM = 0x04
PLAIN = 0x08  # a payload without compression
LIE_SIZE = 0x10  # the size that a payload announces is not the one it has
CUT = 0x20  # the compressed payload ends early
FLAG_IGNORABLE = 0x40
FLAG_ARTIFICIAL = 0x80

HEADER = struct.Struct("<IBIIIH")
HEAD = struct.Struct("<BBH")
PAYLOAD_EVENT = 40
BODY_BYTES_MAX = 0xFFFF
_compressor = zstandard.ZstdCompressor(level=1)


@dataclass(frozen=True, slots=True)
class Record:
    kind: int
    body: bytes
    options: int = 0

    def encode(self) -> bytes:
        body = self.body[:BODY_BYTES_MAX]
        return HEAD.pack(self.kind, self.options, len(body)) + body

    def event(self, *, checksum: bool, log_pos: int = 0) -> bytes:
        flags = (0x80 if self.options & FLAG_IGNORABLE else 0) | (
            0x20 if self.options & FLAG_ARTIFICIAL else 0
        )
        length = HEADER.size + len(self.body) + (4 if checksum else 0)
        if self.options & LIE_LENGTH:
            length = (length + (self.body[0] if self.body else 1) * 0x01010101) & 0xFFFFFFFF
        data = HEADER.pack(1, self.kind, 1, length, log_pos, flags) + self.body
        if not checksum:
            return data
        crc = zlib.crc32(data) ^ (1 if self.options & BAD_CHECKSUM else 0)
        return data + crc.to_bytes(4, "little")


def encode(records: Iterable[Record]) -> bytes:
    return b"".join(record.encode() for record in records)


def decode(data: bytes) -> list[Record]:
    """Any bytes are records: what is missing at the end is left out."""
    records, at = [], 0
    while len(data) - at >= HEAD.size:
        kind, options, length = HEAD.unpack_from(data, at)
        at += HEAD.size
        records.append(Record(kind, data[at : at + length], options))
        at += length
    return records


def events(records: Sequence[Record], *, checksum: bool) -> Iterator[bytes]:
    """The records as events of a binary log, those INSIDE gathered into payload events."""
    for inside, group in groupby(records, key=lambda record: bool(record.options & INSIDE)):
        if inside:
            yield payload(list(group)).event(checksum=checksum)
        else:
            yield from (record.event(checksum=checksum) for record in group)


def payload(records: Sequence[Record]) -> Record:
    plain = b"".join(record.event(checksum=False) for record in records)
    options = records[0].options
    packed = plain if options & PLAIN else _compressor.compress(plain)
    if options & CUT:
        packed = packed[: len(packed) * 3 // 4]
    size = len(plain) + (len(records[0].body) + 1 if options & LIE_SIZE else 0)
    fields = _field(2, 255 if options & PLAIN else 0) + _field(3, size) + _field(1, len(packed))
    return Record(PAYLOAD_EVENT, fields + b"\0" + packed)


def _field(number: int, value: int) -> bytes:
    packed = b"\xfe" + struct.pack("<Q", value)
    return bytes([number, len(packed)]) + packed


Mutate = Callable[[bytes, Random], bytes]


def mutate(
    data: bytes, random: Random, pool: Sequence[Record], head_bytes: int, mutate_bytes: Mutate
) -> bytes:
    """`data` is `head_bytes` of options for the target, then records: changes one thing or a few."""
    head, records = data[:head_bytes].ljust(head_bytes, b"\0"), decode(data[head_bytes:])
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        choice = random.randrange(16)
        if choice == 0:
            head = mutate_bytes(head, random)[:head_bytes].ljust(head_bytes, b"\0")
        elif choice <= 2 or not records:
            records.insert(random.randint(0, len(records)), random.choice(pool))
        else:
            at = random.randrange(len(records))
            records[at : at + 1] = _changed(records, at, choice, random, mutate_bytes)
    return head + encode(records)


def _changed(
    records: list[Record], at: int, choice: int, random: Random, mutate_bytes: Mutate
) -> list[Record]:
    record = records[at]
    if choice in (3, 4):
        return [record, record][: 2 * (choice - 3)]
    if choice == 5:
        other = random.randrange(len(records))
        records[other], record = record, records[other]
        return [record]
    if choice == 6:
        return [replace(record, kind=random.randrange(44))]
    if choice == 7:
        return [replace(record, options=record.options ^ 1 << random.randrange(8))]
    if choice == 8:
        return [replace(record, body=record.body[: random.randint(0, len(record.body))])]
    return [replace(record, body=mutate_bytes(record.body, random)[:BODY_BYTES_MAX])]
