"""A TCP proxy that breaks links on demand.
 One thread and one selector carry all links, so that what a control says holds when its call returns: it
ran in that thread between two moves of bytes.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
CHUNK_BYTES_MAX = 65536
BUFFERED_BYTES_MAX = 4 * CHUNK_BYTES_MAX
CONTROL_SECONDS_MAX = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds


class Flow:
    """One direction of a link: what was read from `origin` and is not yet written to `goal`."""

    def __init__(self, origin: socket.socket, goal: socket.socket, to_client: bool) -> None:
        self.origin = origin
        self.goal = goal
        self.to_client = to_client
        self.chunks: deque[tuple[float, bytes]] = deque()  # when each is due, monotonic seconds
        self.buffered_bytes = 0
        self.origin_ended = False
        self.goal_ended = False


class Trap:
    """Waits for bytes on their way to the server."""

    def __init__(self, pattern: bytes, strike: Callable[[], None], reply_lost: bool) -> None:
        self.pattern = pattern
        self.strike = strike
        self.reply_lost = reply_lost


class Link:
    """A client's connection and the one to the upstream server that belongs to it."""

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.client = client
        self.upstream = upstream
        self.to_client = Flow(upstream, client, to_client=True)
        self.to_upstream = Flow(client, upstream, to_client=False)
        self.flows = (self.to_client, self.to_upstream)
        self.caught: Trap | None = None  # the server's next bytes are not to arrive

    @property
    def ended(self) -> bool:
        return self.to_client.goal_ended and self.to_upstream.goal_ended


