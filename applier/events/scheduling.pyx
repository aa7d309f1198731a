# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""A decoded batch as the scheduler sees it: dependencies for all its transactions, and cutting it into units."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp
from applier.events.batch cimport (
    T_BARRIER, T_CHECKPOINT, T_COMPRESSED, T_DDL, T_FIRST_PART, T_KEYS_UNKNOWN, T_LAST_PART, T_OWN_KEYS_ONLY, T_ROWS, T_SCHEMA,
    T_STATEMENTS, Batch, Transaction)
from writeset.buckets cimport BucketIndex
from writeset.hashing cimport EXCLUSIVE_OVER_SHARED

from scheduler.grouping import Cut

cdef uint64_t UNKNOWN = <uint64_t>-1
cdef enum:
    ROW_WEIGHT_BYTES = 64         # entry, slots and sort key of a folded row are 176 bytes; three times this is reserved

cdef enum:
    ALONE = T_BARRIER | T_STATEMENTS | T_KEYS_UNKNOWN


cdef class SourceClock:
    """Translates the source's last_committed into our sequence numbers.

    The source's numbers restart in each binlog file, and transactions that were skipped leave gaps in ours, so a
    translation holds only within a run of consecutive source numbers. What a transaction needs from before the run
    it is in is bounded by the run's start: everything before it has a lower number of ours.
    """

    cdef uint64_t bound(self, const Transaction* t) noexcept nogil:
        """Upper bound for last_committed in our numbers; UNKNOWN when the source gave none."""
        if t.source_sequence_number <= 0:
            self.expected = -1
            return UNKNOWN
        if t.source_epoch != self.epoch or t.source_sequence_number != self.expected:
            self.epoch = t.source_epoch
            self.run_source_first = t.source_sequence_number
            self.run_first = t.sequence_number
        self.expected = t.source_sequence_number + 1
        if t.source_last_committed >= t.source_sequence_number:
            return UNKNOWN
        if t.source_last_committed >= self.run_source_first:
            return self.run_first + <uint64_t>(t.source_last_committed - self.run_source_first)
        return self.run_first - 1


cdef class Dependencies:
    """Sets last_committed of every transaction: the smaller of what our index of last writers says and what the
    source said; a barrier depends on everything before it, and everything after depends on the barrier."""

    cdef readonly BucketIndex index
    cdef SourceClock source_clock
    cdef bint use_source_bounds
    cdef bint row_by_row
    cdef uint32_t* counting                # 1, 2, 3 …: every touch is told apart
    cdef size_t counting_capacity

    def __init__(self, BucketIndex index, *, bint use_source_bounds=True, bint row_by_row=False):
        """`row_by_row`: tell for each touch what it alone waits for, in Batch.touch_waits."""
        self.index = index
        self.source_clock = SourceClock()
        self.use_source_bounds = use_source_bounds
        self.row_by_row = row_by_row

    def __dealloc__(self):
        free(self.counting)

    cdef int count_to(self, size_t count) except -1 nogil:
        cdef size_t capacity = max(count, self.counting_capacity * 2)
        if count <= self.counting_capacity:
            return 0
        free(self.counting)
        self.counting_capacity = 0
        self.counting = <uint32_t*>malloc(capacity * sizeof(uint32_t))
        if self.counting is NULL:
            with gil:
                raise MemoryError
        while self.counting_capacity < capacity:
            self.counting[self.counting_capacity] = <uint32_t>(self.counting_capacity + 1)
            self.counting_capacity += 1
        return 0

    def schedule(self, Batch batch, uint64_t low_water_mark):
        """Batches must come in log order. Runs without the GIL."""
        cdef size_t i
        cdef Transaction* t
        cdef uint64_t bound
        cdef const uint64_t* ahead = batch.touches.hashes + batch.touches.count
        cdef uint64_t* waits = batch.ensure_touch_waits() if self.row_by_row else NULL
        batch.settle()
        with nogil:
            self.index.set_low_water_mark(low_water_mark)
            for i in range(batch.transaction_count):
                t = &batch.transactions[i]
                if t.flags & ALONE or not t.flags & T_FIRST_PART or not t.flags & T_LAST_PART:
                    t.flags |= T_BARRIER
                bound = UNKNOWN
                if t.flags & T_FIRST_PART:
                    bound = self.source_clock.bound(t)
                if t.flags & T_OWN_KEYS_ONLY or not self.use_source_bounds:
                    bound = UNKNOWN
                if waits is NULL:
                    t.last_committed = self.index.assign_one(
                        t.sequence_number, batch.touches.hashes + t.touch_first, batch.touches.modes + t.touch_first,
                        t.touch_count, (t.flags & T_BARRIER) != 0, bound, ahead)
                else:
                    self.assign_touches(batch, t, bound, waits + t.touch_first)
                if self.index.floor == t.sequence_number:
                    t.flags |= T_CHECKPOINT
                else:
                    t.flags &= ~<uint32_t>T_CHECKPOINT

    cdef int assign_touches(self, Batch batch, Transaction* t, uint64_t bound, uint64_t* waits) except -1 nogil:
        """The source's bound holds for the transaction, not for its touches: others rely on what those really wait for."""
        self.count_to(t.touch_count)
        t.last_committed = self.index.assign_rows(
            t.sequence_number, batch.touches.hashes + t.touch_first, batch.touches.modes + t.touch_first,
            self.counting, t.touch_count, (t.flags & T_BARRIER) != 0, waits)
        if not t.flags & T_BARRIER:
            t.last_committed = min(t.last_committed, max(bound, self.index.floor))
        return 0


