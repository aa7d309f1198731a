# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Table maps that have been met, found by their content without the GIL."""
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memset

from applier.events.row_image cimport ColumnLayout, Stride, compile_strides
from writeset.hashing cimport Span, TablePlan, hash_bytes

from applier.events.column_types import ColumnType
from applier.events.table_map import COLUMNS_REMEMBERED_MAX, TABLE_MAPS_MAX

cdef uint64_t CONTENT_SEED = 0x7AB1E0


cdef class TableCache:
    """At most `capacity` tables or COLUMNS_REMEMBERED_MAX columns, and all that the current batch uses; the least recently used go first."""

    def __cinit__(self, size_t capacity=TABLE_MAPS_MAX):
        self.capacity = max(capacity, <size_t>2)
        self.resize(64)

    def __dealloc__(self):
        if self.slots is not NULL:
            self.forget()
        free(self.slots)
        free(self.used)

    cdef void begin_batch(self) noexcept:
        self.batch += 1
        self.used_count = self.handed_out = 0

    cdef Table* find(self, const uint8_t* content, size_t length) noexcept nogil:
        cdef uint64_t hash = hash_bytes(content, length, CONTENT_SEED)
        cdef size_t mask = self.slot_count - 1
        cdef size_t slot = hash & mask
        cdef Table* table
        while True:
            table = self.slots[slot]
            if table is NULL:
                return NULL
            if (table.hash == hash and table.content_length == length
                    and memcmp(table.content, content, length) == 0):
                return table
            slot = (slot + 1) & mask

    cdef Table* add(self, tuple pair) except NULL:
        cdef Table* table
        if self.is_over() and self.needed != self.batch:
            self.evict()
            if self.is_over():
                self.needed = self.batch
        if (self.count + 1) * 2 >= self.slot_count:
            self.resize(self.slot_count * 2)
        table = new_table(pair)
        insert(self.slots, self.slot_count, table)
        self.count += 1
        self.columns += table.weight
        return table

    cdef bint is_over(self) noexcept:
        return self.count >= self.capacity or self.columns > COLUMNS_REMEMBERED_MAX

    cdef int use(self, Table* table) except -1 nogil:
        cdef Table** grown
        if table.used == self.batch:
            return 0
        if self.used_count == self.used_capacity:
            grown = <Table**>realloc(self.used, (self.used_capacity * 2 + 64) * sizeof(Table*))
            if grown is NULL:
                raise MemoryError
            self.used = grown
            self.used_capacity = self.used_capacity * 2 + 64
        table.used = self.batch
        table.batch_index = <uint32_t>self.used_count
        self.used[self.used_count] = table
        self.used_count += 1
        return 0

    cdef int hand_out(self, list tables) except -1:
        while self.handed_out < self.used_count:
            tables.append(<object>self.used[self.handed_out].pair)
            self.handed_out += 1
        return 0

    cdef void forget(self) noexcept:
        """Drops every table. Those used by the batch must have been handed out before."""
        cdef size_t slot
        for slot in range(self.slot_count):
            if self.slots[slot] is not NULL:
                free_table(self.slots[slot])
                self.slots[slot] = NULL
        self.count = self.columns = 0

    cdef int resize(self, size_t slot_count) except -1:
        cdef Table** slots = <Table**>calloc(slot_count, sizeof(Table*))
        cdef size_t slot
        if slots is NULL:
            raise MemoryError
        for slot in range(self.slot_count):
            if self.slots[slot] is not NULL:
                insert(slots, slot_count, self.slots[slot])
        free(self.slots)
        self.slots = slots
        self.slot_count = slot_count
        return 0

    cdef int evict(self) except -1:
        """Makes room by dropping the less recently used half at once, but nothing that the batch still needs."""
        cdef size_t slot
        stamps = sorted(self.slots[slot].used for slot in range(self.slot_count) if self.slots[slot] is not NULL)
        cdef uint64_t median = stamps[len(stamps) // 2]
        for slot in range(self.slot_count):
            if self.slots[slot] is not NULL and self.slots[slot].used <= median and self.slots[slot].used < self.batch:
                self.columns -= self.slots[slot].weight
                free_table(self.slots[slot])
                self.slots[slot] = NULL
                self.count -= 1
        return self.resize(self.slot_count)


cdef void insert(Table** slots, size_t slot_count, Table* table) noexcept nogil:
    cdef size_t slot = table.hash & (slot_count - 1)
    while slots[slot] is not NULL:
        slot = (slot + 1) & (slot_count - 1)
    slots[slot] = table


cdef Table* new_table(tuple pair) except NULL:
    cdef Table* table = <Table*>calloc(1, sizeof(Table))
    if table is NULL:
        raise MemoryError
    try:
        fill_table(table, pair[0], pair[1])
    except BaseException:
        free_table(table)
        raise
    Py_INCREF(pair)
    table.pair = <void*>pair
    return table


cdef int fill_table(Table* table, object table_map, TablePlan plan) except -1:
    cdef bytes content = table_map.content
    cdef tuple columns = table_map.columns
    cdef uint32_t count = <uint32_t>len(columns)
    table.content = content
    table.content_length = len(content)
    table.hash = hash_bytes(table.content, table.content_length, CONTENT_SEED)
    table.plan = <void*>plan
    table.column_count = count
    table.weight = table_map.weight
    table.columns = <ColumnLayout*>calloc(count + 1, sizeof(ColumnLayout))
    table.strides = <Stride*>calloc(count + 1, sizeof(Stride))
    table.before = <Span*>calloc(count + 1, sizeof(Span))
    table.after = <Span*>calloc(count + 1, sizeof(Span))
    if table.columns is NULL or table.strides is NULL or table.before is NULL or table.after is NULL:
        raise MemoryError
    table.keys_unknown = plan.column_total != count
    table.source_overlooks = plan.source_overlooks
    for position, column in enumerate(columns):
        fill_layout(&table.columns[<size_t>position], column)
        table.json_count += table.columns[<size_t>position].is_json
        table.columns[<size_t>position].wanted = not table.keys_unknown and plan.wanted[<size_t>position] != 0
    table.stride_count = compile_strides(table.columns, table.column_count, table.strides)
    return 0


cdef int fill_layout(ColumnLayout* layout, object column) except -1:
    layout.prefix_bytes, layout.fixed_bytes = column.layout
    layout.is_json = column.type == ColumnType.JSON
    layout.wanted = 1
    return 0


cdef void free_table(Table* table) noexcept:
    free(table.columns)
    free(table.strides)
    free(table.before)
    free(table.after)
    if table.pair is not NULL:
        Py_DECREF(<object>table.pair)
    free(table)
