"""What folding must know of one table: where its identity lies in a row image, and how to bring it to a key."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from applier.events.narrow_images cimport ColumnList
from applier.events.row_image cimport ColumnLayout, Stride, all_clear, walk_columns, walk_strides
from libc.string cimport memcpy
from writeset.hashing cimport COLUMN_PRESENT, Span

cdef enum:
    KEY_PARTS_MAX = 16           # of a MySQL index
    KEY_BYTES_MAX = 4096         # an InnoDB key has at most 3,072 bytes

# Why a table keeps its events as they are. Texts in fold_table.pyx.
cdef enum Refusal:
    FOLDS = 0
    NO_IDENTITY
    FOREIGN_KEYS
    ALWAYS_BARRIER
    NOT_COMPARABLE
    OTHER_COLUMNS
    KEYS_UNKNOWN
    PARTIAL_IMAGE
    PARTIAL_JSON
    OLD_EVENTS
    FLAGS_DIFFER
    TABLE_CHANGED
    EQUAL_VALUES
    TEXT_KEY_CHANGED
    NO_KEY
    OUT_OF_ORDER
    REFUSALS

# How a column's bytes become part of a key. Each is one-to-one, so that equal keys mean equal bytes; and comparing
# keys as bytes gives the order of the index, as far as that is cheap to have.
cdef enum KeyTransform:
    KEY_COPY = 0                 # as it is: big-endian in the log, or of no known order
    KEY_LITTLE_ENDIAN = 1
    KEY_SIGNED = 2               # little-endian with a sign
    KEY_VARIABLE = 3             # the value, then its length in two bytes

cdef struct KeyPart:
    uint32_t column
    uint32_t offset              # of the value behind the null bitmap, when Layout.fixed
    uint8_t transform
    uint8_t fixed_bytes          # unless KEY_VARIABLE

# Finds some columns of an image in which all columns are present; goes no further than the last of them.
cdef struct Walker:
    ColumnLayout* columns
    Stride* strides
    uint32_t count
    uint32_t stride_count

# Immutable, except that `before` and `after` of the walkers' callers are scratch of their own.
cdef struct Layout:
    uint8_t refusal              # of the table as such
    uint8_t exact                # identities are equal only if their bytes are
    uint8_t guarded              # the identity also touches "any value of this index"
    uint8_t fixed                # the identity always lies at the same place, unless something before it is NULL
    uint8_t other_keys           # it has unique keys besides the identity
    uint8_t other_unknown        # … with a part of which only the server knows whether it has changed
    uint8_t narrow               # updates and deletes may go with some of the columns only
    uint16_t part_count
    uint32_t column_count
    uint32_t null_bytes
    KeyPart parts[KEY_PARTS_MAX]
    Walker identity
    Walker other                 # columns of the other unique keys
    Walker whole                 # all columns, if narrow
    ColumnList identity_columns
    const uint8_t* content       # of the table map after the table id
    uint32_t content_length
    uint8_t* columns_head        # column count and one full column bitmap, as in a row event
    uint32_t count_bytes
    uint32_t bitmap_bytes

cdef class FoldTable:
    cdef Layout layout
    cdef readonly object table_map
    cdef readonly object plan

    cdef int fill(self) except -1

cdef FoldTable fold_table(tuple pair)


cdef inline const uint8_t* find_columns(const Walker* walker, uint32_t column_count, const uint8_t* image,
                                        const uint8_t* end, Span* spans) noexcept nogil:
    """Spans of the columns that the walker wants. The decoder has walked the image before: it cannot fail."""
    cdef const uint8_t* values = image + ((column_count + 7) >> 3)
    cdef uint32_t culprit = 0
    if all_clear(image, walker.count):
        return walk_strides(walker.strides, walker.strides + walker.stride_count, values, end, spans, &culprit)
    return walk_columns(walker.columns, walker.count, NULL, image, values, end, spans, &culprit)


cdef inline uint8_t* add_part(const KeyPart* part, const uint8_t* data, uint32_t length, uint8_t* out) noexcept nogil:
    cdef uint32_t i
    if part.transform == KEY_VARIABLE:
        memcpy(out, data, length)
        out[length] = <uint8_t>(length >> 8)
        out[length + 1] = <uint8_t>length
        return out + length + 2
    if part.transform == KEY_COPY:
        memcpy(out, data, length)
        return out + length
    for i in range(length):
        out[i] = data[length - 1 - i]
    if part.transform == KEY_SIGNED:
        out[0] ^= 0x80
    return out + length


cdef inline uint32_t identity_key(const Layout* layout, const uint8_t* image, uint32_t image_length, Span* spans,
                                  uint8_t* out) noexcept nogil:
    """Writes the key of the row into `out`, KEY_BYTES_MAX of room; returns its length, 0 when it has none (a NULL
    part, too long). `spans` is scratch for a span a column."""
    cdef const KeyPart* part = &layout.parts[0]
    cdef const KeyPart* stop = part + layout.part_count
    cdef const uint8_t* end = image + image_length
    cdef const uint8_t* values = image + layout.null_bytes
    cdef uint8_t* at = out
    cdef Span* span
    if layout.fixed and all_clear(image, layout.identity.count):
        while part != stop:
            at = add_part(part, values + part.offset, part.fixed_bytes, at)
            part += 1
        return <uint32_t>(at - out)
    if find_columns(&layout.identity, layout.column_count, image, end, spans) is NULL:
        return 0
    while part != stop:
        span = &spans[part.column]
        if span.state != COLUMN_PRESENT or (at - out) + span.length + 2 > KEY_BYTES_MAX:
            return 0
        at = add_part(part, span.data, span.length, at)
        part += 1
    return <uint32_t>(at - out)
