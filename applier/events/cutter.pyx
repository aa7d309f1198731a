# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Events → transactions, by the server's own boundary rules (its Transaction_boundary_parser).

A GTID event opens a transaction; it goes from BEGIN or XA START to XID, COMMIT, ROLLBACK or XA PREPARE. Any other lone
statement is a transaction by itself. See cutter.pxd.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from applier.events.batch cimport *
from applier.events.event_types cimport *
from applier.events.executed cimport ExecutedGtids
from applier.events.framing cimport Framer
from applier.events.gtid_event cimport parse_gtid_event
from applier.events.roles cimport *
from applier.events.wire cimport load_u16

cdef enum:
    # Of a transaction, without a place to cut it: more than any server writes.
    UNCUT_BYTES_MAX = 0x7FFFFFFF
    # A batch is inflated as a whole, however little of the log it is: so many batches' bytes at most (and no more than a
    # part may have), or one transaction.
    INFLATED_BATCHES = 8
    PAYLOAD_FIELD_UNCOMPRESSED_BYTES = 3

cdef uint64_t NOT_READ = <uint64_t>-1


cdef class TransactionCutter:
    """Places the framer's events, one after the other, into the open transaction, and whole ones into the batch."""

    def __cinit__(self, Framer framer, Batch batch, ExecutedGtids executed, uint64_t batch_bytes_max,
                  uint64_t part_bytes_max):
        self.framer = framer
        self.batch = batch
        self.executed = executed
        self.batch_bytes_max = batch_bytes_max
        self.part_bytes_max = part_bytes_max
        self.members = Batch(budget=batch.budget)

    cdef int place(self, Role role) except -1 nogil:
        if role >= ROLE_BEGIN and self.state == IDLE:
            self.open_transaction(T_ANONYMOUS)
        self.open_wire_bytes += self.framer.wire_bytes
        if self.open_wire_bytes > UNCUT_BYTES_MAX and self.needs_buffers():
            return self.bad("its transaction goes on for too long without a row or a statement")
        if role == ROLE_TABLE_MAP or role == ROLE_ROWS:
            return self.row(role)
        if role == ROLE_GTID:
            return self.open_with_gtid()
        if role == ROLE_BEGIN or role == ROLE_XA_START:
            return self.begin(role)
        if role == ROLE_COMMIT or role == ROLE_ROLLBACK or role == ROLE_XA_PREPARE:
            return self.end(role)
        if role == ROLE_PAYLOAD:
            return self.payload()
        if role == ROLE_IGNORED or role == ROLE_ROWS_QUERY:
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
        cdef uint64_t size
        if self.state == BEGUN or self.members.event_count:
            return self.bad("it is a whole transaction inside another")
        if not self.dropping:
            size = announced_bytes(self.framer.event.data, self.framer.event.length)
            if size > self.part_bytes_max:
                self.open.flags |= T_COMPRESSED
                return STEP_PAYLOAD
            self.inflated_bytes += size
        self.keep()
        return self.close_transaction(T_COMPRESSED)

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
        if ((self.open.flags | flags) & (T_DDL | T_SCHEMA) or self.batch.byte_count >= self.batch_bytes_max
                or self.inflated_bytes >= min(INFLATED_BATCHES * self.batch_bytes_max, self.part_bytes_max)):
            return STEP_BATCH
        return STEP_ON

    # Takes the transaction that has just ended off the batch: what is behind its end is bad.
    cdef void take_back(self) noexcept nogil:
        self.batch.transaction_count -= 1
        self.batch.event_count = self.batch.transactions[self.batch.transaction_count].event_first
        self.transactions -= 1
        self.next_sequence_number -= 1

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

    cdef bint needs_buffers(self) noexcept nogil:
        """Whether events of the open transaction are kept, and with them the buffers from `buffer_first` on."""
        return self.state != IDLE and not self.dropping

    cdef void abandon(self) noexcept nogil:
        """Forgets the open transaction. When it has begun in parts, the next transaction has its number again."""
        if self.state != IDLE:
            self.abandoned += 1
            self.state = IDLE
            self.members.event_count = 0

    cdef int begin_batch(self, Batch batch) except -1:
        """From now on into `batch`, which takes over the buffers that are still needed."""
        if self.needs_buffers():
            batch.buffers.extend(self.batch.buffers[self.buffer_first:])
        else:
            batch.buffers.append(self.batch.buffers[self.buffer_last])
        self.batch = batch
        self.inflated_bytes = 0
        self.buffer_first = 0
        self.buffer_last = len(batch.buffers) - 1
        return 0

    cdef int add_buffer(self) except -1:
        """The framer fills another buffer. The one before goes if nothing in it is kept: events may be skipped for long."""
        cdef list buffers = self.batch.buffers
        cdef Buffer last = buffers.pop() if buffers else None
        if last is not None and (ends_in(self.members, last) or ends_in(self.batch, last)):
            buffers.append(last)
        buffers.append(self.framer.buffer)
        self.buffer_last = len(buffers) - 1
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
        copies = Buffer(size, self.batch.budget)
        self.members.event_count = 0
        for i in range(self.statement_first, count):
            event = &self.members.events[i]
            if event.type == TABLE_MAP_EVENT:
                memcpy(copies.data + at, event.data, event.length)
                self.members.add_event(copies.data + at, event.length, event.type)
                at += self.members.events[self.members.event_count - 1].length
        self.statement_first = 0
        self.member_bytes = 0                # else a part that is mostly table maps would hold one row event
        self.batch.buffers[:] = [copies, current] if size else [current]
        self.buffer_last = len(self.batch.buffers) - 1
        return 0


cdef bint ends_in(Batch batch, Buffer buffer) noexcept:
    """Whether the last event lies in this buffer. Events are in order, so in the last buffer there is else none."""
    cdef uint8_t* last = batch.events[batch.event_count - 1].data if batch.event_count else NULL
    return last is not NULL and buffer.data <= last < buffer.data + buffer.capacity


cdef uint64_t announced_bytes(const uint8_t* event, uint32_t length) noexcept nogil:
    """The size that a payload event announces for what is in it, but at least its own, which is what is in it if it is
    not compressed; NOT_READ for a header that is not as MySQL writes it. Checked by who inflates it."""
    cdef const uint8_t* at = event + HEADER_BYTES
    cdef const uint8_t* end = event + length
    cdef uint64_t value, announced = 0
    cdef uint32_t width, i
    while end - at >= 2 and at[0] != 0:
        if at[0] >= 251 or at[1] == 0 or at[1] > 9 or at[1] > end - at - 2:
            return NOT_READ
        if at[0] == PAYLOAD_FIELD_UNCOMPRESSED_BYTES:
            value = at[2]
            width = 0
            if value >= 251:
                width = 2 if value == 0xFC else 3 if value == 0xFD else 8
                value = 0
            if 1 + width != at[1]:
                return NOT_READ
            for i in range(width):
                value |= <uint64_t>at[3 + i] << (8 * i)
            announced = value
        at += 2 + at[1]
    return max(announced, <uint64_t>length)
