"""Is this GTID in a set? Without the GIL, for each transaction of the stream."""
from libc.stdint cimport int64_t, uint8_t

from applier.events.batch cimport Transaction

cdef struct ExecutedSource:
    uint8_t sid[16]
    uint8_t tag_length
    char tag[32]
    size_t first          # into the interval arrays
    size_t count

cdef class ExecutedGtids:
    cdef ExecutedSource* sources
    cdef size_t source_count
    cdef int64_t* starts
    cdef int64_t* ends    # exclusive

    cdef bint contains(self, const Transaction* t) noexcept nogil
