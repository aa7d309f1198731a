# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Cuts arriving bytes into events and checks each: order of packets, lengths, CRC32. See framing.pxd.

Two forms of input: the packets of a binlog dump as they come from the socket (4-byte headers, each event behind a
zero byte, events beyond 16 MB over several packets), and the bytes of a binlog or relay log file.

Events are handed out where they lie. Memory grows with the bytes that have really come, never with a length
that somebody claims.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from applier.events.batch cimport Buffer
from applier.events.crc32 cimport crc32_of, crc32_prepare, crc32_register
from applier.events.event_types cimport *
from applier.events.wire cimport load_u16, load_u24, load_u32, store_u32
from scheduler.budget cimport MemoryBudget

crc32_prepare()

cdef enum:
    PACKET_HEADER_BYTES = 4
    PACKET_PAYLOAD_MAX = 0xFFFFFF
    PACKET_EVENT = 0x00
    PACKET_END = 0xFE
    PACKET_END_BYTES_MAX = 8
    PACKET_ERROR = 0xFF
    MAGIC_BYTES = 4

cdef const char* MAGIC = b"\xfebin"
cdef const char* MAGIC_ENCRYPTED = b"\xfdbin"


def crc32(const uint8_t[::1] data not None):
    """CRC-32 of `data`, the same as zlib's."""
    return crc32_of(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0])


def crc32_by_tables(const uint8_t[::1] data not None):
    """The same without carry-less multiplication: what processors without it run."""
    return ~crc32_register(0xFFFFFFFFU, &data[0] if data.shape[0] else NULL, <size_t>data.shape[0]) & 0xFFFFFFFFU


