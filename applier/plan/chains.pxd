"""Chains of dependent transactions, hot keys, and what each table has to do with it."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from applier.events.batch cimport Batch, Transaction
from applier.plan.key_table cimport KeyEntry, KeyTable

cdef enum:
    HOT_KEYS_MAX = 64

# A key that held transactions up.
cdef struct HotKey:
    uint64_t hash
    uint32_t waits
    uint32_t writes
    int64_t row                  # of the present batch, one whose touch waited; -1: none

cdef struct TableCount:
    uint64_t kinds[3]            # rows by RowKind
    uint64_t transactions
    uint64_t waits               # transactions that a row of this table held up
    uint64_t last                # sequence numbers: nobody counts twice
    uint64_t last_wait

cdef class Chains:
    cdef readonly double transaction_cost
    cdef readonly uint32_t distance           # a dependency further back holds nobody up
    cdef readonly uint64_t touches
    cdef readonly uint64_t barriers           # transactions that were barriers, or after which the index forgot all
    cdef readonly uint64_t barrier_waits      # transactions held up by a barrier
    cdef readonly uint32_t depth              # transactions in the longest chain
    cdef readonly double cost                 # of the costliest chain
    cdef readonly KeyTable keys
    cdef uint32_t floor_depth                 # chains that end with the last barrier
    cdef double floor_cost
    cdef uint64_t floor                       # its sequence number
    cdef uint64_t open_rows                   # of a transaction whose last part has not come
    cdef KeyEntry** touched                   # scratch
    cdef size_t touched_capacity
    cdef HotKey hot[HOT_KEYS_MAX]
    cdef size_t hot_count
    cdef TableCount* tables                   # scratch, by table of the batch

    cdef int scratch(self, size_t count) except -1 nogil
    cdef int add(self, Batch batch, Transaction* t) except -1 nogil
    cdef void add_barrier(self, Transaction* t) noexcept nogil
    cdef void count_rows(self, Batch batch, Transaction* t) noexcept nogil
    cdef void count_waits(self, Batch batch, Transaction* t) noexcept nogil
    cdef void note_hot(self, KeyEntry* entry, size_t row) noexcept nogil
