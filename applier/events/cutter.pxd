"""Events → transactions, without the GIL."""
from libc.stdint cimport uint32_t, uint64_t

from applier.events.batch cimport Batch, Transaction
from applier.events.executed cimport ExecutedGtids
from applier.events.framing cimport Framer
from applier.events.roles cimport Role

# What to do after an event.
cdef enum Step:
    STEP_ON               # look at the next event
    STEP_WAIT             # more bytes are needed
    STEP_BATCH            # the batch is complete
    STEP_PART             # a part of a large transaction is complete, and the batch with it
    STEP_CONTROL          # the event needs Python
    STEP_PAYLOAD          # a payload too large to be kept whole: its events have to be placed one by one
    STEP_END              # the source has sent its end packet
    STEP_ERROR            # the source has sent an error packet
    STEP_BAD_FRAME
    STEP_BAD_EVENT        # `fault_text` says why
    STEP_UNKNOWN_EVENT

cdef enum TransactionState:
    IDLE                  # between transactions
    HEADED                # after its GTID event, or events that prepare its statement
    BEGUN                 # after BEGIN or XA START

# Functions that return int give a Step, or -1 with MemoryError.
cdef class TransactionCutter:
    cdef Framer framer
    cdef Batch batch                         # being filled
    cdef ExecutedGtids executed              # or None
    cdef uint64_t batch_bytes_max
    cdef uint64_t part_bytes_max
    cdef uint64_t next_sequence_number
    cdef uint64_t source_epoch
    cdef uint64_t transactions
    cdef uint64_t skipped
    cdef uint64_t abandoned
    cdef const char* fault_text              # why the last event was bad
    # the open transaction
    cdef TransactionState state
    cdef Transaction open
    cdef Batch members                       # its events, or those of its present part
    cdef uint64_t member_bytes
    cdef uint64_t inflated_bytes             # what the payloads of the batch say that they will take
    cdef uint64_t open_wire_bytes
    cdef size_t statement_first              # in members.events, of the row statement that has not ended
    cdef size_t buffer_first                 # in batch.buffers, the first that a member points into
    cdef size_t buffer_last                  # the one being filled
    cdef bint dropping                       # it has been executed already
    cdef bint statements                     # it holds more than BEGIN, table maps, rows, COMMIT
    cdef bint in_parts                       # a part has been handed out

    cdef int place(self, Role role) except -1 nogil
    cdef int bad(self, const char* text) noexcept nogil
    cdef void open_transaction(self, uint32_t flags) noexcept nogil
    cdef int open_with_gtid(self) except -1 nogil
    cdef int keep(self) except -1 nogil
    cdef int begin(self, Role role) except -1 nogil
    cdef int row(self, Role role) except -1 nogil
    cdef int statement(self, Role role) except -1 nogil
    cdef int end(self, Role role) except -1 nogil
    cdef int payload(self) except -1 nogil
    cdef int cut_part(self) except -1 nogil
    cdef int close_transaction(self, uint32_t flags) except -1 nogil
    cdef void take_back(self) noexcept nogil
    cdef int hand_over(self, uint32_t flags) except -1 nogil
    cdef bint needs_buffers(self) noexcept nogil
    cdef void abandon(self) noexcept nogil
    cdef int begin_batch(self, Batch batch) except -1
    cdef int add_buffer(self) except -1
    cdef int carry_table_maps(self) except -1
