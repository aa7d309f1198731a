"""A group of transactions whose row changes have been folded: what is kept of it."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from applier.events.batch cimport Event, Row, Transaction
from applier.events.fold_table cimport Layout
from scheduler.budget cimport MemoryBudget
from writeset.hashing cimport Span

cdef enum:
    NO_ENTRY = 0xFFFFFFFF

cdef enum EntryFlags:
    ENTRY_MAY_MOVE = 1           # a unique key besides the identity may have changed
    ENTRY_HELD = 2               # runs in the second part

cdef enum NetKind:
    NET_NOTHING = 0
    NET_DELETE = 1
    NET_UPDATE = 2
    NET_INSERT = 3
    NET_MOVE = 4                 # a unique value changes: delete and insert

# The net change of one row: the image before the group, the image after it. NULL: the row is not there.
cdef struct Entry:
    uint64_t hash
    const uint8_t* key
    const uint8_t* before
    const uint8_t* after
    uint32_t before_length
    uint32_t after_length
    uint32_t table               # into FoldedGroup.tables
    uint32_t row_first           # number of the first row of the group that changes it
    uint16_t key_length
    uint8_t kind                 # NetKind
    uint8_t flags                # EntryFlags

# A table in a group.
cdef struct GroupTable:
    const Layout* layout
    const uint8_t* header        # of its first row event
    uint64_t row_count
    uint16_t flags               # of its row events, without STMT_END
    uint8_t refusal              # Refusal

# Transactions of one batch.
cdef struct View:
    const Transaction* transactions
    size_t transaction_count
    const Row* rows
    const Event* events
    const uint64_t* hashes
    const uint8_t* modes
    const uint64_t* waits        # or NULL
    uint32_t* tables             # Batch.tables index → FoldedGroup.tables index

# What one statement of the log did to tables that do not fold. It stays in one piece.
cdef struct Rest:
    size_t event_first           # into FoldedGroup.rest_events: its table maps, then its row events
    size_t event_count
    uint32_t row_first           # number of its first row in the group
    uint8_t held

cdef struct KeyChunk:
    KeyChunk* next
    size_t used

cdef class FoldedGroup:
    cdef readonly list slices                # as they came; they own the bytes
    cdef readonly uint64_t rows_in
    cdef readonly uint64_t rows_out
    cdef readonly uint64_t rows_held
    cdef readonly uint64_t events_out
    cdef readonly uint64_t group_first
    cdef readonly uint64_t group_last
    cdef list fold_tables                    # the FoldTable of each table
    cdef View* views
    cdef size_t view_count
    cdef GroupTable* tables
    cdef size_t table_count
    cdef list table_order                    # numbers of the tables, in the order in which they are written
    cdef Entry* entries
    cdef size_t entry_count, entry_capacity
    cdef uint64_t* slots                     # high half of the hash, low half entry number + 1
    cdef size_t slot_mask
    cdef uint64_t hash_mask
    cdef uint32_t* row_entries               # two for each row: its entries; of a row that does not fold, its rest
    cdef Rest* rests
    cdef size_t rest_count, rest_capacity
    cdef Event* rest_events
    cdef size_t rest_event_count, rest_event_capacity
    cdef KeyChunk* keys
    cdef Span* spans                         # scratch: a span for each column of the widest table
    cdef Span* other_spans
    cdef uint8_t* key                        # scratch: KEY_BYTES_MAX
    cdef uint8_t* other_key
    cdef readonly MemoryBudget budget        # of its batches, or None
    cdef int64_t charged

    # Charges the budget for what its arrays have grown by.
    cdef void charge_arrays(self) noexcept nogil
    cdef size_t array_bytes(self) noexcept nogil

    cdef int open(self) except -1
    cdef int number_tables(self, View* view, list tables, dict numbers) except -1
    cdef int allocate(self) except -1

    # The entry with this identity, or a new one; entries may move.
    # Returns ENTRY_FOUND, ENTRY_NEW, or ENTRY_AMBIGUOUS when keys of different bytes have one hash and the table's
    # keys are not exact.
    cdef int entry_of(self, uint32_t table, uint64_t hash, const uint8_t* key, uint32_t key_length,
                      Entry** entry) except -1 nogil
    cdef Entry* add_entry(self, uint32_t table, uint64_t hash, const uint8_t* key,
                          uint32_t key_length) except NULL nogil
    cdef const uint8_t* keep_key(self, const uint8_t* key, uint32_t key_length) except NULL nogil
    cdef int widen(self) except -1 nogil

cdef enum:
    ENTRY_FOUND = 0
    ENTRY_NEW = 1
    ENTRY_AMBIGUOUS = 2

# Room for one more item of a growing array.
cdef void* room(void* items, size_t count, size_t* capacity, size_t item_bytes) except NULL nogil
