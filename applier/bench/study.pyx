# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The fixed array as the study describes it, to compare ours with; and the touches of decoded batches as arrays.

65,536 buckets of 4,096 bytes: number, size, and 511 entries of 8 bytes. The top 16 bits of a hash choose the bucket,
its other 48 are stored with the low 16 bits of the sequence number relative to a base. A full bucket, or a relative
number above 65,535, is a checkpoint: all `number` fields become zero, the base moves, and the current transaction
depends on everything before it.
"""
from array import array

from cpython.array cimport array as Array
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from applier.events.batch cimport Batch

cdef enum:
    BUCKETS = 65536
    ENTRIES = 511

cdef struct Bucket:
    uint32_t number
    uint32_t size
    uint64_t values[ENTRIES]


cdef class StudyIndex:
    """Last writer of every key. `checkpoints` counts them; MemoryError when 256 MiB cannot be had."""

    cdef Bucket* buckets
    cdef uint64_t base
    cdef readonly uint64_t checkpoints

    def __cinit__(self):
        self.buckets = <Bucket*>malloc(BUCKETS * sizeof(Bucket))
        if self.buckets is NULL:
            raise MemoryError
        memset(self.buckets, 0, BUCKETS * sizeof(Bucket))    # so that page faults are not measured

    def __dealloc__(self):
        free(self.buckets)

    @property
    def memory_bytes(self):
        return BUCKETS * sizeof(Bucket)

    def checkpoint(self):
        """As the study does it: one number in each of 65,536 buckets."""
        with nogil:
            self.zero(self.base)

    cdef void zero(self, uint64_t base) noexcept nogil:
        cdef size_t i
        for i in range(<size_t>BUCKETS):
            self.buckets[i].number = 0
        self.base = base
        self.checkpoints += 1

    def assign_batch(self, const uint64_t[::1] hashes, const uint32_t[::1] touch_ends, uint64_t sequence_first,
                     uint64_t[::1] last_committed):
        """last_committed of consecutive transactions, without the GIL; arrays as in BucketIndex.assign_batch."""
        cdef size_t i, first = 0, end
        if last_committed.shape[0] < touch_ends.shape[0]:
            raise ValueError("arrays of different lengths")
        with nogil:
            for i in range(<size_t>touch_ends.shape[0]):
                end = touch_ends[i]
                last_committed[i] = self.assign_one(sequence_first + i, &hashes[first], end - first)
                first = end

    cdef uint64_t assign_one(self, uint64_t sequence_number, const uint64_t* hashes, size_t count) noexcept nogil:
        cdef uint64_t found = self.base
        cdef uint64_t tag, entry
        cdef Bucket* bucket
        cdef size_t i, at
        if sequence_number - self.base > 65535:
            self.zero(sequence_number)
            return sequence_number - 1
        for i in range(count):
            bucket = &self.buckets[hashes[i] >> 48]
            tag = hashes[i] << 16
            for at in range(bucket.number):
                if bucket.values[at] & ~<uint64_t>0xffff == tag:
                    break
            else:
                at = bucket.number
                if at == <size_t>ENTRIES:
                    self.zero(sequence_number)
                    return sequence_number - 1
                bucket.number += 1
                bucket.values[at] = tag
            entry = self.base + (bucket.values[at] & 0xffff)
            if entry > found and entry < sequence_number:
                found = entry
            bucket.values[at] = tag | (sequence_number - self.base)
        return found


def touches_of(Batch batch):
    """(hashes, modes, ends) of a decoded batch: arrays of types Q, B and I; transaction i touches
    hashes[ends[i - 1]:ends[i]]."""
    cdef size_t i, count = batch.touches.count
    cdef Array hashes = array("Q", bytes(8 * count))
    cdef Array modes = array("B", bytes(count))
    cdef Array ends = array("I", bytes(4 * batch.transaction_count))
    if count:
        memcpy(hashes.data.as_voidptr, batch.touches.hashes, 8 * count)
        memcpy(modes.data.as_voidptr, batch.touches.modes, count)
    for i in range(batch.transaction_count):
        ends.data.as_uints[i] = batch.transactions[i].touch_first + batch.transactions[i].touch_count
    return hashes, modes, ends
