# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Row-by-row hand-off: cuts a folded group into the rows that may run now and those that earlier groups still hold.

What must hold, for any two changes a, b of the group that conflict, a before b in the log: not (a held and b ready).
Then the ready changes, in log order, followed by the held ones, in log order, are the same as all in log order; both
steps lead from one valid state to another, and folding each is folding a group (see net_changes).

Changes conflict when they are of one row, of one statement that stays whole, or when they touch a key in a way that does
not commute; a transaction whose keys are not known conflicts with everything. The touches that `writeset.hashing`
leaves out of an update need no care: what frees a value touches the row's identity as well, so it is of the same row.

What a change waits for is told by its own touches: the last writer of each key, if that is before the group. If it is
inside, then that writer is a change of the group that conflicts with this one, and if it is held this one is too; so
what the number inside the group hides is not lost. Something else is: who writes a shared key waits for all its sharers,
of which the index names the last. If that is inside, and no change of the group before it has written the key and
waited for them, the change waits for everything before the group. So does a barrier.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from applier.events.batch cimport T_BARRIER, T_KEYS_UNKNOWN, Row, Transaction
from applier.events.fold_table cimport FOLDS
from applier.events.net_group cimport ENTRY_HELD, NO_ENTRY, FoldedGroup, Rest, View
from writeset.hashing cimport EXCLUSIVE_OVER_SHARED, SHARED


def split(FoldedGroup group, uint64_t low_water_mark):
    """Cuts the group: rows that wait for nothing above `low_water_mark` are READY, the others, and what must come
    after them, are HELD. Returns the sequence number that the held rows wait for; 0 when everything is ready.

    The waits are `Batch.touch_waits`, for each touch the last writer of its key (or sharer, where that counts) as
    the bucket index knew it; without them, the transactions' last_committed. A transaction from which on the index
    has forgotten (a checkpoint) must be the last of its group. May be called again with a higher mark.
    """
    cdef uint64_t wait_for = 0
    cdef KeySet keys = KeySet()
    group.rows_held = 0
    with nogil:
        release_all(group)
        if may_wait(group, low_water_mark):
            wait_for = hold_waiting(group, keys, low_water_mark)
        if wait_for:
            while hold_dependent(group, keys):
                pass
    return wait_for


cdef void release_all(FoldedGroup group) noexcept nogil:
    cdef size_t i
    for i in range(group.entry_count):
        group.entries[i].flags &= ~<uint8_t>ENTRY_HELD
    for i in range(group.rest_count):
        group.rests[i].held = False


# --- what waits by itself ---------------------------------------------------------------------------------------


cdef bint names_its_own(FoldedGroup group) noexcept nogil:
    """Whether a last_committed is in the group: then what is needed from before it follows from chains of touches."""
    cdef size_t v, t
    for v in range(group.view_count):
        for t in range(group.views[v].transaction_count):
            if group.views[v].transactions[t].last_committed >= group.group_first:
                return True
    return False


cdef bint may_wait(FoldedGroup group, uint64_t low_water_mark) noexcept nogil:
    cdef size_t v, t
    for v in range(group.view_count):
        for t in range(group.views[v].transaction_count):
            if group.views[v].transactions[t].last_committed > low_water_mark:
                return True
    return False


cdef uint64_t hold_waiting(FoldedGroup group, KeySet written, uint64_t low_water_mark) except? 0xFFFFFFFFFFFFFFFF nogil:
    """Holds the rows whose own keys wait; returns the highest number waited for, 0 if there is none."""
    cdef const View* view
    cdef const Transaction* transaction
    cdef uint64_t wait, highest = 0
    cdef size_t v, t, r
    cdef uint32_t number = 0
    cdef bint chained = names_its_own(group)
    written.clear()
    for v in range(group.view_count):
        view = &group.views[v]
        for t in range(view.transaction_count):
            transaction = &view.transactions[t]
            for r in range(transaction.row_first, transaction.row_first + transaction.row_count):
                wait = outside_wait(view, transaction, &view.rows[r], group.group_first, chained, written)
                if wait > low_water_mark:
                    highest = max(highest, wait)
                    hold(group, view, &view.rows[r], number)
                number += 1
    return highest


cdef uint64_t outside_wait(const View* view, const Transaction* transaction, const Row* row, uint64_t group_first,
                           bint chained, KeySet written) except? 0xFFFFFFFFFFFFFFFF nogil:
    """The last transaction before the group that the row must wait for. `written` are the shared keys that earlier
    changes of the group have written."""
    cdef uint64_t wait, highest = 0
    cdef size_t i
    if view.waits is NULL or row.touch_count == 0 or transaction.flags & (T_BARRIER | T_KEYS_UNKNOWN):
        return min(transaction.last_committed, group_first - 1)
    for i in range(row.touch_first, row.touch_first + row.touch_count):
        wait = view.waits[i]
        if not chained:
            # The transaction's own bound may be lower than that of a key: the source knew better. But it speaks of two
            # transactions, and must not cut the chain from a third one through this one to what is outside.
            wait = min(wait, transaction.last_committed)
        if view.modes[i] == EXCLUSIVE_OVER_SHARED:
            if wait >= group_first:
                wait = 0 if written.has(view.hashes[i]) else group_first - 1
            written.add(view.hashes[i], EXCLUSIVE_OVER_SHARED)
        elif wait >= group_first:
            wait = 0
        highest = max(highest, wait)
    return highest


# --- what comes after something held ----------------------------------------------------------------------------


