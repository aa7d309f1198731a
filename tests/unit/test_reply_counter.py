"""Counting the replies that the server owes: packets cut anywhere, errors in the middle, bytes that are none."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier.target import wire
from applier.target.wire import ReplyCounter, ServerReplied, WireLost, WireProtocolError, WireSilent


def packet(payload: bytes, sequence: int = 1) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([sequence]) + payload


def ok(affected: int = 0) -> bytes:
    return packet(b"\x00" + length_encoded(affected) + b"\x00\x02\x00\x00\x00")


def length_encoded(number: int) -> bytes:
    for first, width, limit in ((b"", 1, 0xFB), (b"\xfc", 2, 1 << 16), (b"\xfd", 3, 1 << 24)):
        if number < limit:
            return first + number.to_bytes(width, "little")
    return b"\xfe" + number.to_bytes(8, "little")


def error(code: int, message: str = "why", sqlstate: str | None = "HY000") -> bytes:
    state = b"" if sqlstate is None else b"#" + sqlstate.encode()
    return packet(b"\xff" + code.to_bytes(2, "little") + state + message.encode())


def counter(owed: int) -> ReplyCounter:
    counter = ReplyCounter()
    counter.expect(owed)
    return counter


@pytest.mark.parametrize("cut", range(len(ok(7) + ok(300)) + 1))
def test_replies_may_be_cut_anywhere(cut: int) -> None:
    data = ok(7) + ok(300)
    replies = counter(2)
    assert replies.feed(data[:cut]) is (cut == len(data))
    if cut < len(data):
        assert replies.feed(data[cut:])
    assert (replies.received, replies.affected_rows(0), replies.affected_rows(1)) == (2, 7, 300)


@given(
    st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=20),
    st.lists(st.integers(1, 5), max_size=60),
)
def test_any_pieces_any_counts(affected: list[int], sizes: list[int]) -> None:
    data = b"".join(ok(rows) for rows in affected)
    replies = counter(len(affected))
    for size in sizes:
        piece, data = data[:size], data[size:]
        if not piece:
            break
        assert replies.feed(piece) is (not data)
    if data:
        assert replies.feed(data)
    assert [replies.affected_rows(i) for i in range(min(16, len(affected)))] == affected[:16]


@pytest.mark.parametrize("cut", range(len(error(1062))))
def test_an_error_ends_the_replies(cut: int) -> None:
    data = error(1062, "Duplicate entry 'ü'", "23000")
    replies = counter(3)
    assert not replies.feed(ok(1) + data[:cut])
    with pytest.raises(ServerReplied) as caught:
        replies.feed(data[cut:])
    told = caught.value
    assert (told.code, told.sqlstate, told.message, told.replies) == (1062, "23000", "Duplicate entry 'ü'", 1)
    assert str(told) == "server error 1062 (23000): Duplicate entry 'ü'"


def test_an_error_without_a_state() -> None:
    with pytest.raises(ServerReplied) as caught:
        counter(1).feed(error(1040, "Too many connections", None))
    assert (caught.value.sqlstate, caught.value.message) == ("HY000", "Too many connections")


def test_a_long_error_is_kept_in_part() -> None:
    with pytest.raises(ServerReplied) as caught:
        counter(1).feed(error(1, "x" * 60_000))
    assert set(caught.value.message) == {"x"}


@pytest.mark.parametrize(
    "data",
    [
        packet(b""),  # an empty packet
        packet(b"\x01"),  # a result set
        packet(b"\xfe\x00\x00\x02\x00"),  # its end
        packet(b"\xff\x01"),  # an error cut short
        ok() + ok() + ok(),  # one more than is owed
        ok() + ok() + b"\x07",  # bytes behind the last one
    ],
)
def test_what_does_not_belong_to_the_statements_is_refused(data: bytes) -> None:
    with pytest.raises(WireProtocolError):
        counter(2).feed(data)


def test_counting_begins_anew() -> None:
    replies = counter(1)
    assert not replies.feed(ok()[:5])
    replies.expect(2)
    assert replies.received == 0
    assert replies.feed(ok(1) + ok(2))
    with pytest.raises(IndexError):
        replies.affected_rows(2)


# --- on a socket -------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_exchange_waits_for_all_that_is_owed(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    with ours, theirs:

        def answer() -> None:
            assert theirs.recv(100) == b"statements"
            for byte in ok() + ok(5):
                theirs.sendall(bytes([byte]))

        server = threading.Thread(target=answer)
        server.start()
        replies = ReplyCounter()
        wire.exchange(ours.fileno(), b"statements", replies, 2, 10.0)
        server.join()
        assert (replies.received, replies.affected_rows(1)) == (2, 5)


def test_exchange_sends_more_than_the_socket_takes_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    data = bytes(5_000_000)
    with ours, theirs:

        def answer() -> None:
            left = len(data)
            while left:
                left -= len(theirs.recv(65536))
            theirs.sendall(ok())

        server = threading.Thread(target=answer)
        server.start()
        wire.exchange(ours.fileno(), data, ReplyCounter(), 1, 10.0)
        server.join()


def test_silence_has_an_end(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    with ours, theirs:
        began = time.monotonic()
        replies = ReplyCounter()
        with pytest.raises(WireSilent, match="in time"):
            wire.exchange(ours.fileno(), b"x", replies, 2, 0.05)
        assert time.monotonic() - began < 5
        # Who believes in the server goes on where it stopped.
        theirs.sendall(ok(1)[:7])
        with pytest.raises(WireSilent):
            wire.receive(ours.fileno(), replies, 0.05)
        theirs.sendall(ok(1)[7:] + ok(2))
        wire.receive(ours.fileno(), replies, 10.0)
        assert replies.received == 2


def test_a_server_that_takes_nothing_has_an_end(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    with ours, theirs, pytest.raises(WireLost, match="took no statements"):
        wire.exchange(ours.fileno(), bytes(5_000_000), ReplyCounter(), 1, 0.05)


def test_a_closed_link_is_lost(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    with ours:
        theirs.sendall(ok()[:3])
        theirs.close()
        with pytest.raises(WireLost, match="lost"):
            wire.receive(ours.fileno(), counter(1), -1)
        with pytest.raises(WireLost, match="lost"):
            wire.exchange(ours.fileno(), b"x", ReplyCounter(), 1, 10.0)
        wire.send(ours.fileno(), b"x")  # who reads finds out


def test_shutdown_from_another_thread_ends_a_wait_without_limit(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    with ours, theirs:
        timer = threading.Timer(0.05, lambda: ours.shutdown(socket.SHUT_RDWR))
        timer.start()
        with pytest.raises(WireLost):
            wire.receive(ours.fileno(), counter(1), -1)
        timer.join()
