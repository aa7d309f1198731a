# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""A folded group as row events: for each table one of deletes, one of updates, one of inserts, in key order.

The events are put into a batch of their own, one transaction for each statement, so they are sent the same way as the
events of the log. Key order is the order of InnoDB's clustered index: neighbours share pages.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp, memcpy, memset

from applier.events.batch cimport T_FIRST_PART, T_LAST_PART, T_ROWS, Batch, Buffer, Transaction
from applier.events.event_types cimport (
    DELETE_ROWS_EVENT, FLAGS_OFFSET, HEADER_BYTES, LENGTH_OFFSET, LOG_POS_OFFSET, TABLE_MAP_EVENT, TYPE_OFFSET,
    UPDATE_ROWS_EVENT, WRITE_ROWS_EVENT)
from applier.events.fold_table cimport FOLDS, Layout, find_columns
from applier.events.narrow_images cimport ColumnList, list_flagged, note_changes, write_bitmap, write_image
from applier.events.net_group cimport (
    ENTRY_HELD, NET_DELETE, NET_INSERT, NET_MOVE, NET_NOTHING, NET_UPDATE, Entry, FoldedGroup, GroupTable, Rest)
from applier.events.row_image cimport ROWS_COMPLETE_ROWS, ROWS_POST_HEADER_BYTES, TABLE_ID_BYTES
from applier.events.wire cimport store_u32
from writeset.hashing cimport Span

from applier.events.statement import DEFAULT_PACKET_BYTES_MAX, rows_packets

EVENT_BYTES_MAX = 1 << 20
"""Row events are closed when the next row would make them longer. The server's own have 8 KB; fewer are cheaper."""

EVERYTHING, READY, HELD = -1, 0, 1
"""Parts of a group: `split` tells the second and third apart."""

cdef enum:
    KINDS = 3                            # deletes, updates, inserts: written in this order
    EXTRA_INFO_BYTES = 2


# One row of an event, so that sorting needs not look further in most cases.
cdef struct Item:
    uint64_t high                        # the first 16 bytes of the key
    uint64_t low
    const Entry* entry

# The rows of one kind of one table.
cdef struct Run:
    size_t first                         # into items
    size_t count
    size_t image_bytes


def folded_packets(FoldedGroup group, bytes head=b"", int head_replies=0, bytes tail=b"", int tail_replies=0,
                   size_t packet_bytes_max=DEFAULT_PACKET_BYTES_MAX, *, int part=EVERYTHING, bint narrow=True):
    """[(packet, replies owed), …] for a folded group, or for one part of it, as `rows_packets` makes them.

    part: READY or HELD, as the last `split` has told them apart, or EVERYTHING. May be called again.
    narrow: updates and deletes without the columns that the server does not need, see narrow_images.pxd.
    """
    cdef Batch batch = folded_batch(group, packet_bytes_max, part=part, narrow=narrow)
    return rows_packets([(batch, 0, len(batch))], head, head_replies, tail, tail_replies, packet_bytes_max)


