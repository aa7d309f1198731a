# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Bytes of a binary log → batches of whole transactions, without sockets.

    while True:
        assembler.received(sock.recv_into(assembler.writable()))
        while (batch := assembler.take(flush=nothing_more_to_read_now)) is not None:
            hand_on(batch)

Framing and checks are in framing.pyx, what belongs to which transaction in cutter.pyx; here are batches, files and
formats.
"""
import time

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint64_t

from applier.errors import ApplierError, CorruptEvent, TooLargeForMemory, UnsupportedEvent
from applier.events import control as control_events
from applier.events.batch cimport Batch, Event
from applier.events.cutter cimport *
from applier.events.event_types cimport *
from applier.events.executed cimport ExecutedGtids
from applier.events.framing cimport *
from applier.events.payload cimport PayloadReader
from applier.events.roles cimport *
from scheduler.budget cimport MemoryBudget

cdef enum:
    BUFFERS_PER_BATCH_MAX = 64


cdef class StreamAssembler:
    """Cuts a stream of bytes into batches of whole transactions, numbered without gaps.

    executed:              GtidSet of transactions to drop (counted as `skipped`), or None
    first_sequence_number: of the first transaction that is not dropped
    packets:               the bytes are protocol packets of a dump; else bare events (see `begin_file`)
    file:                  name of the binlog file that the bytes are from, until the stream names one
    batch_bytes_max:       a batch ends when it holds this much of the log
    part_bytes_max:        a transaction larger than this is handed out in parts; a compressed one is then inflated here
    payload_bytes_max:     what a compressed transaction may inflate to
    buffer_bytes:          size of the buffers; one grows only for an event that does not fit
    budget:                what buffers and batches are charged to, or None

    Attributes: `file`; `transaction_end_offset` (in the file being read, where no transaction was open last); `ended`
    (the source sent its end packet); the counters `bytes`, `events`, `heartbeats`; `heartbeat_position` and
    `heartbeat_monotonic_seconds` of the last heartbeat.
    """

    def __init__(self, executed=None, uint64_t first_sequence_number=1, *, bint packets=True,
                 uint64_t batch_number=0, uint64_t source_epoch=0, str file="", uint64_t batch_bytes_max=1 << 20,
                 uint64_t part_bytes_max=16 << 20, uint64_t payload_bytes_max=1 << 40, size_t buffer_bytes=1 << 20,
                 bint verify_checksums=True, MemoryBudget budget=None):
        self.framer = Framer(packets, buffer_bytes, verify_checksums, budget)
        self.cutter = TransactionCutter(
            self.framer, Batch(batch_number, file, budget=budget), ExecutedGtids(executed) if executed else None,
            batch_bytes_max, part_bytes_max)
        self.cutter.add_buffer()
        self.cutter.next_sequence_number = first_sequence_number
        self.cutter.source_epoch = source_epoch
        self.payload_bytes_max = payload_bytes_max
        self.file = file
        self.format_description = b""
        self.ready = []

    @property
    def next_sequence_number(self):
        """Of the next transaction that ends."""
        return self.cutter.next_sequence_number

    @property
    def source_epoch(self):
        """Binlog files begun; the source's own numbers compare only within one."""
        return self.cutter.source_epoch

    @property
    def transactions(self):
        """Transactions handed out whole, or to their last part."""
        return self.cutter.transactions

    @property
    def skipped(self):
        """Transactions dropped because they are in `executed`."""
        return self.cutter.skipped

    @property
    def abandoned(self):
        """Transactions that broke off: their file or connection began anew before they ended."""
        return self.cutter.abandoned

    @property
    def position(self):
        """In the source's binlog file, after the last event looked at."""
        return self.framer.position

    @property
    def file_offset(self):
        """In the file being read (or the stream), after the last whole event."""
        return self.framer.file_offset

    @property
    def in_transaction(self):
        """A transaction has begun and not ended."""
        return self.cutter.state != IDLE

    def writable(self):
        """Where the next bytes belong: a memoryview of at least one byte, good until the next call."""
        view = self.framer.writable()
        cdef Batch batch = self.cutter.batch
        if self.inner is not None or batch.buffers[self.cutter.buffer_last] is self.framer.buffer:
            return view
        if not self.cutter.needs_buffers():
            # Let go of buffers that no open transaction needs: a stream may skip for hours.
            if batch.transaction_count == 0:
                batch.buffers.clear()
            elif len(batch.buffers) >= BUFFERS_PER_BATCH_MAX:
                self.retire()
        self.cutter.add_buffer()
        return view

    def received(self, size_t count):
        """`count` bytes have been put at the start of `writable()`. Raises ValueError when that cannot be."""
        self.framer.received(count)
        if self.failed:
            self.framer.scan = self.framer.filled

    def feed(self, data):
        """Copies `data` (any bytes-like) in: `writable` and `received` for callers that have the bytes already."""
        rest = memoryview(data)
        while len(rest):
            view = self.writable()
            count = min(len(view), len(rest))
            view[:count] = rest[:count]
            self.received(count)
            rest = rest[count:]

    def begin_file(self, file=None, uint64_t start_offset=4):
        """What follows is a file from its first byte, magic number included. For streams of bare events only.

        Transactions before `start_offset` are checked and passed over. `file` None: a relay log, whose events name
        the source's files themselves, and whose transactions may go on from the file before.
        """
        if self.framer.packets:
            raise ValueError("a stream of packets has no files")
        if file is not None:
            self.cutter.abandon()
            self.change_file(file)
        self.framer.begin_file(self.framer.position if file is None else start_offset)
        self.start_offset = start_offset
        self.transaction_end_offset = 0

    def finish(self):
        """At the end of the input: bytes that are no whole event, 0 if it ended clean. See `in_transaction` too."""
        return self.framer.unfinished()

    def take(self, bint flush=False):
        """The next Batch, or None when more bytes are needed. Call it until it gives None.

        Without `flush` only full batches are handed out: at `batch_bytes_max`, after a statement that may change
        the schema, at a change of file or format. Bad bytes never raise here: the batch with the last transaction
        before them (perhaps an empty one) carries the error in `failure`, and nothing comes after it. Raises
        MemoryError.
        """
        cdef int step = STEP_ON
        while not self.ready and not self.failed:
            with nogil:
                step = self.scan() if self.inner is None else self.scan_payload()
            if step == STEP_WAIT:
                if self.inner is None:
                    break
                self.inflate_more()
            elif step == STEP_PAYLOAD:
                self.open_payload()
            elif step == STEP_BATCH:
                if self.inner is None:          # else once all of the payload has been seen
                    self.retire()
            elif step == STEP_PART:
                self.retire()
                self.cutter.carry_table_maps()
            elif step == STEP_CONTROL:
                self.control()
            elif step == STEP_END:
                self.ended = True
            else:
                self.fail(self.error_of(step))
        if not self.ready and not self.failed and (flush or self.ended):
            self.retire()
        return self.ready.pop(0) if self.ready else None

    cdef int scan(self) except -1 nogil:
        cdef FrameStatus status
        cdef Role role
        cdef int step
        while True:
            status = self.framer.next()
            if status != FRAME_EVENT:
                return step_of(status)
            self.events += 1
            self.bytes += self.framer.wire_bytes
            role = role_of(self.framer.event.data, self.framer.event.length)
            if self.framer.event_offset < self.start_offset and role != ROLE_CONTROL:
                if self.framer.file_offset > self.start_offset:
                    return self.cutter.bad("the start position lies inside it")
                continue
            step = self.cutter.place(role)
            if self.cutter.state == IDLE:
                self.transaction_end_offset = self.framer.file_offset
            if step != STEP_ON:
                return step

    cdef int scan_payload(self) except -1 nogil:
        cdef FrameStatus status
        cdef Role role
        cdef int step
        while True:
            status = self.inner.next()
            if status != FRAME_EVENT:
                return step_of(status)
            self.inner.position = self.framer.position       # events in a payload have no position of their own
            role = role_of(self.inner.event.data, self.inner.event.length)
            if role == ROLE_IGNORED:
                continue
            if role == ROLE_UNKNOWN:
                return STEP_UNKNOWN_EVENT
            if ((role < ROLE_BEGIN and role != ROLE_MALFORMED) or role == ROLE_PAYLOAD or self.cutter.state == IDLE
                    or (self.cutter.state == HEADED) != (role == ROLE_BEGIN or role == ROLE_XA_START)):
                return self.cutter.bad("it is out of place in a payload")
            step = self.cutter.place(role)
            if step != STEP_ON:
                return step

    # --- once a batch or rarer -------------------------------------------------------------------------

    cdef int open_payload(self) except -1:
        """The events of a payload are placed as those of the stream are, with an inflating framer of their own."""
        cdef Event* event = &self.framer.event
        try:
            self.payload = PayloadReader(
                PyMemoryView_FromMemory(<char*>event.data + HEADER_BYTES, event.length - HEADER_BYTES, PyBUF_READ),
                self.framer.buffer, self.place_text(), self.cutter.batch.budget)
            if self.payload.size > self.payload_bytes_max:
                raise CorruptEvent(
                    place=self.place_text(),
                    detail=f"a payload of {self.payload.size} bytes is larger than the {self.payload_bytes_max} allowed")
        except ApplierError as error:
            return self.fail(error)
        self.inner = self.cutter.framer = Framer(False, self.framer.buffer_bytes, False, self.cutter.batch.budget)
        self.inner.described = True
        self.cutter.add_buffer()
        return 0

    cdef int inflate_more(self) except -1:
        """Little of the log may be much here: what waits for a row to be cut behind must fit into the memory."""
        cdef size_t count
        cdef MemoryBudget budget = self.cutter.batch.budget
        if budget is not None and self.cutter.member_bytes > <uint64_t>budget.limit:
            return self.fail(TooLargeForMemory(
                what="a statement's tables and variables", place=self.place_text(), limit_bytes=budget.limit))
        view = self.inner.writable()
        if self.cutter.batch.buffers[self.cutter.buffer_last] is not self.inner.buffer:
            self.cutter.add_buffer()
        try:
            count = self.payload.read_into(view)
        except ApplierError as error:
            return self.fail(error)
        self.inner.received(count)
        return self.close_payload() if count == 0 else 0

    cdef int close_payload(self) except -1:
        """Back to the stream, once all of a payload has been placed."""
        if self.inner.unfinished() or self.cutter.state != IDLE:
            return self.fail(CorruptEvent(
                place=self.place_text(), detail="a payload ends before its transaction or its last event does"))
        self.payload = self.inner = None
        self.cutter.framer = self.framer
        self.cutter.add_buffer()
        self.retire()
        self.transaction_end_offset = self.framer.file_offset
        return 0

    cdef int retire(self) except -1:
        """Puts the batch among the ready ones, unless it is empty, and begins the next."""
        cdef Batch old = self.cutter.batch
        if old.transaction_count:
            self.ready.append(old)
            self.cutter.members.settle()
            self.cutter.begin_batch(Batch(old.number + 1, self.file, self.format_description, budget=old.budget))
        return 0

    cdef int control(self) except -1:
        cdef uint8_t type = self.framer.event.type
        cdef bytes data = self.framer.event.data[:self.framer.event.length]
        try:
            if type == FORMAT_DESCRIPTION_EVENT:
                self.describe_format(data)
            elif type == ROTATE_EVENT:
                self.rotate(data)
            elif type == HEARTBEAT_EVENT:
                self.heartbeat(control_events.parse_heartbeat(data))
            elif type == HEARTBEAT_EVENT_V2:
                self.heartbeat(control_events.parse_heartbeat_v2(data))
            else:
                self.fail(control_events.parse_incident(data))
        except ApplierError as error:
            self.fail(error)
        return 0

    cdef int describe_format(self, bytes data) except -1:
        description = control_events.parse_format_description(data)
        if not self.framer.flags & FLAG_RELAY_LOG:
            # A new file of the source, or a new connection: what was open comes again or never happened.
            self.cutter.abandon()
            self.cutter.source_epoch += 1
        self.framer.checksums = description.has_checksums
        self.framer.described = True
        if description.for_binlog != self.format_description:
            self.retire()
            self.format_description = description.for_binlog
            self.cutter.batch.format_description = self.format_description
        return 0

    cdef int rotate(self, bytes data) except -1:
        if self.framer.flags & FLAG_RELAY_LOG:
            return 0
        rotate = control_events.parse_rotate(data)
        self.change_file(rotate.file)
        self.framer.position = rotate.position
        return 0

    cdef int change_file(self, str file) except -1:
        """All transactions of a batch come from one file."""
        if file != self.file:
            self.retire()
            self.file = file
            self.cutter.batch.file = file
        return 0

    cdef int heartbeat(self, heartbeat) except -1:
        self.heartbeats += 1
        self.heartbeat_position = heartbeat.position
        self.heartbeat_monotonic_seconds = time.monotonic()
        return 0

    cdef int fail(self, error) except -1:
        """Nothing is handed out after the present batch, which carries the error."""
        cdef Batch last = self.cutter.batch
        if self.inner is not None and self.cutter.state == IDLE:
            self.cutter.take_back()
        last.failure = error
        self.failed = True
        self.ready.append(last)
        return 0

    cdef str place_text(self):
        file = self.file or "the stream"
        return f"{file}:{self.framer.event_position}"

    cdef error_of(self, int step):
        cdef Framer framer = self.framer if self.inner is None else self.inner
        if self.inner is not None and step == STEP_BAD_FRAME:
            return CorruptEvent(place=self.place_text(), detail=f"in a payload {framer.describe()}")
        if step == STEP_BAD_FRAME:
            return CorruptEvent(place=f"{self.file or 'the stream'}:{self.framer.position}",
                                detail=self.framer.describe())
        if step == STEP_UNKNOWN_EVENT:
            return UnsupportedEvent(event_type=framer.event.type, place=self.place_text())
        if step == STEP_ERROR:
            return control_events.parse_error_packet(self.framer.event.data[:self.framer.event.length])
        return CorruptEvent(place=self.place_text(),
                            detail=f"event of type {framer.event.type}: {self.cutter.fault_text.decode()}")


cdef int step_of(FrameStatus status) noexcept nogil:
    if status == FRAME_WAIT:
        return STEP_WAIT
    if status == FRAME_END:
        return STEP_END
    return STEP_ERROR if status == FRAME_ERROR else STEP_BAD_FRAME
