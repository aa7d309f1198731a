# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""A GtidSet as flat arrays: the filter that drops what the target has already executed."""
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy


cdef class ExecutedGtids:
    """Immutable copy of a GtidSet."""

    def __cinit__(self, gtid_set):
        entries = list(gtid_set.sources())
        cdef size_t intervals = sum(len(ranges) for _, _, ranges in entries)
        self.sources = <ExecutedSource*>calloc(<size_t>len(entries) + 1, sizeof(ExecutedSource))
        self.starts = <int64_t*>calloc(intervals + 1, sizeof(int64_t))
        self.ends = <int64_t*>calloc(intervals + 1, sizeof(int64_t))
        if self.sources is NULL or self.starts is NULL or self.ends is NULL:
            raise MemoryError
        cdef size_t filled = 0
        cdef ExecutedSource* source
        for sid, tag, ranges in entries:
            source = &self.sources[self.source_count]
            memcpy(source.sid, <const char*>(<bytes>sid.bytes), 16)
            name = tag.encode("ascii")
            source.tag_length = len(name)
            memcpy(source.tag, <const char*>(<bytes>name), source.tag_length)
            source.first = filled
            source.count = len(ranges)
            for start, end in ranges:
                self.starts[filled] = start
                self.ends[filled] = end
                filled += 1
            self.source_count += 1

    def __dealloc__(self):
        free(self.sources)
        free(self.starts)
        free(self.ends)

    cdef bint contains(self, const Transaction* t) noexcept nogil:
        cdef size_t i, low, high, middle
        cdef ExecutedSource* source
        for i in range(self.source_count):
            source = &self.sources[i]
            if memcmp(source.sid, t.sid, 16) or source.tag_length != t.tag_length:
                continue
            if memcmp(source.tag, t.tag, t.tag_length):
                continue
            low = source.first
            high = source.first + source.count
            while low < high:                     # the first interval that ends above gno
                middle = (low + high) // 2
                if self.ends[middle] <= t.gno:
                    low = middle + 1
                else:
                    high = middle
            return low < source.first + source.count and self.starts[low] <= t.gno
        return False
