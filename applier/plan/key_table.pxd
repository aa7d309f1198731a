"""What a plan remembers of every key: a hash table from key hash to the end of its longest chain."""
from libc.stdint cimport uint32_t, uint64_t

# A chain is a sequence of transactions each of which must wait for the one before it.
cdef struct KeyEntry:
    uint64_t hash
    double writer_cost           # of the costliest chain that ends with the key's last writer
    double sharer_cost           # … with one of those that shared it since
    uint32_t writer_depth        # transactions in the longest chain that ends with the last writer
    uint32_t sharer_depth
    uint32_t writes              # transactions that took the key exclusively
    uint32_t waits               # transactions that this key held up
    uint32_t last_write          # the low 32 bits of the last writer's sequence number, so that none counts twice
    uint32_t last_wait           # … of the last transaction that it held up
    uint32_t used                # 0: the slot is free

cdef class KeyTable:
    cdef readonly uint64_t keys_max
    cdef readonly uint64_t count              # keys remembered
    cdef readonly uint64_t distinct           # keys met; those forgotten and met again count again
    cdef readonly uint64_t forgotten
    cdef KeyEntry* entries
    cdef size_t slot_count                    # a power of two

    # Makes room for `extra` more keys. Entries move: pointers into the table are good until the next call.
    # MemoryError.
    cdef int reserve(self, size_t extra) except -1 nogil
    # The entry of a key, a new one if it has none. There must be room.
    cdef KeyEntry* find_or_add(self, uint64_t hash) noexcept nogil
    cdef void prefetch(self, uint64_t hash) noexcept nogil
    cdef int resize(self, size_t slot_count, uint32_t writes_min) except -1 nogil
    cdef uint32_t forgettable_writes(self) noexcept nogil