def cut(Batch batch, size_t start, uint64_t transactions_max, uint64_t bytes_max, uint64_t unit_first):
    """See scheduler.grouping.CutFunction."""
    cdef size_t i = start
    cdef uint64_t size = 0, needs = 0, keys_need, first
    cdef bint hidden = False
    cdef Transaction* t
    if start >= batch.transaction_count:
        raise IndexError(f"transaction {start} of {batch.transaction_count}")
    t = &batch.transactions[start]
    first = unit_first if unit_first else t.sequence_number
    if t.flags & T_BARRIER or not t.flags & T_FIRST_PART or not t.flags & T_LAST_PART:
        return Cut(start + 1, t.sequence_number, t.sequence_number, t.sequence_number - 1, weight(t), True,
                   bool(t.flags & T_FIRST_PART), bool(t.flags & T_LAST_PART))
    with nogil:
        while i < batch.transaction_count:
            t = &batch.transactions[i]
            if t.flags & T_BARRIER or not t.flags & T_LAST_PART:
                break
            if i > start and (i - start >= transactions_max or size + weight(t) > bytes_max):
                break
            if t.last_committed < first:
                needs = max(needs, t.last_committed)
            else:
                hidden = True
            size += weight(t)
            i += 1
            if t.flags & T_CHECKPOINT:
                break
        keys_need = keys_outside(batch, start, i, first) if unit_first or transactions_max > 1 else needs
    return Cut(i, batch.transactions[start].sequence_number, batch.transactions[i - 1].sequence_number, needs, size,
               False, True, True, keys_need, hidden, (batch.transactions[i - 1].flags & T_CHECKPOINT) != 0)


cdef uint64_t weight(const Transaction* t) noexcept nogil:
    """What the size of a unit is measured in: its bytes, and for each row what folding keeps of it at least."""
    return t.byte_count + ROW_WEIGHT_BYTES * <uint64_t>t.row_count


cdef uint64_t keys_outside(Batch batch, size_t start, size_t end, uint64_t first) noexcept nogil:
    """What the keys of transactions `start` to `end` (exclusive) need from before their unit, which begins at `first`.

    The last writer of each key is either outside, or in the unit and then tells by its own touch of the key what
    comes before. This chain must not be cut by a source's bound, which holds between two transactions and says
    nothing of a third. Earlier sharers are hidden by a sharer in the unit.
    """
    cdef uint64_t needs = 0, wait
    cdef const Transaction* t = &batch.transactions[start]
    cdef const Transaction* last = &batch.transactions[end - 1]
    cdef size_t i
    if batch.touch_waits is NULL:
        return first - 1
    for i in range(t.touch_first, last.touch_first + last.touch_count):
        wait = batch.touch_waits[i]
        if wait < first:
            needs = max(needs, wait)
        elif batch.touches.modes[i] == EXCLUSIVE_OVER_SHARED:
            return first - 1
    return needs