cdef class Framer:
    def __cinit__(self, bint packets, size_t buffer_bytes, bint verify_checksums, MemoryBudget budget=None):
        self.packets = packets
        self.buffer_bytes = buffer_bytes if buffer_bytes > 64 else 64
        self.verify_checksums = verify_checksums
        self.sequence_id = -1
        self.budget = budget
        self.buffer = Buffer(self.buffer_bytes, budget)

    cdef writable(self):
        """Free space to fill. A frame that has begun moves to a new buffer, twice as large as what is there, when
        the space is nearly used up; whole events stay where they are, batches point to them."""
        cdef size_t partial = self.filled - self.scan
        cdef Buffer fresh
        if self.buffer.capacity - self.filled < self.buffer_bytes >> 4:
            fresh = Buffer(max(self.buffer_bytes, 2 * partial), self.budget)
            memcpy(fresh.data, self.buffer.data + self.scan, partial)
            self.buffer = fresh
            self.filled = partial
            self.scan = 0
        return memoryview(self.buffer)[self.filled:]

    cdef received(self, size_t count):
        if count > self.buffer.capacity - self.filled:
            raise ValueError(f"{count} bytes received, but there was room for {self.buffer.capacity - self.filled}")
        self.filled += count

    cdef begin_file(self, uint64_t position):
        self.scan = self.filled
        self.magic_due = True
        self.file_offset = 0
        self.position = position

    cdef size_t unfinished(self) noexcept nogil:
        """Bytes that have arrived and are not a whole frame yet."""
        return self.filled - self.scan

    cdef FrameStatus bad(self, Fault fault, uint64_t found, uint64_t expected) noexcept nogil:
        self.fault = fault
        self.fault_first = found
        self.fault_second = expected
        return FRAME_BAD

    cdef FrameStatus next(self) noexcept nogil:
        """The next event into `event`, when all of it is there. It is good until `writable` is called, and as long
        as somebody holds the buffer."""
        cdef uint8_t* data = NULL
        cdef size_t length = 0
        cdef FrameStatus status
        if self.fault != FAULT_NONE:
            return FRAME_BAD
        if self.packets:
            status = self.unwrap(&data, &length)
        else:
            status = self.cut(&data, &length)
        if status != FRAME_EVENT:
            return status
        return self.check(data, length)

    # Takes the packets of one frame off their headers. Those after the first move down over their headers, so
    # that the frame is contiguous; the place where the next packet begins is remembered across calls.
    cdef FrameStatus unwrap(self, uint8_t** data, size_t* length) noexcept nogil:
        cdef uint8_t* frame = self.buffer.data + self.scan
        cdef size_t available = self.filled - self.scan, size
        cdef uint8_t* packet
        while True:
            if available - self.tail < PACKET_HEADER_BYTES:
                return FRAME_WAIT
            packet = frame + self.tail
            size = load_u24(packet)
            if self.sequence_id >= 0 and packet[3] != <uint8_t>self.sequence_id:
                return self.bad(FAULT_PACKET_ORDER, packet[3], <uint64_t>self.sequence_id)
            if self.joined + size > <size_t>EVENT_BYTES_MAX + 1:
                return self.bad(FAULT_EVENT_LENGTH, self.joined + size, EVENT_BYTES_MAX)
            if available - self.tail - PACKET_HEADER_BYTES < size:
                return FRAME_WAIT
            self.sequence_id = <uint8_t>(packet[3] + 1)
            if self.tail:
                memmove(frame + PACKET_HEADER_BYTES + self.joined, packet + PACKET_HEADER_BYTES, size)
            self.joined += size
            self.tail += PACKET_HEADER_BYTES + size
            if size < PACKET_PAYLOAD_MAX:
                break
        data[0] = frame + PACKET_HEADER_BYTES
        length[0] = self.joined
        self.scan += self.tail
        self.joined = 0
        self.tail = 0
        return self.strip_packet_kind(data, length)

    cdef FrameStatus strip_packet_kind(self, uint8_t** data, size_t* length) noexcept nogil:
        cdef uint8_t kind
        if length[0] == 0:
            return self.bad(FAULT_PACKET_KIND, 0, 0)
        kind = data[0][0]
        if kind == PACKET_EVENT:
            data[0] += 1
            length[0] -= 1
            return FRAME_EVENT
        if kind == PACKET_END and length[0] <= PACKET_END_BYTES_MAX:
            return FRAME_END
        if kind == PACKET_ERROR:
            self.event.data = data[0]
            self.event.length = <uint32_t>length[0]
            return FRAME_ERROR
        return self.bad(FAULT_PACKET_KIND, kind, 0)

    cdef FrameStatus cut(self, uint8_t** data, size_t* length) noexcept nogil:
        cdef size_t available = self.filled - self.scan, size
        cdef uint8_t* at = self.buffer.data + self.scan
        if self.magic_due:
            if available < MAGIC_BYTES:
                return FRAME_WAIT
            if memcmp(at, MAGIC, MAGIC_BYTES):
                return self.bad(FAULT_MAGIC if memcmp(at, MAGIC_ENCRYPTED, MAGIC_BYTES) else FAULT_ENCRYPTED, 0, 0)
            self.magic_due = False
            self.scan += MAGIC_BYTES
            self.file_offset = MAGIC_BYTES
            available -= MAGIC_BYTES
            at += MAGIC_BYTES
        if available < HEADER_BYTES:
            return FRAME_WAIT
        size = load_u32(at + LENGTH_OFFSET)
        if size < HEADER_BYTES or size > EVENT_BYTES_MAX:
            return self.bad(FAULT_EVENT_LENGTH, size, EVENT_BYTES_MAX)
        if available < size:
            return FRAME_WAIT
        data[0] = at
        length[0] = size
        self.scan += size
        return FRAME_EVENT

    cdef FrameStatus check(self, uint8_t* data, size_t length) noexcept nogil:
        cdef uint8_t type
        cdef bint has_checksum
        if length < HEADER_BYTES:
            return self.bad(FAULT_EVENT_LENGTH, length, HEADER_BYTES)
        if load_u32(data + LENGTH_OFFSET) != length:
            return self.bad(FAULT_EVENT_LENGTH, load_u32(data + LENGTH_OFFSET), length)
        type = data[TYPE_OFFSET]
        self.flags = load_u16(data + FLAGS_OFFSET)
        if not self.described and type != FORMAT_DESCRIPTION_EVENT and type != ROTATE_EVENT:
            return self.bad(FAULT_UNDESCRIBED, type, 0)
        has_checksum = self.checksums and type != FORMAT_DESCRIPTION_EVENT
        if not self.described and type == ROTATE_EVENT:
            # The first event of a dump comes before the one that says whether there are checksums.
            has_checksum = length >= HEADER_BYTES + CHECKSUM_BYTES and checksum_matches(data, length)
        elif has_checksum:
            if length < HEADER_BYTES + CHECKSUM_BYTES:
                return self.bad(FAULT_EVENT_LENGTH, length, HEADER_BYTES + CHECKSUM_BYTES)
            if self.verify_checksums and not checksum_matches(data, length):
                return self.bad(FAULT_CHECKSUM, load_u32(data + length - CHECKSUM_BYTES),
                                crc32_of(data, length - CHECKSUM_BYTES))
        self.wire_bytes = length
        self.event_offset = self.file_offset
        self.event_position = self.position
        self.file_offset += length
        if has_checksum:
            length -= CHECKSUM_BYTES
            store_u32(data + LENGTH_OFFSET, <uint32_t>length)
        self.event.data = data
        self.event.length = <uint32_t>length
        self.event.type = type
        if not self.flags & (FLAG_ARTIFICIAL | FLAG_RELAY_LOG):
            self.advance_position(load_u32(data + LOG_POS_OFFSET))
        return FRAME_EVENT

    # The header has 32 bits of the position; files may be larger. Positions only rise within a file.
    cdef void advance_position(self, uint32_t log_pos) noexcept nogil:
        cdef uint64_t position
        if log_pos == 0:
            return
        if self.event.type == FORMAT_DESCRIPTION_EVENT:
            self.position = 0                     # a file begins
        position = (self.position & ~<uint64_t>0xFFFFFFFF) | log_pos
        if position < self.position:
            position += <uint64_t>1 << 32
        self.position = position

    cdef str describe(self):
        """The fault in words."""
        if self.fault == FAULT_MAGIC:
            return "the file does not begin as a binary log does"
        if self.fault == FAULT_ENCRYPTED:
            return "the file is encrypted; read it through its server instead"
        if self.fault == FAULT_PACKET_ORDER:
            return f"packet number {self.fault_first} came where {self.fault_second} was due"
        if self.fault == FAULT_PACKET_KIND:
            return f"a packet of unknown kind 0x{self.fault_first:02x}"
        if self.fault == FAULT_EVENT_LENGTH:
            return f"an event claims {self.fault_first} bytes, which contradicts {self.fault_second}"
        if self.fault == FAULT_UNDESCRIBED:
            return f"an event of type {self.fault_first} before any format description"
        return f"its checksum is {self.fault_first:08x}, its bytes have {self.fault_second:08x}"


cdef bint checksum_matches(const uint8_t* data, size_t length) noexcept nogil:
    return load_u32(data + length - CHECKSUM_BYTES) == crc32_of(data, length - CHECKSUM_BYTES)