cdef bint hold_dependent(FoldedGroup group, KeySet keys) except -1 nogil:
    """One pass over all rows, in log order; returns whether rows that it had passed by then must be held as well."""
    cdef const View* view
    cdef const Transaction* transaction
    cdef const Row* row
    cdef size_t v, t, r, i
    cdef uint32_t number = 0
    cdef uint64_t held = 0
    cdef bint again = False, barrier, behind_barrier = False
    keys.clear()
    for v in range(group.view_count):
        view = &group.views[v]
        for t in range(view.transaction_count):
            transaction = &view.transactions[t]
            barrier = (transaction.flags & (T_BARRIER | T_KEYS_UNKNOWN)) != 0
            for r in range(transaction.row_first, transaction.row_first + transaction.row_count):
                row = &view.rows[r]
                # A barrier is held with whatever is held before it: by itself it waits for all before the group.
                if behind_barrier or is_held(group, view, row, number) or conflicts(keys, view, row):
                    behind_barrier = behind_barrier or barrier
                    again = hold(group, view, row, number) or again
                    for i in range(row.touch_first, row.touch_first + row.touch_count):
                        keys.add(view.hashes[i], view.modes[i])
                    held += 1
                number += 1
    group.rows_held = held
    return again


cdef bint conflicts(KeySet keys, const View* view, const Row* row) noexcept nogil:
    cdef size_t i
    for i in range(row.touch_first, row.touch_first + row.touch_count):
        if keys.conflicts(view.hashes[i], view.modes[i]):
            return True
    return False


cdef bint is_held(FoldedGroup group, const View* view, const Row* row, uint32_t number) noexcept nogil:
    cdef uint32_t first = group.row_entries[2 * number]
    cdef uint32_t second = group.row_entries[2 * number + 1]
    if group.tables[view.tables[row.table]].refusal != FOLDS:
        return group.rests[first].held
    if group.entries[first].flags & ENTRY_HELD:
        return True
    return second != NO_ENTRY and (group.entries[second].flags & ENTRY_HELD) != 0


cdef bint hold(FoldedGroup group, const View* view, const Row* row, uint32_t number) noexcept nogil:
    """Holds what the row is part of; returns whether earlier rows are part of it that were not held before."""
    cdef Rest* rest
    cdef bint earlier = False
    cdef int half
    cdef uint32_t at
    if group.tables[view.tables[row.table]].refusal != FOLDS:
        rest = &group.rests[group.row_entries[2 * number]]
        earlier = not rest.held and rest.row_first < number
        rest.held = True
        return earlier
    for half in range(2):
        at = group.row_entries[2 * number + half]
        if at != NO_ENTRY:
            if not group.entries[at].flags & ENTRY_HELD and group.entries[at].row_first < number:
                earlier = True
            group.entries[at].flags |= ENTRY_HELD
    return earlier


cdef class KeySet:
    """Keys by their hash, and whether all touches of each were shared."""

    cdef uint64_t* hashes                    # 0: free
    cdef uint8_t* shared_only                # all touches were shared
    cdef size_t count
    cdef size_t mask

    def __cinit__(self):
        self.mask = 1023
        self.hashes = <uint64_t*>calloc(self.mask + 1, sizeof(uint64_t))
        self.shared_only = <uint8_t*>calloc(self.mask + 1, 1)
        if self.hashes is NULL or self.shared_only is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.hashes)
        free(self.shared_only)

    cdef void clear(self) noexcept nogil:
        memset(self.hashes, 0, (self.mask + 1) * sizeof(uint64_t))
        self.count = 0

    cdef size_t slot_of(self, uint64_t hash) noexcept nogil:
        cdef size_t slot = hash & self.mask
        while self.hashes[slot] and self.hashes[slot] != hash:
            slot = (slot + 1) & self.mask
        return slot

    cdef bint has(self, uint64_t hash) noexcept nogil:
        return self.hashes[self.slot_of(hash | 1)] != 0

    cdef bint conflicts(self, uint64_t hash, uint8_t mode) noexcept nogil:
        cdef size_t slot = self.slot_of(hash | 1)
        return self.hashes[slot] != 0 and not (self.shared_only[slot] and mode == SHARED)

    cdef int add(self, uint64_t hash, uint8_t mode) except -1 nogil:
        cdef size_t slot = self.slot_of(hash | 1)
        if self.hashes[slot] == 0:
            self.hashes[slot] = hash | 1
            self.shared_only[slot] = True
            self.count += 1
        if mode != SHARED:
            self.shared_only[slot] = False
        return self.widen() if self.count * 2 > self.mask else 0

    cdef int widen(self) except -1 nogil:
        cdef size_t old_mask = self.mask, i, slot
        cdef uint64_t* hashes = self.hashes
        cdef uint8_t* shared_only = self.shared_only
        cdef uint64_t* wider = <uint64_t*>calloc(old_mask * 2 + 2, sizeof(uint64_t))
        cdef uint8_t* wider_shared = <uint8_t*>calloc(old_mask * 2 + 2, 1)
        if wider is NULL or wider_shared is NULL:
            free(wider)
            free(wider_shared)
            with gil:
                raise MemoryError
        self.hashes, self.shared_only, self.mask = wider, wider_shared, old_mask * 2 + 1
        for i in range(old_mask + 1):
            if hashes[i]:
                slot = self.slot_of(hashes[i])
                wider[slot] = hashes[i]
                wider_shared[slot] = shared_only[i]
        free(hashes)
        free(shared_only)
        return 0