def folded_batch(FoldedGroup group, size_t packet_bytes_max=DEFAULT_PACKET_BYTES_MAX, *, int part=EVERYTHING,
                 bint narrow=True):
    """The events of a folded group, or of one part of it, in a batch: one transaction for each statement."""
    cdef Writer writer = Writer(group, min(<size_t>EVENT_BYTES_MAX, packet_bytes_max // 2), part, narrow)
    writer.write()
    group.events_out += writer.row_events
    return writer.batch


@cython.no_gc_clear                          # __dealloc__ needs the group
cdef class Writer:
    cdef FoldedGroup group
    cdef Batch batch
    cdef Item* items
    cdef Run* runs                       # KINDS for each table
    cdef uint32_t* order
    cdef size_t order_count
    cdef uint8_t* at
    cdef size_t event_bytes_max
    cdef uint64_t row_events
    cdef int part
    cdef bint narrow
    cdef int64_t charged                 # to the budget, of items
    cdef uint8_t* flags                  # a flag for each column of the widest table
    cdef ColumnList changed              # columns of the update event being written

    def __cinit__(self, FoldedGroup group, size_t event_bytes_max, int part, bint narrow):
        cdef size_t i, columns = 1
        self.group = group
        self.event_bytes_max = event_bytes_max
        self.part = part
        self.narrow = narrow
        for i in range(group.table_count):
            columns = max(columns, <size_t>group.tables[i].layout.column_count)
        self.flags = <uint8_t*>malloc(columns)
        self.changed.positions = <uint32_t*>malloc(columns * sizeof(uint32_t))
        self.batch = Batch(budget=group.budget)
        self.order_count = len(group.table_order)
        self.items = <Item*>malloc((group.entry_count * 2 + 1) * sizeof(Item))
        self.runs = <Run*>malloc((group.table_count + 1) * KINDS * sizeof(Run))
        self.order = <uint32_t*>malloc((self.order_count + 1) * sizeof(uint32_t))
        if (self.items is NULL or self.runs is NULL or self.order is NULL or self.flags is NULL
                or self.changed.positions is NULL):
            raise MemoryError
        if group.budget is not None:
            self.charged = <int64_t>((group.entry_count * 2 + 1) * sizeof(Item))
            group.budget.charge(self.charged)
        memset(self.runs, 0, (group.table_count + 1) * KINDS * sizeof(Run))
        for i in range(self.order_count):
            self.order[i] = group.table_order[<Py_ssize_t>i]

    def __dealloc__(self):
        free(self.items)
        free(self.runs)
        free(self.order)
        free(self.flags)
        free(self.changed.positions)
        if self.charged:
            self.group.budget.free(self.charged)

    cdef int write(self) except -1:
        cdef Buffer buffer
        cdef size_t room
        with nogil:
            room = self.sort_out()
        buffer = Buffer(room, self.group.budget)
        self.at = buffer.data
        self.batch.buffers.append(buffer)
        for source, _, _ in self.group.slices:
            self.batch.buffers.append(source)        # whose events go into the batch as they are
        with nogil:
            self.write_tables()
            self.write_rests()
            self.batch.settle()
        assert self.at <= buffer.data + room
        return 0

    # --- which rows go where ------------------------------------------------------------------------------------

    cdef bint is_wanted(self, bint held) noexcept nogil:
        return self.part < 0 or self.part == held

    cdef size_t sort_out(self) noexcept nogil:
        """Puts the entries into runs, in key order. Returns the room that the events will need."""
        cdef const Entry* entry
        cdef Run* run
        cdef size_t i, first = 0
        cdef size_t room = 0
        for i in range(self.group.entry_count):
            self.count(&self.group.entries[i])
        for i in range(self.group.table_count * KINDS):
            run = &self.runs[i]
            run.first = first
            first += run.count
            room += self.room_for(run, self.group.tables[i // KINDS].layout)
            run.count = 0
        for i in range(self.group.entry_count):
            entry = &self.group.entries[i]
            if not self.is_wanted((entry.flags & ENTRY_HELD) != 0):
                continue
            if entry.kind == NET_MOVE:
                self.place(entry, NET_DELETE)
                self.place(entry, NET_INSERT)
            elif entry.kind != NET_NOTHING:
                self.place(entry, entry.kind)
        for i in range(self.group.table_count * KINDS):
            sort_items(self.items + self.runs[i].first, self.runs[i].count)
        return room

    cdef void count(self, const Entry* entry) noexcept nogil:
        cdef Run* runs = self.runs + entry.table * KINDS
        if entry.kind == NET_NOTHING or not self.is_wanted((entry.flags & ENTRY_HELD) != 0):
            return
        if entry.kind == NET_UPDATE:
            runs[NET_UPDATE - 1].count += 1
            runs[NET_UPDATE - 1].image_bytes += <size_t>entry.before_length + entry.after_length
            return
        if entry.kind != NET_INSERT:
            runs[NET_DELETE - 1].count += 1
            runs[NET_DELETE - 1].image_bytes += entry.before_length
        if entry.kind != NET_DELETE:
            runs[NET_INSERT - 1].count += 1
            runs[NET_INSERT - 1].image_bytes += entry.after_length

    cdef size_t room_for(self, const Run* run, const Layout* layout) noexcept nogil:
        """An event ends where its head, its rows and the next row would be longer than the limit; so the rows of two
        neighbours are longer than the limit without a head. The table map is counted once for each kind."""
        cdef size_t head = head_bytes(layout)
        cdef size_t events = run.count
        if run.count == 0:
            return 0
        if self.event_bytes_max > head:
            events = min(events, 2 * (run.image_bytes // (self.event_bytes_max - head)) + 2)
        return run.image_bytes + events * head + HEADER_BYTES + TABLE_ID_BYTES + layout.content_length

    cdef void place(self, const Entry* entry, uint8_t kind) noexcept nogil:
        cdef Run* run = &self.runs[entry.table * KINDS + kind - 1]
        cdef Item* item = &self.items[run.first + run.count]
        item.entry = entry
        item.high = key_word(entry, 0)
        item.low = key_word(entry, 8)
        run.count += 1

    # --- events -------------------------------------------------------------------------------------------------

    cdef int write_tables(self) except -1 nogil:
        """A statement for all tables whose row events have the same flags: the server takes the flags of the first
        event of a statement for all of it."""
        cdef size_t i = 0, end, at
        while i < self.order_count:
            end = i
            while (end < self.order_count
                    and self.group.tables[self.order[end]].flags == self.group.tables[self.order[i]].flags):
                end += 1
            for at in range(i, end):
                if self.has_rows(self.order[at]):
                    self.write_table_map(self.order[at])
            for at in range(i, end):
                self.write_table(self.order[at])
            self.end_statement()
            i = end
        return 0

    cdef bint has_rows(self, uint32_t table) noexcept nogil:
        cdef Run* runs = self.runs + table * KINDS
        return runs[0].count + runs[1].count + runs[2].count > 0

    cdef int write_table_map(self, uint32_t table) except -1 nogil:
        cdef GroupTable* group_table = &self.group.tables[table]
        cdef uint8_t* event = self.at
        self.write_header(group_table, TABLE_MAP_EVENT)
        self.write_table_id(table)
        memcpy(self.at, group_table.layout.content, group_table.layout.content_length)
        self.at += group_table.layout.content_length
        return self.end_event(event)

    cdef int write_table(self, uint32_t table) except -1 nogil:
        cdef Run* runs = self.runs + table * KINDS
        self.write_run(table, &runs[NET_DELETE - 1], DELETE_ROWS_EVENT)
        self.write_run(table, &runs[NET_UPDATE - 1], UPDATE_ROWS_EVENT)
        return self.write_run(table, &runs[NET_INSERT - 1], WRITE_ROWS_EVENT)

    cdef int write_run(self, uint32_t table, const Run* run, uint8_t type) except -1 nogil:
        cdef const Item* item = self.items + run.first
        cdef const Item* end = item + run.count
        cdef const Layout* layout = self.group.tables[table].layout
        cdef bint narrow = self.narrow and layout.narrow and type != WRITE_ROWS_EVENT
        cdef uint8_t* event = NULL
        cdef size_t length
        if narrow and type == UPDATE_ROWS_EVENT:
            self.find_changed(layout, item, end)
        while item != end:
            length = 0
            if type != WRITE_ROWS_EVENT:
                length += item.entry.before_length
            if type != DELETE_ROWS_EVENT:
                length += item.entry.after_length
            if event is not NULL and <size_t>(self.at - event) + length > self.event_bytes_max:
                self.end_event(event)
                event = NULL
            if event is NULL:
                event = self.at
                self.open_rows(table, type, narrow)
            if narrow:
                self.write_narrow_row(layout, item.entry, type)
            else:
                self.write_row(item.entry, type)
            item += 1
        return self.end_event(event) if event is not NULL else 0

    cdef void write_row(self, const Entry* entry, uint8_t type) noexcept nogil:
        if type != WRITE_ROWS_EVENT:
            memcpy(self.at, entry.before, entry.before_length)
            self.at += entry.before_length
        if type != DELETE_ROWS_EVENT:
            memcpy(self.at, entry.after, entry.after_length)
            self.at += entry.after_length

    # --- without the columns that the server does not need --------------------------------------------------------

    cdef void find_changed(self, const Layout* layout, const Item* item, const Item* end) noexcept nogil:
        """The columns that any of the updates changes; an event has one bitmap for all of its rows."""
        cdef uint32_t count = layout.column_count
        memset(self.flags, 0, count)
        while item != end:
            self.find_all(layout, item.entry.before, item.entry.before_length, self.group.spans)
            self.find_all(layout, item.entry.after, item.entry.after_length, self.group.other_spans)
            note_changes(self.group.spans, self.group.other_spans, count, self.flags)
            item += 1
        list_flagged(self.flags, count, &self.changed)

    cdef void find_all(self, const Layout* layout, const uint8_t* image, uint32_t length, Span* spans) noexcept nogil:
        find_columns(&layout.whole, layout.column_count, image, image + length, spans)

    cdef void write_narrow_row(self, const Layout* layout, const Entry* entry, uint8_t type) noexcept nogil:
        cdef Span* spans = self.group.spans
        find_columns(&layout.identity, layout.column_count, entry.before, entry.before + entry.before_length, spans)
        self.at = write_image(&layout.identity_columns, layout.identity.columns, spans, self.at)
        if type == UPDATE_ROWS_EVENT:
            self.find_all(layout, entry.after, entry.after_length, spans)
            self.at = write_image(&self.changed, layout.whole.columns, spans, self.at)

    cdef void open_rows(self, uint32_t table, uint8_t type, bint narrow) noexcept nogil:
        cdef GroupTable* group_table = &self.group.tables[table]
        cdef const Layout* layout = group_table.layout
        cdef uint32_t flags = group_table.flags & ~ROWS_COMPLETE_ROWS if narrow else group_table.flags
        self.write_header(group_table, type)
        self.write_table_id(table)
        self.at[0] = <uint8_t>flags
        self.at[1] = <uint8_t>(flags >> 8)
        self.at[2] = EXTRA_INFO_BYTES                # counts itself, so there is no extra row info
        self.at[3] = 0
        memcpy(self.at + 4, layout.columns_head, layout.count_bytes)
        self.at += 4 + layout.count_bytes
        self.write_columns(layout, &layout.identity_columns if narrow else NULL)
        if type == UPDATE_ROWS_EVENT:
            self.write_columns(layout, &self.changed if narrow else NULL)
        self.row_events += 1

    cdef void write_columns(self, const Layout* layout, const ColumnList* columns) noexcept nogil:
        """The bitmap of these columns; of all, if NULL."""
        if columns is not NULL:
            self.at = write_bitmap(columns, layout.bitmap_bytes, self.at)
            return
        memcpy(self.at, layout.columns_head + layout.count_bytes, layout.bitmap_bytes)
        self.at += layout.bitmap_bytes

    cdef void write_header(self, const GroupTable* table, uint8_t type) noexcept nogil:
        """Timestamp and server id are those of the first row event that the log has for the table."""
        memcpy(self.at, table.header, HEADER_BYTES)
        self.at[TYPE_OFFSET] = type
        store_u32(self.at + LOG_POS_OFFSET, 0)
        self.at[FLAGS_OFFSET] = self.at[FLAGS_OFFSET + 1] = 0
        self.at += HEADER_BYTES

    cdef void write_table_id(self, uint32_t table) noexcept nogil:
        memset(self.at, 0, TABLE_ID_BYTES)
        store_u32(self.at, table + 1)
        self.at += TABLE_ID_BYTES

    cdef int end_event(self, uint8_t* event) except -1 nogil:
        cdef uint32_t length = <uint32_t>(self.at - event)
        store_u32(event + LENGTH_OFFSET, length)
        return self.batch.add_event(event, length, event[TYPE_OFFSET])

    cdef int write_rests(self) except -1 nogil:
        cdef Rest* rest
        cdef size_t i, e
        for i in range(self.group.rest_count):
            rest = &self.group.rests[i]
            if self.is_wanted(rest.held):
                for e in range(rest.event_first, rest.event_first + rest.event_count):
                    self.batch.add_event(self.group.rest_events[e].data, self.group.rest_events[e].length,
                                         self.group.rest_events[e].type)
                    self.row_events += self.group.rest_events[e].type != TABLE_MAP_EVENT
                self.end_statement()
        return 0

    cdef int end_statement(self) except -1 nogil:
        """Makes a transaction of the events since the last one: encoding ends a statement where a transaction ends."""
        cdef size_t first = 0
        cdef Transaction* transaction
        if self.batch.transaction_count:
            transaction = &self.batch.transactions[self.batch.transaction_count - 1]
            first = transaction.event_first + transaction.event_count
        if first == self.batch.event_count:
            return 0
        transaction = self.batch.add_transaction()
        transaction.sequence_number = self.group.group_last
        transaction.flags = T_ROWS | T_FIRST_PART | T_LAST_PART
        transaction.event_first = <uint32_t>first
        transaction.event_count = <uint32_t>(self.batch.event_count - first)
        return 0


cdef size_t head_bytes(const Layout* layout) noexcept nogil:
    """Of a row event, before its rows."""
    return (HEADER_BYTES + ROWS_POST_HEADER_BYTES + EXTRA_INFO_BYTES + layout.count_bytes
            + <size_t>2 * layout.bitmap_bytes)


# --- key order --------------------------------------------------------------------------------------------------


cdef uint64_t key_word(const Entry* entry, uint32_t offset) noexcept nogil:
    """Eight bytes of the key as a number, zeros behind its end."""
    cdef uint64_t word = 0
    cdef uint32_t i
    for i in range(8):
        word <<= 8
        if offset + i < entry.key_length:
            word |= entry.key[offset + i]
    return word


cdef int compare_items(const Item* a, const Item* b) noexcept nogil:
    cdef int order
    if a.high != b.high:
        return -1 if a.high < b.high else 1
    if a.low != b.low:
        return -1 if a.low < b.low else 1
    order = memcmp(a.entry.key, b.entry.key, min(a.entry.key_length, b.entry.key_length))
    return order if order else <int>a.entry.key_length - <int>b.entry.key_length


cdef int compare_for_qsort(const void* a, const void* b) noexcept nogil:
    return compare_items(<const Item*>a, <const Item*>b)


cdef void sort_items(Item* items, size_t count) noexcept nogil:
    """Rows often come in key order already."""
    cdef size_t i
    for i in range(1, count):
        if compare_items(&items[i - 1], &items[i]) > 0:
            qsort(items, count, sizeof(Item), compare_for_qsort)
            return
