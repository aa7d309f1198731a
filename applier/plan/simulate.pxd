"""When each transaction would commit, for several numbers of workers and three ways to order them."""
from libc.stdint cimport uint32_t, uint64_t

from applier.events.batch cimport Batch, Transaction
from applier.events.scheduling cimport SourceClock

cdef enum Policy:
    SOURCE = 0                   # the source's own last_committed
    OURS = 1                     # ours
    HANDOFF = 2                  # ours, row by row
    POLICIES = 3

cdef enum:
    WORKER_COUNTS = 7            # 1, 2, 4 … 64
    WORKERS_MAX = 64
    RING = 128                   # a power of two above WORKERS_MAX

cdef class Simulation:
    cdef readonly double transaction_cost
    cdef readonly double serial_cost                 # of all transactions, one after the other
    cdef readonly uint64_t transactions
    cdef readonly uint64_t rows
    cdef readonly uint64_t source_numbers            # transactions whose last_committed the source told
    cdef uint64_t sequence_number                    # of the last transaction
    # When the transactions of the last sequence numbers committed, by sequence number modulo RING.
    cdef double commits[POLICIES][WORKER_COUNTS][RING]
    cdef SourceClock clock
    cdef uint64_t source_last_committed              # of the open transaction
    cdef uint64_t open_rows                          # … in the parts that have come
    cdef uint32_t waiting[RING]                      # its rows, by how far back what they wait for is

    cdef void add(self, Batch batch, const unsigned char* splits, Transaction* t) noexcept nogil
    cdef void sort_rows(self, Batch batch, const unsigned char* splits, const Transaction* t) noexcept nogil
    cdef void commit(self, const Transaction* t) noexcept nogil
    cdef double handed_off(self, size_t count, uint64_t sequence_number) noexcept nogil
