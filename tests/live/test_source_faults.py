"""What goes wrong with a dump session: broken links, and everything that a source can refuse."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from applier.address import ServerAddress, Tls, TlsMode
from applier.connection import connect
from applier.errors import (
    ApplierError,
    LinkLost,
    PreflightFailed,
    PurgedTransactions,
    SourceError,
    TargetAhead,
)
from applier.events.gtid import GtidSet
from applier.sandbox import Server
from applier.source.dump import FromFile, FromGtids
from applier.source.position import source_position
from applier.source.registration import ReplicaIdentity, server_ids
from applier.source.stream import DumpStream
from tests.dumps import SILENCE_SECONDS_MAX, Events, drain_packets, executed, position, read_all
from tests.proxy import FaultProxy

# --- the link ----------------------------------------------------------------------------------------


def test_missing_heartbeats_mean_a_lost_link(
    source: Server, proxy: FaultProxy, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    through = dataclasses.replace(address, port=proxy.port)
    with DumpStream.open(through, FromGtids(executed(source)), identity, heartbeat_seconds=0.2) as stream:
        proxy.stall()
        with pytest.raises(LinkLost, match=r"silent for 0\.6 s"):
            drain_packets(stream)


def test_cut_link_is_lost(
    source: Server, proxy: FaultProxy, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    through = dataclasses.replace(address, port=proxy.port)
    with DumpStream.open(through, FromGtids(executed(source)), identity) as stream:
        proxy.cut()
        with pytest.raises(LinkLost) as caught:
            list(Events(stream))
    assert caught.value.exit_code == 75


def test_half_closed_link_is_lost(
    source: Server, proxy: FaultProxy, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    through = dataclasses.replace(address, port=proxy.port)
    with DumpStream.open(through, FromGtids(executed(source)), identity) as stream:
        proxy.half_close()
        with pytest.raises(LinkLost, match="closed the connection"):
            list(Events(stream))


def test_slow_link_delivers_everything(
    source: Server, proxy: FaultProxy, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    start = position(source)
    source.execute(f"INSERT INTO {table} (v) VALUES (REPEAT('slow', 500))")
    proxy.throttle(50)
    proxy.delay(1)
    assert read_all(dataclasses.replace(address, port=proxy.port), start, identity) == read_all(
        address, start, identity
    )


def test_killed_dump_is_a_lost_link(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    with DumpStream.open(address, FromGtids(executed(source)), identity) as stream:
        for (session,) in source.execute(
            "SELECT id FROM performance_schema.processlist WHERE command LIKE 'Binlog Dump%'"
        ):
            source.execute(f"KILL {session}")
        with pytest.raises(LinkLost):
            drain_packets(stream)


@pytest.mark.parametrize("mode", [TlsMode.DISABLED, TlsMode.REQUIRED])
def test_close_from_another_thread_frees_a_blocked_reader(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, mode: TlsMode
) -> None:
    stream = DumpStream.open(
        dataclasses.replace(address, tls=Tls(mode)),
        FromGtids(executed(source)),
        identity,
        heartbeat_seconds=3600,
    )
    outcome: list[BaseException] = []
    waiting = threading.Event()

    def read() -> None:
        buffer = memoryview(bytearray(1 << 16))
        try:
            while stream.read_into(buffer, 0.5):
                pass
            waiting.set()
            stream.read_into(buffer, SILENCE_SECONDS_MAX)
        except ApplierError as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert waiting.wait(SILENCE_SECONDS_MAX)
    stream.close()
    reader.join(5)
    assert not reader.is_alive()
    assert [type(error) for error in outcome] == [LinkLost]
    assert not stream.has_more()
    stream.close()


# --- refusals ----------------------------------------------------------------------------------------


def test_purged_transactions_are_named(
    source: Server, address: ServerAddress, identity: ReplicaIdentity, table: str
) -> None:
    before = executed(source)
    source.execute(f"INSERT INTO {table} (v) VALUES ('purged')")
    lost = executed(source) - before
    source.execute("FLUSH BINARY LOGS")
    source.execute(f"PURGE BINARY LOGS TO '{position(source).file}'")
    with pytest.raises(PurgedTransactions) as caught:
        DumpStream.open(address, FromGtids(before), identity)
    assert GtidSet.parse(caught.value.facts["missing"]) == lost
    assert str(lost) in str(caught.value)
    assert caught.value.exit_code == 3


def test_target_ahead_of_its_source_is_refused(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    server_uuid = source.execute("SELECT @@server_uuid")[0][0]
    ahead = GtidSet.parse(f"{server_uuid}:9000000-9000001")
    with pytest.raises(TargetAhead, match=f"{server_uuid}:9000000-9000001"):
        DumpStream.open(address, FromGtids(executed(source) | ahead), identity)


def test_unknown_file_is_refused_with_what_there_is(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    with pytest.raises(SourceError, match=r"its binary logs are binlog\.\d+ to binlog\.\d+"):
        DumpStream.open(address, FromFile("binlog.999999"), identity)


def test_position_beyond_the_end_of_the_file_is_refused(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    end = position(source)
    with pytest.raises(SourceError):
        DumpStream.open(address, FromFile(end.file, end.position + 1_000_000), identity)


def test_missing_privilege_comes_with_the_grant_that_mends_it(
    source: Server, address: ServerAddress, identity: ReplicaIdentity
) -> None:
    source.execute("CREATE USER 'weak'@'%' IDENTIFIED BY 'pass-of-weak'")
    weak = dataclasses.replace(address, user="weak", password="pass-of-weak")
    mends = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'weak'@'%'"
    with connect(weak) as connection:
        for refused in (
            lambda: DumpStream.open(weak, FromGtids(GtidSet()), identity),
            lambda: source_position(connection, weak),
            lambda: server_ids(connection, weak),
        ):
            with pytest.raises(PreflightFailed) as caught:
                refused()
            assert mends in str(caught.value)
            assert "pass-of-weak" not in str(caught.value)
    source.execute(mends)
    DumpStream.open(weak, FromGtids(executed(source)), identity).close()
