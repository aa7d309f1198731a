"""The dump session on a real source: every byte of the log, from every kind of start."""

from __future__ import annotations

import dataclasses
import random
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from applier.address import ServerAddress, Tls, TlsMode
from applier.connection import connect, raw_socket
from applier.errors import LinkLost, PreflightFailed, SourceError
from applier.events.gtid import GtidSet
from applier.sandbox import Server
from applier.source.dump import FromFile, FromGtids
from applier.source.files import LogFiles, files_of_index
from applier.source.registration import ReplicaIdentity, server_ids
from applier.source.stream import GATHER_BYTES_MAX, DumpStream
from tests.dumps import (
    FORMAT_DESCRIPTION_EVENT,
    HEARTBEAT_EVENTS,
    ROTATE_EVENT,
    SILENCE_SECONDS_MAX,
    Events,
    drain_packets,
    event_type,
    executed,
    gtids,
    is_in_file,
    position,
    read_all,
)
from tests.waiting import wait_until

# --- the same bytes ----------------------------------------------------------------------------------


def test_stream_gives_the_bytes_of_the_file(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    source.execute("FLUSH BINARY LOGS")
    start = FromFile(position(source).file)
    for size in (1, 100, 70_000):
        source.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('x', {size})), (NULL)")
    streamed = b"".join(filter(is_in_file, read_all(address, start, identity)))
    on_disk = (source.datadir / start.file).read_bytes()
    # The source clears the "in use" flag of the format description event, and so changes its checksum too.
    format_description_end = 4 + int.from_bytes(on_disk[13:17], "little")
    assert streamed[format_description_end - 4 :] == on_disk[format_description_end:]
    assert len(streamed) + 4 == len(on_disk)


