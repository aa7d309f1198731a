# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Chains of dependent transactions, hot keys, and what each table has to do with it.

A transaction follows another in a chain when it touches a key that the other was the last to write, or writes one
that the other has shared since, or when one of the two is a barrier. The longest chain is the critical path: no
number of workers replays the log in less than the time of its costliest chain, if transactions are handed on whole.

A key, or a table, *holds a transaction up* when it is what the transaction's last_committed comes from, and that is
less than `distance` transactions back: with fewer workers than that nobody would have waited.
"""
from libc.stdlib cimport calloc, free, malloc

from applier.events.batch cimport T_BARRIER, T_CHECKPOINT, T_FIRST_PART, T_LAST_PART, Row
from writeset.hashing cimport EXCLUSIVE_OVER_SHARED, SHARED

cdef enum:
    PREFETCH_DISTANCE = 8


cdef class Chains:
    """Takes batches in log order, after `Dependencies(…, row_by_row=True)` has scheduled them.

    transaction_cost: of a transaction without rows, in rows. keys_max: keys remembered, see `KeyTable`.
    """

    def __cinit__(self, double transaction_cost, uint32_t distance=64, uint64_t keys_max=3 << 20):
        self.transaction_cost = transaction_cost
        self.distance = distance
        self.keys = KeyTable(keys_max)

    def __dealloc__(self):
        free(self.touched)
        free(self.tables)

    def feed(self, Batch batch):
        """Returns a tuple for each of `batch.tables`: inserts, updates, deletes, transactions, transactions held up.

        A transaction in parts counts once for each batch that it is in. Raises MemoryError.
        """
        cdef size_t i, count = len(batch.tables)
        cdef TableCount* table
        if not batch.transaction_count:
            return []
        free(self.tables)
        self.tables = <TableCount*>calloc(count + 1, sizeof(TableCount))
        if self.tables is NULL:
            raise MemoryError
        with nogil:
            for i in range(self.hot_count):
                self.hot[i].row = -1
            for i in range(batch.transaction_count):
                self.add(batch, &batch.transactions[i])
        totals = []
        for i in range(count):
            table = &self.tables[i]
            totals.append((table.kinds[0], table.kinds[1], table.kinds[2], table.transactions, table.waits))
        return totals

    @property
    def exact(self):
        """Nothing was forgotten; else the chains, the counts of keys and the hot keys are lower bounds."""
        return self.keys.forgotten == 0

    def hottest(self):
        """[(hash, waits, writes, row)] of the keys that held up the most transactions, most first.

        row: of the batch fed last, one that waited for this key; -1 when there is none in it.
        """
        cdef size_t i
        found = [(self.hot[i].hash, self.hot[i].waits, self.hot[i].writes, self.hot[i].row)
                 for i in range(self.hot_count)]
        return sorted(found, key=lambda key: (-key[1], -key[2], key[0]))

    cdef int scratch(self, size_t count) except -1 nogil:
        if count <= self.touched_capacity:
            return 0
        free(self.touched)
        self.touched_capacity = 0
        self.touched = <KeyEntry**>malloc(count * 2 * sizeof(KeyEntry*))
        if self.touched is NULL:
            with gil:
                raise MemoryError(f"no memory for {count} touches")
        self.touched_capacity = count * 2
        return 0

    # --- one transaction --------------------------------------------------------------------------------------

    cdef int add(self, Batch batch, Transaction* t) except -1 nogil:
        cdef const uint64_t* hashes = batch.touches.hashes + t.touch_first
        cdef const unsigned char* modes = batch.touches.modes + t.touch_first
        cdef uint32_t depth = self.floor_depth
        cdef double cost = self.floor_cost
        cdef KeyEntry* entry
        cdef size_t i
        self.touches += t.touch_count
        self.count_rows(batch, t)
        if t.flags & T_BARRIER:
            self.add_barrier(t)
            return 0
        self.keys.reserve(t.touch_count)
        self.scratch(t.touch_count)
        for i in range(t.touch_count):
            if i + PREFETCH_DISTANCE < t.touch_count:
                self.keys.prefetch(hashes[i + PREFETCH_DISTANCE])
            entry = self.touched[i] = self.keys.find_or_add(hashes[i])
            depth = max(depth, entry.writer_depth)
            cost = max(cost, entry.writer_cost)
            if modes[i] == EXCLUSIVE_OVER_SHARED:
                depth = max(depth, entry.sharer_depth)
                cost = max(cost, entry.sharer_cost)
        depth += 1
        cost += self.transaction_cost + t.row_count
        for i in range(t.touch_count):
            entry = self.touched[i]
            if modes[i] == SHARED:
                entry.sharer_depth = max(entry.sharer_depth, depth)
                entry.sharer_cost = max(entry.sharer_cost, cost)
                continue
            entry.writer_depth = depth
            entry.writer_cost = cost
            if entry.writes == 0 or entry.last_write != <uint32_t>t.sequence_number:
                entry.writes += 1
                entry.last_write = <uint32_t>t.sequence_number
        self.depth = max(self.depth, depth)
        self.cost = max(self.cost, cost)
        if t.sequence_number - t.last_committed < self.distance and t.last_committed:
            self.count_waits(batch, t)
        if t.flags & T_CHECKPOINT:
            self.barriers += 1
            self.floor = t.sequence_number
        return 0

    cdef void add_barrier(self, Transaction* t) noexcept nogil:
        """Everything before it comes before it in a chain, and everything after it after it."""
        cdef uint64_t rows
        if t.flags & T_FIRST_PART:
            self.open_rows = 0
        self.open_rows += t.row_count
        if not t.flags & T_LAST_PART:
            return
        rows = max(self.open_rows, <uint64_t>1)       # a statement counts as one row
        self.floor_depth = self.depth = self.depth + 1
        self.floor_cost = self.cost = self.cost + self.transaction_cost + rows
        self.floor = t.sequence_number
        self.barriers += 1
        self.barrier_waits += t.sequence_number > 1

    # --- counting ---------------------------------------------------------------------------------------------

    cdef void count_rows(self, Batch batch, Transaction* t) noexcept nogil:
        cdef size_t i
        cdef Row* row
        cdef TableCount* table
        for i in range(t.row_first, t.row_first + t.row_count):
            row = &batch.rows[i]
            table = &self.tables[row.table]
            table.kinds[row.kind] += 1
            if table.last != t.sequence_number:
                table.last = t.sequence_number
                table.transactions += 1

    cdef void count_waits(self, Batch batch, Transaction* t) noexcept nogil:
        """Whom to blame for last_committed: a barrier, or every key whose last writer it is (or a later one, if the
        source knew better)."""
        cdef size_t i, touch
        cdef Row* row
        cdef TableCount* table
        cdef KeyEntry* entry
        if t.last_committed <= self.floor:
            self.barrier_waits += 1
            return
        for i in range(t.row_first, t.row_first + t.row_count):
            row = &batch.rows[i]
            table = &self.tables[row.table]
            for touch in range(row.touch_first, row.touch_first + row.touch_count):
                if batch.touch_waits[touch] < t.last_committed:
                    continue
                entry = self.touched[touch - t.touch_first]
                if entry.last_wait != <uint32_t>t.sequence_number:
                    entry.last_wait = <uint32_t>t.sequence_number
                    self.note_hot(entry, i)
                if table.last_wait != t.sequence_number:
                    table.last_wait = t.sequence_number
                    table.waits += 1

    cdef void note_hot(self, KeyEntry* entry, size_t row) noexcept nogil:
        cdef size_t i, coolest = 0
        entry.waits += 1
        for i in range(self.hot_count):
            if self.hot[i].hash == entry.hash:
                break
            if self.hot[i].waits < self.hot[coolest].waits:
                coolest = i
        else:
            if self.hot_count < HOT_KEYS_MAX:
                i = self.hot_count
                self.hot_count += 1
            elif entry.waits > self.hot[coolest].waits:
                i = coolest
            else:
                return
        self.hot[i].hash = entry.hash
        self.hot[i].waits = entry.waits
        self.hot[i].writes = entry.writes
        self.hot[i].row = <int64_t>row


def barriers_of(Batch batch):
    """Numbers of the transactions that are barriers, or after which the bucket index had to forget everything."""
    cdef size_t i
    return [i for i in range(batch.transaction_count) if batch.transactions[i].flags & (T_BARRIER | T_CHECKPOINT)]
