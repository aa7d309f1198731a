# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""What a dump sends → bytes for a relay log: checked, without what only steers the connection, each with its CRC32.

    while True:
        scanner.received(sock.recv_into(scanner.writable()))
        while (chunk := scanner.take()) is not None:
            append(chunk)

Also reads a relay log file, to find out which whole transactions are in it and where the last of them ends.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from applier.errors import ApplierError, CorruptEvent
from applier.events import control as control_events
from applier.events.batch cimport Buffer, Transaction
from applier.events.crc32 cimport crc32_of, crc32_prepare
from applier.events.event_types cimport *
from applier.events.framing cimport *
from applier.events.gtid_event cimport parse_gtid_event
from applier.events.relay_chunk import RelayChunk
from applier.events.roles cimport *
from applier.events.wire cimport store_u32

crc32_prepare()

cdef enum:
    OUT_BYTES = 1 << 20

cdef enum Outcome:
    SCANNED_ALL           # more bytes are needed
    SCANNED_ENOUGH        # the output is full
    SCANNED_CONTROL       # the event needs Python
    SCANNED_END           # the source has sent its end packet
    SCANNED_ERROR         # the source has sent an error packet
    SCANNED_BAD_FRAME
    SCANNED_BAD_EVENT     # `fault` says why

cdef enum Place:
    BETWEEN               # no transaction is open
    HEADED                # after its GTID event, or events that prepare its statement
    BEGUN                 # after BEGIN or XA START


