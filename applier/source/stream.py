"""The live binary log of a source: bytes from a dump session, as fast as the socket gives them.
 The bytes are packets of the MySQL protocol: 3 bytes length, 1 byte sequence, then 0x00 and an event, or
0xFE at the end, or 0xFF and an error. Nothing is parsed here but the first one: did the source agree at
all?
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import select
import socket
import ssl
import sys
import termios
import threading
import time
from types import TracebackType
from typing import Any, Self

import pymysql

from applier.connection import Connection, ServerAddress, connect, drop, error_code, error_message, raw_socket
from applier.errors import ApplierError, LinkLost
from applier.events.control import parse_error_packet
from applier.source.dump import FromGtids, Start, prepare_session, request_dump
from applier.source.refusal import explain_start, source_error
from applier.source.registration import ReplicaIdentity

HEARTBEAT_SECONDS = 5.0
HEARTBEATS_MISSED_MAX = 3
SETUP_TIMEOUT_SECONDS = 10.0
# Before its first packet the source looks for the file that our position is in, and it may have very many
# files.
FIRST_PACKET_TIMEOUT_SECONDS = 60.0

PACKET_HEADER_BYTES = 4
STATUS_ERROR = 0xFF
FIRST_READ_BYTES = 16384
GATHER_LOOK_SECONDS = 0.005
# So much is worth a read at once; a socket of the same machine's file system holds no more than 200 KiB of packets.
GATHER_BYTES_MAX, GATHER_LOCAL_BYTES_MAX = 256 << 10, 64 << 10


class DumpStream:
    """One dump session. A single thread reads; any thread may close. Made by `open`."""

    packets = True

    def __init__(self, connection: Connection[Any], address: ServerAddress) -> None:
        self.address = address
        self._connection = connection
        self._socket = raw_socket(connection)
        self._tls = self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        self._gather_bytes_max = _with_room_to_gather(self._socket)
        self._poll = select.poll()
        self._first = memoryview(b"")  # the source's first bytes, read to see its answer, not yet handed out
        self._closed = False
        self._closing = threading.Event()
        self._reading = threading.Lock()  # held while the socket is in use: it is never closed under a reader
        self._silent_since: float | None = None
        self._silence_seconds_max = FIRST_PACKET_TIMEOUT_SECONDS

    @classmethod
    def open(
        cls,
        address: ServerAddress,
        start: Start,
        identity: ReplicaIdentity,
        *,
        non_blocking: bool = False,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> Self:
        """Connect, register, ask for the log from `start` on, and wait for the source's first packet.

        `non_blocking`: the source sends what it has and then an end packet, instead of waiting for more. On a
        stream that waits, an end packet means that the source is shutting down.
        Raises what `connect` raises, LinkLost, PreflightFailed (a privilege is missing), PurgedTransactions,
        TargetAhead or SourceError.
        """
        connection = connect(
            address, read_timeout_seconds=SETUP_TIMEOUT_SECONDS, write_timeout_seconds=SETUP_TIMEOUT_SECONDS
        )
        try:
            prepare_session(connection, identity, heartbeat_seconds)
            request_dump(connection, start, identity.server_id, non_blocking)
            stream = cls(connection, address)
            stream._await_answer(start)
            stream._silence_seconds_max = heartbeat_seconds * HEARTBEATS_MISSED_MAX
        except BaseException as error:
            drop(connection)
            if isinstance(error, pymysql.err.MySQLError):
                raise source_error(address, error_code(error), error_message(error)) from error
            raise
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_into(self, buffer: memoryview, timeout_seconds: float) -> int:
        """Put the next bytes at the start of `buffer`; how many. 0: none came within the time-out.

        Raises LinkLost when the link is gone, when three heartbeats in a row are missing, and after `close`.
        """
        if self._first:
            count = min(len(buffer), len(self._first))
            buffer[:count] = self._first[:count]
            self._first = self._first[count:]
            return count
        deadline = time.monotonic() + timeout_seconds
        with self._reading:
            while not self._closed:
                count, wanted = self._receive(buffer)
                if count:
                    self._silent_since = None
                    return count
                if not self._wait(wanted, deadline):
                    return 0
        raise LinkLost(role="source", detail="closed on our side")

    def has_more(self) -> bool:
        """Bytes are waiting: a read would not block. True also when a read would raise LinkLost."""
        if self._first:
            return True
        with self._reading:
            if self._closed:
                return False
            return bool(self._tls is not None and self._tls.pending()) or self._ready(select.POLLIN, 0)

    def gather(self, seconds: float) -> None:
        """Let more come: for `seconds`, but not where a good deal is there, or after `close`.

        What has come is asked for every few milliseconds: SO_RCVLOWAT would be one wait, but local sockets
        ignore it.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._bytes_there() < self._gather_bytes_max:
            if self._closing.wait(min(left, GATHER_LOOK_SECONDS)):
                return

    def refusal(self, code: int, message: str) -> ApplierError:
        """The error that an error packet in the middle of the log stands for."""
        return source_error(self.address, code, message)

    def explained(self, failure: ApplierError) -> ApplierError:
        """Bad bytes of the link or of the source say themselves what they are."""
        return failure

    def reached(self, sequence_number: int) -> None:
        """Nothing is kept here that could go."""

    def close(self) -> None:
        """End the session; a reader blocked in another thread gets LinkLost at once. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        with contextlib.suppress(OSError):  # the source was first
            # Not SSLSocket.shutdown: it takes the TLS state away from a reader in the middle of a record.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        with self._reading:
            drop(self._connection)

    def _bytes_there(self) -> int:
        """Received by the kernel and not yet read; encrypted bytes as they are."""
        with self._reading:
            if self._closed:
                return 0
            return int.from_bytes(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)), sys.byteorder)

    def _receive(self, buffer: memoryview) -> tuple[int, int]:
        """(bytes read, 0), or (0, what to poll for)."""
        try:
            count = (
                self._socket.recv_into(buffer) if self._tls is None else _receive_records(self._tls, buffer)
            )
        except (BlockingIOError, ssl.SSLWantReadError):
            return 0, select.POLLIN
        except ssl.SSLWantWriteError:  # a change of TLS keys
            return 0, select.POLLOUT
        except OSError as error:
            raise LinkLost(role="source", detail=error.strerror or type(error).__name__) from error
        if count == 0:
            raise LinkLost(role="source", detail="the source closed the connection")
        return count, 0

    def _wait(self, wanted: int, deadline: float) -> bool:
        """Wait for the socket until `deadline` (monotonic seconds). False: it has nothing for us."""
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        lost_at = self._silent_since + self._silence_seconds_max
        if self._ready(wanted, max(0.0, min(deadline, lost_at) - now)):
            return True
        if time.monotonic() >= lost_at:
            raise LinkLost(
                role="source", detail=f"silent for {self._silence_seconds_max:g} s, without a heartbeat"
            )
        return False

    def _ready(self, wanted: int, seconds: float) -> bool:
        self._poll.register(self._socket, wanted)
        return bool(self._poll.poll(math.ceil(seconds * 1000)))

    def _await_answer(self, start: Start) -> None:
        """Read up to the end of the first packet's head, or to the end of the error packet, and raise that
        error.
        """
        self._socket.setblocking(False)
        chunk = memoryview(bytearray(FIRST_READ_BYTES))
        first = bytearray()
        while len(first) < packet_bytes_needed(first):
            count = self.read_into(chunk, FIRST_PACKET_TIMEOUT_SECONDS)
            first += chunk[:count]
        if first[PACKET_HEADER_BYTES] == STATUS_ERROR:
            refused = parse_error_packet(bytes(first[PACKET_HEADER_BYTES:])).facts
            executed = start.executed if isinstance(start, FromGtids) else None
            raise explain_start(self.address, refused["code"], refused["message"], executed)
        self._first = memoryview(bytes(first))


def _with_room_to_gather(sock: socket.socket) -> int:
    """How much `gather` lets come. The kernel gives a socket the room for as much as it once had to wait for; without
    that a backlog could be stuck at less (64 KiB at the start) and each read of it would be waited for."""
    if sock.family == socket.AF_UNIX:
        return GATHER_LOCAL_BYTES_MAX
    for count in (GATHER_BYTES_MAX, 1):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    return GATHER_BYTES_MAX


def _receive_records(tls: ssl.SSLSocket, buffer: memoryview) -> int:
    """As many TLS records as there are: one read gives one record, 16 KiB at most."""
    count = tls.recv_into(buffer)
    while 0 < count < len(buffer):
        try:
            more = tls.recv_into(buffer[count:])
        except OSError:  # nothing more now, or an error that the next read meets again
            break
        if more == 0:
            break
        count += more
    return count


def packet_bytes_needed(first: bytes | bytearray) -> int:
    """How many bytes of a first packet must be there to judge it; of an error packet all of them."""
    if len(first) <= PACKET_HEADER_BYTES or first[PACKET_HEADER_BYTES] != STATUS_ERROR:
        return PACKET_HEADER_BYTES + 1
    return PACKET_HEADER_BYTES + int.from_bytes(first[:3], "little")
