"""Finding the columns of a row image, without the GIL and without making Python objects.

Source: the description of `Rows_event` in MySQL's source documentation. Every length is compared with the end
of the event before it is believed; a walk that would leave the event gives NULL.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from applier.events.event_types cimport (
    DELETE_ROWS_EVENT, DELETE_ROWS_EVENT_V1, HEADER_BYTES, PARTIAL_UPDATE_ROWS_EVENT, UPDATE_ROWS_EVENT,
    UPDATE_ROWS_EVENT_V1, WRITE_ROWS_EVENT)
from applier.events.wire cimport load_u16, load_u24, load_u32, load_u64
from writeset.hashing cimport (
    COLUMN_ABSENT, COLUMN_NULL, COLUMN_PRESENT, ROW_DELETE, ROW_INSERT, ROW_UPDATE, Span)

cdef enum RowsEventFlags:
    ROWS_STMT_END = 1
    ROWS_NO_FOREIGN_KEY_CHECKS = 2
    ROWS_RELAXED_UNIQUE_CHECKS = 4
    ROWS_COMPLETE_ROWS = 8
    ROWS_USE_SQL_FOREIGN_KEY = 16       # the source logs cascades (9.6 and later)

cdef enum:
    TABLE_ID_BYTES = 6
    ROWS_FLAGS_OFFSET = 25              # from the beginning of the event: header, table id
    ROWS_POST_HEADER_BYTES = 8          # table id, flags
    TABLE_ID_DUMMY = 0x00FFFFFF         # a row event without rows, whose only purpose is to end the statement
    PARTIAL_JSON_UPDATES = 1            # a value option

# One column. `wanted` columns get a span, the others are only stepped over.
cdef struct ColumnLayout:
    uint32_t fixed_bytes                # when prefix_bytes is 0
    uint8_t prefix_bytes                # 1-4: the value comes after its own length in so many bytes
    uint8_t wanted
    uint8_t is_json

# One stride over a row image in which no column is missing or NULL: `skip` bytes that nobody wants, then one
# column. Runs of columns of a fixed length cost nothing.
cdef struct Stride:
    uint32_t skip
    uint32_t fixed_bytes
    uint32_t column
    uint8_t prefix_bytes
    uint8_t wanted


# Columns of a fixed length that nobody wants become part of the stride to the next column. `strides` are zeros and have
# room for one more than `count`: that one is looked at. Returns how many there are.
cdef inline uint32_t compile_strides(const ColumnLayout* columns, uint32_t count, Stride* strides) noexcept nogil:
    cdef const ColumnLayout* column
    cdef Stride* stride = strides
    cdef uint32_t position
    for position in range(count):
        column = &columns[position]
        stride.column = position
        if column.prefix_bytes == 0 and not column.wanted:
            stride.skip += column.fixed_bytes
            continue
        stride.prefix_bytes = column.prefix_bytes
        stride.fixed_bytes = column.fixed_bytes if column.prefix_bytes == 0 else 0
        stride.wanted = column.wanted
        stride += 1
    if stride.skip:
        stride += 1
    return <uint32_t>(stride - strides)


# The part of a row event before its rows.
cdef struct RowsHeader:
    uint64_t table_id
    uint64_t column_count
    const uint8_t* present              # columns in the (before) image, lowest bit first; NULL: all
    const uint8_t* present_after        # of an update
    uint32_t present_count
    uint32_t present_after_count
    const uint8_t* rows
    const uint8_t* end
    uint16_t flags                      # RowsEventFlags
    uint8_t kind                        # RowKind
    uint8_t partial                     # each after image begins with value options


cdef inline bint bit(const uint8_t* bits, uint32_t i) noexcept nogil:
    return bits[i >> 3] >> (i & 7) & 1


# Length-encoded integer. Advances `p`; returns 0, or -1 when the bytes end first or are not one.
cdef inline int load_packed(const uint8_t** p, const uint8_t* end, uint64_t* value) noexcept nogil:
    cdef const uint8_t* at = p[0]
    cdef size_t left = end - at
    cdef size_t size
    if left < 1:
        return -1
    size = 1 if at[0] < 251 else 3 if at[0] == 252 else 4 if at[0] == 253 else 9 if at[0] == 254 else 0
    if size == 0 or left < size:
        return -1
    if size == 1:
        value[0] = at[0]
    elif size == 3:
        value[0] = load_u16(at + 1)
    elif size == 4:
        value[0] = load_u24(at + 1)
    else:
        value[0] = load_u64(at + 1)
    p[0] = at + size
    return 0


# How many of the first `count` bits are set.
cdef inline uint32_t set_bits(const uint8_t* bits, uint32_t count) noexcept nogil:
    cdef uint32_t i, total = 0
    for i in range(count):
        total += bit(bits, i)
    return total


# Whether none of the first `count` bits is set. The server sets the bits that fill up the last byte.
cdef inline bint all_clear(const uint8_t* bits, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count >> 3):
        if bits[i]:
            return False
    return not count & 7 or not bits[count >> 3] & ((1 << (count & 7)) - 1)


# Which columns an image holds: NULL for all of them, which is the fast case.
cdef inline const uint8_t* load_present(const uint8_t** p, uint32_t count, uint32_t* present_count) noexcept nogil:
    cdef const uint8_t* bits = p[0]
    p[0] += (count + 7) >> 3
    present_count[0] = set_bits(bits, count)
    if present_count[0] == count:
        return NULL
    return bits


# Fills in `header` from a whole row event without checksum. Returns NULL, or what is wrong with it.
cdef inline const char* read_rows_header(const uint8_t* data, uint32_t length, int type,
                                         RowsHeader* header) noexcept nogil:
    cdef const uint8_t* p = data + HEADER_BYTES
    cdef const uint8_t* end = data + length
    cdef uint16_t extra
    cdef size_t bitmap_bytes
    cdef bint update = type == UPDATE_ROWS_EVENT or type == UPDATE_ROWS_EVENT_V1 or type == PARTIAL_UPDATE_ROWS_EVENT
    if length < HEADER_BYTES + ROWS_POST_HEADER_BYTES:
        return b"the row event is shorter than its header"
    header.table_id = load_u32(p) | <uint64_t>load_u16(p + 4) << 32
    header.flags = load_u16(p + TABLE_ID_BYTES)
    header.kind = (ROW_UPDATE if update else
                   ROW_DELETE if type == DELETE_ROWS_EVENT or type == DELETE_ROWS_EVENT_V1 else ROW_INSERT)
    header.partial = type == PARTIAL_UPDATE_ROWS_EVENT
    header.end = end
    header.present = header.present_after = NULL
    header.present_count = header.present_after_count = 0
    p += ROWS_POST_HEADER_BYTES
    if type >= WRITE_ROWS_EVENT:
        # Version 2: row info of partitioned tables and NDB, its length counts its own two bytes.
        if end - p < 2:
            return b"the row event ends before its extra row info"
        extra = load_u16(p)
        if extra < 2 or end - p < extra:
            return b"the extra row info is longer than the event"
        p += extra
    if load_packed(&p, end, &header.column_count):
        return b"the row event ends before its column count"
    bitmap_bytes = (header.column_count + 7) >> 3
    if header.column_count > 0xFFFF or <size_t>(end - p) < bitmap_bytes * (2 if update else 1):
        return b"the row event ends before its column bitmap"
    header.present = load_present(&p, <uint32_t>header.column_count, &header.present_count)
    if update:
        header.present_after = load_present(&p, <uint32_t>header.column_count, &header.present_after_count)
    header.rows = p
    return NULL


cdef inline uint32_t load_length(const uint8_t* p, uint8_t prefix_bytes) noexcept nogil:
    if prefix_bytes == 1:
        return p[0]
    if prefix_bytes == 2:
        return load_u16(p)
    if prefix_bytes == 3:
        return load_u24(p)
    return load_u32(p)


# Walks an image in which every column is there and none is NULL; `p` is past the null bitmap.
# Returns the end of the image, or NULL with the column at fault in `culprit`.
cdef inline const uint8_t* walk_strides(const Stride* stride, const Stride* stop, const uint8_t* p,
                                        const uint8_t* end, Span* spans, uint32_t* culprit) noexcept nogil:
    cdef uint32_t length
    while stride != stop:
        if <size_t>(end - p) < <size_t>stride.skip + stride.fixed_bytes + stride.prefix_bytes:
            culprit[0] = stride.column
            return NULL
        p += stride.skip
        length = stride.fixed_bytes
        if stride.prefix_bytes:
            length = load_length(p, stride.prefix_bytes)
            p += stride.prefix_bytes
            if <size_t>(end - p) < length:
                culprit[0] = stride.column
                return NULL
        if stride.wanted:
            spans[stride.column].data = p
            spans[stride.column].length = length
            spans[stride.column].state = COLUMN_PRESENT
        p += length
        stride += 1
    return p


# Walks any image: `present` says which columns it holds (NULL: all), `nulls` which of these are NULL.
# Returns the end of the image, or NULL with the column at fault in `culprit`.
cdef inline const uint8_t* walk_columns(const ColumnLayout* columns, uint32_t count, const uint8_t* present,
                                        const uint8_t* nulls, const uint8_t* p, const uint8_t* end,
                                        Span* spans, uint32_t* culprit) noexcept nogil:
    cdef uint32_t column, length, in_image = 0
    cdef uint8_t state
    for column in range(count):
        length = 0
        if present != NULL and not bit(present, column):
            state = COLUMN_ABSENT
        elif bit(nulls, in_image):
            in_image += 1
            state = COLUMN_NULL
        else:
            in_image += 1
            state = COLUMN_PRESENT
            length = columns[column].fixed_bytes
            if columns[column].prefix_bytes:
                if end - p < columns[column].prefix_bytes:
                    culprit[0] = column
                    return NULL
                length = load_length(p, columns[column].prefix_bytes)
                p += columns[column].prefix_bytes
            if <size_t>(end - p) < length:
                culprit[0] = column
                return NULL
        if columns[column].wanted:
            spans[column].data = p
            spans[column].length = length
            spans[column].state = state
        p += length
    return p


# Steps over the value options of a partial update's after image. `partial_bits` gets where the bits are that
# say which JSON column holds a difference: one for each JSON column of the table, whether it is in the image or
# not; NULL when the image has none. Returns NULL when the event ends first.
cdef inline const uint8_t* skip_value_options(const uint8_t* p, const uint8_t* end, uint32_t json_count,
                                              const uint8_t** partial_bits) noexcept nogil:
    cdef uint64_t options = 0
    partial_bits[0] = NULL
    if load_packed(&p, end, &options):
        return NULL
    if options & PARTIAL_JSON_UPDATES:
        if <size_t>(end - p) < (json_count + 7) >> 3:
            return NULL
        partial_bits[0] = p
        p += (json_count + 7) >> 3
    return p