class FaultProxy:
    """Passes TCP connections on to `upstream_port`; `port` is where to connect. Close it, or use it as a
    context.

    Settings stay until changed and hold for present and future links; `reset` takes them all back.
    """

    def __init__(self, upstream_port: int, upstream_host: str = HOST) -> None:
        self.upstream = (upstream_host, upstream_port)
        self.accepted = 0
        """Links made so far."""
        self.bytes_to_client = 0
        self.bytes_to_upstream = 0
        self._stalled = False
        self._delay_seconds = 0.0
        self._chunk_bytes = CHUNK_BYTES_MAX
        self._cut_at: int | None = None  # value of bytes_to_client at which to cut
        self._links: list[Link] = []
        self._trap: Trap | None = None
        self.trapped = 0
        """How often a trap has struck."""
        self._requests: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._listener: socket.socket | None = _listener(0)
        self.port: int = self._listener.getsockname()[1]
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- controls ---------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every present link: both sides get RST."""
        self._call(self._cut_links)

    def cut_after(self, byte_count: int) -> None:
        """Reset all links once exactly `byte_count` more bytes have gone to clients; then pass on as
        before.
        """

        def arm() -> None:
            self._cut_at = self.bytes_to_client + byte_count

        self._call(arm)

    def trap(
        self, pattern: bytes, *, reply_lost: bool = False, strike: Callable[[], None] = lambda: None
    ) -> None:
        """Once: call `strike` (in the proxy's thread) and reset the link when `pattern` is on its way to the server,
        which never gets it; with `reply_lost` it does, and both happen when its answer comes, which is lost.
        """
        self._call(lambda: setattr(self, "_trap", Trap(pattern, strike, reply_lost)))

    def stall(self) -> None:
        """Move no byte in either direction, but keep every link open."""
        self._call(lambda: setattr(self, "_stalled", True))

    def resume(self) -> None:
        """End a stall."""
        self._call(lambda: setattr(self, "_stalled", False))

    def half_close(self) -> None:
        """Tell every client that the server has ended (FIN), while the other direction stays open."""

        def end() -> None:
            for link in self._links:
                self._end_goal(link.to_client)

        self._call(end)

    def delay(self, milliseconds: float) -> None:
        """Hold back each byte in each direction for that long; 0 ends it. Order is kept."""
        self._call(lambda: setattr(self, "_delay_seconds", milliseconds / 1000))

    def throttle(self, chunk_bytes: int | None) -> None:
        """Write at most `chunk_bytes` at a time; None ends it."""
        self._call(lambda: setattr(self, "_chunk_bytes", chunk_bytes or CHUNK_BYTES_MAX))

    def refuse(self) -> None:
        """Refuse new connections, as a server does that is down. Present links stay."""
        self._call(self._close_listener)

    def accept(self) -> None:
        """End a refusal: listen again on the same port."""

        def listen() -> None:
            if self._listener is None:
                self._listener = _listener(self.port)

        self._call(listen)

    def reset(self) -> None:
        """Take every setting back; links that were cut stay cut."""

        def clear() -> None:
            self._stalled, self._delay_seconds, self._chunk_bytes = False, 0.0, CHUNK_BYTES_MAX
            self._cut_at = self._trap = None

        self._call(clear)
        self.accept()

    def wait_until(self, condition: Callable[[FaultProxy], bool], seconds: float = 30.0) -> None:
        """Wait for `condition`, looked at whenever bytes have moved or links have changed; TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), seconds):
                raise TimeoutError(f"the proxy did not get there within {seconds:g} s")

    @property
    def open_links(self) -> int:
        return len(self._links)

    def close(self) -> None:
        """Reset all links and end the thread. May be called twice."""
        if self._stopping:
            return
        self._stopping = True
        self._wake_write.send(b"x")
        self._thread.join(CONTROL_SECONDS_MAX)
        assert not self._thread.is_alive()
        self._wake_read.close()
        self._wake_write.close()

    def _call(self, action: Callable[[], T]) -> T:
        """Run `action` in the proxy's thread and wait until it has run."""
        if self._stopping:
            raise RuntimeError("the proxy is closed")
        future: Future[object] = Future()
        self._requests.append((action, future))
        self._wake_write.send(b"x")
        return future.result(CONTROL_SECONDS_MAX)  # type: ignore[return-value]

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._answer_requests()
            if self._stopping:  # looked at after the wake-up is read: one that is read and forgotten is lost
                break
            # Whatever the last round and the controls have changed, before sleeping again.
            with self._changed:
                self._changed.notify_all()
            ready = self._wait_ready()
            for link in list(self._links):
                for flow in link.flows:
                    if link in self._links:
                        self._move(link, flow, ready)
                if link in self._links and link.ended:
                    self._forget(link)
            self._take_clients()
        self._cut_links()
        self._close_listener()

    def _answer_requests(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass
        # A client may be connected, as it sees it, and not yet taken: controls are about it too.
        self._take_clients()
        while self._requests:
            action, future = self._requests.popleft()
            try:
                future.set_result(action())
            except Exception as error:  # noqa: BLE001 - it belongs to the caller of the control
                future.set_exception(error)

    def _wait_ready(self) -> dict[int, int]:
        """Wait until something can be done: which of EVENT_READ and EVENT_WRITE hold, by file descriptor."""
        interest: dict[int, int] = {self._wake_read.fileno(): selectors.EVENT_READ}
        if self._listener is not None:
            interest[self._listener.fileno()] = selectors.EVENT_READ
        now = time.monotonic()
        wait_seconds: float | None = None
        for flow in (flow for link in self._links for flow in link.flows if not self._stalled):
            if not flow.origin_ended and flow.buffered_bytes < BUFFERED_BYTES_MAX:
                descriptor = flow.origin.fileno()
                interest[descriptor] = interest.get(descriptor, 0) | selectors.EVENT_READ
            if flow.chunks:
                due = flow.chunks[0][0]
                if due <= now:
                    descriptor = flow.goal.fileno()
                    interest[descriptor] = interest.get(descriptor, 0) | selectors.EVENT_WRITE
                else:
                    wait_seconds = min(due - now, wait_seconds if wait_seconds is not None else due - now)
        with selectors.PollSelector() as selector:
            for descriptor, events in interest.items():
                selector.register(descriptor, events)
            return {key.fd: events for key, events in selector.select(wait_seconds)}

    def _take_clients(self) -> None:
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            try:
                upstream = socket.create_connection(self.upstream, CONTROL_SECONDS_MAX)
            except OSError:
                client.close()
                continue
            for sock in (client, upstream):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links.append(Link(client, upstream))
            self.accepted += 1

    def _move(self, link: Link, flow: Flow, ready: dict[int, int]) -> None:
        try:
            if ready.get(flow.origin.fileno(), 0) & selectors.EVENT_READ:
                self._read(flow)
                if self._springs(link, flow):
                    self._forget(link, reset=True)
                    return
            if ready.get(flow.goal.fileno(), 0) & selectors.EVENT_WRITE:
                self._write(flow)
            if flow.origin_ended and not flow.chunks:
                self._end_goal(flow)
        except BlockingIOError:
            pass
        except OSError:
            self._forget(link, reset=True)  # one side has reset its half: reset the other

    def _springs(self, link: Link, flow: Flow) -> bool:
        """Whether the bytes just read spring the trap. A pattern is looked for in what one read has brought."""
        trap = self._trap if link.caught is None else link.caught
        if trap is None or not flow.chunks:
            return False
        if link.caught is None:
            if flow.to_client or trap.pattern not in flow.chunks[-1][1]:
                return False
            self._trap = None
            if trap.reply_lost:
                link.caught = trap
                return False
        elif not flow.to_client:
            return False
        self.trapped += 1
        trap.strike()
        return True

    def _read(self, flow: Flow) -> None:
        if flow.origin_ended or self._stalled or flow.buffered_bytes >= BUFFERED_BYTES_MAX:
            return
        data = flow.origin.recv(CHUNK_BYTES_MAX)
        if data:
            flow.chunks.append((time.monotonic() + self._delay_seconds, data))
            flow.buffered_bytes += len(data)
        else:
            flow.origin_ended = True

    def _write(self, flow: Flow) -> None:
        if not flow.chunks or self._stalled or flow.chunks[0][0] > time.monotonic():
            return
        due, data = flow.chunks.popleft()
        limit = self._chunk_bytes
        if flow.to_client and self._cut_at is not None:
            limit = min(limit, self._cut_at - self.bytes_to_client)
        # After the end of its goal (half-close) a flow's bytes are read and lost.
        sent = min(limit, len(data)) if flow.goal_ended else flow.goal.send(data[:limit]) if limit else 0
        flow.buffered_bytes -= sent
        if sent < len(data):
            flow.chunks.appendleft((due, data[sent:]))
        if flow.to_client:
            self.bytes_to_client += sent
            if self._cut_at is not None and self.bytes_to_client >= self._cut_at:
                self._cut_at = None
                self._cut_links()
        else:
            self.bytes_to_upstream += sent

    def _end_goal(self, flow: Flow) -> None:
        if not flow.goal_ended:
            flow.goal_ended = True
            with contextlib.suppress(OSError):
                flow.goal.shutdown(socket.SHUT_WR)

    def _cut_links(self) -> None:
        for link in list(self._links):
            self._forget(link, reset=True)

    def _forget(self, link: Link, reset: bool = False) -> None:
        self._links.remove(link)
        for sock in (link.client, link.upstream):
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.close()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _listener(port: int) -> socket.socket:
    listener = socket.create_server((HOST, port), backlog=128)
    listener.setblocking(False)
    return listener
