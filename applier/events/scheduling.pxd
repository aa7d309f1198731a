"""The source's own clock, for other kernels."""
from libc.stdint cimport int64_t, uint64_t

from applier.events.batch cimport Transaction

# The source's last_committed in our sequence numbers. Transactions must be shown to it in log order, each once.
cdef class SourceClock:
    cdef uint64_t epoch
    cdef int64_t run_source_first
    cdef int64_t expected
    cdef uint64_t run_first

    # Upper bound for last_committed; UINT64_MAX when the source gave none.
    cdef uint64_t bound(self, const Transaction* t) noexcept nogil
