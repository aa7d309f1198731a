"""Compressed transactions. See payload.pyx."""
from libc.stdint cimport int64_t, uint64_t

from scheduler.budget cimport MemoryBudget

# The events inside of a payload event, as bytes that are inflated as they are asked for.
cdef class PayloadReader:
    cdef readonly uint64_t size              # bytes that the event announces
    cdef uint64_t given                      # bytes read so far
    cdef object source                       # a zstd stream, or the bytes themselves
    cdef bint plain
    cdef object owner                        # of the event's bytes
    cdef str place
    cdef MemoryBudget budget                 # that the window is charged to, or None
    cdef int64_t window_bytes

    # Fills the start of `view`, which is not empty. 0 at the end. CorruptEvent, also when the size is not as announced.
    cdef size_t read_into(self, view) except? 0