cdef class RelayScanner:
    """packets: the bytes are protocol packets of a dump, whose events are to be written; else a relay log file, magic
    number included, whose events are only looked at.

    Attributes: the counters `events`, `heartbeats`, `transactions`; `whole_offset`: bytes of the file being read up to
    where no transaction was open last; `file`: the source's, that the events are from.
    """
    cdef Framer framer
    cdef Buffer out
    cdef size_t out_filled
    cdef int64_t out_whole                # bytes of `out` up to where no transaction is open; -1: there is no such place
    cdef Place place
    cdef Transaction open
    cdef Transaction run                  # consecutive GTIDs of whole transactions, up to run_last
    cdef int64_t run_last
    cdef list ranges
    cdef const char* fault
    cdef object failure
    cdef uint64_t whole_position
    cdef readonly uint64_t events, heartbeats, transactions, whole_offset
    cdef readonly bint ended
    cdef readonly str file

    def __init__(self, *, bint packets=True, size_t buffer_bytes=1 << 20):
        self.framer = Framer(packets, buffer_bytes, True)
        self.out = Buffer(OUT_BYTES)
        self.file = ""
        self.ranges = []
        self.out_whole = -1
        if not packets:
            self.framer.begin_file(0)

    @property
    def in_transaction(self):
        """A transaction has begun and not ended."""
        return self.place != BETWEEN

    @property
    def position(self):
        """In the source's binlog file, after the last event looked at."""
        return self.framer.position

    def abandon(self):
        """What is open goes on nowhere: the source begins again."""
        self.place = BETWEEN

    def writable(self):
        """Where the next bytes belong: a memoryview of at least one byte, good until the next call."""
        return self.framer.writable()

    def received(self, size_t count):
        """`count` bytes have been put at the start of `writable()`. Raises ValueError when that cannot be."""
        self.framer.received(count)

    def feed(self, data):
        """Copies `data` in: `writable` and `received` for callers that have the bytes already."""
        rest = memoryview(data)
        while len(rest):
            view = self.writable()
            count = min(len(view), len(rest))
            view[:count] = rest[:count]
            self.received(count)
            rest = rest[count:]

    def take(self, uint64_t events_max=0):
        """The next RelayChunk, or None when more bytes are needed. Its `data` is good until the next call.

        `events_max` bounds the events of a chunk, 0: as many as there are. Bad bytes do not raise: the chunk that they
        end carries the error in `failure`, and nothing comes after it.
        """
        cdef int outcome
        cdef bytes control = b""
        if self.failure is not None:
            return None
        self.out_filled = 0
        self.out_whole = 0 if self.place == BETWEEN else -1
        with nogil:
            outcome = self.scan(events_max if events_max else <uint64_t>-1)
        if outcome == SCANNED_CONTROL:
            control = self.framer.event.data[:self.framer.event.length]
            if self.framer.event.type == FORMAT_DESCRIPTION_EVENT:
                self.describe(control)
            else:
                self.rotate(control)
        elif outcome == SCANNED_END:
            self.ended = True
        elif outcome > SCANNED_END:
            self.failure = self.error_of(outcome)
        self.end_run()
        if outcome == SCANNED_ALL and not self.out_filled and not self.ranges:
            return None
        ranges, self.ranges = self.ranges, []
        return RelayChunk(memoryview(self.out)[:self.out_filled], self.out_whole, self.whole_position, ranges,
                          control, self.failure)

    cdef int scan(self, uint64_t events_max) except -1 nogil:
        cdef FrameStatus status
        cdef Role role
        cdef int type
        while self.out_filled < OUT_BYTES // 2 and events_max:
            status = self.framer.next()
            if status != FRAME_EVENT:
                return outcome_of(status)
            self.events += 1
            type = self.framer.event.type
            if type == HEARTBEAT_EVENT or type == HEARTBEAT_EVENT_V2:
                self.heartbeats += 1
                continue
            if type == FORMAT_DESCRIPTION_EVENT or type == ROTATE_EVENT:
                if self.place == BETWEEN:
                    self.whole_offset = self.framer.file_offset
                return SCANNED_CONTROL
            role = role_of(self.framer.event.data, self.framer.event.length)
            if not self.follows(role):
                return SCANNED_BAD_EVENT
            # The last two say something about a file of the source, and are not true of ours.
            if self.framer.packets and type != PREVIOUS_GTIDS_EVENT and type != STOP_EVENT:
                self.write()
            events_max -= 1
            if self.place == BETWEEN:
                self.out_whole = <int64_t>self.out_filled
                self.whole_offset = self.framer.file_offset
                self.whole_position = self.framer.position
        return SCANNED_ENOUGH

    # The boundary rules of cutter.pyx, without the cutting.
    cdef bint follows(self, Role role) except -1 nogil:
        if role == ROLE_GTID:
            if self.place != BETWEEN:
                return self.bad("a transaction begins before the last one has ended")
            memset(&self.open, 0, sizeof(Transaction))
            if parse_gtid_event(self.framer.event.data, self.framer.event.length, &self.open):
                return self.bad("its GTID cannot be read")
            self.place = HEADED
        elif role == ROLE_MALFORMED:
            return self.bad("it is too short for its type")
        elif role < ROLE_BEGIN:
            return True                       # of no transaction; what is unknown is for the reader to judge
        else:
            if self.place == BETWEEN:
                memset(&self.open, 0, sizeof(Transaction))
                self.place = HEADED
            if role == ROLE_BEGIN or role == ROLE_XA_START:
                if self.place == BEGUN:
                    return self.bad("a transaction begins inside another")
                self.place = BEGUN
            elif self.ends(role):
                self.close()
            elif self.place != BEGUN and (role == ROLE_TABLE_MAP or role == ROLE_ROWS):
                return self.bad("it is outside of a transaction")
        return True

    cdef bint ends(self, Role role) noexcept nogil:
        if role == ROLE_COMMIT or role == ROLE_ROLLBACK or role == ROLE_XA_PREPARE or role == ROLE_XA_COMMIT:
            return True
        if self.place == BEGUN:
            return False
        return role == ROLE_PAYLOAD or role == ROLE_QUERY or role == ROLE_SCHEMA_QUERY or role == ROLE_LOAD_QUERY

    cdef bint bad(self, const char* fault) noexcept nogil:
        self.fault = fault
        return False

    cdef int close(self) except -1 nogil:
        self.place = BETWEEN
        self.transactions += 1
        if self.open.gno == 0:
            return 0
        if self.run.gno and self.open.gno == self.run_last + 1 and same_origin(&self.run, &self.open):
            self.run_last = self.open.gno
            return 0
        with gil:
            self.end_run()
        self.run = self.open
        self.run_last = self.open.gno
        return 0

    cdef int end_run(self) except -1:
        if self.run.gno:
            self.ranges.append((
                (<const char*>self.run.sid)[:16], self.run.tag[:self.run.tag_length].decode("ascii"), self.run.gno,
                self.run_last))
            self.run.gno = 0
        return 0

    # The event as it came, or with the checksum that its source leaves out.
    cdef int write(self) except -1 nogil:
        cdef uint32_t length = self.framer.event.length
        cdef uint8_t* to
        if self.out.capacity - self.out_filled < length + CHECKSUM_BYTES:
            with gil:
                self.enlarge(length + CHECKSUM_BYTES)
        to = self.out.data + self.out_filled
        memcpy(to, self.framer.event.data, length + CHECKSUM_BYTES if self.framer.wire_bytes > length else length)
        store_u32(to + LENGTH_OFFSET, length + CHECKSUM_BYTES)
        if self.framer.wire_bytes == length:
            store_u32(to + length, crc32_of(to, length))
        self.out_filled += length + CHECKSUM_BYTES
        return 0

    cdef int enlarge(self, size_t more) except -1:
        cdef Buffer larger = Buffer(self.out_filled + more)
        memcpy(larger.data, self.out.data, self.out_filled)
        self.out = larger
        return 0

    cdef int describe(self, bytes event) except -1:
        try:
            description = control_events.parse_format_description(event)
        except ApplierError as error:
            self.failure = error
            return 0
        self.framer.checksums = description.has_checksums
        self.framer.described = True
        return 0

    cdef int rotate(self, bytes event) except -1:
        if self.framer.flags & FLAG_RELAY_LOG:
            return 0
        try:
            rotate = control_events.parse_rotate(event)
        except ApplierError as error:
            self.failure = error
            return 0
        self.file = rotate.file
        self.framer.position = rotate.position
        self.whole_position = rotate.position
        return 0

    cdef error_of(self, int outcome):
        if outcome == SCANNED_ERROR:
            return control_events.parse_error_packet(self.framer.event.data[:self.framer.event.length])
        if outcome == SCANNED_BAD_FRAME:
            return CorruptEvent(place=f"{self.file or 'the stream'}:{self.framer.position}",
                                detail=self.framer.describe())
        return CorruptEvent(place=f"{self.file or 'the stream'}:{self.framer.event_position}",
                            detail=f"event of type {self.framer.event.type}: {self.fault.decode()}")


cdef Outcome outcome_of(FrameStatus status) noexcept nogil:
    if status == FRAME_WAIT:
        return SCANNED_ALL
    if status == FRAME_END:
        return SCANNED_END
    return SCANNED_ERROR if status == FRAME_ERROR else SCANNED_BAD_FRAME


cdef bint same_origin(const Transaction* a, const Transaction* b) noexcept nogil:
    return (memcmp(a.sid, b.sid, 16) == 0 and a.tag_length == b.tag_length
            and memcmp(a.tag, b.tag, a.tag_length) == 0)
