# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Rows of a text-protocol result, straight from the socket → LOAD DATA lines or the VALUES of an INSERT.

No Python object is made of a row or a value. The bytes may be cut anywhere: inside a packet header, a length, a value.

Protocol: after the column definitions each row is a packet whose payload is one length-encoded string for each column,
0xFB for NULL; a payload of 16 MiB - 1 goes on in the next packet; a packet that begins with 0xFE and is shorter than 9
bytes ends the rows, one that begins with 0xFF is an error. (MySQL internals, "Text Resultset Row".)
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

cdef enum:
    PACKET_BYTES_MAX = 0xFFFFFF
    RESERVED = 4                   # in front of the text, for the header of the packet that carries it
    ERROR_BYTES_MAX = 2048

cdef enum State:
    AT_HEADER = 0                  # in the 4 bytes of a packet header
    AT_PACKET = 1                  # at the first byte of a row's first packet
    AT_LENGTH = 2                  # in the length of a value
    AT_VALUE = 3                   # in its bytes
    AT_TRAILER = 4                 # in the rest of an end or error packet
    ENDED = 5

# What a byte becomes behind a backslash; 0: it stays as it is. The same in LOAD DATA and in quoted strings.
cdef uint8_t[256] ESCAPES
for _byte in range(256):
    ESCAPES[_byte] = 0
ESCAPES[0] = b"0"
ESCAPES[9] = b"t"
ESCAPES[10] = b"n"
ESCAPES[39] = b"'"
ESCAPES[92] = b"\\"


cdef struct Piece:
    const uint8_t* data
    size_t length


cdef Piece piece_of(bytes text):
    cdef Piece piece
    piece.data = text
    piece.length = len(text)
    return piece


