"""Bytes → batches. See assembler.pyx."""
from libc.stdint cimport uint64_t

from applier.events.cutter cimport TransactionCutter
from applier.events.framing cimport Framer
from applier.events.payload cimport PayloadReader

cdef class StreamAssembler:
    cdef Framer framer
    cdef TransactionCutter cutter
    cdef list ready                          # complete batches that wait to be taken
    cdef bint failed                         # nothing is handed out any more
    cdef bytes format_description
    cdef uint64_t start_offset
    # the payload that is being inflated in parts
    cdef PayloadReader payload               # or None
    cdef Framer inner                        # of its events, or None
    cdef uint64_t payload_bytes_max
    # read by anyone, at any time
    cdef readonly str file
    cdef readonly bint ended
    cdef readonly uint64_t bytes
    cdef readonly uint64_t events
    cdef readonly uint64_t heartbeats
    cdef readonly uint64_t heartbeat_position
    cdef readonly double heartbeat_monotonic_seconds
    cdef readonly uint64_t transaction_end_offset

    cdef int scan(self) except -1 nogil
    cdef int scan_payload(self) except -1 nogil
    cdef int open_payload(self) except -1
    cdef int inflate_more(self) except -1
    cdef int close_payload(self) except -1
    cdef int retire(self) except -1
    cdef int control(self) except -1
    cdef int describe_format(self, bytes data) except -1
    cdef int rotate(self, bytes data) except -1
    cdef int change_file(self, str file) except -1
    cdef int heartbeat(self, heartbeat) except -1
    cdef int fail(self, error) except -1
    cdef error_of(self, int step)
    cdef str place_text(self)
