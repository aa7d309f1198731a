# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Bytes of a binary log → batches of whole transactions, without sockets.

    while True:
        assembler.received(sock.recv_into(assembler.writable()))
        while (batch := assembler.take(flush=nothing_more_to_read_now)) is not None:
            hand_on(batch)

Transactions are cut by the server's own boundary rules (its Transaction_boundary_parser): a GTID event opens one; BEGIN or
XA START up to XID, COMMIT, ROLLBACK or XA PREPARE; any other lone statement is a transaction by itself.
"""
import time

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from applier.errors import ApplierError, CorruptEvent, UnsupportedEvent
from applier.events import control as control_events
from applier.events.batch cimport *
from applier.events.event_types cimport *
from applier.events.executed cimport ExecutedGtids
from applier.events.framing cimport *
from applier.events.gtid_event cimport parse_gtid_event
from applier.events.roles cimport *
from applier.events.wire cimport load_u16

cdef enum:
    # Members of a transaction that come without a place to cut it: more than any server writes.
    UNCUT_BYTES_MAX = 0x7FFFFFFF
    BUFFERS_PER_BATCH_MAX = 64


cdef class StreamAssembler:
    """Cuts a stream of bytes into batches of whole transactions, numbered without gaps.

    executed:              GtidSet of transactions to drop (counted as `skipped`), or None
    first_sequence_number: of the first transaction that is not dropped
    packets:               the bytes are protocol packets of a dump; else bare events (see `begin_file`)
    file:                  name of the binlog file that the bytes are from, until the stream names one
    batch_bytes_max:       a batch ends when it holds this much of the log
    part_bytes_max:        a transaction larger than this is handed out in parts
    buffer_bytes:          size of the buffers; one grows only for an event that does not fit

    Attributes: `next_sequence_number`, `source_epoch` (binlog files begun), `file` and `position` (after the last event looked
    at), `file_offset` and `transaction_end_offset` (in the file being read, after the last event / where no transaction
    is open), `ended` (the source sent its end packet), the counters `bytes`, `events`, `transactions`, `skipped`,
    `abandoned`, `heartbeats`, and `heartbeat_position`, `heartbeat_monotonic_seconds` of the last heartbeat.
    """

    def __init__(self, executed=None, uint64_t first_sequence_number=1, *, bint packets=True, uint64_t batch_number=0,
                 uint64_t source_epoch=0, str file="", uint64_t batch_bytes_max=1 << 20,
                 uint64_t part_bytes_max=16 << 20, size_t buffer_bytes=1 << 20, bint verify_checksums=True):
        self.framer = Framer(packets, buffer_bytes, verify_checksums)
        self.executed = ExecutedGtids(executed) if executed else None
        self.next_sequence_number = first_sequence_number
        self.source_epoch = source_epoch
        self.file = file
        self.format_description = b""
        self.batch_bytes_max = batch_bytes_max
        self.part_bytes_max = part_bytes_max
        self.members = Batch()
        self.ready = []
        self.batch = Batch(batch_number, file)
        self.batch.buffers.append(self.framer.buffer)

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
        return self.state != IDLE

    def writable(self):
        """Where the next bytes belong: a memoryview of at least one byte, good until the next call."""
        view = self.framer.writable()
        if self.batch.buffers[self.buffer_last] is not self.framer.buffer:
            if self.state == IDLE or self.dropping:
                # No open transaction needs the buffers. Let go of them: a stream may skip for hours.
                if self.batch.transaction_count == 0:
                    self.batch.buffers.clear()
                elif len(self.batch.buffers) >= BUFFERS_PER_BATCH_MAX:
                    self.retire()
            self.batch.buffers.append(self.framer.buffer)
            self.buffer_last = len(self.batch.buffers) - 1
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

        Transactions before `start_offset` are checked and passed over. `file` None: a relay log, whose events name the
        source's files themselves, and whose transactions may go on from the file before.
        """
        if self.framer.packets:
            raise ValueError("a stream of packets has no files")
        if file is not None:
            self.abandon()
            self.change_file(file)
        self.framer.begin_file(self.framer.position if file is None else start_offset)
        self.start_offset = start_offset
        self.transaction_end_offset = 0

    def finish(self):
        """The input has ended: bytes left over that are no whole event (0 at a clean end). See `in_transaction` too."""
        return self.framer.unfinished()

    def take(self, bint flush=False):
        """The next Batch, or None when more bytes are needed. Call it until it gives None.

        Without `flush` only full batches are handed out: at `batch_bytes_max`, after a statement that may change the
        schema, at a change of file or format. Bad bytes never raise here: the batch with the last transaction before
        them (perhaps an empty one) carries the error in `failure`, and nothing comes after it. Raises MemoryError.
        """
        cdef int step = STEP_ON
        while not self.ready and not self.failed:
            with nogil:
                step = self.scan()
            if step == STEP_WAIT:
                break
            if step == STEP_BATCH:
                self.retire()
            elif step == STEP_PART:
                self.retire()
                self.carry_table_maps()
            elif step == STEP_CONTROL:
                self.control()
            elif step == STEP_END:
                self.ended = True
            else:
                self.fail(self.error_of(step))
        if not self.ready and not self.failed and (flush or self.ended):
            self.retire()
        return self.ready.pop(0) if self.ready else None

    # --- events, without the GIL -----------------------------------------------------------------------

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
                    return self.bad("the start position lies inside it")
                continue
            step = self.place(role)
            if self.state == IDLE:
                self.transaction_end_offset = self.framer.file_offset
            if step != STEP_ON:
                return step

    cdef int place(self, Role role) except -1 nogil:
        if role >= ROLE_BEGIN and self.state == IDLE:
            self.open_transaction(T_ANONYMOUS)
        self.open_wire_bytes += self.framer.wire_bytes
        if role == ROLE_TABLE_MAP or role == ROLE_ROWS:
            return self.row(role)
        if role == ROLE_GTID:
            return self.open_with_gtid()
        if role == ROLE_BEGIN or role == ROLE_XA_START:
            return self.begin(role)
        if role == ROLE_COMMIT or role == ROLE_ROLLBACK or role == ROLE_XA_PREPARE:
            return self.end(role)
        if role == ROLE_ROWS_QUERY:
            self.keep()
            return STEP_ON
        if role == ROLE_PAYLOAD:
            return self.payload()
        if role == ROLE_IGNORED:
            return STEP_ON
        if role == ROLE_CONTROL:
            return STEP_CONTROL
        if role == ROLE_UNKNOWN:
            return STEP_UNKNOWN_EVENT
        if role == ROLE_MALFORMED:
            return self.bad("it is too short for its type")
        return self.statement(role)

    cdef int bad(self, const char* text) noexcept nogil:
        self.fault_text = text
        return STEP_BAD_EVENT

    cdef void open_transaction(self, uint32_t flags) noexcept nogil:
        memset(&self.open, 0, sizeof(Transaction))
        self.open.flags = flags
        self.open.source_epoch = self.source_epoch
        self.state = HEADED
        self.members.event_count = 0
        self.member_bytes = 0
        self.open_wire_bytes = 0
        self.statement_first = 0
        self.buffer_first = self.buffer_last
        self.dropping = False
        self.statements = False
        self.in_parts = False

    cdef int open_with_gtid(self) except -1 nogil:
        if self.state != IDLE:
            return self.bad("a transaction begins before the last one has ended")
        self.open_transaction(0)
        self.open_wire_bytes = self.framer.wire_bytes
        if parse_gtid_event(self.framer.event.data, self.framer.event.length, &self.open):
            return self.bad("its GTID cannot be read")
        self.dropping = (self.executed is not None and not self.open.flags & T_ANONYMOUS
                         and self.executed.contains(&self.open))
        return STEP_ON

    cdef int keep(self) except -1 nogil:
        cdef Event* event = &self.framer.event
        if self.dropping:
            return 0
        self.member_bytes += event.length
        return self.members.add_event(event.data, event.length, event.type)

    cdef int begin(self, Role role) except -1 nogil:
        if self.state == BEGUN:
            return self.bad("a transaction begins inside another")
        self.state = BEGUN
        self.statements = self.statements or role == ROLE_XA_START
        self.keep()
        return STEP_ON

    cdef int row(self, Role role) except -1 nogil:
        if self.state != BEGUN:
            return self.bad("it is outside of a transaction")
        self.keep()
        if role == ROLE_ROWS:
            if load_u16(self.framer.event.data + HEADER_BYTES + 6) & ROWS_STATEMENT_END:
                self.statement_first = self.members.event_count
            return self.cut_part()
        if self.member_bytes > UNCUT_BYTES_MAX:
            return self.bad("too many table maps without a row")
        return STEP_ON

    # A lone statement is a transaction by itself; inside BEGIN … COMMIT it is a member.
    cdef int statement(self, Role role) except -1 nogil:
        self.statements = True
        self.keep()
        if role == ROLE_SCHEMA_QUERY:
            self.open.flags |= T_SCHEMA
        if self.state == BEGUN:
            if role == ROLE_XA_COMMIT:
                return self.close_transaction(T_ROLLBACK)
            if role == ROLE_PREFIX and self.framer.event.type != APPEND_BLOCK_EVENT:
                return STEP_ON
            return self.cut_part()
        if role != ROLE_PREFIX:
            return self.close_transaction(T_DDL)
        if self.member_bytes > UNCUT_BYTES_MAX:
            return self.bad("it prepares a statement that does not come")
        return STEP_ON

    cdef int end(self, Role role) except -1 nogil:
        if self.state != BEGUN:
            if self.framer.event.type == QUERY_EVENT:
                return self.statement(ROLE_QUERY)
            return self.bad("it ends a transaction that has not begun")
        self.keep()
        if role == ROLE_COMMIT:
            return self.close_transaction(0)
        self.statements = True
        return self.close_transaction(T_ROLLBACK if role == ROLE_ROLLBACK else T_XA)

    cdef int payload(self) except -1 nogil:
        if self.state == BEGUN or self.members.event_count:
            return self.bad("it is a whole transaction inside another")
        self.keep()
        return self.close_transaction(T_COMPRESSED)

    # --- transactions into the batch, without the GIL --------------------------------------------------

    # Called where the open transaction may be cut: everything before is complete in itself.
    cdef int cut_part(self) except -1 nogil:
        if self.member_bytes < self.part_bytes_max or self.dropping:
            return STEP_ON
        self.hand_over(0)
        self.in_parts = True
        return STEP_PART

    cdef int close_transaction(self, uint32_t flags) except -1 nogil:
        self.state = IDLE
        if self.dropping:
            self.skipped += 1
            return STEP_ON
        self.hand_over(flags | T_LAST_PART)
        self.members.event_count = 0
        self.transactions += 1
        self.next_sequence_number += 1
        if (self.open.flags | flags) & (T_DDL | T_SCHEMA) or self.batch.byte_count >= self.batch_bytes_max:
            return STEP_BATCH
        return STEP_ON

    # The members so far become a transaction (or part) of the batch. BEGIN, COMMIT and comments say nothing that
    # row events do not say themselves, so a transaction of rows goes without them.
    cdef int hand_over(self, uint32_t flags) except -1 nogil:
        cdef Transaction* t
        cdef Event* event
        cdef size_t i, first = self.batch.event_count
        cdef uint64_t byte_count = 0
        cdef bint everything = self.statements or flags & T_COMPRESSED
        for i in range(self.members.event_count):
            event = &self.members.events[i]
            if everything or event.type == TABLE_MAP_EVENT or is_rows_event(event.type):
                self.batch.add_event(event.data, event.length, event.type)
                byte_count += event.length
        t = self.batch.add_transaction()
        t[0] = self.open
        t.sequence_number = self.next_sequence_number
        t.end_log_pos = self.framer.position
        t.byte_count = byte_count
        t.event_first = <uint32_t>first
        t.event_count = <uint32_t>(self.batch.event_count - first)
        t.flags |= flags
        if not self.in_parts:
            t.flags |= T_FIRST_PART
        if not flags & T_COMPRESSED:
            t.flags |= T_STATEMENTS | T_BARRIER if self.statements else T_ROWS
        self.batch.byte_count += self.open_wire_bytes
        self.open_wire_bytes = 0
        return 0

    # --- with the GIL, once a batch or rarer -----------------------------------------------------------

    cdef int retire(self) except -1:
        """Puts the batch among the ready ones, unless it is empty, and begins the next."""
        cdef Batch old = self.batch
        if old.transaction_count == 0:
            return 0
        self.ready.append(old)
        self.batch = Batch(old.number + 1, self.file, self.format_description)
        if self.state == IDLE or self.dropping:
            self.batch.buffers.append(old.buffers[self.buffer_last])
        else:
            self.batch.buffers.extend(old.buffers[self.buffer_first:])
        self.buffer_first = 0
        self.buffer_last = len(self.batch.buffers) - 1
        return 0

    cdef int carry_table_maps(self) except -1:
        """The table maps of a statement that goes on in the next part are repeated there, as copies."""
        cdef Event* event
        cdef Buffer copies
        cdef size_t i, size = 0, at = 0, count = self.members.event_count
        current = self.batch.buffers[self.buffer_last]
        for i in range(self.statement_first, count):
            if self.members.events[i].type == TABLE_MAP_EVENT:
                size += self.members.events[i].length
        copies = Buffer(size)
        self.members.event_count = 0
        for i in range(self.statement_first, count):
            event = &self.members.events[i]
            if event.type == TABLE_MAP_EVENT:
                memcpy(copies.data + at, event.data, event.length)
                self.members.add_event(copies.data + at, event.length, event.type)
                at += self.members.events[self.members.event_count - 1].length
        self.statement_first = 0
        self.member_bytes = size
        self.batch.buffers[:] = [copies, current] if size else [current]
        self.buffer_last = len(self.batch.buffers) - 1
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
            self.abandon()
            self.source_epoch += 1
        self.framer.checksums = description.has_checksums
        self.framer.described = True
        if description.for_binlog != self.format_description:
            self.retire()
            self.format_description = description.for_binlog
            self.batch.format_description = self.format_description
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
            self.batch.file = file
        return 0

    cdef int abandon(self) except -1:
        """Forgets the open transaction. When it has begun in parts, the next transaction has its number again."""
        if self.state != IDLE:
            self.abandoned += 1
            self.state = IDLE
            self.members.event_count = 0
        return 0

    cdef int heartbeat(self, heartbeat) except -1:
        self.heartbeats += 1
        self.heartbeat_position = heartbeat.position
        self.heartbeat_monotonic_seconds = time.monotonic()
        return 0

    cdef int fail(self, error) except -1:
        """Nothing is handed out after the present batch, which carries the error."""
        cdef Batch last = self.batch
        last.failure = error
        self.failed = True
        self.ready.append(last)
        return 0

    cdef str place_text(self):
        file = self.file or "the stream"
        return f"{file}:{self.framer.event_position}"

    cdef error_of(self, int step):
        if step == STEP_BAD_FRAME:
            return CorruptEvent(place=f"{self.file or 'the stream'}:{self.framer.position}",
                                detail=self.framer.describe())
        if step == STEP_UNKNOWN_EVENT:
            return UnsupportedEvent(event_type=self.framer.event.type, place=self.place_text())
        if step == STEP_ERROR:
            return control_events.parse_error_packet(self.framer.event.data[:self.framer.event.length])
        return CorruptEvent(place=self.place_text(),
                            detail=f"event of type {self.framer.event.type}: {self.fault_text.decode()}")


cdef int step_of(FrameStatus status) noexcept nogil:
    if status == FRAME_WAIT:
        return STEP_WAIT
    if status == FRAME_END:
        return STEP_END
    return STEP_ERROR if status == FRAME_ERROR else STEP_BAD_FRAME
