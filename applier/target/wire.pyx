# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Sends statements and counts the replies that the server owes for them.

The reply to BINLOG does not reliably say that more results follow, so the end of a multi-statement packet is known
only by counting. `ReplyCounter` is the protocol (bytes in, no sockets); `exchange` drives it on a plain socket
without the GIL, so that one transaction costs the Python side one call and one thread switch.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_send "send"(int fd, const void* data, size_t length, int flags)
    ssize_t c_recv "recv"(int fd, void* data, size_t length, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd* fds, unsigned long count, int timeout_ms)
    short POLLIN
    short POLLOUT

cdef enum:
    ERROR_BYTES_MAX = 2048     # MySQL's error messages end at 512 characters
    AFFECTED_MAX = 16
    RECEIVE_BYTES = 4096

cdef enum Outcome:
    DONE = 0
    WANT_MORE = 1
    SERVER_ERROR = 2
    LINK_LOST = 3
    TIMED_OUT = 4
    PROTOCOL_ERROR = 5


class WireLost(Exception):
    """The connection ended or stayed silent; whether the last statement ran is not known."""


class WireSilent(WireLost):
    """No answer in time: the server may be gone, or still busy with the statement."""


class WireProtocolError(WireLost):
    """The server answered something that does not belong to the statements sent."""


class ServerReplied(Exception):
    """The server refused a statement. `code`, `sqlstate`, `message`; `replies` counts those before the error."""

    def __init__(self, int code, str sqlstate, str message, int replies):
        super().__init__(code, sqlstate, message, replies)
        self.code = code
        self.sqlstate = sqlstate
        self.message = message
        self.replies = replies

    def __str__(self):
        return f"server error {self.code} ({self.sqlstate}): {self.message}"


cdef class ReplyCounter:
    """Counts OK packets up to the number owed; keeps the affected rows of each (the first 16) and an error's text."""

    cdef readonly int owed
    cdef readonly int received
    cdef uint64_t affected[AFFECTED_MAX]
    cdef uint8_t header[4]
    cdef int header_bytes
    cdef size_t payload_left
    cdef size_t payload_bytes          # of this packet so far
    cdef uint8_t payload[ERROR_BYTES_MAX]
    cdef size_t kept

    def expect(self, int owed):
        """Starts counting for a packet of statements that is owed `owed` replies."""
        self.reset(owed)

    cdef void reset(self, int owed) noexcept nogil:
        self.owed = owed
        self.received = 0
        self.header_bytes = 0
        self.payload_left = 0
        self.kept = 0

    def feed(self, const uint8_t[::1] data):
        """Takes bytes from the server. True when all replies are there; raises ServerReplied, WireProtocolError."""
        cdef int outcome = WANT_MORE
        if data.shape[0]:
            outcome = self.take(&data[0], data.shape[0])
        if outcome == SERVER_ERROR:
            raise self.error()
        if outcome == PROTOCOL_ERROR:
            raise WireProtocolError("unexpected reply")
        return outcome == DONE

    def affected_rows(self, int reply):
        """Affected rows that reply number `reply` (from 0) told."""
        if not 0 <= reply < min(self.received, AFFECTED_MAX):
            raise IndexError(reply)
        return self.affected[reply]

    cdef int take(self, const uint8_t* data, size_t length) noexcept nogil:
        cdef size_t part, room, i
        while length:
            if self.header_bytes < 4:
                self.header[self.header_bytes] = data[0]
                self.header_bytes += 1
                data += 1
                length -= 1
                if self.header_bytes == 4:
                    self.payload_left = self.header[0] | (self.header[1] << 8) | (self.header[2] << 16)
                    self.kept = 0
                    if self.payload_left == 0:
                        return PROTOCOL_ERROR
                continue
            part = min(length, self.payload_left)
            room = min(part, ERROR_BYTES_MAX - self.kept)
            for i in range(room):
                self.payload[self.kept + i] = data[i]
            self.kept += room
            data += part
            length -= part
            self.payload_left -= part
            if self.payload_left == 0:
                self.header_bytes = 0
                if self.payload[0] == 0xFF:
                    return SERVER_ERROR
                if self.payload[0] != 0x00 or self.received >= self.owed:
                    return PROTOCOL_ERROR
                if self.received < AFFECTED_MAX:
                    self.affected[self.received] = self.length_encoded(1)
                self.received += 1
                if self.received == self.owed:
                    return PROTOCOL_ERROR if length else DONE
        return WANT_MORE

    cdef uint64_t length_encoded(self, size_t at) noexcept nogil:
        cdef int width, i
        cdef uint64_t value = 0
        if at >= self.kept:
            return 0
        if self.payload[at] < 0xFB:
            return self.payload[at]
        width = 2 if self.payload[at] == 0xFC else 3 if self.payload[at] == 0xFD else 8
        if at + 1 + width > self.kept:
            return 0
        for i in range(width):
            value |= <uint64_t>self.payload[at + 1 + i] << (8 * i)
        return value

    def error(self):
        """The error packet just read, as an exception."""
        cdef bytes text = self.payload[:self.kept]
        if len(text) < 3:
            return WireProtocolError("short error packet")
        code = text[1] | (text[2] << 8)
        if text[3:4] == b"#":
            return ServerReplied(code, text[4:9].decode("ascii", "replace"), text[9:].decode("utf-8", "replace"),
                                 self.received)
        return ServerReplied(code, "HY000", text[3:].decode("utf-8", "replace"), self.received)


