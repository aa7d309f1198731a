# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""A batch: consecutive whole transactions, their events and what they touch. See batch.pxd for the contract."""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from scheduler.budget cimport MemoryBudget
from writeset.hashing cimport touches_free

import uuid

from applier.errors import TooLargeForMemory
from applier.events.transaction import TransactionFlag, TransactionInfo


@cython.no_gc_clear                                  # __dealloc__ needs the budget
cdef class Buffer:
    """`capacity` bytes of uninitialised memory at a fixed address, writable through the buffer protocol, and charged to
    `budget` as long as they live.

    Raises MemoryError when they cannot be had.
    """

    def __cinit__(self, size_t capacity, MemoryBudget budget=None):
        self.data = <uint8_t*>malloc(capacity if capacity else 1)
        if self.data is NULL:
            raise MemoryError(f"no memory for a buffer of {capacity} bytes")
        self.capacity = capacity
        self.budget = budget
        if budget is not None:
            budget.charge(<int64_t>capacity)

    def __dealloc__(self):
        free(self.data)
        if self.budget is not None:
            self.budget.free(<int64_t>self.capacity)

    cdef int grow(self, size_t capacity) except -1:
        cdef void* data = realloc(self.data, capacity)
        if data is NULL:
            raise MemoryError(f"no memory for a buffer of {capacity} bytes")
        self.data = <uint8_t*>data
        if self.budget is not None:
            self.budget.charge(<int64_t>capacity - <int64_t>self.capacity)
        self.capacity = capacity
        return 0

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, <Py_ssize_t>self.capacity, 0, flags)

    def __len__(self):
        return self.capacity


# Room for one more item in a growing array; NULL with MemoryError when there is none. Doubling keeps the
# cost of an append constant.
cdef void* grown(void* items, size_t count, size_t* capacity, size_t item_bytes) except NULL nogil:
    cdef size_t wanted
    if count < capacity[0]:
        return items
    wanted = capacity[0] * 2 if capacity[0] else 64
    items = realloc(items, wanted * item_bytes)
    if items is NULL:
        with gil:
            raise MemoryError(f"no memory for {wanted} items of {item_bytes} bytes")
    capacity[0] = wanted
    return items


