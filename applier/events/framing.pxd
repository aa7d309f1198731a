"""Bytes as they arrive → checked events, without sockets and without the GIL."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from applier.events.batch cimport Buffer, Event
from scheduler.budget cimport MemoryBudget

cdef enum FrameStatus:
    FRAME_WAIT            # more bytes are needed
    FRAME_EVENT           # `event` is the next one
    FRAME_END             # the source has sent its end packet
    FRAME_ERROR           # the source has sent an error packet: `event` is its payload
    FRAME_BAD             # `fault` says what is wrong; nothing comes after it

cdef enum Fault:
    FAULT_NONE
    FAULT_MAGIC
    FAULT_ENCRYPTED
    FAULT_PACKET_ORDER
    FAULT_PACKET_KIND
    FAULT_EVENT_LENGTH
    FAULT_CHECKSUM
    FAULT_UNDESCRIBED

cdef class Framer:
    cdef readonly bint packets               # protocol packets of a dump, else bare events
    cdef readonly bint verify_checksums
    cdef bint checksums                      # events end with a CRC32 (from the format description event)
    cdef bint described                      # a format description event has come
    cdef Buffer buffer                       # being filled
    cdef MemoryBudget budget                 # of the buffers, or None
    cdef size_t buffer_bytes
    cdef size_t filled                       # bytes of `buffer` that have arrived
    cdef size_t scan                         # where the next frame begins in it
    cdef size_t joined                       # payload bytes of a multi-packet frame joined so far
    cdef size_t tail                         # offset of the next packet of that frame, from `scan`
    cdef uint32_t joined_packets
    cdef int sequence_id                     # of the next packet; -1: whatever comes first
    cdef bint magic_due                      # the next bytes are the magic number of a file
    cdef Fault fault
    cdef uint64_t fault_first, fault_second  # what was found, what was expected
    # the event that `next` has just returned
    cdef Event event
    cdef uint16_t flags
    cdef uint64_t event_offset               # in the file being read, of its first byte
    cdef uint64_t event_position             # in the source's binlog file, of its first byte
    cdef uint64_t wire_bytes                 # its length with checksum
    cdef uint64_t position                   # in the source's binlog file, after the last event
    cdef uint64_t file_offset                # in the file being read, after the last event

    cdef FrameStatus next(self) noexcept nogil
    cdef FrameStatus unwrap(self, uint8_t** data, size_t* length) noexcept nogil
    cdef FrameStatus strip_packet_kind(self, uint8_t** data, size_t* length) noexcept nogil
    cdef FrameStatus cut(self, uint8_t** data, size_t* length) noexcept nogil
    cdef FrameStatus check(self, uint8_t* data, size_t length) noexcept nogil
    cdef FrameStatus bad(self, Fault fault, uint64_t found, uint64_t expected) noexcept nogil
    cdef void advance_position(self, uint32_t log_pos) noexcept nogil
    cdef writable(self)
    cdef received(self, size_t count)
    cdef begin_file(self, uint64_t position)
    cdef size_t unfinished(self) noexcept nogil
    cdef str describe(self)