cdef long long now_ms() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return <long long>at.tv_sec * 1000 + at.tv_nsec // 1000000


cdef int wait_ready(int fd, short events, long long deadline_ms) noexcept nogil:
    cdef pollfd one
    cdef int ready, left
    while True:
        left = -1
        if deadline_ms >= 0:
            left = <int>max(0, deadline_ms - now_ms())
        one.fd = fd
        one.events = events
        one.revents = 0
        ready = c_poll(&one, 1, left)
        if ready > 0:
            return DONE
        if ready == 0:
            return TIMED_OUT
        if errno != EINTR:
            return LINK_LOST


cdef int send_all(int fd, const uint8_t* data, size_t length, long long deadline_ms) noexcept nogil:
    cdef ssize_t sent
    cdef int outcome
    while length:
        sent = c_send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent > 0:
            data += sent
            length -= sent
        elif errno == EAGAIN:
            outcome = wait_ready(fd, POLLOUT, deadline_ms)
            if outcome != DONE:
                return outcome
        elif errno != EINTR:
            return LINK_LOST
    return DONE


cdef int receive_all(int fd, ReplyCounter replies, long long deadline_ms) noexcept nogil:
    cdef uint8_t buffer[RECEIVE_BYTES]
    cdef ssize_t got
    cdef int outcome
    while True:
        outcome = wait_ready(fd, POLLIN, deadline_ms)
        if outcome != DONE:
            return outcome
        got = c_recv(fd, buffer, RECEIVE_BYTES, MSG_DONTWAIT)
        if got > 0:
            outcome = replies.take(buffer, got)
            if outcome != WANT_MORE:
                return outcome
        elif got == 0:
            return LINK_LOST
        elif errno != EAGAIN and errno != EINTR:
            return LINK_LOST


cdef raise_outcome(int outcome, ReplyCounter replies):
    if outcome == SERVER_ERROR:
        raise replies.error()
    if outcome == LINK_LOST:
        raise WireLost("connection lost")
    if outcome == TIMED_OUT:
        raise WireSilent("no answer in time")
    if outcome == PROTOCOL_ERROR:
        raise WireProtocolError("unexpected reply")


def exchange(int fd, const uint8_t[::1] data, ReplyCounter replies, int owed, double seconds):
    """Sends `data` (framed packets) on a plain socket and waits for `owed` OK replies; `seconds` < 0 waits for ever.

    Raises ServerReplied, WireLost; WireSilent after `seconds`, from then on `receive` may go on. Runs without the
    GIL."""
    cdef int outcome, sent
    cdef long long deadline
    with nogil:
        replies.reset(owed)
        deadline = -1 if seconds < 0 else now_ms() + <long long>(seconds * 1000)
        outcome = send_all(fd, &data[0], data.shape[0], deadline)
        sent = outcome
        if outcome == DONE:
            outcome = receive_all(fd, replies, deadline)
    if sent == TIMED_OUT:
        raise WireLost("the server took no statements in time")
    if outcome != DONE:
        raise_outcome(outcome, replies)


def receive(int fd, ReplyCounter replies, double seconds):
    """Waits for the replies that `replies` still expects. Raises as `exchange`. Runs without the GIL."""
    cdef int outcome
    cdef long long deadline
    with nogil:
        deadline = -1 if seconds < 0 else now_ms() + <long long>(seconds * 1000)
        outcome = receive_all(fd, replies, deadline)
    if outcome != DONE:
        raise_outcome(outcome, replies)


def send(int fd, const uint8_t[::1] data):
    """Sends a small packet; a broken connection is left for the reader to find. Keeps the GIL: it never blocks."""
    send_all(fd, &data[0], data.shape[0], now_ms() + 1000)
