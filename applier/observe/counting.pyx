# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""What is counted per row or transaction, and so not in Python; and which row two transactions both touch."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from applier.events.batch cimport (
    T_BARRIER, T_CHECKPOINT, T_DDL, T_FIRST_PART, T_KEYS_UNKNOWN, T_LAST_PART, T_STATEMENTS, Batch, Row, Transaction)
from writeset.hashing cimport ROW_INSERT, SHARED, TablePlan

REASONS = ("ddl", "statement", "large_transaction", "keys_unknown", "other")

cdef enum:
    LOOKED_AT = 64             # rows of a transaction

cdef enum Reason:
    REASON_DDL = 0
    REASON_STATEMENT = 1
    REASON_LARGE = 2
    REASON_KEYS_UNKNOWN = 3
    REASON_OTHER = 4
    REASON_COUNT = 5
    REASON_NONE = 5


cdef Reason reason_of(const Transaction* t) noexcept nogil:
    if not t.flags & T_BARRIER:
        return REASON_NONE
    if t.flags & T_DDL:
        return REASON_DDL
    if t.flags & T_STATEMENTS:
        return REASON_STATEMENT
    if not t.flags & T_FIRST_PART or not t.flags & T_LAST_PART:
        return REASON_LARGE
    return REASON_KEYS_UNKNOWN if t.flags & T_KEYS_UNKNOWN else REASON_OTHER


def row_kinds(Batch batch):
    """(inserts, updates, deletes) of a decoded batch."""
    cdef uint64_t counts[4]
    cdef size_t i
    counts[0] = counts[1] = counts[2] = counts[3] = 0
    with nogil:
        for i in range(batch.row_count):
            counts[batch.rows[i].kind & 3] += 1
    return counts[0], counts[1], counts[2]


def barriers(Batch batch):
    """How many transactions of a scheduled batch run alone, by reason, in the order of REASONS."""
    cdef uint64_t counts[REASON_COUNT + 1]
    cdef size_t i
    cdef const Transaction* t
    with nogil:
        for i in range(<size_t>REASON_COUNT + 1):
            counts[i] = 0
        for i in range(batch.transaction_count):
            t = &batch.transactions[i]
            if t.flags & T_LAST_PART:
                counts[<size_t>reason_of(t)] += 1
    return counts[0], counts[1], counts[2], counts[3], counts[4]


def barrier_reason(Batch batch, size_t index):
    """Why a scheduled transaction runs alone; None when it does not."""
    cdef Reason reason = reason_of(&batch.transactions[index])
    return None if reason == REASON_NONE else REASONS[<size_t>reason]


def ends_index(Batch batch, size_t index):
    """Whether the index of last writers forgot everything at this transaction."""
    return bool(batch.transactions[index].flags & T_CHECKPOINT)


def searches(Batch batch, size_t index):
    """Whether the server has to search a table without a usable key for rows of a decoded transaction."""
    cdef const Transaction* t = &batch.transactions[index]
    cdef size_t i
    for i in range(t.row_first, min(<size_t>t.row_first + min(t.row_count, <uint32_t>LOOKED_AT), batch.row_count)):
        if batch.rows[i].kind != ROW_INSERT and (<TablePlan>batch.tables[batch.rows[i].table][1]).keyless:
            return True
    return False


def table_of(Batch batch, size_t row):
    """Number of the row's table, into Batch.tables."""
    return batch.rows[row].table


def shared_row(Batch later, size_t first, size_t end, Batch earlier, size_t earlier_first, size_t earlier_end):
    """A row of transactions `first` to `end` (exclusive) of `later` that conflicts with one of `earlier`, as
    (row of `later`, row of `earlier`); None when there is none. Costs 10 ns a touch, without the GIL."""
    cdef size_t row = 0, other = 0
    cdef int found
    if not touched(later, first, end) or not touched(earlier, earlier_first, earlier_end):
        return None
    with nogil:
        found = find(later, first, end, earlier, earlier_first, earlier_end, &row, &other)
    if found < 0:
        raise MemoryError
    return (row, other) if found else None


cdef bint touched(Batch batch, size_t first, size_t end) noexcept nogil:
    return first < end <= batch.transaction_count and batch.row_count > 0


cdef void rows_between(Batch batch, size_t first, size_t end, size_t* row_first, size_t* row_end) noexcept nogil:
    cdef const Transaction* last = &batch.transactions[end - 1]
    row_first[0] = batch.transactions[first].row_first
    row_end[0] = min(<size_t>last.row_first + last.row_count, batch.row_count)


cdef int find(Batch later, size_t first, size_t end, Batch earlier, size_t earlier_first, size_t earlier_end,
              size_t* found_row, size_t* found_other) noexcept nogil:
    """1 with the rows set, 0, or -1 without memory. The earlier touches go into an open-addressing table."""
    cdef size_t row, row_first, row_end, touch, touch_end, slot, mask = 63, count = 0
    cdef uint64_t hash
    cdef uint64_t* hashes
    cdef uint32_t* rows
    cdef int found = 0
    rows_between(earlier, earlier_first, earlier_end, &row_first, &row_end)
    for row in range(row_first, row_end):
        count += earlier.rows[row].touch_count
    while mask < 2 * count:
        mask = mask * 2 + 1
    hashes = <uint64_t*>calloc(mask + 1, sizeof(uint64_t))
    rows = <uint32_t*>calloc(mask + 1, sizeof(uint32_t))       # row number + 1
    if hashes is NULL or rows is NULL:
        free(hashes)
        free(rows)
        return -1
    for row in range(row_first, row_end):
        touch_end = earlier.rows[row].touch_first + earlier.rows[row].touch_count
        for touch in range(earlier.rows[row].touch_first, touch_end):
            slot = earlier.touches.hashes[touch] & mask
            while rows[slot] and hashes[slot] != earlier.touches.hashes[touch]:
                slot = (slot + 1) & mask
            if not rows[slot] or earlier.touches.modes[touch] != SHARED:
                hashes[slot] = earlier.touches.hashes[touch]
                rows[slot] = <uint32_t>(row + 1)
    rows_between(later, first, end, &row_first, &row_end)
    for row in range(row_first, row_end):
        touch_end = later.rows[row].touch_first + later.rows[row].touch_count
        for touch in range(later.rows[row].touch_first, touch_end):
            hash = later.touches.hashes[touch]
            slot = hash & mask
            while rows[slot] and hashes[slot] != hash:
                slot = (slot + 1) & mask
            if rows[slot] and (later.touches.modes[touch] != SHARED or not all_shared(earlier, rows[slot] - 1, hash)):
                found_row[0] = row
                found_other[0] = rows[slot] - 1
                found = 1
                break
        if found:
            break
    free(hashes)
    free(rows)
    return found


cdef bint all_shared(Batch batch, size_t row, uint64_t hash) noexcept nogil:
    cdef size_t touch
    for touch in range(batch.rows[row].touch_first, batch.rows[row].touch_first + batch.rows[row].touch_count):
        if batch.touches.hashes[touch] == hash and batch.touches.modes[touch] != SHARED:
            return False
    return True
