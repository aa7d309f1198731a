"""The assembler at the end of a real dump session."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import pytest

from applier.address import ServerAddress
from applier.errors import CorruptEvent, SourceError
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.gtid import GtidSet
from applier.events.payload import inflate
from applier.events.transaction import TransactionFlag
from applier.sandbox import Server
from applier.source.dump import FromFile, FromGtids, Start
from applier.source.registration import ReplicaIdentity
from applier.source.stream import DumpStream
from tests.binlog_bytes import Seen, of_file, seen_by, seen_in
from tests.dumps import executed, position

SILENCE_SECONDS_MAX = 30.0


def batches_of(stream: DumpStream, assembler: StreamAssembler) -> Iterator[Batch]:
    """As the reader does it: whole transactions leave when the source has nothing more to say for now."""
    deadline = time.monotonic() + SILENCE_SECONDS_MAX
    while not assembler.ended:
        assert time.monotonic() < deadline, "the stream is silent"
        assembler.received(stream.read_into(assembler.writable(), 1.0))
        flush = not stream.has_more()
        while (batch := assembler.take(flush)) is not None:
            yield batch


def read_all(
    address: ServerAddress, start: Start, identity: ReplicaIdentity, assembler: StreamAssembler | None = None
) -> list[Batch]:
    with DumpStream.open(address, start, identity, non_blocking=True) as stream:
        return list(batches_of(stream, assembler or StreamAssembler()))


def seen(batches: list[Batch]) -> list[Seen]:
    return [one for batch in batches for one in seen_in(batch)]


def test_the_stream_and_the_file_give_the_same_transactions(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    for size in (1, 1000, 3_000_000):
        source.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('x', {size})), (NULL)")
    source.execute(f"ALTER TABLE {table} ADD COLUMN w INT")
    now = position(source)
    source.execute("FLUSH BINARY LOGS")
    streamed = read_all(address, FromGtids(GtidSet()), identity)
    from_disk = of_file((source.datadir / now.file).read_bytes())
    assert seen(streamed) == seen_by(from_disk)
    assert {batch.file for batch in streamed} == {now.file}


def test_every_transaction_since_the_beginning_has_the_gtid_that_the_source_gave_it(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    with source.connect() as connection, connection.cursor() as cursor:
        for gtid in ("automatic", "automatic:tag_1", "automatic:tag_1", "automatic"):
            cursor.execute("SET gtid_next = %s", (gtid,))
            cursor.execute(f"INSERT INTO {table} (v) VALUES ('x')")
            cursor.execute("SET gtid_next = 'automatic'")
            cursor.execute("FLUSH BINARY LOGS")
    found = GtidSet()
    for one in seen(read_all(address, FromGtids(GtidSet()), identity)):
        found.update(GtidSet.parse(one.gtid))
    assert found == executed(source)


def test_a_file_start_in_the_middle_is_decoded_from_there(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    source.execute(f"INSERT INTO {table} (v) VALUES ('before')")
    middle = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('after')")
    (one,) = seen(read_all(address, middle, identity))
    assert b"after" in one.events[1][1]
    assert one.end_log_pos == position(source).position


def test_transactions_that_were_executed_are_dropped(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    source.execute(f"INSERT INTO {table} (v) VALUES ('before')")
    before = executed(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('after')")
    assembler = StreamAssembler(before)
    (one,) = seen(read_all(address, FromFile(position(source).file), identity, assembler))
    assert (one.gtid, one.sequence_number) == (str(executed(source) - before), 1)
    assert assembler.skipped == before.count


def test_each_transaction_leaves_at_once_when_the_source_is_idle(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    with DumpStream.open(address, position(source), identity) as stream:
        batches = batches_of(stream, StreamAssembler())
        for _ in range(3):
            source.execute(f"INSERT INTO {table} (v) VALUES ('x')")
            assert len(next(batches)) == 1


def test_heartbeats_tell_where_the_source_stands(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    source.execute(f"INSERT INTO {table} (v) VALUES ('x')")
    now = position(source)
    assembler = StreamAssembler()
    deadline = time.monotonic() + SILENCE_SECONDS_MAX
    with DumpStream.open(address, now, identity, heartbeat_seconds=0.05) as stream:
        while not assembler.heartbeats:
            assert time.monotonic() < deadline
            assembler.received(stream.read_into(assembler.writable(), 1.0))
            assert assembler.take(flush=True) is None
    assert assembler.heartbeat_position == now.position
    assert assembler.file == now.file


def test_a_large_transaction_comes_in_parts(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    start = position(source)
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for _ in range(5):
            cursor.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('x', 20000000)), (REPEAT('y', 1000000))")
        cursor.execute("COMMIT")
    parts = seen(read_all(address, start, identity))
    assert len(parts) >= 5
    assert {part.sequence_number for part in parts} == {1}
    assert TransactionFlag.LAST_PART in parts[-1].flags
    assert sum(part.types.count(30) for part in parts) >= 10


def test_a_compressed_transaction_is_inflated(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    start = position(source)
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET binlog_transaction_compression = 1")
        cursor.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('z', 5000000)), ('second')")
    (batch,) = read_all(address, start, identity)
    assert batch.byte_count < 1_000_000
    inflate(batch, 0)
    (one,) = seen_in(batch)
    assert TransactionFlag.ROWS in one.flags
    assert sum(len(data) for _, data in one.events) > 5_000_000


def test_the_target_accepts_the_format_description_and_the_rows(
    source: Server, target: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    target.execute("CREATE DATABASE d")
    target.execute("CREATE TABLE d.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v LONGBLOB)")
    start = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('one'), ('two')")
    source.execute(f"UPDATE {table} SET v = CONCAT(v, v)")
    (batch,) = read_all(address, start, identity)
    with target.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BINLOG %s", (base64.b64encode(batch.format_description).decode(),))
        cursor.execute("SET gtid_next = 'automatic'")
        rows = b"".join(batch.event(i)[1] for i in range(batch.event_total))
        cursor.execute("BINLOG %s", (base64.b64encode(rows).decode(),))
        cursor.execute(f"SELECT v FROM {table} ORDER BY id")
        assert [value for (value,) in cursor.fetchall()] == [b"oneone", b"twotwo"]


def damaged_stream(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, offset: int
) -> list[Batch]:
    """A good transaction, then one whose GTID event has bad bytes at `offset`: what comes of them."""
    source.execute("FLUSH BINARY LOGS")
    start = FromFile(position(source).file)
    source.execute("INSERT INTO d.t (v) VALUES ('good')")
    bad = position(source).position
    source.execute("INSERT INTO d.t (v) VALUES ('bad')")
    source.execute("FLUSH BINARY LOGS")
    with (source.datadir / start.file).open("r+b") as file:
        file.seek(bad + offset)
        file.write(b"\xff" * 4)
    batches: list[Batch] = []
    with DumpStream.open(address, start, identity, non_blocking=True) as stream:
        for batch in batches_of(stream, StreamAssembler()):
            batches.append(batch)
            if batch.failure is not None:
                break
    return batches


def test_damage_that_the_source_does_not_see_is_found_by_us(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    batches = damaged_stream(source, address, identity, offset=40)
    assert isinstance(batches[-1].failure, CorruptEvent)
    assert batches[-1].file in str(batches[-1].failure)
    assert [b"good" in one.events[1][1] for one in seen(batches)] == [True]


def test_an_error_of_the_source_comes_behind_what_it_sent(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    batches = damaged_stream(source, address, identity, offset=9)
    failure = batches[-1].failure
    assert isinstance(failure, SourceError)
    assert failure.facts["code"] == 1236
    assert [b"good" in one.events[1][1] for one in seen(batches)] == [True]


@pytest.mark.parametrize("checksum", ["CRC32", "NONE"])
def test_the_source_s_checksum_setting_may_change_between_files(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str, checksum: str
) -> None:
    start = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('first')")
    source.execute(f"SET GLOBAL binlog_checksum = {checksum}")
    source.execute(f"INSERT INTO {table} (v) VALUES ('second')")
    source.execute(f"SET GLOBAL binlog_checksum = {'NONE' if checksum == 'CRC32' else 'CRC32'}")
    source.execute(f"INSERT INTO {table} (v) VALUES ('third')")
    found = seen(read_all(address, start, identity))
    for word, one in zip((b"first", b"second", b"third"), found, strict=True):
        assert one.events[1][1].endswith(word)
    assert all(int.from_bytes(data[9:13], "little") == len(data) for one in found for _, data in one.events)
