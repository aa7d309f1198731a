"""The memory budget for other kernels: charged and released without the GIL. What it does is told in budget.pyx."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef class MemoryBudget:
    cdef readonly int64_t limit              # bytes
    cdef int64_t used_bytes
    cdef int64_t peak_bytes
    cdef readonly uint64_t waits             # how often somebody had to wait for room
    cdef readonly double wait_seconds        # of all that waited, together
    cdef readonly bint lifted
    cdef dict in_flight                      # (number, piece) of the batches that were handed out and still live
    cdef list waiting                        # a locked lock for everybody who waits

    # Never waits. A negative `byte_count` gives bytes back, without waking anybody.
    cdef void charge(self, int64_t byte_count) noexcept nogil

    # Gives bytes back, and wakes who waits.
    cdef int free(self, int64_t byte_count) except -1

    # This piece of batch `number` is no more.
    cdef int leave(self, uint64_t number, uint32_t piece) except -1

    cdef int wait(self, int64_t used_max, int64_t byte_count, number, piece) except -1
    cdef bint has_room(self, int64_t used_max, int64_t byte_count, number, piece) except -1
    cdef int wake(self) except -1
