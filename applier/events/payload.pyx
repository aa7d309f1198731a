# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Compressed transactions: the transaction payload event (40) is replaced by the events inside it.

Behind the header come fields of type, length, value (length-encoded integers): 1 size of the payload, 2 compression (0 zstd, 255
none), 3 size before compression; type 0 ends them and the payload follows. Its events carry no checksums.
"""
import threading

cimport cython
import zstandard
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from applier.errors import CorruptEvent, UnsupportedEvent
from applier.events.control import length_encoded
from applier.events.batch cimport *
from applier.events.event_types cimport *
from applier.events.roles cimport *
from applier.events.wire cimport load_u32
from scheduler.budget cimport MemoryBudget

cdef enum:
    FIELD_END = 0
    FIELD_PAYLOAD_BYTES = 1
    FIELD_COMPRESSION = 2
    FIELD_UNCOMPRESSED_BYTES = 3
    COMPRESSION_ZSTD = 0
    COMPRESSION_NONE = 255
    # What is first allocated for a payload, whatever size it announces.
    FIRST_BUFFER_BYTES = 1 << 20
    # A decompressor keeps its window. Each thread keeps one for windows up to this; MySQL writes no larger one for a
    # transaction of that size (9.7 tells zstd the size).
    KEPT_WINDOW_BYTES = 1 << 20
    # Of frames behind the first: levels up to 19 need no more.
    WINDOW_BYTES = 8 << 20
    # What level 22, the highest, uses; a few bytes may ask for gigabytes.
    WINDOW_BYTES_MAX = 128 << 20

cdef enum Found:
    FOUND_ROWS            # BEGIN, table maps, rows, COMMIT
    FOUND_STATEMENTS      # more than that
    FOUND_BAD_LENGTH
    FOUND_UNKNOWN
    FOUND_MISPLACED
    FOUND_UNFINISHED

cdef object decompressors = threading.local()   # one a thread: each is at one payload at a time


def inflate(Batch batch not None, size_t i, uint64_t bytes_max=1 << 30):
    """Replaces the payload event of transaction `i` by its events, and classifies the transaction by them.

    A transaction that is not compressed, or inflated already, is left alone. Memory grows with what really comes out, up
    to the size that the event announces, and that may be `bytes_max` at most. Runs without the GIL while it
    inflates and walks. Raises CorruptEvent, UnsupportedEvent; the batch is then as it was.
    """
    if i >= batch.transaction_count:
        raise IndexError(f"transaction {i} of {batch.transaction_count}")
    cdef Transaction* t = &batch.transactions[i]
    if not t.flags & T_COMPRESSED or t.flags & (T_ROWS | T_STATEMENTS):
        return
    cdef Event* event = &batch.events[t.event_first]
    place = f"{batch.file}:{t.end_log_pos}"
    cdef PayloadReader reader = PayloadReader(
        PyMemoryView_FromMemory(<char*>event.data + HEADER_BYTES, event.length - HEADER_BYTES, PyBUF_READ),
        batch.buffers, place, batch.budget, whole=True)
    if reader.size > bytes_max:
        raise CorruptEvent(
            place=place, detail=f"a payload of {reader.size} bytes is larger than the {bytes_max} allowed")
    cdef Buffer buffer = read_all(reader, batch.budget)
    cdef size_t event_count = batch.event_count, length = reader.size
    cdef int found
    cdef uint8_t type = 0
    cdef uint32_t flags = 0
    with nogil:
        found = adopt(batch, buffer.data, length, &type, &flags)
    if found > FOUND_STATEMENTS:
        batch.event_count = event_count
        if found == FOUND_UNKNOWN:
            raise UnsupportedEvent(event_type=type, place=place)
        raise CorruptEvent(place=place, detail=describe(found, type))
    batch.buffers.append(buffer)
    if found == FOUND_ROWS:
        keep_rows(batch, event_count)
    t.event_first = <uint32_t>event_count
    t.event_count = <uint32_t>(batch.event_count - event_count)
    t.byte_count = bytes_of(batch, event_count)
    t.flags |= flags | (T_ROWS if found == FOUND_ROWS else T_STATEMENTS | T_BARRIER)


cdef split(body, str place):
    """(payload, compression, size before compression) of a payload event's body."""
    fields = {FIELD_COMPRESSION: COMPRESSION_NONE}
    try:
        at = 0
        while True:
            field, at = length_encoded(body, at)
            if field == FIELD_END:
                break
            length, at = length_encoded(body, at)
            if length > len(body) - at:
                raise IndexError
            if field <= FIELD_UNCOMPRESSED_BYTES:
                fields[field] = length_encoded(body, at)[0]
            at += length
    except IndexError:
        raise CorruptEvent(place=place, detail="a payload event ends in its header") from None
    payload = body[at:]
    if fields.get(FIELD_PAYLOAD_BYTES, len(payload)) != len(payload):
        raise CorruptEvent(place=place, detail="a payload event's size contradicts its header")
    compression = fields[FIELD_COMPRESSION]
    if compression == COMPRESSION_NONE:
        return payload, compression, len(payload)
    if compression != COMPRESSION_ZSTD or FIELD_UNCOMPRESSED_BYTES not in fields:
        raise CorruptEvent(place=place, detail=f"a payload event's compression {compression} is not known")
    return payload, compression, fields[FIELD_UNCOMPRESSED_BYTES]


