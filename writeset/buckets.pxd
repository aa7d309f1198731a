"""The bucket index for other kernels: raw pointers, no GIL. What it does is told in buckets.pyx."""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# Why everything after a transaction had to wait for it, other than because the caller asked.
cdef enum CheckpointReason:
    CHECKPOINT_BUCKET_FULL = 0       # more live keys in a bucket than it has entries
    CHECKPOINT_WINDOW = 1            # the low-water mark is further behind than a 16-bit number can tell
    CHECKPOINT_TOO_MANY_KEYS = 2     # the transaction touches more than keys_max
    CHECKPOINT_REASONS = 3

@cython.final
cdef class BucketIndex:
    cdef readonly uint32_t bucket_bits
    cdef readonly uint32_t bucket_entries      # capacity of a bucket
    cdef readonly uint64_t keys_max            # touches of one transaction
    cdef readonly uint64_t low_water_mark      # everything up to here has committed
    cdef readonly uint64_t floor               # sequence number of the last barrier or checkpoint
    cdef readonly uint64_t sequence_number     # of the last transaction seen
    cdef readonly uint64_t touch_total         # touches seen
    cdef readonly uint64_t barrier_total       # barriers that the caller asked for
    cdef uint64_t checkpoint_totals[CHECKPOINT_REASONS]
    cdef uint16_t* counts                      # entries in use, one count a bucket
    cdef uint8_t* lines                        # level 0 of all buckets, then level 1, …: see buckets.pyx
    cdef void* mapping
    cdef size_t mapping_bytes
    cdef size_t level_bytes
    cdef uint32_t levels_used
    cdef uint64_t sweep_at                     # next bucket to sweep
    cdef uint64_t sweep_step                   # buckets a sequence number

    # The low-water mark only rises; call it before a batch.
    cdef void set_low_water_mark(self, uint64_t low_water_mark) noexcept nogil

    # last_committed of one transaction, and its touches recorded. Sequence numbers have no gaps; parts of one
    # transaction repeat theirs. `bound` is another valid last_committed (UINT64_MAX: none). Hashes up to
    # `ahead` (>= hashes + count) may be prefetched: pass the end of the batch's hashes.
    cdef uint64_t assign_one(self, uint64_t sequence_number, const uint64_t* hashes, const uint8_t* modes,
                             size_t count, bint barrier, uint64_t bound, const uint64_t* ahead) noexcept nogil

    # The same, telling for each row (touches row_ends[i-1] … row_ends[i]) what its own touches wait for.
    # Returns the transaction's last_committed, the highest of them.
    cdef uint64_t assign_rows(self, uint64_t sequence_number, const uint64_t* hashes, const uint8_t* modes,
                              const uint32_t* row_ends, size_t row_count, bint barrier,
                              uint64_t* row_last_committed) noexcept nogil

    cdef uint64_t _look_up(self, uint64_t hash, uint8_t mode) noexcept nogil
    cdef bint _record(self, uint64_t hash, uint8_t mode) noexcept nogil
    cdef bint _record_all(self, const uint64_t* hashes, const uint8_t* modes, size_t count) noexcept nogil
    cdef void _compact(self, size_t bucket) noexcept nogil
    cdef void _advance(self, uint64_t sequence_number) noexcept nogil
    cdef void _checkpoint(self, int reason) noexcept nogil
    cdef bint _fits(self, size_t count) noexcept nogil
