# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""When each transaction would commit, for several numbers of workers and three ways to order them.

The model. A transaction costs its rows and a constant. Transactions are given out in log order, each to the worker
that is free first. A worker waits until what its transaction needs has committed, executes, and commits when all
earlier transactions have; then it is free. Commits are in log order, so the times of commits never fall, and

    start[i]  = commit[max(i - workers, last_committed[i])]
    commit[i] = max(commit[i - 1], start[i] + cost[i])

So only the last WORKERS_MAX commits need be known, however long the log is. Row by row, a worker does not wait
before it executes: the rows whose last writers have committed go first, then the others, each as soon as its last
writer has committed; the constant comes at the end. Rows of a table whose changes must keep their order (`FoldTable`
refuses it) wait for the last of what they all wait for.

What the model leaves out: reading and scheduling, lock waits, the time of an fsync (shared by a group of commits), and
that the target's own resources end. It tells what the log allows, not what a machine does.
"""
from libc.stdint cimport UINT64_MAX, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from applier.events.batch cimport T_BARRIER, T_FIRST_PART, T_LAST_PART, Row
from applier.events.fold_table cimport FOLDS, FoldTable, fold_table

WORKERS = tuple(1 << i for i in range(WORKER_COUNTS))
POLICY_NAMES = ("source", "ours", "handoff")


cdef class Simulation:
    """Takes batches in log order, after `Dependencies(…, row_by_row=True)` has scheduled them.

    transaction_cost: of a transaction without rows, in rows.
    """

    def __cinit__(self, double transaction_cost):
        self.transaction_cost = transaction_cost
        self.clock = SourceClock()

    def feed(self, Batch batch):
        """Raises MemoryError."""
        cdef size_t i
        cdef uint8_t* splits = <uint8_t*>calloc(len(batch.tables) + 1, 1)
        if splits is NULL:
            raise MemoryError
        try:
            for i, pair in enumerate(batch.tables):
                splits[i] = (<FoldTable>fold_table(pair)).layout.refusal == FOLDS
            with nogil:
                for i in range(batch.transaction_count):
                    self.add(batch, splits, &batch.transactions[i])
        finally:
            free(splits)

    def times(self):
        """{policy: (time of the last commit with 1, 2, 4 … 64 workers)}, in rows."""
        cdef size_t policy, count, at = self.sequence_number & (RING - 1)
        return {name: tuple([self.commits[policy][count][at] for count in range(WORKER_COUNTS)])
                for policy, name in enumerate(POLICY_NAMES)}

    cdef void add(self, Batch batch, const unsigned char* splits, Transaction* t) noexcept nogil:
        if t.flags & T_FIRST_PART:
            self.open_rows = 0
            self.source_last_committed = self.clock.bound(t)
            self.source_numbers += self.source_last_committed != UINT64_MAX
        self.open_rows += t.row_count
        self.rows += t.row_count
        if t.flags & T_LAST_PART:
            self.sort_rows(batch, splits, t)
            self.commit(t)
            self.transactions += 1
            self.sequence_number = t.sequence_number

    cdef void sort_rows(self, Batch batch, const unsigned char* splits, const Transaction* t) noexcept nogil:
        """Fills `waiting`. A barrier as a whole waits for the transaction before it; a statement counts as a row."""
        cdef size_t i, touch
        cdef const Row* row
        cdef uint64_t wait, kept_wait = 0, distance
        cdef uint32_t kept = 0
        memset(self.waiting, 0, sizeof(self.waiting))
        if t.flags & T_BARRIER:
            self.open_rows = max(self.open_rows, <uint64_t>1)
            self.waiting[1] = <uint32_t>self.open_rows
            return
        for i in range(t.row_first, t.row_first + t.row_count):
            row = &batch.rows[i]
            wait = 0 if row.touch_count else t.last_committed
            for touch in range(row.touch_first, row.touch_first + row.touch_count):
                wait = max(wait, batch.touch_waits[touch])
            wait = min(wait, t.last_committed)        # which may be lower: the source's bound holds for every row
            if not splits[row.table]:
                kept_wait = max(kept_wait, wait)
                kept += 1
                continue
            distance = t.sequence_number - wait
            if distance < RING:
                self.waiting[distance] += 1
        distance = t.sequence_number - kept_wait
        if kept and distance < RING:
            self.waiting[distance] += kept

    cdef void commit(self, const Transaction* t) noexcept nogil:
        cdef uint64_t i = t.sequence_number, needed, free_at
        cdef uint64_t source = self.source_last_committed if self.source_last_committed != UINT64_MAX else i - 1
        cdef double cost = self.transaction_cost + self.open_rows
        cdef double end
        cdef size_t count, policy
        self.serial_cost += cost
        for count in range(WORKER_COUNTS):
            free_at = i - min(i, <uint64_t>1 << count)
            for policy in range(POLICIES):
                if policy == HANDOFF:
                    end = self.handed_off(count, i)
                else:
                    needed = max(free_at, source if policy == SOURCE else t.last_committed)
                    end = self.commits[policy][count][needed & (RING - 1)] + cost
                end = max(end, self.commits[policy][count][(i - 1) & (RING - 1)])
                self.commits[policy][count][i & (RING - 1)] = end

    cdef double handed_off(self, size_t count, uint64_t sequence_number) noexcept nogil:
        """When the transaction is executed, with 2**count workers."""
        cdef uint64_t workers = <uint64_t>1 << count
        cdef uint64_t distance = min(workers, sequence_number)
        cdef double* commits = self.commits[<size_t>HANDOFF][count]
        cdef double now = commits[(sequence_number - distance) & (RING - 1)]
        cdef uint64_t left = 0
        for distance in range(1, workers):
            left += self.waiting[distance]
        now += self.open_rows - left
        distance = workers - 1
        while left and distance:
            if self.waiting[distance]:
                now = max(now, commits[(sequence_number - distance) & (RING - 1)]) + self.waiting[distance]
                left -= self.waiting[distance]
            distance -= 1
        return now + self.transaction_cost
