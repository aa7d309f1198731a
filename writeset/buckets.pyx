# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The fixed array: key hash → sequence number of the transaction that touched the key last.

Of a 64-bit hash the top bits choose the bucket, the low 48 are the tag. An entry is the tag and the low 16 bits of
a sequence number in one word, so a bucket is searched by comparing words. A key that is shared has a second entry,
for its last sharer, under a tag derived from the first: it lies in the same bucket. Two keys with one hash share an
entry, which can only add a dependency.

Memory. A bucket is cut into lines of 8 entries, one cache line each, and the first lines of all buckets lie side by
side, then all second lines, and so on. With the usual load every bucket fits its first line: 4 MiB that stay in the
cache instead of a page for each bucket, and what is never used is never mapped. A line that is full drops its dead
entries before the bucket grows into the next.

16 bits are enough. An entry is dead once its sequence number is not above the low-water mark (or the last barrier,
on which everything later depends anyway), and may be dropped at any time. A sweep passes over every bucket once in
SWEEP_PERIOD sequence numbers and drops what is dead; so as long as the low-water mark is less than WINDOW behind,
no entry gets older than WINDOW + SWEEP_PERIOD < 65,536, and its 16 bits name one sequence number only.

Checkpoint. When that does not hold, or a bucket is full of live entries, or a transaction has more keys than are
worth recording, later transactions depend on the current one altogether (`floor`). The current one itself still
waits only for what its own keys ask for.

