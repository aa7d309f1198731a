"""The fault proxy does what its controls say: the tests of faults stand on it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy import FaultProxy


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets, for as many clients as come."""
    clients: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except ConnectionError:
                pass

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            clients.append(threading.Thread(target=serve, args=(client,)))
            clients[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(10)
    for client in clients:
        client.join(10)
        assert not client.is_alive()


@pytest.fixture
def proxy(echo_port: int) -> Iterator[FaultProxy]:
    with FaultProxy(echo_port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        proxy.wait_until(lambda proxy: proxy.open_links == 1)
        yield sock


def receive(sock: socket.socket, byte_count: int) -> bytes:
    data = b""
    while len(data) < byte_count:
        piece = sock.recv(byte_count - len(data))
        assert piece, "the link ended"
        data += piece
    return data


def test_bytes_pass_unchanged_in_both_directions(proxy: FaultProxy, client: socket.socket) -> None:
    sent = bytes(range(256)) * 4096
    sender = threading.Thread(target=client.sendall, args=(sent,))
    sender.start()
    assert receive(client, len(sent)) == sent
    sender.join()
    assert proxy.accepted == proxy.open_links == 1
    assert proxy.bytes_to_upstream == len(sent)


def test_end_of_the_client_is_passed_on(proxy: FaultProxy, client: socket.socket) -> None:
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 10) == b"last words"
    assert client.recv(1) == b""
    proxy.wait_until(lambda proxy: proxy.open_links == 0)


def test_cut_resets_the_client(proxy: FaultProxy, client: socket.socket) -> None:
    client.sendall(b"x")
    receive(client, 1)
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.open_links == 0


def test_cut_after_a_number_of_bytes(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.cut_after(1000)
    client.sendall(b"y" * 5000)
    assert receive(client, 1000) == b"y" * 1000
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.bytes_to_client == 1000
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as again:
        again.sendall(b"z" * 5000)
        assert len(receive(again, 5000)) == 5000


def test_stall_holds_everything_until_resume(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.stall()
    client.sendall(b"held")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    proxy.resume()
    assert receive(client, 4) == b"held"


def test_half_close_ends_one_direction_only(proxy: FaultProxy, client: socket.socket) -> None:
    client.sendall(b"a")
    receive(client, 1)
    proxy.half_close()
    assert client.recv(1) == b""
    client.sendall(b"still going")
    proxy.wait_until(lambda proxy: proxy.bytes_to_upstream == 12)


def test_delay_holds_bytes_back_in_order(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.delay(100)
    started = time.monotonic()
    client.sendall(b"first")
    client.sendall(b"second")
    assert receive(client, 11) == b"firstsecond"
    assert time.monotonic() - started >= 0.2  # there and back


def test_throttle_sends_a_few_bytes_at_a_time(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.throttle(3)
    client.sendall(b"0123456789")
    assert receive(client, 10) == b"0123456789"


def test_refuse_and_accept(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 10)
    client.sendall(b"present links stay")
    assert receive(client, 18) == b"present links stay"
    proxy.accept()
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as again:
        again.sendall(b"back")
        assert receive(again, 4) == b"back"


def test_close_leaves_no_thread_and_may_be_repeated(echo_port: int) -> None:
    proxy = FaultProxy(echo_port)
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
        client.sendall(b"x")
        receive(client, 1)
        proxy.close()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert not any(thread.name == f"proxy-{proxy.port}" for thread in threading.enumerate())
    with pytest.raises(RuntimeError, match="closed"):
        proxy.cut()


def test_trap_keeps_what_it_waits_for_from_arriving(proxy: FaultProxy, client: socket.socket) -> None:
    struck: list[int] = []
    proxy.trap(b"COMMIT", strike=lambda: struck.append(proxy.bytes_to_upstream))
    client.sendall(b"BEGIN")
    assert client.recv(100) == b"BEGIN"
    client.sendall(b"and COMMIT!")
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    assert (struck, proxy.trapped) == ([5], 1)
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as another:
        another.sendall(b"COMMIT")
        assert another.recv(100) == b"COMMIT"


def test_trap_loses_the_reply(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.trap(b"COMMIT", reply_lost=True)
    client.sendall(b"COMMIT")
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    assert (proxy.bytes_to_upstream, proxy.bytes_to_client, proxy.trapped) == (6, 0, 1)