@cython.no_gc_clear                                  # __dealloc__ needs the budget
cdef class PayloadReader:
    """`body`: of a payload event, in memory that `owner` holds. `whole`: read to its end before this thread opens another.

    Raises CorruptEvent."""

    def __cinit__(self, body, owner, str place, MemoryBudget budget=None, *, bint whole=False):
        self.owner, self.place = owner, place
        self.source, compression, self.size = split(body, place)
        self.plain = compression == COMPRESSION_NONE
        if not self.plain:
            self.open(budget, whole)

    def __dealloc__(self):
        if self.budget is not None:
            self.budget.free(self.window_bytes)

    def open(self, MemoryBudget budget, bint whole):
        try:
            window = zstandard.get_frame_parameters(self.source).window_size
            if window > WINDOW_BYTES_MAX:
                raise CorruptEvent(
                    place=self.place,
                    detail=f"a payload asks for a window of {window} bytes; zstd uses {WINDOW_BYTES_MAX} at most")
            if window > KEPT_WINDOW_BYTES or not whole:
                decompressor = zstandard.ZstdDecompressor(max_window_size=max(window, WINDOW_BYTES))
                self.budget, self.window_bytes = budget, window
                if budget is not None:
                    budget.charge(self.window_bytes)
            else:
                if not hasattr(decompressors, "zstd"):
                    decompressors.zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
                decompressor = decompressors.zstd
            self.source = decompressor.stream_reader(self.source, read_across_frames=True)
        except zstandard.ZstdError as error:
            raise CorruptEvent(place=self.place, detail=f"a payload cannot be inflated ({error})") from None

    cdef size_t read_into(self, view) except? 0:
        cdef size_t count
        if self.plain:
            count = min(<uint64_t>len(view), <uint64_t>len(self.source) - self.given)
            view[:count] = self.source[self.given:self.given + count]
        else:
            try:
                count = self.source.readinto(view)
            except zstandard.ZstdError as error:
                raise CorruptEvent(place=self.place, detail=f"a payload cannot be inflated ({error})") from None
        self.given += count
        if self.given > self.size or (count == 0 and self.given < self.size):
            raise CorruptEvent(
                place=self.place, detail=f"a payload does not inflate to the {self.size} bytes it announces")
        return count


cdef Buffer read_all(PayloadReader reader, MemoryBudget budget):
    """Grows with what comes out; the end is seen when one byte more is asked for."""
    cdef Buffer buffer = Buffer(min(reader.size + 1, <uint64_t>FIRST_BUFFER_BYTES), budget)
    cdef size_t filled = 0, count
    while True:
        if filled == buffer.capacity:
            buffer.grow(min(reader.size + 1, 2 * <uint64_t>buffer.capacity))
        count = reader.read_into(memoryview(buffer)[filled:])
        if count == 0:
            return buffer
        filled += count


# Appends the events in data[0:size] to the batch. They must be one transaction from BEGIN to its end.
cdef int adopt(Batch batch, uint8_t* data, size_t size, uint8_t* type, uint32_t* flags) except -1 nogil:
    cdef size_t at = 0, length
    cdef Found found = FOUND_ROWS
    cdef Role role
    cdef bint begun = False, ended = False
    while at < size:
        if size - at < HEADER_BYTES:
            return FOUND_BAD_LENGTH
        length = load_u32(data + at + LENGTH_OFFSET)
        if length < HEADER_BYTES or length > size - at:
            return FOUND_BAD_LENGTH
        type[0] = data[at + TYPE_OFFSET]
        role = role_of(data + at, <uint32_t>length)
        if role == ROLE_UNKNOWN:
            return FOUND_UNKNOWN
        if role == ROLE_MALFORMED:
            return FOUND_BAD_LENGTH
        if role != ROLE_IGNORED:
            if role < ROLE_BEGIN or role == ROLE_PAYLOAD or ended:
                return FOUND_MISPLACED
            if begun == (role == ROLE_BEGIN or role == ROLE_XA_START):
                return FOUND_MISPLACED
            begun = True
            ended = role == ROLE_COMMIT or role == ROLE_ROLLBACK or role == ROLE_XA_PREPARE or role == ROLE_XA_COMMIT
            flags[0] |= flags_of(role)
            if not is_plain(role):
                found = FOUND_STATEMENTS
            batch.add_event(data + at, <uint32_t>length, type[0])
        at += length
    return found if ended else FOUND_UNFINISHED


cdef bint is_plain(Role role) noexcept nogil:
    return (role == ROLE_BEGIN or role == ROLE_TABLE_MAP or role == ROLE_ROWS or role == ROLE_ROWS_QUERY
            or role == ROLE_COMMIT)


cdef uint32_t flags_of(Role role) noexcept nogil:
    if role == ROLE_ROLLBACK or role == ROLE_XA_COMMIT:
        return T_ROLLBACK
    if role == ROLE_XA_PREPARE:
        return T_XA
    return T_SCHEMA if role == ROLE_SCHEMA_QUERY else 0


cdef void keep_rows(Batch batch, size_t first) noexcept nogil:
    cdef size_t i, kept = first
    for i in range(first, batch.event_count):
        if batch.events[i].type == TABLE_MAP_EVENT or is_rows_event(batch.events[i].type):
            batch.events[kept] = batch.events[i]
            kept += 1
    batch.event_count = kept


cdef uint64_t bytes_of(Batch batch, size_t first) noexcept nogil:
    cdef size_t i
    cdef uint64_t total = 0
    for i in range(first, batch.event_count):
        total += batch.events[i].length
    return total


cdef str describe(int found, int type):
    if found == FOUND_BAD_LENGTH:
        return f"the length of an event of type {type} in a payload contradicts the payload's"
    if found == FOUND_MISPLACED:
        return f"an event of type {type} is out of place in a payload"
    return "a payload ends before its transaction does"