def gtid_ranges(Batch batch, size_t first=0, end=None):
    """GTIDs of transactions `first` to `end` (exclusive) that are whole or end here, in log order.

    As (16 bytes of UUID, tag, first number, last number), consecutive ones joined."""
    cdef size_t i, stop = batch.transaction_count if end is None else min(<size_t>end, batch.transaction_count)
    cdef Transaction* t
    cdef Transaction* run = NULL
    cdef int64_t last = 0
    ranges = []
    for i in range(first, stop):
        t = &batch.transactions[i]
        if t.gno == 0 or not t.flags & T_LAST_PART:
            continue
        if run is not NULL and t.gno == last + 1 and same_origin(run, t):
            last = t.gno
            continue
        if run is not NULL:
            ranges.append(as_range(run, last))
        run, last = t, t.gno
    if run is not NULL:
        ranges.append(as_range(run, last))
    return ranges


cdef bint same_origin(const Transaction* a, const Transaction* b) noexcept nogil:
    return (memcmp(a.sid, b.sid, 16) == 0 and a.tag_length == b.tag_length
            and memcmp(a.tag, b.tag, a.tag_length) == 0)


cdef tuple as_range(const Transaction* t, int64_t last):
    return (<const char*>t.sid)[:16], t.tag[:t.tag_length].decode("ascii"), t.gno, last


def next_sequence_number(Batch batch):
    """What the transaction after this batch is numbered; a transaction that goes on keeps its number."""
    cdef Transaction* t = &batch.transactions[batch.transaction_count - 1]
    return t.sequence_number + (1 if t.flags & T_LAST_PART else 0)


def changes_schema(Batch batch):
    """Whether the last transaction may change table definitions: such a one ends its batch."""
    return bool(batch.transactions[batch.transaction_count - 1].flags & (T_DDL | T_SCHEMA))


def last_commit_microseconds(Batch batch):
    """When the last transaction was committed on its first server, microseconds since the epoch; 0 if not told."""
    cdef Transaction* t = &batch.transactions[batch.transaction_count - 1]
    return t.original_commit_microseconds


def is_barrier(Batch batch, size_t index):
    """Whether a scheduled transaction runs alone."""
    return bool(batch.transactions[index].flags & T_BARRIER)


def is_rows(Batch batch, size_t index):
    """Whether a transaction may pass through BINLOG as a whole."""
    return bool(batch.transactions[index].flags & T_ROWS)


def row_count(Batch batch, size_t first, size_t end):
    """Rows of transactions `first` to `end` (exclusive)."""
    cdef size_t i
    cdef uint64_t total = 0
    for i in range(first, min(end, batch.transaction_count)):
        total += batch.transactions[i].row_count
    return total


def compressed(Batch batch):
    """Indices of transactions whose payload has not been inflated yet."""
    cdef size_t i
    return [i for i in range(batch.transaction_count)
            if batch.transactions[i].flags & T_COMPRESSED
            and not batch.transactions[i].flags & (T_ROWS | T_STATEMENTS)]


def tables_of(Batch batch, size_t index):
    """Names of the tables whose rows a decoded transaction changes, sorted."""
    cdef Transaction* t = &batch.transactions[index]
    cdef size_t i
    numbers = {batch.rows[i].table for i in range(t.row_first, t.row_first + t.row_count)}
    return sorted(str(batch.tables[number][0]) for number in numbers)


def end_position(Batch batch, size_t index):
    """Where transaction `index` ends in the source's binary log file."""
    return batch.transactions[index].end_log_pos


def keep_first(Batch batch, size_t count):
    """Takes all but the first `count` transactions off a batch that was not decoded yet."""
    batch.transaction_count = min(count, batch.transaction_count)


def end_with(Batch batch, size_t count, failure):
    """Takes all but the first `count` transactions off a batch that was not decoded yet: `failure` is why."""
    keep_first(batch, count)
    batch.failure = failure


def clear_failure(Batch batch):
    """The bad end of a batch turned out to be none that its consumer must know of."""
    batch.failure = None
