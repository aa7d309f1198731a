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

# How one key column is brought to a form that is equal wherever the server says equal (see collation.py).
cdef struct KeyColumn:
    uint16_t position            # column number in the table map, from 0
    uint8_t form                 # a Form of collation.py / hashing.pyx
    uint32_t prefix_characters   # 0: the whole column
    uint8_t character_bytes_max  # of the column's character set, for prefixes; 1 for binary

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
    cdef readonly bint always_barrier        # e.g. parent of a cascade that the source does not log
    cdef readonly bint has_foreign_keys      # child or parent
    cdef uint64_t table_seed
    cdef Key* keys
    cdef size_t key_count
    cdef KeyColumn* columns
    cdef uint8_t* wanted                     # column_total flags: 1 where some key needs the column

# Row kinds as the walker hands them over.
cdef enum RowKind:
    ROW_INSERT = 0
    ROW_UPDATE = 1
    ROW_DELETE = 2

# Appends the touches of one row. `before` is NULL for an insert, `after` for a delete; each has
# column_total spans (only those flagged in `wanted` are read). Returns 1 when the transaction must be a
# barrier because what the row touches cannot be known (always_barrier, or an absent key column in an
# unguarded index), else 0; -1 with MemoryError.
cdef int hash_row(TablePlan plan, int kind, const Span* before, const Span* after,
                  Touches* out) except -1 nogil

cdef uint64_t hash_bytes(const uint8_t* data, size_t length, uint64_t seed) noexcept nogil