def test_start_by_gtid_set_skips_what_was_executed(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    before = executed(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('a')")
    source.execute(f"INSERT INTO {table} (v) VALUES ('b')")
    new = executed(source) - before
    sent = gtids(read_all(address, FromGtids(before), identity))
    assert len(sent) == new.count == 2
    assert gtids(read_all(address, FromGtids(executed(source)), identity)) == []


def test_start_by_gtid_set_with_a_hole_sends_the_hole_only(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    source.execute(f"INSERT INTO {table} (v) VALUES ('a')")
    before = executed(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('missed')")
    missed = executed(source) - before
    source.execute(f"INSERT INTO {table} (v) VALUES ('c')")
    events = read_all(address, FromGtids(executed(source) - missed), identity)
    assert len(gtids(events)) == 1
    assert any(b"missed" in event for event in events)


def test_start_by_gtid_set_with_tags(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    connection = source.connect()
    with connection, connection.cursor() as cursor:
        for tag in ("blue", "green_2"):
            cursor.execute(f"SET gtid_next = 'AUTOMATIC:{tag}'")
            cursor.execute(f"INSERT INTO {table} (v) VALUES ('tagged {tag}')")
    have = executed(source)
    assert have.has_tags
    assert not any(b"tagged" in event for event in read_all(address, FromGtids(have), identity))
    source.execute(f"INSERT INTO {table} (v) VALUES ('after')")
    events = read_all(address, FromGtids(have), identity)
    assert any(b"after" in event for event in events)
    assert not any(b"tagged" in event for event in events)


def test_start_by_file_and_position_sends_what_follows(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    source.execute(f"INSERT INTO {table} (v) VALUES ('before the place')")
    start = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('after the place')")
    events = read_all(address, start, identity)
    assert event_type(events[0]) == ROTATE_EVENT
    assert event_type(events[1]) == FORMAT_DESCRIPTION_EVENT
    assert any(b"after the place" in event for event in events)
    assert not any(b"before the place" in event for event in events)


def test_stream_goes_on_over_a_rotation(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    start = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('first file')")
    source.execute("FLUSH BINARY LOGS")
    source.execute(f"INSERT INTO {table} (v) VALUES ('second file')")
    text = b"".join(read_all(address, start, identity))
    assert 0 < text.index(b"first file") < text.index(b"second file")


def test_more_may_come_before_the_next_read_but_a_backlog_is_not_waited_for(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    start = position(source)
    buffer = memoryview(bytearray(1 << 20))
    with DumpStream.open(address, start, identity) as stream:
        while stream.has_more():
            stream.read_into(buffer, 0.0)
        source.execute(f"INSERT INTO {table} (v) VALUES ('one')")
        wait_until(stream.has_more, what="the first transaction")
        with ThreadPoolExecutor(1) as pool:
            gathered = pool.submit(stream.gather, 1.0)
            source.execute(f"INSERT INTO {table} (v) VALUES ('two')")
            gathered.result()
        assert b"two" in bytes(buffer[: stream.read_into(buffer, 0.0)])
        for _ in range(3):
            source.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('x', 1000000))")
        begin = time.monotonic()
        stream.gather(60.0)
        assert time.monotonic() - begin < 30.0
        assert stream.read_into(buffer, 0.0) >= GATHER_BYTES_MAX // 2


def test_close_ends_a_wait_for_more(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    stream = DumpStream.open(address, position(source), identity)
    with ThreadPoolExecutor(1) as pool:
        gathered = pool.submit(stream.gather, 60.0)
        stream.close()
        gathered.result(30.0)


def test_event_larger_than_a_packet_arrives_whole(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    start = position(source)
    blob = random.Random(1).randbytes(20 << 20)
    connection = source.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} (v) VALUES (%s)", (blob,))
    largest = max(read_all(address, start, identity), key=len)
    assert len(largest) > len(blob)
    assert blob in largest


@pytest.mark.parametrize("buffer_bytes", [1, 7, 1 << 20])
def test_any_size_of_buffer_gives_the_same_events(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str, buffer_bytes: int
) -> None:
    start = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('y', 3000))")
    with DumpStream.open(address, start, identity, non_blocking=True) as stream:
        assert list(Events(stream, buffer_bytes)) == read_all(address, start, identity)


def test_stream_over_tls_gives_the_same_events(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    start = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('tls', 100000)), ('end')")
    plain = dataclasses.replace(address, tls=Tls(TlsMode.DISABLED))
    secure = dataclasses.replace(address, tls=Tls(TlsMode.REQUIRED))
    with connect(secure) as connection:
        assert isinstance(raw_socket(connection), ssl.SSLSocket)
    with connect(plain) as connection:
        assert not isinstance(raw_socket(connection), ssl.SSLSocket)
    assert read_all(secure, start, identity) == read_all(plain, start, identity)


def read_files(files: LogFiles, buffer_bytes: int = 1000) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    buffer = memoryview(bytearray(buffer_bytes))
    while count := files.read_into(buffer, 0.0):
        contents[files.file] = contents.get(files.file, b"") + bytes(buffer[:count])
    return contents


def test_log_files_are_read_in_the_order_of_their_index(source: Server, table: str) -> None:
    source.execute("FLUSH BINARY LOGS")
    source.execute(f"INSERT INTO {table} (v) VALUES ('in the last file')")
    paths = files_of_index(source.datadir / "binlog.index")
    with LogFiles(paths) as files:
        contents = read_files(files)
        assert files.at_end
        assert not files.has_more()
    assert list(contents) == [path.name for path in paths]
    assert len(paths) >= 2
    assert all(contents[path.name] == path.read_bytes() for path in paths)


# --- waiting -----------------------------------------------------------------------------------------


def test_live_stream_waits_and_then_delivers(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    with DumpStream.open(address, FromGtids(executed(source)), identity) as stream:
        events = Events(stream)
        events.first(lambda event: event_type(event) == FORMAT_DESCRIPTION_EVENT)
        source.execute(f"INSERT INTO {table} (v) VALUES ('live')")
        assert events.first(lambda event: b"live" in event)


def test_read_returns_nothing_within_its_time_out(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    buffer = memoryview(bytearray(1 << 16))
    with DumpStream.open(address, FromGtids(executed(source)), identity) as stream:
        deadline = time.monotonic() + SILENCE_SECONDS_MAX
        while stream.read_into(buffer, 0.3):
            assert time.monotonic() < deadline
        assert not stream.has_more()
        assert stream.read_into(buffer, 0.0) == 0


def test_has_more_tells_that_bytes_wait(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    source.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('z', 5000))")
    with DumpStream.open(address, FromGtids(GtidSet()), identity, non_blocking=True) as stream:
        small = memoryview(bytearray(100))
        assert stream.read_into(small, 5.0) == 100
        assert stream.has_more()


def test_heartbeats_arrive_while_the_source_is_idle(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    with DumpStream.open(address, FromGtids(executed(source)), identity, heartbeat_seconds=0.1) as stream:
        events = Events(stream)
        for _ in range(3):
            assert events.first(lambda event: event_type(event) in HEARTBEAT_EVENTS)


# --- who we are --------------------------------------------------------------------------------------


def test_source_lists_us_among_its_replicas(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    with DumpStream.open(address, FromGtids(executed(source)), identity):
        listed = {row[0]: row for row in source.execute("SHOW REPLICAS")}
        assert identity.server_id in listed
        assert listed[identity.server_id][1] == identity.host
        assert listed[identity.server_id][4] == identity.uuid


def test_server_id_that_is_taken_is_not_chosen(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    class Rigged(random.Random):
        """Draws the ids that are taken first."""

        draws = iter([source.server_id, identity.server_id, 4711, 4712])

        def randint(self, a: int, b: int) -> int:
            return next(self.draws)

    with DumpStream.open(address, FromGtids(executed(source)), identity), connect(address) as connection:
        assert {source.server_id, identity.server_id} <= server_ids(connection, address)
        chosen = ReplicaIdentity.choose(connection, address, taken=[4711], chance=Rigged())
        assert chosen.server_id == 4712
        with pytest.raises(PreflightFailed, match=f"server id {source.server_id} is already in use"):
            ReplicaIdentity.choose(connection, address, server_id=source.server_id)


def test_second_dump_of_one_identity_ends_the_first(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    start = FromGtids(executed(source))
    with DumpStream.open(address, start, identity) as old, DumpStream.open(address, start, identity) as new:
        with pytest.raises((LinkLost, SourceError)):
            drain_packets(old)
        assert new.read_into(memoryview(bytearray(4096)), 5.0) > 0
