"""Whatever arrives: no crash, no hang, no memory without bytes, and no error but ours."""

from __future__ import annotations

import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from applier.errors import ApplierError
from applier.events.assembler import StreamAssembler
from applier.events.gtid import GtidSet
from applier.events.payload import inflate
from tests import binlog_bytes as log
from tests.binlog_bytes import EVERY_KIND, MANY_ROW_EVENTS, SOURCE_UUID, events_of, seen_in

BUFFER_BYTES = 512
FILES = [EVERY_KIND, MANY_ROW_EVENTS]
ATTEMPTS = settings(max_examples=400)


def drain(assembler: StreamAssembler, content: bytes, chunks: list[int]) -> None:
    """Feeds all of `content` and looks at all that comes out."""
    at = 0
    while at < len(content):
        size = chunks[at % len(chunks)]
        assembler.feed(content[at : at + size])
        at += size
        while (batch := assembler.take(flush=size % 2 == 0)) is not None:
            assert batch.failure is None or isinstance(batch.failure, ApplierError)
            for i in range(len(batch)):
                try:
                    inflate(batch, i, 1 << 20)
                except ApplierError:
                    break
            assert all(len(data) >= 19 for seen in seen_in(batch) for _, data in seen.events)
    capacity = assembler.writable().obj.capacity
    assert capacity <= 4 * (len(content) + BUFFER_BYTES)


def assembler_of(packets: bool, part_bytes_max: int = 16 << 20) -> StreamAssembler:
    return StreamAssembler(
        GtidSet.parse(f"{SOURCE_UUID}:3:8-9"),
        packets=packets,
        buffer_bytes=BUFFER_BYTES,
        part_bytes_max=part_bytes_max,
        verify_checksums=True,
    )


@st.composite
def chunk_sizes(draw: st.DrawFn) -> list[int]:
    return draw(st.lists(st.integers(1, 3000), min_size=1, max_size=5))


@ATTEMPTS
@given(st.binary(max_size=2000), chunk_sizes(), st.booleans())
def test_random_bytes(content: bytes, chunks: list[int], packets: bool) -> None:
    drain(assembler_of(packets), content, chunks)
    drain(assembler_of(packets), log.packets(events_of(EVERY_KIND)[:1]) + content, chunks)


@ATTEMPTS
@given(st.data(), chunk_sizes(), st.booleans())
def test_damaged_bytes(data: st.DataObject, chunks: list[int], packets: bool) -> None:
    original = data.draw(st.sampled_from(FILES))
    content = bytearray(log.packets(events_of(original)) if packets else original)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assembler = assembler_of(packets, data.draw(st.integers(1, 2000)))
    if not packets:
        assembler.begin_file("binlog.000001")
    drain(assembler, bytes(content), chunks)


@ATTEMPTS
@given(st.data(), chunk_sizes())
def test_damaged_events_with_right_checksums(data: st.DataObject, chunks: list[int]) -> None:
    """Gets past the checksum, to the parsers behind it."""
    events = events_of(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 5))):
        i = data.draw(st.integers(0, len(events) - 1))
        body = bytearray(events[i][:-4])
        if data.draw(st.booleans()):
            del body[data.draw(st.integers(19, len(body))) :]
        for _ in range(data.draw(st.integers(0, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        body[9:13] = struct.pack("<I", len(body) + 4)
        events[i] = bytes(body) + struct.pack("<I", zlib.crc32(body))
    assembler = assembler_of(True, data.draw(st.integers(1, 2000)))
    drain(assembler, log.packets(events), chunks)


@ATTEMPTS
@given(st.data(), chunk_sizes())
def test_real_events_in_any_order(data: st.DataObject, chunks: list[int]) -> None:
    pool = [event for content in FILES for event in events_of(content)]
    events = data.draw(st.lists(st.sampled_from(pool), max_size=60))
    assembler = assembler_of(True, data.draw(st.integers(1, 2000)))
    drain(assembler, log.packets([pool[0], *events]), chunks)


@settings(max_examples=100)
@given(st.sampled_from(FILES), chunk_sizes(), st.integers(64, 5000), st.integers(1, 3000), st.booleans())
def test_how_bytes_arrive_makes_no_difference(
    content: bytes, chunks: list[int], buffer_bytes: int, part_bytes_max: int, flush: bool
) -> None:
    def seen(options: dict[str, int], sizes: list[int]) -> list[log.Seen]:
        assembler = StreamAssembler(packets=False, part_bytes_max=part_bytes_max, **options)
        assembler.begin_file("binlog.000001")
        batches, at = [], 0
        while at < len(content):
            size = sizes[at % len(sizes)]
            assembler.feed(content[at : at + size])
            at += size
            batches += log.take_all(assembler, flush=flush)
        batches += log.take_all(assembler)
        return [one for batch in batches for one in seen_in(batch)]

    assert seen({"buffer_bytes": buffer_bytes}, chunks) == seen({}, [len(content)])
