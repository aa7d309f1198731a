"""What a row touches, as 64-bit hashes: the part of `writeset` that other kernels call without the GIL."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# How a transaction uses a key. Two SHARED touches of one key commute; everything else conflicts.
# EXCLUSIVE is for keys that nobody ever shares (no foreign key, no guard): it saves a look-up.
cdef enum Access:
    EXCLUSIVE = 0                # looks up the last writer; becomes the last writer
    SHARED = 1                   # looks up the last writer; becomes the last sharer
    EXCLUSIVE_OVER_SHARED = 2    # looks up the last writer and the last sharer; becomes the last writer

cdef enum ColumnState:
    COLUMN_PRESENT = 0
    COLUMN_NULL = 1
    COLUMN_ABSENT = 2            # not in this row image (binlog_row_image=MINIMAL or NOBLOB)

# One column of one row image. `data` is the value only, in the binlog's encoding, without its length prefix.
cdef struct Span:
    const uint8_t* data
    uint32_t length
    uint8_t state

# Growable output: parallel arrays, so that the bucket index can prefetch the hashes.
cdef struct Touches:
    uint64_t* hashes
    uint8_t* modes               # Access
    size_t count
    size_t capacity

cdef int touches_reserve(Touches* touches, size_t extra) except -1 nogil
cdef void touches_free(Touches* touches) noexcept nogil

# How a value is brought to bytes that are equal wherever the server says equal. May be coarser than the
# server's equality, never finer. Numbered as Form in definitions.py.
cdef enum Form:
    FORM_RAW = 0
    FORM_PAD_TRIMMED = 1         # without trailing spaces (of code_unit_bytes each)
    FORM_ZERO_TRIMMED = 2        # without trailing 0x00
    FORM_FLOAT = 3               # -0.0 = 0.0
    FORM_DOUBLE = 4
    FORM_FOLDED = 5              # every code unit through `fold`; a unit folded to 0 makes the value unknown
    FORM_FOLDED_TRIMMED = 6
    FORM_ANY = 7                 # left out of the hash: all values are one

cdef struct KeyColumn:
    uint16_t position            # column number in the table map, from 0
    uint8_t form                 # Form
    uint32_t prefix_characters   # 0: the whole column
    uint8_t character_bytes_max  # of the column's character set, for prefixes; 1 for binary
    uint8_t code_unit_bytes      # 1, 2 (ucs2, utf16) or 4 (utf32)
    uint8_t little_endian        # utf16le
    uint8_t utf8                 # prefixes can be cut at exact characters
    const uint8_t* fold          # 256 bytes, for the FOLDED forms; lives as long as the plan

cdef struct Key:
    uint64_t seed                # identifies (schema, table, index) of the key that is touched; a foreign key
                                 # carries the seed of the parent's key
    uint16_t column_first        # into TablePlan.columns
    uint16_t column_count
    uint8_t access               # Access
    uint8_t guarded              # also touches "any value of this index": SHARED normally,
                                 # EXCLUSIVE_OVER_SHARED when the form of a value is not known

# Everything the row walker must know of one table at one place of the log. Immutable once built.
# keys[0] is the row's identity (primary key or NOT NULL unique key) when has_identity is set.
cdef class TablePlan:
    cdef readonly str schema
    cdef readonly str table
    cdef readonly uint16_t column_total      # columns the target's table has, in table map order
    cdef readonly bint has_identity
    cdef readonly bint keyless               # no usable key: inserts share the table, others exclude
    cdef readonly bint always_barrier        # every change of the table
    cdef readonly bint cascades              # parent of a foreign key with a cascade: where the source does not log
                                             # it, deletes and updates of the referenced keys are barriers
    cdef readonly bint has_foreign_keys      # child or parent
    cdef readonly bint source_overlooks      # what it depends on: the source's last_committed may be too low
    cdef readonly bint has_computed_columns  # generated ones, or expressions in indexes
    cdef readonly object definition          # the TableDefinition it was built from
    cdef uint64_t table_seed
    cdef Key* keys
    cdef size_t key_count
    cdef KeyColumn* columns
    cdef uint8_t* wanted                     # column_total flags: 1 where some key needs the column
    cdef int _fill(self) except -1

# Row kinds as the walker hands them over.
cdef enum RowKind:
    ROW_INSERT = 0
    ROW_UPDATE = 1
    ROW_DELETE = 2

# Appends the touches of one row. `before` is NULL for an insert, `after` for a delete; each has
# column_total spans (only those flagged in `wanted` are read). Returns 1 when the transaction must be a
# barrier because what the row touches cannot be known (always_barrier, a cascade unless `cascades_logged`, or an
# absent key column in an unguarded index), else 0; -1 with MemoryError.
cdef int hash_row(TablePlan plan, int kind, const Span* before, const Span* after, bint cascades_logged,
                  Touches* out) except -1 nogil

cdef uint64_t hash_bytes(const uint8_t* data, size_t length, uint64_t seed) noexcept nogil