cdef class RowText:
    """`feed` bytes that follow the column definitions, `take` text of whole rows, until `ended`.

    prefixes, suffixes: what goes around each column's values that are not NULL, one each
    between, null, row_begin, row_end: what goes between columns, for NULL, around a row

    Attributes: `rows` and `ended`; `error`, the payload of the error packet or None; `rest`, bytes fed behind the end.
    """

    cdef readonly uint64_t rows
    cdef readonly bytes error
    cdef readonly size_t rest
    cdef State state, resume
    cdef bint continued            # the packet goes on with the row of the one before
    cdef size_t packet_left, value_left, columns, column, header_filled, length_left
    cdef unsigned int length_shift
    cdef size_t packet_bytes
    cdef uint8_t first_byte
    cdef uint8_t* out
    cdef size_t filled, capacity, whole
    cdef tuple texts               # keeps the bytes below alive
    cdef Piece* prefixes
    cdef Piece* suffixes
    cdef Piece between, null, row_begin, row_end
    cdef bytearray trailer

    def __init__(self, list prefixes, list suffixes, bytes between=b"\t", bytes null=b"\\N", bytes row_begin=b"",
                 bytes row_end=b"\n"):
        self.columns = len(prefixes)
        if not prefixes or len(suffixes) != len(prefixes):
            raise ValueError("as many suffixes as prefixes, and at least one, are needed")
        self.texts = (*prefixes, *suffixes, between, null, row_begin, row_end)
        self.between, self.null = piece_of(between), piece_of(null)
        self.row_begin, self.row_end = piece_of(row_begin), piece_of(row_end)
        self.prefixes = <Piece*>malloc(2 * self.columns * sizeof(Piece))
        if self.prefixes is NULL:
            raise MemoryError
        self.suffixes = self.prefixes + self.columns
        for index in range(2 * self.columns):
            self.prefixes[<size_t>index] = piece_of(self.texts[index])
        self.trailer = bytearray()
        self.filled = self.whole = RESERVED
        self.state = AT_HEADER

    def __dealloc__(self):
        free(self.prefixes)
        free(self.out)

    @property
    def ended(self):
        """The end of the rows, or an error, has been read."""
        return self.state == ENDED

    @property
    def ready(self):
        """Bytes of whole rows that `take` would give."""
        return self.whole - RESERVED

    def feed(self, const uint8_t[::1] data, size_t length):
        """Takes `length` bytes from the front of `data`. Raises MemoryError, ValueError."""
        if length > <size_t>data.shape[0]:
            raise ValueError(f"{length} bytes of {data.shape[0]}")
        if length == 0:
            return
        cdef const uint8_t* p = &data[0]
        cdef const uint8_t* end = p + length
        with nogil:
            while p < end and self.state != ENDED:
                p = self.step(p, end)
        self.rest = end - p
        if self.state == ENDED and self.first_byte == 0xFF:
            self.error = bytes(self.trailer)

    def take(self, uint8_t packet_number):
        """A protocol packet with the text of the whole rows so far, at most 16 MiB - 1; b"" when there is none."""
        cdef size_t length = min(self.whole - RESERVED, <size_t>PACKET_BYTES_MAX)
        if length == 0:
            return b""
        self.out[0] = length & 0xFF
        self.out[1] = (length >> 8) & 0xFF
        self.out[2] = (length >> 16) & 0xFF
        self.out[3] = packet_number
        packet = PyBytes_FromStringAndSize(<char*>self.out, <Py_ssize_t>(length + RESERVED))
        self.drop(length)
        return packet

    def take_text(self):
        """The text of the whole rows so far."""
        text = PyBytes_FromStringAndSize(<char*>self.out + RESERVED, <Py_ssize_t>(self.whole - RESERVED)) \
            if self.out is not NULL else b""
        self.drop(self.whole - RESERVED)
        return text

    cdef void drop(self, size_t length) noexcept nogil:
        if self.out is not NULL:
            memmove(self.out + RESERVED, self.out + RESERVED + length, self.filled - RESERVED - length)
        self.filled -= length
        self.whole -= length

    # --- bytes in --------------------------------------------------------------------------------------

    cdef const uint8_t* step(self, const uint8_t* p, const uint8_t* end) except NULL nogil:
        cdef size_t length
        if self.state == AT_HEADER:
            return self.header(p)
        if self.packet_left == 0:
            # Only packets of the greatest length are followed by more of the same row.
            self.begin_header()
            return p
        if self.state == AT_PACKET:
            return self.begin_row(p)
        if self.state == AT_LENGTH:
            self.packet_left -= 1
            self.length_byte(p[0])
            return p + 1
        length = min(<size_t>(end - p), self.packet_left)
        if self.state == AT_VALUE:
            length = min(length, self.value_left)
            self.escape(p, length)
            self.value_left -= length
            self.packet_left -= length
            if self.value_left == 0:
                self.end_value()
            return p + length
        return self.end_rows(p, length)

    cdef void begin_header(self) noexcept nogil:
        # What was being read goes on behind the header, except at the end of a row.
        self.header_filled = 0
        self.packet_bytes = 0
        self.continued = self.state != AT_PACKET
        self.resume = self.state
        self.state = AT_HEADER

    cdef const uint8_t* header(self, const uint8_t* p) noexcept nogil:
        if self.header_filled < 3:
            self.packet_bytes |= <size_t>p[0] << (8 * self.header_filled)
        self.header_filled += 1
        if self.header_filled == 4:
            self.packet_left = self.packet_bytes
            self.header_filled = 0
            self.state = self.resume if self.continued else AT_PACKET
            self.packet_bytes = 0 if self.continued else self.packet_bytes
            self.continued = False
        return p + 1

    cdef const uint8_t* begin_row(self, const uint8_t* p) except NULL nogil:
        self.first_byte = p[0]
        if p[0] == 0xFF or (p[0] == 0xFE and self.packet_bytes < 9):
            self.state = AT_TRAILER
            return p
        self.column = 0
        self.put(self.row_begin)
        self.begin_value()
        return p

    cdef void begin_value(self) noexcept nogil:
        self.state = AT_LENGTH
        self.length_left = 0
        self.length_shift = 0
        self.value_left = 0

    cdef int length_byte(self, uint8_t byte) except -1 nogil:
        if self.length_left:
            self.value_left |= <size_t>byte << self.length_shift
            self.length_shift += 8
            self.length_left -= 1
            if self.length_left:
                return 0
        elif byte == 0xFB:
            self.put(self.null)
            return self.end_column()
        elif byte >= 0xFC:
            self.length_left = 2 if byte == 0xFC else 3 if byte == 0xFD else 8
            return 0
        else:
            self.value_left = byte
        self.put(self.prefixes[self.column])
        self.state = AT_VALUE
        if self.value_left == 0:
            self.end_value()
        return 0

    cdef int end_value(self) except -1 nogil:
        self.put(self.suffixes[self.column])
        return self.end_column()

    cdef int end_column(self) except -1 nogil:
        self.column += 1
        if self.column < self.columns:
            self.put(self.between)
            self.begin_value()
            return 0
        self.put(self.row_end)
        self.whole = self.filled
        self.rows += 1
        self.state = AT_PACKET
        return 0

    cdef const uint8_t* end_rows(self, const uint8_t* p, size_t length) except NULL nogil:
        cdef size_t kept = min(length, <size_t>ERROR_BYTES_MAX)
        with gil:
            if self.first_byte == 0xFF and len(self.trailer) < ERROR_BYTES_MAX:
                self.trailer += (<const char*>p)[:kept]
        self.packet_left -= length
        if self.packet_left == 0:
            self.state = ENDED
        return p + length

    # --- text out --------------------------------------------------------------------------------------

    cdef int reserve(self, size_t length) except -1 nogil:
        cdef size_t wanted
        cdef uint8_t* grown
        if self.filled + length <= self.capacity:
            return 0
        wanted = max(self.capacity * 2, self.filled + length)
        grown = <uint8_t*>realloc(self.out, wanted)
        if grown is NULL:
            with gil:
                raise MemoryError(f"no memory for {wanted} bytes of rows")
        self.out = grown
        self.capacity = wanted
        return 0

    cdef int put(self, Piece piece) except -1 nogil:
        self.reserve(piece.length)
        memcpy(self.out + self.filled, piece.data, piece.length)
        self.filled += piece.length
        return 0

    cdef int escape(self, const uint8_t* p, size_t length) except -1 nogil:
        cdef const uint8_t* end = p + length
        cdef const uint8_t* run
        cdef uint8_t* to
        self.reserve(2 * length)
        to = self.out + self.filled
        while p < end:
            run = p
            while p < end and not ESCAPES[p[0]]:
                p += 1
            memcpy(to, run, p - run)
            to += p - run
            if p < end:
                to[0] = 92
                to[1] = ESCAPES[p[0]]
                to += 2
                p += 1
        self.filled = to - self.out
        return 0
