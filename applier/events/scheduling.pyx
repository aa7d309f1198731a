# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""A decoded batch as the scheduler sees it: dependencies for all its transactions, and cutting it into units."""
from libc.stdint cimport int64_t, uint64_t
from applier.events.batch cimport (
    T_BARRIER, T_FIRST_PART, T_KEYS_UNKNOWN, T_LAST_PART, T_STATEMENTS, Batch, Transaction)
from writeset.buckets cimport BucketIndex

from scheduler.grouping import Cut

cdef uint64_t UNKNOWN = <uint64_t>-1


cdef class SourceClock:
    """Translates the source's last_committed into our sequence numbers.

    The source's numbers restart in each binlog file, and transactions that were skipped leave gaps in ours, so a
    translation holds only within a run of consecutive source numbers. What a transaction needs from before the run
    it is in is bounded by the run's start: everything before it has a lower number of ours.
    """

    cdef uint64_t epoch
    cdef int64_t run_source_first
    cdef int64_t expected
    cdef uint64_t run_first

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
    cdef uint64_t floor
    cdef readonly uint64_t barriers
    cdef readonly uint64_t transactions

    def __init__(self, BucketIndex index, *, bint use_source_bounds=True):
        self.index = index
        self.source_clock = SourceClock()
        self.use_source_bounds = use_source_bounds

    def schedule(self, Batch batch, uint64_t low_water_mark):
        """Batches must come in log order. Runs without the GIL."""
        cdef size_t i
        cdef Transaction* t
        cdef uint64_t bound, ours
        cdef bint barrier
        with nogil:
            for i in range(batch.transaction_count):
                t = &batch.transactions[i]
                if not t.flags & T_FIRST_PART:
                    t.last_committed = t.sequence_number - 1
                    continue
                bound = self.source_clock.bound(t)
                barrier = (t.flags & (T_BARRIER | T_STATEMENTS | T_KEYS_UNKNOWN)) != 0 or not t.flags & T_LAST_PART
                self.transactions += 1
                if not barrier:
                    ours = self.index.assign(
                        batch.touches.hashes + t.touch_first, batch.touches.modes + t.touch_first, t.touch_count,
                        t.sequence_number, low_water_mark)
                    if self.use_source_bounds and bound < ours:
                        ours = bound
                    t.last_committed = max(ours, self.floor)
                else:
                    t.flags |= T_BARRIER
                    t.last_committed = t.sequence_number - 1
                    self.floor = t.sequence_number
                    self.barriers += 1


def cut(Batch batch, size_t start, uint64_t transactions_max, uint64_t bytes_max, uint64_t unit_first):
    """See scheduler.grouping.CutFunction."""
    cdef size_t i = start
    cdef uint64_t size = 0, needs = 0, first
    cdef Transaction* t
    if start >= batch.transaction_count:
        raise IndexError(f"transaction {start} of {batch.transaction_count}")
    t = &batch.transactions[start]
    first = unit_first if unit_first else t.sequence_number
    if t.flags & T_BARRIER or not t.flags & T_FIRST_PART or not t.flags & T_LAST_PART:
        return Cut(start + 1, t.sequence_number, t.sequence_number, t.sequence_number - 1, t.byte_count, True,
                   bool(t.flags & T_FIRST_PART), bool(t.flags & T_LAST_PART))
    with nogil:
        while i < batch.transaction_count:
            t = &batch.transactions[i]
            if t.flags & T_BARRIER or not t.flags & T_LAST_PART:
                break
            if i > start and (i - start >= transactions_max or size + t.byte_count > bytes_max):
                break
            if t.last_committed < first and t.last_committed > needs:
                needs = t.last_committed
            size += t.byte_count
            i += 1
    return Cut(i, batch.transactions[start].sequence_number, batch.transactions[i - 1].sequence_number, needs, size,
               False, True, True)
