# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""A folded group: its transactions, its tables, and a hash table of the rows that it changes."""
cimport cython
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from applier.events.batch cimport T_ROWS, Batch
from applier.events.fold_table cimport FOLDS, KEY_BYTES_MAX, FoldTable, fold_table

from applier.events.fold_table import REFUSALS_TEXT

cdef enum:
    KEY_CHUNK_BYTES = 1 << 18
    UNUSED = 0xFFFFFFFF


@cython.no_gc_clear                              # __dealloc__ needs the budget
cdef class FoldedGroup:
    """The net changes of a group. Made by `net_changes.fold`; belongs to one thread at a time.

    slices:                  what it was made of
    group_first, group_last: sequence numbers
    rows_in, rows_out:       rows of the group, and rows that are sent for it (one that moves counts twice)
    rows_held:               rows of the group that the last `split` put into the second part
    events_out:              row events that have been written for it
    """

    def __cinit__(self, list slices, int hash_bits=64):
        self.slices = slices
        self.budget = slices[0][0].budget if slices else None
        self.fold_tables = []
        self.table_order = []
        self.hash_mask = (<uint64_t>1 << hash_bits) - 1 if hash_bits < 64 else <uint64_t>-1
        self.open()
        self.allocate()

    def __dealloc__(self):
        cdef size_t i
        cdef KeyChunk* chunk
        for i in range(self.view_count):
            free(self.views[i].tables)
        while self.keys is not NULL:
            chunk = self.keys
            self.keys = chunk.next
            free(chunk)
        free(self.views)
        free(self.tables)
        free(self.entries)
        free(self.slots)
        free(self.row_entries)
        free(self.rests)
        free(self.rest_events)
        free(self.spans)
        free(self.other_spans)
        free(self.key)
        free(self.other_key)
        if self.budget is not None:
            self.budget.free(self.charged)

    cdef void charge_arrays(self) noexcept nogil:
        cdef int64_t held
        if self.budget is not None:
            held = <int64_t>self.array_bytes()
            self.budget.charge(held - self.charged)
            self.charged = held

    cdef size_t array_bytes(self) noexcept nogil:
        cdef size_t total = 0
        cdef KeyChunk* chunk = self.keys
        while chunk is not NULL:
            total += sizeof(KeyChunk) + KEY_CHUNK_BYTES
            chunk = chunk.next
        return (total + self.entry_capacity * sizeof(Entry) + (self.slot_mask + 1) * sizeof(uint64_t)
                + (self.rows_in + 1) * 2 * sizeof(uint32_t) + self.rest_capacity * sizeof(Rest)
                + self.rest_event_capacity * sizeof(Event) + 2 * KEY_BYTES_MAX)

    @property
    def memory_bytes(self):
        """Of its arrays."""
        return self.array_bytes()

    @property
    def tables_folded(self):
        """How many tables with changes in the group fold."""
        cdef size_t i
        return sum(self.tables[i].row_count > 0 and self.tables[i].refusal == FOLDS for i in range(self.table_count))

    @property
    def tables_unfolded(self):
        """{"schema.table": why} of the others."""
        cdef size_t i
        return {str((<FoldTable>self.fold_tables[<Py_ssize_t>i]).table_map): REFUSALS_TEXT[self.tables[i].refusal]
                for i in range(self.table_count) if self.tables[i].row_count and self.tables[i].refusal != FOLDS}

    # --- from slices to views -----------------------------------------------------------------------------------

    cdef int open(self) except -1:
        cdef Batch batch
        cdef View* view
        cdef Transaction* transaction
        cdef size_t first, end, i
        cdef dict numbers = {}
        self.views = <View*>calloc(len(self.slices) + 1, sizeof(View))
        if self.views is NULL:
            raise MemoryError
        for batch, first, end in self.slices:
            if first > end or end > batch.transaction_count:
                raise IndexError(f"transactions {first} to {end} of {batch.transaction_count}")
            if first == end:
                continue
            for i in range(first, end):
                transaction = &batch.transactions[i]
                if not transaction.flags & T_ROWS:
                    raise ValueError(f"transaction {transaction.sequence_number} is not made of rows only")
                self.rows_in += transaction.row_count
            view = &self.views[self.view_count]
            if self.view_count == 0:
                self.group_first = batch.transactions[first].sequence_number
            self.group_last = batch.transactions[end - 1].sequence_number
            view.transactions = batch.transactions + first
            view.transaction_count = end - first
            view.rows = batch.rows
            view.events = batch.events
            view.hashes = batch.touches.hashes
            view.modes = batch.touches.modes
            view.waits = batch.touch_waits
            view.tables = <uint32_t*>malloc((len(batch.tables) + 1) * sizeof(uint32_t))
            if view.tables is NULL:
                raise MemoryError
            self.view_count += 1
            self.number_tables(view, batch.tables, numbers)
        if self.rows_in >= NO_ENTRY // 2:
            raise ValueError(f"{self.rows_in} rows are too many for one group")
        return 0

    cdef int number_tables(self, View* view, list tables, dict numbers) except -1:
        """Finds the tables that the view's rows are about: a batch may know many more."""
        cdef size_t i
        cdef FoldTable table
        mark_used(view, len(tables))
        for i in range(<size_t>len(tables)):
            if view.tables[i] == UNUSED:
                continue
            table = fold_table(tables[<Py_ssize_t>i])
            number = numbers.setdefault(table, len(numbers))
            if number == len(self.fold_tables):
                self.fold_tables.append(table)
            view.tables[i] = number
        return 0

    cdef int allocate(self) except -1:
        cdef size_t i, slots = 64, columns = 0
        cdef FoldTable table
        while slots < self.rows_in * 2:
            slots *= 2
        self.table_count = len(self.fold_tables)
        self.tables = <GroupTable*>calloc(self.table_count + 1, sizeof(GroupTable))
        self.slots = <uint64_t*>calloc(slots, sizeof(uint64_t))
        self.slot_mask = slots - 1
        self.entry_capacity = self.rows_in + 1
        self.entries = <Entry*>malloc(self.entry_capacity * sizeof(Entry))
        self.row_entries = <uint32_t*>malloc((self.rows_in + 1) * 2 * sizeof(uint32_t))
        self.key = <uint8_t*>malloc(KEY_BYTES_MAX)
        self.other_key = <uint8_t*>malloc(KEY_BYTES_MAX)
        if (self.tables is NULL or self.slots is NULL or self.entries is NULL or self.row_entries is NULL
                or self.key is NULL or self.other_key is NULL):
            raise MemoryError
        memset(self.row_entries, 0xFF, (self.rows_in + 1) * 2 * sizeof(uint32_t))
        for i in range(self.table_count):
            table = self.fold_tables[<Py_ssize_t>i]
            self.tables[i].layout = &table.layout
            self.tables[i].refusal = table.layout.refusal
            columns = max(columns, <size_t>table.layout.column_count)
        self.spans = <Span*>malloc((columns + 1) * sizeof(Span))
        self.other_spans = <Span*>malloc((columns + 1) * sizeof(Span))
        if self.spans is NULL or self.other_spans is NULL:
            raise MemoryError
        return 0

    # --- the rows that the group changes ------------------------------------------------------------------------

    cdef int entry_of(self, uint32_t table, uint64_t hash, const uint8_t* key, uint32_t key_length,
                      Entry** entry) except -1 nogil:
        cdef Entry* candidate
        cdef uint64_t tag
        cdef size_t slot
        cdef bint exact = self.tables[table].layout.exact
        hash &= self.hash_mask
        tag = hash >> 32
        slot = hash & self.slot_mask
        while self.slots[slot]:
            if self.slots[slot] >> 32 == tag:
                candidate = &self.entries[<uint32_t>self.slots[slot] - 1]
                if candidate.hash == hash and candidate.table == table:
                    if candidate.key_length == key_length and memcmp(candidate.key, key, key_length) == 0:
                        entry[0] = candidate
                        return ENTRY_FOUND
                    if not exact:
                        return ENTRY_AMBIGUOUS
            slot = (slot + 1) & self.slot_mask
        entry[0] = self.add_entry(table, hash, key, key_length)
        self.slots[slot] = (tag << 32) | self.entry_count
        if self.entry_count * 2 > self.slot_mask:
            self.widen()
        return ENTRY_NEW

    cdef Entry* add_entry(self, uint32_t table, uint64_t hash, const uint8_t* key,
                          uint32_t key_length) except NULL nogil:
        cdef Entry* entry
        self.entries = <Entry*>room(self.entries, self.entry_count, &self.entry_capacity, sizeof(Entry))
        entry = &self.entries[self.entry_count]
        entry.hash = hash
        entry.key = self.keep_key(key, key_length)
        entry.key_length = <uint16_t>key_length
        entry.table = table
        entry.before = entry.after = NULL
        entry.before_length = entry.after_length = 0
        entry.kind = NET_NOTHING
        entry.flags = 0
        self.entry_count += 1
        return entry

    cdef const uint8_t* keep_key(self, const uint8_t* key, uint32_t key_length) except NULL nogil:
        cdef KeyChunk* chunk = self.keys
        cdef uint8_t* kept
        if chunk is NULL or chunk.used + key_length > KEY_CHUNK_BYTES:
            chunk = <KeyChunk*>malloc(sizeof(KeyChunk) + KEY_CHUNK_BYTES)
            if chunk is NULL:
                with gil:
                    raise MemoryError
            chunk.next = self.keys
            chunk.used = 0
            self.keys = chunk
        kept = <uint8_t*>(chunk + 1) + chunk.used
        memcpy(kept, key, key_length)
        chunk.used += key_length
        return kept

    cdef int widen(self) except -1 nogil:
        """Twice as many slots; a row whose key changes has two entries."""
        cdef size_t mask = self.slot_mask * 2 + 1
        cdef uint64_t* slots = <uint64_t*>calloc(mask + 1, sizeof(uint64_t))
        cdef size_t i, slot
        if slots is NULL:
            with gil:
                raise MemoryError
        for i in range(self.entry_count):
            slot = self.entries[i].hash & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = (self.entries[i].hash >> 32 << 32) | (i + 1)
        free(self.slots)
        self.slots = slots
        self.slot_mask = mask
        return 0


cdef void mark_used(View* view, size_t table_count) noexcept nogil:
    cdef const Transaction* transaction
    cdef size_t i, r
    memset(view.tables, 0xFF, table_count * sizeof(uint32_t))
    for i in range(view.transaction_count):
        transaction = &view.transactions[i]
        for r in range(transaction.row_first, transaction.row_first + transaction.row_count):
            view.tables[view.rows[r].table] = 0


cdef void* room(void* items, size_t count, size_t* capacity, size_t item_bytes) except NULL nogil:
    cdef size_t wanted = capacity[0] * 2 + 32
    if count < capacity[0]:
        return items
    items = realloc(items, wanted * item_bytes)
    if items is NULL:
        with gil:
            raise MemoryError(f"no memory for {wanted} items of {item_bytes} bytes")
    capacity[0] = wanted
    return items
