"""Table maps that have been met, found by their content without the GIL."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from applier.events.row_image cimport ColumnLayout, Stride
from writeset.hashing cimport Span

# What the walker needs of one table: its columns, and which of them its keys need.
cdef struct Table:
    uint64_t hash                  # of the content
    const uint8_t* content         # the table map after the table id; owned by `pair`
    size_t content_length
    void* pair                     # (TableMap, TablePlan), an owned reference
    void* plan                     # the TablePlan in it
    ColumnLayout* columns
    Stride* strides
    Span* before                   # one span for each column, overwritten by each row
    Span* after
    uint32_t column_count
    uint32_t weight                # in columns: see TableMap
    uint32_t json_count
    uint32_t stride_count
    uint32_t batch_index           # its place in Batch.tables of the batch numbered `used`
    uint64_t used                  # the last batch that used it
    bint keys_unknown              # its columns are not those of the target's table
    bint source_overlooks          # see TablePlan

cdef class TableCache:
    cdef readonly size_t capacity
    cdef readonly size_t count
    cdef readonly size_t columns   # what all of them weigh
    cdef Table** slots             # open addressing by hash, NULL is free
    cdef size_t slot_count         # a power of two, more than twice `count`
    cdef uint64_t batch            # counts batches
    cdef Table** used              # by the current batch, in order of first use
    cdef size_t used_count
    cdef size_t used_capacity
    cdef uint64_t needed           # the last batch that needed more than there is room for
    cdef size_t handed_out         # of them, those already in Batch.tables

    cdef void begin_batch(self) noexcept
    # The table with this content, or NULL. `content` is the event's body after the table id.
    cdef Table* find(self, const uint8_t* content, size_t length) noexcept nogil
    # Adds the table: `pair` is (TableMap, TablePlan).
    cdef Table* add(self, tuple pair) except NULL
    # Numbers the table among those of the batch.
    cdef int use(self, Table* table) except -1 nogil
    # Appends the pairs of tables used since the last call to `tables`.
    cdef int hand_out(self, list tables) except -1
    cdef void forget(self) noexcept
    cdef bint is_over(self) noexcept
    cdef int resize(self, size_t slot_count) except -1
    cdef int evict(self) except -1