@cython.no_gc_clear                                  # __dealloc__ needs the budget
cdef class Batch:
    """Consecutive whole transactions of the log (or a part of one that is larger than `part_bytes_max`).

    number:             position among the batches of a run, from 0
    file:               binlog file that all its transactions come from
    format_description: bytes of the format description event to send in BINLOG, checksum off
    failure:            what to raise once everything before has been applied, or None
    budget:             its arrays are charged there (its buffers charge themselves), or None
    """

    def __init__(self, uint64_t number=0, str file="", bytes format_description=b"", failure=None,
                 MemoryBudget budget=None):
        self.number = number
        self.file = file
        self.format_description = format_description
        self.failure = failure
        self.budget = budget
        self.buffers = []
        self.tables = []

    def __dealloc__(self):
        free(self.events)
        free(self.transactions)
        free(self.rows)
        free(self.touch_waits)
        touches_free(&self.touches)
        if self.budget is not None:
            self.budget.free(self.charged)
            if self.in_flight:
                self.budget.leave(self.number, self.piece)

    cdef void settle(self) noexcept nogil:
        cdef int64_t held
        if self.budget is not None:
            held = <int64_t>self.array_bytes()
            self.budget.charge(held - self.charged)
            self.charged = held

    cdef size_t array_bytes(self) noexcept nogil:
        return (self.event_capacity * sizeof(Event) + self.transaction_capacity * sizeof(Transaction)
                + self.row_capacity * sizeof(Row) + self.touches.capacity * (sizeof(uint64_t) + 1)
                + self.table_bytes + ((self.touches.count + 1) * sizeof(uint64_t) if self.touch_waits is not NULL else 0))

    cdef int check_room(self, const char* what) except -1 nogil:
        self.settle()
        if self.budget is not None and self.charged > self.budget.limit and not self.budget.lifted:
            with gil:
                raise TooLargeForMemory(
                    what=what.decode("ascii"), place=self.file or "the log", limit_bytes=self.budget.limit)
        return 0

    def enter(self):
        """The batch is handed out: until it is freed it counts as in flight in its budget, if it has one."""
        self.settle()
        if self.budget is not None:
            self.in_flight = True
            self.budget.enter(self.number, self.piece)

    cdef int add_event(self, uint8_t* data, uint32_t length, uint8_t type) except -1 nogil:
        cdef Event* event
        self.events = <Event*>grown(self.events, self.event_count, &self.event_capacity, sizeof(Event))
        event = &self.events[self.event_count]
        event.data = data
        event.length = length
        event.type = type
        self.event_count += 1
        return 0

    cdef Transaction* add_transaction(self) except NULL nogil:
        self.transactions = <Transaction*>grown(
            self.transactions, self.transaction_count, &self.transaction_capacity, sizeof(Transaction))
        cdef Transaction* transaction = &self.transactions[self.transaction_count]
        memset(transaction, 0, sizeof(Transaction))
        self.transaction_count += 1
        return transaction

    cdef Row* add_row(self) except NULL nogil:
        cdef Row* row
        if self.row_count == self.row_capacity:
            self.rows = <Row*>grown(self.rows, self.row_count, &self.row_capacity, sizeof(Row))
            self.check_room(b"the rows of an event")
        row = &self.rows[self.row_count]
        memset(row, 0, sizeof(Row))
        self.row_count += 1
        return row

    cdef uint64_t* ensure_touch_waits(self) except NULL nogil:
        if self.touch_waits is NULL:
            self.touch_waits = <uint64_t*>calloc(self.touches.count + 1, sizeof(uint64_t))
            if self.touch_waits is NULL:
                with gil:
                    raise MemoryError(f"no memory for the waits of {self.touches.count} touches")
        return self.touch_waits

    def __len__(self):
        """Transactions (or parts of one)."""
        return self.transaction_count

    def __repr__(self):
        return (f"<Batch {self.number}: {self.transaction_count} transactions, {self.event_count} events, "
                f"{self.byte_count} bytes of {self.file!r}>")

    @property
    def event_total(self):
        """Events, those of inflated payloads included."""
        return self.event_count

    @property
    def row_total(self):
        """Rows found by the decoder."""
        return self.row_count

    @property
    def memory_bytes(self):
        """What it keeps from being freed: its buffers, which it may share with its neighbours, and its arrays."""
        return sum(buffer.capacity for buffer in self.buffers if isinstance(buffer, Buffer)) + self.array_bytes()

    @property
    def first_sequence_number(self):
        """Of the first transaction; 0 in an empty batch."""
        return self.transactions[0].sequence_number if self.transaction_count else 0

    @property
    def last_sequence_number(self):
        """Of the last transaction; 0 in an empty batch."""
        return self.transactions[self.transaction_count - 1].sequence_number if self.transaction_count else 0

    def event(self, size_t i):
        """(type, bytes) of event `i` of the batch: header and body without the checksum. A copy."""
        if i >= self.event_count:
            raise IndexError(f"event {i} of {self.event_count}")
        cdef Event* event = &self.events[i]
        return event.type, event.data[:event.length]

    def transaction(self, size_t i):
        """Transaction `i` of the batch as a TransactionInfo."""
        if i >= self.transaction_count:
            raise IndexError(f"transaction {i} of {self.transaction_count}")
        cdef Transaction* t = &self.transactions[i]
        return TransactionInfo(
            sequence_number=t.sequence_number,
            last_committed=t.last_committed,
            gtid=gtid_text(t),
            source_sequence_number=t.source_sequence_number,
            source_last_committed=t.source_last_committed,
            source_epoch=t.source_epoch,
            original_commit_microseconds=t.original_commit_microseconds,
            immediate_commit_microseconds=t.immediate_commit_microseconds,
            end_log_pos=t.end_log_pos,
            byte_count=t.byte_count,
            event_first=t.event_first,
            event_count=t.event_count,
            row_first=t.row_first,
            row_count=t.row_count,
            touch_first=t.touch_first,
            touch_count=t.touch_count,
            flags=TransactionFlag(t.flags),
        )


    def append_transaction(self, events, uint32_t flags, uint64_t sequence_number):
        """Appends a transaction made of `events`, each the bytes of an event without its checksum.

        For tests and for events that we make ourselves; the assembler writes the arrays directly. The bytes are
        copied. Raises ValueError when one is shorter than an event header.
        """
        total = sum(len(event) for event in events)
        cdef Buffer buffer = Buffer(total)
        cdef Transaction* transaction
        cdef const uint8_t* source
        cdef size_t filled = 0, length, first = self.event_count
        if any(len(event) < 19 for event in events):
            raise ValueError("an event is shorter than its header")
        self.buffers.append(buffer)
        for event in events:
            source = event
            length = len(event)
            memcpy(buffer.data + filled, source, length)
            self.add_event(buffer.data + filled, <uint32_t>length, source[4])
            filled += length
        transaction = self.add_transaction()
        transaction.sequence_number = sequence_number
        transaction.flags = flags
        transaction.byte_count = filled
        transaction.event_first = <uint32_t>first
        transaction.event_count = <uint32_t>(self.event_count - first)
        self.byte_count += filled


cdef str gtid_text(const Transaction* t):
    if t.gno == 0:
        return ""
    sid = str(uuid.UUID(bytes=(<const char*>t.sid)[:16]))
    if t.tag_length:
        return f"{sid}:{t.tag[:t.tag_length].decode('ascii', 'replace')}:{t.gno}"
    return f"{sid}:{t.gno}"
