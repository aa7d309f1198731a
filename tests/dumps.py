"""Fixtures and plain readers for dump sessions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from applier.address import ServerAddress
from applier.connection import connect
from applier.events.gtid import GtidSet
from applier.sandbox import Server
from applier.source.dump import FromFile, Start
from applier.source.position import source_position
from applier.source.registration import ReplicaIdentity
from applier.source.stream import DumpStream
from tests.proxy import FaultProxy

ARTIFICIAL = 0x20  # flag of events that the source makes up for the stream: they are not in the file
ROTATE_EVENT, FORMAT_DESCRIPTION_EVENT, GTID_LOG_EVENT, HEARTBEAT_EVENTS = 4, 15, 33, (27, 41)
SILENCE_SECONDS_MAX = 30.0


def address_of(server: Server, **changes: Any) -> ServerAddress:
    address = ServerAddress(host=server.host, port=server.port, user="root", role="source")
    return dataclasses.replace(address, **changes)


@pytest.fixture
def address(source: Server) -> ServerAddress:
    return address_of(source)


@pytest.fixture
def identity(address: ServerAddress) -> ReplicaIdentity:
    with connect(address) as connection:
        return ReplicaIdentity.choose(connection, address)


@pytest.fixture
def proxy(source: Server) -> Iterator[FaultProxy]:
    with FaultProxy(source.port) as proxy:
        yield proxy


@pytest.fixture
def table(source: Server) -> str:
    """An empty table with a key that numbers itself and a long value `v`."""
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (id BIGINT PRIMARY KEY AUTO_INCREMENT, v LONGBLOB)")
    return "d.t"


def executed(source: Server) -> GtidSet:
    return GtidSet.parse(str(source.execute("SELECT @@global.gtid_executed")[0][0]))


def position(source: Server) -> FromFile:
    with connect(address_of(source)) as connection:
        now = source_position(connection, address_of(source))
    return FromFile(now.file, now.position)


class Events:
    """Events of a stream one by one: the slow, plain way, to compare the fast one with."""

    def __init__(self, stream: DumpStream, buffer_bytes: int = 65536) -> None:
        self.stream = stream
        self.buffer = memoryview(bytearray(buffer_bytes))
        self.pending = bytearray()
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        while (payload := self._payload())[0] != 0xFE:
            assert payload[0] == 0, payload
            yield bytes(payload[1:])
        self.ended = True

    def first(self, wanted: Callable[[bytes], bool]) -> bytes:
        return next(event for event in self if wanted(event))

    def _payload(self) -> bytes:
        payload = b""
        while True:
            self._need(4)
            length = int.from_bytes(self.pending[:3], "little")
            self._need(4 + length)
            payload += bytes(self.pending[4 : 4 + length])
            del self.pending[: 4 + length]
            if length < 0xFFFFFF:
                return payload

    def _need(self, byte_count: int) -> None:
        deadline = time.monotonic() + SILENCE_SECONDS_MAX
        while len(self.pending) < byte_count:
            assert time.monotonic() < deadline, "the stream is silent"
            self.pending += self.buffer[: self.stream.read_into(self.buffer, 1.0)]


def drain_packets(stream: DumpStream) -> None:
    """Read until the end of the link; an error packet is raised as the reader would raise it."""
    events = Events(stream)
    while True:
        payload = events._payload()
        if payload[0] == 0xFF:
            raise stream.refusal(int.from_bytes(payload[1:3], "little"), payload[9:].decode())


def event_type(event: bytes) -> int:
    return event[4]


def is_in_file(event: bytes) -> bool:
    return (
        not int.from_bytes(event[17:19], "little") & ARTIFICIAL and event_type(event) not in HEARTBEAT_EVENTS
    )


def gtids(events: list[bytes]) -> list[tuple[bytes, int]]:
    """(source UUID, number) of the GTID events."""
    return [
        (event[20:36], int.from_bytes(event[36:44], "little"))
        for event in events
        if event_type(event) == GTID_LOG_EVENT
    ]


def read_all(address: ServerAddress, start: Start, identity: ReplicaIdentity) -> list[bytes]:
    with DumpStream.open(address, start, identity, non_blocking=True) as stream:
        return list(Events(stream))