Not thread-safe: it belongs to the scheduler's thread.
"""
cimport cython
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from writeset.hashing cimport EXCLUSIVE_OVER_SHARED, SHARED


cdef extern from *:
    """
    #include <sys/mman.h>

    static void *ws_map(size_t bytes) {
        void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED)
            return NULL;
    #ifdef MADV_HUGEPAGE
        madvise(at, bytes, MADV_HUGEPAGE);    /* a wish: without it there are only more TLB misses */
    #endif
        return at;
    }
    static void ws_unmap(void *at, size_t bytes) { munmap(at, bytes); }
    static inline void ws_prefetch(const void *at) { __builtin_prefetch(at, 1, 3); }
    """
    void* ws_map(size_t bytes) nogil
    void ws_unmap(void* at, size_t bytes) nogil
    void ws_prefetch(const void* at) noexcept nogil


cdef enum:
    LINE_ENTRIES = 8
    LINE_BYTES = 64
    HUGE_PAGE_BYTES = 2 << 20
    SWEEP_PERIOD = 16384
    WINDOW = 49000                  # WINDOW + SWEEP_PERIOD stays below 65,536, with something to spare
    PREFETCH_DISTANCE = 16          # about as many cache misses as a core keeps in flight

cdef uint64_t TAG_MASK = 0xffffffffffff
cdef uint64_t SHARER_SALT = 0x5bd1e9955bd1
NO_BOUND = UINT64_MAX


cdef inline uint64_t* entry_line(uint8_t* lines, size_t level_bytes, size_t bucket, size_t level) noexcept nogil:
    return <uint64_t*>(lines + level * level_bytes + bucket * LINE_BYTES)


cdef inline uint64_t* find(uint8_t* lines, size_t level_bytes, size_t bucket, size_t count,
                           uint64_t tag) noexcept nogil:
    """The entry of `tag`, or NULL."""
    cdef uint64_t* line = <uint64_t*>(lines + bucket * LINE_BYTES)
    cdef size_t slot, used
    while count > 0:
        used = count if count < LINE_ENTRIES else LINE_ENTRIES
        for slot in range(used):
            if line[slot] >> 16 == tag:
                return &line[slot]
        count -= used
        line = <uint64_t*>(<uint8_t*>line + level_bytes)
    return NULL


@cython.final
cdef class BucketIndex:
    """Last writer and last sharer of every key touched lately.

    bucket_bits: 1 to 16, there are 2**bucket_bits buckets. bucket_entries: capacity of a bucket, 1 to 65,528.
    keys_max: a transaction with more touches is not recorded; default a quarter of the capacity.
    Raises ValueError for an impossible geometry, MemoryError.
    """

    def __cinit__(self, uint32_t bucket_bits=16, uint32_t bucket_entries=511, keys_max=None):
        cdef size_t buckets = <size_t>1 << bucket_bits
        cdef size_t levels = (bucket_entries + LINE_ENTRIES - 1) // LINE_ENTRIES
        if not 1 <= bucket_bits <= 16 or not 1 <= bucket_entries <= 65528:
            raise ValueError(f"impossible geometry: {bucket_bits} bits, {bucket_entries} entries")
        self.bucket_bits = bucket_bits
        self.bucket_entries = bucket_entries
        self.keys_max = max(buckets * bucket_entries // 4, <size_t>1) if keys_max is None else keys_max
        # One line more a level, lest the lines of one bucket all fall into one set of the cache.
        self.level_bytes = (buckets + 1) * LINE_BYTES
        self.mapping_bytes = levels * self.level_bytes + HUGE_PAGE_BYTES
        self.mapping = ws_map(self.mapping_bytes)
        self.counts = <uint16_t*>calloc(buckets, sizeof(uint16_t))
        if self.mapping == NULL or self.counts == NULL:
            raise MemoryError
        self.lines = <uint8_t*>((<size_t>self.mapping + HUGE_PAGE_BYTES - 1) & ~<size_t>(HUGE_PAGE_BYTES - 1))
        self.levels_used = 1
        self.sweep_step = max(buckets // SWEEP_PERIOD, <size_t>1)

    def __dealloc__(self):
        if self.mapping != NULL:
            ws_unmap(self.mapping, self.mapping_bytes)
        free(self.counts)

    # --- one key ----------------------------------------------------------------------------------------------

    cdef uint64_t _look_up(self, uint64_t hash, uint8_t mode) noexcept nogil:
        """Highest sequence number that a touch must wait for; 0 when there is none."""
        cdef size_t bucket = hash >> (64 - self.bucket_bits)
        cdef size_t count = self.counts[bucket]
        cdef uint64_t tag = hash & TAG_MASK
        cdef uint64_t age, found = 0
        cdef uint64_t* entry = find(self.lines, self.level_bytes, bucket, count, tag)
        if entry != NULL:
            age = (self.sequence_number - entry[0]) & 0xffff
            if age:                  # else it is the transaction's own, recorded with an earlier part of it
                found = self.sequence_number - age
        if mode == EXCLUSIVE_OVER_SHARED:
            entry = find(self.lines, self.level_bytes, bucket, count, tag ^ SHARER_SALT)
            if entry != NULL:
                age = (self.sequence_number - entry[0]) & 0xffff
                if age:
                    found = max(found, self.sequence_number - age)
        return found

    cdef bint _record(self, uint64_t hash, uint8_t mode) noexcept nogil:
        """Makes the current transaction the key's last writer or sharer; False when the bucket is full."""
        cdef size_t bucket = hash >> (64 - self.bucket_bits)
        cdef size_t count = self.counts[bucket]
        cdef uint64_t tag = hash & TAG_MASK
        cdef uint64_t* entry
        if mode == SHARED:
            tag ^= SHARER_SALT
        entry = find(self.lines, self.level_bytes, bucket, count, tag)
        if entry == NULL:
            if count and (count % LINE_ENTRIES == 0 or count == self.bucket_entries):
                self._compact(bucket)
                count = self.counts[bucket]
                if count == self.bucket_entries:
                    return False
            entry = entry_line(self.lines, self.level_bytes, bucket, count // LINE_ENTRIES) + count % LINE_ENTRIES
            self.counts[bucket] = count + 1
            if count // LINE_ENTRIES >= self.levels_used:
                self.levels_used = count // LINE_ENTRIES + 1
        entry[0] = tag << 16 | (self.sequence_number & 0xffff)
        return True

    cdef void _compact(self, size_t bucket) noexcept nogil:
        """Drops the bucket's dead entries."""
        cdef uint64_t dead = max(self.low_water_mark, self.floor)
        cdef size_t count = self.counts[bucket]
        cdef size_t kept = 0, at
        cdef uint64_t entry, sequence_number
        for at in range(count):
            entry = entry_line(self.lines, self.level_bytes, bucket, at // LINE_ENTRIES)[at % LINE_ENTRIES]
            sequence_number = self.sequence_number - ((self.sequence_number - entry) & 0xffff)
            if sequence_number > dead:
                entry_line(self.lines, self.level_bytes, bucket, kept // LINE_ENTRIES)[kept % LINE_ENTRIES] = entry
                kept += 1
        self.counts[bucket] = kept

    # --- time -------------------------------------------------------------------------------------------------

    cdef void set_low_water_mark(self, uint64_t low_water_mark) noexcept nogil:
        self.low_water_mark = max(self.low_water_mark, low_water_mark)

    cdef void _advance(self, uint64_t sequence_number) noexcept nogil:
        """Sweeps on as far as the sequence number moves, then moves it."""
        cdef uint64_t buckets = <uint64_t>1 << self.bucket_bits
        cdef uint64_t distance = sequence_number - self.sequence_number
        cdef uint64_t todo = min(buckets, distance * self.sweep_step)
        if distance >= SWEEP_PERIOD:
            # Numbers have no gaps, except before the first transaction. Should they, then nothing is lost.
            self.floor = self.sequence_number
            memset(self.counts, 0, buckets * sizeof(uint16_t))
            todo = 0
        while todo > 0:
            if self.counts[self.sweep_at]:
                self._compact(self.sweep_at)
            self.sweep_at = (self.sweep_at + 1) & (buckets - 1)
            todo -= 1
        self.sequence_number = sequence_number

    cdef void _checkpoint(self, int reason) noexcept nogil:
        self.checkpoint_totals[reason] += 1
        self.floor = self.sequence_number
        memset(self.counts, 0, (<size_t>1 << self.bucket_bits) * sizeof(uint16_t))

    cdef bint _fits(self, size_t count) noexcept nogil:
        """Whether the touches of the current transaction may be recorded; a checkpoint when not."""
        if count > self.keys_max:
            self._checkpoint(CHECKPOINT_TOO_MANY_KEYS)
            return False
        if self.sequence_number - max(self.low_water_mark, self.floor) > WINDOW:
            self._checkpoint(CHECKPOINT_WINDOW)
            return False
        return True

    # --- transactions -----------------------------------------------------------------------------------------

    cdef bint _record_all(self, const uint64_t* hashes, const uint8_t* modes, size_t count) noexcept nogil:
        cdef size_t at
        if not self._fits(count):
            return False
        for at in range(count):
            if not self._record(hashes[at], modes[at]):
                self._checkpoint(CHECKPOINT_BUCKET_FULL)
                return False
        return True

    cdef uint64_t assign_one(self, uint64_t sequence_number, const uint64_t* hashes, const uint8_t* modes,
                             size_t count, bint barrier, uint64_t bound, const uint64_t* ahead) noexcept nogil:
        cdef uint64_t ours = 0
        cdef uint64_t floor
        cdef size_t at, bucket
        cdef uint32_t shift = 64 - self.bucket_bits
        self._advance(sequence_number)
        self.touch_total += count
        if barrier:
            self.barrier_total += 1
            self.floor = sequence_number
            return sequence_number - 1
        floor = self.floor
        # All look-ups come before the first record: a transaction that shares a key and then writes it must
        # still see the older sharers.
        for at in range(count):
            if hashes + at + PREFETCH_DISTANCE < ahead:
                bucket = hashes[at + PREFETCH_DISTANCE] >> shift
                ws_prefetch(self.counts + bucket)
                ws_prefetch(self.lines + bucket * LINE_BYTES)
                bucket = hashes[at + PREFETCH_DISTANCE // 2] >> shift
                if self.counts[bucket] > LINE_ENTRIES:
                    ws_prefetch(self.lines + self.level_bytes + bucket * LINE_BYTES)
            ours = max(ours, self._look_up(hashes[at], modes[at]))
        self._record_all(hashes, modes, count)
        return max(floor, min(ours, bound))

    cdef uint64_t assign_rows(self, uint64_t sequence_number, const uint64_t* hashes, const uint8_t* modes,
                              const uint32_t* row_ends, size_t row_count, bint barrier,
                              uint64_t* row_last_committed) noexcept nogil:
        cdef uint64_t highest, ours, floor
        cdef size_t row, at = 0
        self._advance(sequence_number)
        self.touch_total += row_ends[row_count - 1] if row_count else 0
        if barrier:
            for row in range(row_count):
                row_last_committed[row] = sequence_number - 1
            self.barrier_total += 1
            self.floor = sequence_number
            return sequence_number - 1
        floor = highest = self.floor
        for row in range(row_count):
            ours = floor
            while at < row_ends[row]:
                ours = max(ours, self._look_up(hashes[at], modes[at]))
                at += 1
            row_last_committed[row] = ours
            highest = max(highest, ours)
        self._record_all(hashes, modes, at)
        return highest

    # --- from Python ------------------------------------------------------------------------------------------

    def assign(self, touches, uint64_t sequence_number, uint64_t low_water_mark=0, bint barrier=False,
               uint64_t bound=UINT64_MAX):
        """last_committed of one transaction that makes `touches`, [(hash, Access), …]; for tests and tools.

        Raises ValueError when the sequence number falls or is not above the low-water mark.
        """
        from array import array
        hashes = array("Q", [pair[0] for pair in touches])
        modes = array("B", [pair[1] for pair in touches])
        ends = array("I", [len(hashes)])
        out = array("Q", [0])
        self.assign_batch(hashes, modes, ends, sequence_number, low_water_mark, out, array("B", [barrier]),
                          array("Q", [bound]))
        return out[0]

    def assign_batch(self, const uint64_t[::1] hashes, const uint8_t[::1] modes, const uint32_t[::1] touch_ends,
                     uint64_t sequence_first, uint64_t low_water_mark, uint64_t[::1] last_committed,
                     const uint8_t[::1] barriers=None, const uint64_t[::1] bounds=None):
        """last_committed of consecutive transactions, without the GIL.

        Transaction i has the sequence number sequence_first + i and the touches touch_ends[i-1] … touch_ends[i].
        barriers[i] != 0: it depends on everything before it, everything after depends on it.
        bounds[i]: another valid last_committed of it, NO_BOUND for none; the smaller one counts.
        Results go to last_committed[i]; one that is not above the low-water mark waits for nothing.
        Raises ValueError when lengths or numbers contradict each other.
        """
        cdef size_t count = touch_ends.shape[0]
        cdef size_t at, first = 0, end
        cdef const uint64_t* hash_at = &hashes[0] if hashes.shape[0] else NULL
        cdef const uint8_t* mode_at = &modes[0] if modes.shape[0] else NULL
        if (last_committed.shape[0] < count or modes.shape[0] != hashes.shape[0]
                or (barriers is not None and barriers.shape[0] < count)
                or (bounds is not None and bounds.shape[0] < count)):
            raise ValueError("arrays of different lengths")
        if sequence_first < self.sequence_number or sequence_first <= max(self.low_water_mark, low_water_mark):
            raise ValueError(f"sequence number {sequence_first} after {self.sequence_number}")
        for at in range(count):
            if touch_ends[at] < first or touch_ends[at] > hashes.shape[0]:
                raise ValueError(f"touch_ends[{at}] = {touch_ends[at]}")
            first = touch_ends[at]
        first = 0
        with nogil:
            self.set_low_water_mark(low_water_mark)
            for at in range(count):
                end = touch_ends[at]
                last_committed[at] = self.assign_one(
                    sequence_first + at, hash_at + first, mode_at + first, end - first,
                    barriers is not None and barriers[at] != 0,
                    UINT64_MAX if bounds is None else bounds[at], hash_at + hashes.shape[0])
                first = end

    def assign_row_batch(self, const uint64_t[::1] hashes, const uint8_t[::1] modes,
                         const uint32_t[::1] row_ends, uint64_t sequence_number, uint64_t low_water_mark,
                         uint64_t[::1] row_last_committed, bint barrier=False):
        """`assign_rows` for Python: one transaction (or group), its rows told apart. Returns its last_committed."""
        cdef size_t count = row_ends.shape[0]
        cdef size_t row
        cdef uint64_t result
        if row_last_committed.shape[0] < count or modes.shape[0] != hashes.shape[0]:
            raise ValueError("arrays of different lengths")
        for row in range(count):
            if row_ends[row] > hashes.shape[0] or (row and row_ends[row] < row_ends[row - 1]):
                raise ValueError(f"row_ends[{row}] = {row_ends[row]}")
        if sequence_number < self.sequence_number or sequence_number <= max(self.low_water_mark, low_water_mark):
            raise ValueError(f"sequence number {sequence_number} after {self.sequence_number}")
        with nogil:
            self.set_low_water_mark(low_water_mark)
            result = self.assign_rows(
                sequence_number, &hashes[0] if hashes.shape[0] else NULL, &modes[0] if modes.shape[0] else NULL,
                &row_ends[0] if count else NULL, count, barrier, &row_last_committed[0] if count else NULL)
        return result

    @property
    def checkpoints(self):
        """How often each reason forced a checkpoint."""
        return {
            "bucket_full": self.checkpoint_totals[<int>CHECKPOINT_BUCKET_FULL],
            "window": self.checkpoint_totals[<int>CHECKPOINT_WINDOW],
            "too_many_keys": self.checkpoint_totals[<int>CHECKPOINT_TOO_MANY_KEYS],
        }

    @property
    def entry_total(self):
        """Entries in use, dead ones included."""
        cdef size_t bucket
        cdef size_t total = 0
        for bucket in range(<size_t>1 << self.bucket_bits):
            total += self.counts[bucket]
        return total

    @property
    def memory_bytes(self):
        """Address space of the index: its upper bound."""
        return self.mapping_bytes + (1 << self.bucket_bits) * sizeof(uint16_t)

    @property
    def used_bytes(self):
        """Memory of the lines that were ever written, about what is resident."""
        return self.levels_used * self.level_bytes + (1 << self.bucket_bits) * sizeof(uint16_t)
