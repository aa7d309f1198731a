# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""What `scheduler.recording` writes of transactions: their numbers, and the hashes of the keys they touch."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from applier.events.batch cimport T_BARRIER, Batch, Row, Transaction
from applier.events.fold_table cimport FOLDS
from applier.events.net_group cimport ENTRY_HELD, NO_ENTRY, FoldedGroup, View


# scheduler.recording.TRANSACTION: no padding but the three bytes.
cdef struct Record:
    uint64_t sequence_number
    uint64_t last_committed
    int64_t source_sequence_number
    int64_t source_last_committed
    uint64_t source_epoch
    uint8_t barrier
    uint8_t unused[3]
    uint32_t touch_count

cdef enum:
    HELD = 0x10


def transaction_records(Batch batch, size_t first, size_t end, bytes held=None):
    """Transactions `first` to `end` (exclusive), each as TRANSACTION, hashes and modes.

    held: one byte for each row of these transactions, in order; where it is not 0 the row's touches get HELD.
    Raises IndexError, ValueError when `held` is of another length."""
    cdef size_t size = 0, rows = 0, i
    cdef bytes out
    if first > end or end > batch.transaction_count:
        raise IndexError(f"transactions {first} to {end} of {batch.transaction_count}")
    for i in range(first, end):
        size += sizeof(Record) + batch.transactions[i].touch_count * (sizeof(uint64_t) + 1)
        rows += batch.transactions[i].row_count
    if held is not None and len(held) != rows:
        raise ValueError(f"{len(held)} flags for {rows} rows")
    out = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(out)
    cdef const uint8_t* flags = NULL if held is None else <const uint8_t*>PyBytes_AS_STRING(held)
    with nogil:
        for i in range(first, end):
            at = write_one(batch, &batch.transactions[i], at, flags)
            if flags is not NULL:
                flags += batch.transactions[i].row_count
    return out


cdef uint8_t* write_one(Batch batch, const Transaction* t, uint8_t* at, const uint8_t* held) noexcept nogil:
    """Returns the end of what was written. `held`: of the transaction's first row, or NULL."""
    cdef Record record
    cdef const Row* row
    cdef uint8_t* modes
    cdef uint32_t r, i
    record.sequence_number = t.sequence_number
    record.last_committed = t.last_committed
    record.source_sequence_number = t.source_sequence_number
    record.source_last_committed = t.source_last_committed
    record.source_epoch = t.source_epoch
    record.barrier = (t.flags & T_BARRIER) != 0
    record.unused[0] = record.unused[1] = record.unused[2] = 0
    record.touch_count = t.touch_count
    memcpy(at, &record, sizeof(Record))
    at += sizeof(Record)
    if t.touch_count == 0:
        return at
    memcpy(at, batch.touches.hashes + t.touch_first, t.touch_count * sizeof(uint64_t))
    modes = at + t.touch_count * sizeof(uint64_t)
    memcpy(modes, batch.touches.modes + t.touch_first, t.touch_count)
    if held is not NULL:
        for r in range(t.row_count):
            row = &batch.rows[t.row_first + r]
            if held[r]:
                for i in range(row.touch_first, row.touch_first + row.touch_count):
                    modes[i - t.touch_first] |= HELD
    return modes + t.touch_count


def held_rows(FoldedGroup group):
    """Of a group that `hand_off.split` has cut: for each slice one byte for each of its rows, 1 where it is held."""
    cdef const View* view
    cdef const Transaction* t
    cdef size_t v, i, r
    cdef uint32_t number = 0
    cdef bytearray flags
    slices = []
    for v in range(group.view_count):
        view = &group.views[v]
        flags = bytearray()
        for i in range(view.transaction_count):
            t = &view.transactions[i]
            for r in range(t.row_first, t.row_first + t.row_count):
                flags.append(is_held(group, view, &view.rows[r], number))
                number += 1
        slices.append(bytes(flags))
    return slices


cdef bint is_held(FoldedGroup group, const View* view, const Row* row, uint32_t number) noexcept nogil:
    cdef uint32_t first = group.row_entries[2 * number]
    cdef uint32_t second = group.row_entries[2 * number + 1]
    if group.tables[view.tables[row.table]].refusal != FOLDS:
        return group.rests[first].held
    if group.entries[first].flags & ENTRY_HELD:
        return True
    return second != NO_ENTRY and (group.entries[second].flags & ENTRY_HELD) != 0
