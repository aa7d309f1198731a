"""Row images that hold some of the columns only, as binlog_row_image=MINIMAL writes them.

An update that is sent needs the row's identity in its before image, by which the server finds the row, and the changed
columns in its after image; the server leaves the others as they are. It is what full images would do: of a before
image the server uses the columns of the key only, and a column that did not change is written with what it has. Most
of the bytes of an update go, and with them the server's work of unpacking, comparing and storing them.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from applier.events.row_image cimport ColumnLayout
from writeset.hashing cimport COLUMN_NULL, COLUMN_PRESENT, Span

# Columns of a table, in ascending order.
cdef struct ColumnList:
    uint32_t* positions
    uint32_t count


# Notes in `changed`, a flag for each column, which of them differ between two images of a row.
cdef inline void note_changes(const Span* before, const Span* after, uint32_t count, uint8_t* changed) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if not changed[i]:
            changed[i] = before[i].state != after[i].state or (
                before[i].state == COLUMN_PRESENT and (
                    before[i].length != after[i].length
                    or memcmp(before[i].data, after[i].data, before[i].length) != 0))


cdef inline void list_flagged(const uint8_t* flags, uint32_t count, ColumnList* columns) noexcept nogil:
    cdef uint32_t i
    columns.count = 0
    for i in range(count):
        if flags[i]:
            columns.positions[columns.count] = i
            columns.count += 1


# The bitmap of a row event's columns, of `bytes` bytes. Returns its end.
cdef inline uint8_t* write_bitmap(const ColumnList* columns, uint32_t bytes, uint8_t* out) noexcept nogil:
    cdef uint32_t i
    memset(out, 0, bytes)
    for i in range(columns.count):
        out[columns.positions[i] >> 3] |= <uint8_t>(1 << (columns.positions[i] & 7))
    return out + bytes


# An image: null bits of the columns that it holds, then their values. Returns its end.
cdef inline uint8_t* write_image(const ColumnList* columns, const ColumnLayout* layouts, const Span* spans,
                                 uint8_t* out) noexcept nogil:
    cdef uint8_t* nulls = out
    cdef uint32_t null_bytes = (columns.count + 7) >> 3
    cdef uint32_t i, prefix_bytes
    cdef const Span* span
    memset(nulls, 0, null_bytes)
    out += null_bytes
    for i in range(columns.count):
        span = &spans[columns.positions[i]]
        if span.state == COLUMN_NULL:
            nulls[i >> 3] |= <uint8_t>(1 << (i & 7))
            continue
        prefix_bytes = layouts[columns.positions[i]].prefix_bytes  # the length, which stands before the value
        memcpy(out, span.data - prefix_bytes, prefix_bytes + span.length)
        out += prefix_bytes + span.length
    return out
