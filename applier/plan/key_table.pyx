# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""What a plan remembers of every key.

Unlike the bucket index, which knows the keys touched lately, this table knows all keys of the log, because a chain
may go on after any time. Open addressing, at most three quarters full. It is bounded: beyond `keys_max` keys those
with the fewest writes are forgotten, and what is said of chains is a lower bound from then on.
"""
from libc.stdlib cimport calloc, free


cdef extern from *:
    """
    static inline void plan_prefetch(const void *at) { __builtin_prefetch(at, 1, 1); }
    """
    void plan_prefetch(const void* at) noexcept nogil

cdef enum:
    SLOTS_MIN = 1024


cdef class KeyTable:
    """keys_max: keys remembered; 56 bytes for each slot, up to 150 for each key. Raises MemoryError."""

    def __cinit__(self, uint64_t keys_max=3 << 20):
        self.keys_max = max(keys_max, <uint64_t>2)
        self.resize(SLOTS_MIN, 0)

    def __dealloc__(self):
        free(self.entries)

    @property
    def memory_bytes(self):
        """Of the slots."""
        return self.slot_count * sizeof(KeyEntry)

    cdef int reserve(self, size_t extra) except -1 nogil:
        cdef size_t slots = self.slot_count
        if self.count + extra > self.keys_max and self.count:
            self.resize(self.slot_count, self.forgettable_writes() + 1)
        while (self.count + extra) * 4 > slots * 3:
            slots *= 2
        if slots != self.slot_count:
            self.resize(slots, 0)
        return 0

    cdef KeyEntry* find_or_add(self, uint64_t hash) noexcept nogil:
        cdef size_t mask = self.slot_count - 1
        cdef size_t slot = hash & mask
        while self.entries[slot].used:
            if self.entries[slot].hash == hash:
                return &self.entries[slot]
            slot = (slot + 1) & mask
        self.entries[slot].hash = hash
        self.entries[slot].used = 1
        self.count += 1
        self.distinct += 1
        return &self.entries[slot]

    cdef void prefetch(self, uint64_t hash) noexcept nogil:
        plan_prefetch(&self.entries[hash & (self.slot_count - 1)])

    cdef uint32_t forgettable_writes(self) noexcept nogil:
        """Keys with so many writes or fewer are at least half of all."""
        cdef uint32_t writes = 1
        cdef uint64_t found = 0
        cdef size_t slot
        while True:
            found = 0
            for slot in range(self.slot_count):
                if self.entries[slot].used and self.entries[slot].writes <= writes:
                    found += 1
            if found * 2 >= self.count:
                return writes
            writes *= 2

    cdef int resize(self, size_t slot_count, uint32_t writes_min) except -1 nogil:
        """Into so many slots, less the keys with fewer than `writes_min` writes."""
        cdef KeyEntry* old = self.entries
        cdef KeyEntry* grown = <KeyEntry*>calloc(slot_count, sizeof(KeyEntry))
        cdef size_t at, slot, mask = slot_count - 1
        if grown is NULL:
            with gil:
                raise MemoryError(f"no memory for {slot_count} keys")
        if old is not NULL:
            self.count = 0
            for at in range(self.slot_count):
                if not old[at].used:
                    continue
                if old[at].writes < writes_min:
                    self.forgotten += 1
                    continue
                slot = old[at].hash & mask
                while grown[slot].used:
                    slot = (slot + 1) & mask
                grown[slot] = old[at]
                self.count += 1
        free(old)
        self.entries = grown
        self.slot_count = slot_count
        return 0
