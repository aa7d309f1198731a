# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The row walker: from a batch's events to its rows and what they touch."""
from libc.stdint cimport uint16_t
from libc.stdlib cimport free, malloc

from applier.events.batch cimport (
    T_BARRIER, T_DDL, T_FIRST_PART, T_KEYS_UNKNOWN, T_LAST_PART, T_OWN_KEYS_ONLY, T_ROWS, T_SCHEMA, Row)
from applier.events.event_types cimport (
    HEADER_BYTES, LOG_POS_OFFSET, PARTIAL_UPDATE_ROWS_EVENT, TABLE_MAP_EVENT, is_rows_event)
from applier.events.row_image cimport (
    PARTIAL_JSON_UPDATES, ROWS_NO_FOREIGN_KEY_CHECKS, ROWS_POST_HEADER_BYTES, ROWS_STMT_END, ROWS_USE_SQL_FOREIGN_KEY, TABLE_ID_BYTES, TABLE_ID_DUMMY, ColumnLayout,
    all_clear, bit, read_rows_header, skip_value_options, walk_columns, walk_strides)
from applier.events.wire cimport load_u16, load_u32
from writeset.hashing cimport (
    COLUMN_ABSENT, COLUMN_NULL, COLUMN_PRESENT, ROW_DELETE, ROW_INSERT, ROW_UPDATE, TablePlan, Touches, hash_row)

from applier.errors import ApplierError, CorruptEvent
from applier.events.column_types import ColumnType
from applier.events.table_map import parse_table_map

# hash_row as a function of a borrowed pointer: Cython allows no cast to an object without the GIL.
ctypedef int (*HashRow)(void*, int, const Span*, const Span*, bint, Touches*) except -1 nogil
cdef HashRow hash_row_of = <HashRow>hash_row

# Of one statement. MySQL opens far fewer at once; a log that names more is not one.
DEF IN_FORCE_MAX = 4096

# What a table map takes: its content, objects and layouts. Measured: 253 bytes of objects a column, and 56 of layout;
# names and values take at most this many times what they are in the log.
cdef enum:
    TABLE_BYTES = 1024
    COLUMN_BYTES = 320
    CONTENT_FACTOR = 20

# MySQL sets the first of these wherever the rows that a foreign key's cascade changes are in the log too: from 9.6 on,
# unless innodb_native_foreign_keys is ON. Without checks of foreign keys there is no cascade.
cdef enum:
    CASCADES_LOGGED = ROWS_USE_SQL_FOREIGN_KEY | ROWS_NO_FOREIGN_KEY_CHECKS


cdef class RowDecoder:
    """Finds the rows of batches and what they touch. One for each decoder thread: it is not shared."""

    def __cinit__(self):
        self.cache = TableCache()
        self.in_force = <InForce*>malloc(IN_FORCE_MAX * sizeof(InForce))
        if self.in_force is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.in_force)

    def decode(self, Batch batch, object plans, object schema_version=0, size_t bytes_max=0):
        """Fills in the batch's rows, touches and tables. Payloads must have been inflated before.

        What is known of rows and tables can be a hundred times what they are in the log: a row of NULLs is a byte.
        Once that is more than `bytes_max`, the batch ends behind the row event, in the middle of a transaction if need
        be, and the rest is returned as a batch with the same number, which is not decoded yet. Else returns None.

        `plans(table_map, sequence_number) -> TablePlan` is called, with the GIL, for table maps whose content is
        not known; it may block until the schema of that point of the log is there. What it returned is used again
        until a transaction that changes the schema has been passed or `schema_version` is another than in the
        last call: a DDL can change the keys of a table without changing its table map.

        A transaction whose keys cannot be named gets T_BARRIER | T_KEYS_UNKNOWN. A transaction that cannot be
        decoded, or whose plan cannot be had, ends the batch: `batch.failure` becomes the CorruptEvent or what
        `plans` raised, and it and what follows are taken off. Errors other than ApplierError are raised.
        """
        cdef size_t i
        cdef Batch rest = None
        self.bytes_max = bytes_max
        self.stopped = 0
        if schema_version != self.schema_version:
            self.cache.forget()
            self.schema_version = schema_version
        self.cache.begin_batch()
        self.plans = plans
        try:
            with nogil:
                for i in range(batch.transaction_count):
                    self.transaction = i
                    self.decode_transaction(batch, &batch.transactions[i])
                    if self.stopped:
                        break
            if self.stopped:
                rest = put_off(batch, self.transaction, self.stopped)
        except ApplierError as error:
            truncate(batch, self.transaction)
            batch.failure = error
        finally:
            self.plans = None
            self.cache.hand_out(batch.tables)
            batch.settle()
        batch.decoded = True
        return rest

    @property
    def tables_learnt(self):
        """Table maps that had to be parsed, or looked up again, since the decoder was made."""
        return self.misses

    cdef int decode_transaction(self, Batch batch, Transaction* transaction) except -1 nogil:
        cdef size_t event
        cdef size_t end = transaction.event_first + transaction.event_count
        cdef int type
        transaction.row_first = <uint32_t>batch.row_count
        transaction.touch_first = <uint32_t>batch.touches.count
        if transaction.flags & T_ROWS:
            self.in_force_count = 0
            for event in range(transaction.event_first, end):
                type = batch.events[event].type
                if type == TABLE_MAP_EVENT:
                    self.take_table_map(batch, transaction, event)
                elif is_rows_event(type):
                    self.take_rows(batch, transaction, event)
                    if self.is_full(batch, event, end):
                        self.stopped = event + 1
                        break
        if transaction.flags & (T_DDL | T_SCHEMA):
            with gil:
                self.forget(batch)
        transaction.row_count = <uint32_t>batch.row_count - transaction.row_first
        transaction.touch_count = <uint32_t>batch.touches.count - transaction.touch_first
        return 0

    cdef bint is_full(self, Batch batch, size_t event, size_t end) noexcept nogil:
        """Whether what comes behind this row event has to be put off."""
        cdef size_t known = (batch.row_capacity * sizeof(Row) + batch.touches.capacity * (sizeof(uint64_t) + 1)
                             + batch.table_bytes)
        return (self.bytes_max and known > self.bytes_max
                and (event + 1 < end or self.transaction + 1 < batch.transaction_count))

    # --- table maps -------------------------------------------------------------------------------------------

    cdef int take_table_map(self, Batch batch, Transaction* transaction, size_t event) except -1 nogil:
        cdef const uint8_t* body = batch.events[event].data + HEADER_BYTES
        cdef uint32_t length = batch.events[event].length
        cdef uint64_t table_id
        cdef Table* table
        cdef size_t i
        if length < HEADER_BYTES + ROWS_POST_HEADER_BYTES:
            corrupt(batch, transaction, event, NULL, b"the table map is shorter than its header")
        table_id = load_u32(body) | <uint64_t>load_u16(body + 4) << 32
        table = self.cache.find(body + TABLE_ID_BYTES, length - HEADER_BYTES - TABLE_ID_BYTES)
        if table is NULL:
            with gil:
                table = self.learn(batch, transaction, event)
        self.cache.use(table)
        for i in range(self.in_force_count):
            if self.in_force[i].table_id == table_id:
                self.in_force[i].table = table
                return 0
        if self.in_force_count == IN_FORCE_MAX:
            corrupt(batch, transaction, event, table, b"more than 4096 table maps in one statement")
        self.in_force[self.in_force_count].table_id = table_id
        self.in_force[self.in_force_count].table = table
        self.in_force_count += 1
        return 0

    cdef Table* learn(self, Batch batch, Transaction* transaction, size_t event) except NULL:
        cdef Event* e = &batch.events[event]
        cdef bytes content = (<const char*>e.data)[HEADER_BYTES + TABLE_ID_BYTES:e.length]
        batch.table_bytes += TABLE_BYTES + CONTENT_FACTOR * <uint64_t>len(content)
        batch.check_room(b"the tables of a statement")
        try:
            table_map = parse_table_map(content)
        except ValueError as error:
            raise CorruptEvent(place=place_of(batch, transaction, event), detail=str(error)) from None
        plan = self.plans(table_map, transaction.sequence_number)
        if not isinstance(plan, TablePlan):
            raise TypeError(f"the plan of {table_map} is a {type(plan).__name__}, not a TablePlan")
        self.misses += 1
        batch.table_bytes += COLUMN_BYTES * len(table_map.columns)
        batch.check_room(b"the tables of a statement")
        return self.cache.add((table_map, plan))

    cdef Table* table_of(self, uint64_t table_id) noexcept nogil:
        cdef size_t i
        for i in range(self.in_force_count):
            if self.in_force[i].table_id == table_id:
                return self.in_force[i].table
        return NULL

    cdef int forget(self, Batch batch) except -1:
        self.cache.hand_out(batch.tables)
        self.cache.forget()
        self.in_force_count = 0
        return 0

    # --- rows -------------------------------------------------------------------------------------------------

    cdef int take_rows(self, Batch batch, Transaction* transaction, size_t event) except -1 nogil:
        cdef Event* e = &batch.events[event]
        cdef RowsHeader header
        cdef const char* fault = read_rows_header(e.data, e.length, e.type, &header)
        cdef const uint8_t* at
        cdef Table* table
        if fault is not NULL:
            corrupt(batch, transaction, event, NULL, fault)
        table = self.table_of(header.table_id)
        if table is NULL:
            if header.table_id != TABLE_ID_DUMMY:
                corrupt(batch, transaction, event, NULL, b"no table map in force for the row event's table id")
        else:
            if header.column_count != table.column_count:
                corrupt(batch, transaction, event, table, b"row event and table map differ in the number of columns")
            if table.keys_unknown:
                transaction.flags |= T_BARRIER | T_KEYS_UNKNOWN
            if table.source_overlooks:
                transaction.flags |= T_OWN_KEYS_ONLY
            at = header.rows
            # A minimal image without any column is no bytes at all, so the event holds exactly one row of them.
            if header.present_count + header.present_after_count == 0 and not header.partial:
                if at != header.end:
                    corrupt(batch, transaction, event, table, b"rows of no columns take up bytes")
                self.take_row(batch, transaction, event, table, &header, &at)
            while at != header.end:
                self.take_row(batch, transaction, event, table, &header, &at)
        if header.flags & ROWS_STMT_END:
            self.in_force_count = 0
        return 0

    cdef int take_row(self, Batch batch, Transaction* transaction, size_t event, Table* table, RowsHeader* header,
                      const uint8_t** at) except -1 nogil:
        cdef Row* row = batch.add_row()
        cdef const uint8_t* p = at[0]
        cdef const uint8_t* next
        cdef const uint8_t* partial_bits = NULL
        cdef uint32_t culprit = 0
        cdef size_t touches = batch.touches.count
        row.event = <uint32_t>event
        row.table = table.batch_index
        row.touch_first = <uint32_t>touches
        row.kind = header.kind
        row.flags = <uint8_t>header.flags
        if header.kind != ROW_INSERT:
            next = walk(table, header.present, header.present_count, p, header.end, table.before, &culprit)
            if next is NULL:
                corrupt_column(batch, transaction, event, table, culprit)
            row.before = p
            row.before_length = <uint32_t>(next - p)
            p = next
        if header.kind != ROW_DELETE:
            row.after = next = p
            if header.partial:
                next = skip_value_options(p, header.end, table.json_count, &partial_bits)
                if next is NULL:
                    corrupt(batch, transaction, event, table, b"the value options are cut off")
            if header.kind == ROW_UPDATE:
                next = walk(table, header.present_after, header.present_after_count, next, header.end, table.after,
                            &culprit)
            else:
                next = walk(table, header.present, header.present_count, next, header.end, table.after, &culprit)
            if next is NULL:
                corrupt_column(batch, transaction, event, table, culprit)
            row.after_length = <uint32_t>(next - p)
            p = next
        at[0] = p
        if not transaction.flags & T_KEYS_UNKNOWN:
            if hash_row_of(table.plan, header.kind, table.before if header.kind != ROW_INSERT else NULL,
                           table.after if header.kind != ROW_DELETE else NULL,
                           header.flags & CASCADES_LOGGED != 0, &batch.touches):
                transaction.flags |= T_BARRIER | T_KEYS_UNKNOWN
            row.touch_count = <uint16_t>(batch.touches.count - touches)
        return 0


cdef inline const uint8_t* walk(const Table* table, const uint8_t* present, uint32_t present_count, const uint8_t* p,
                                const uint8_t* end, Span* spans, uint32_t* culprit) noexcept nogil:
    cdef const uint8_t* nulls = p
    cdef uint32_t null_bytes = (present_count + 7) >> 3
    if <size_t>(end - p) < null_bytes:
        return NULL
    p += null_bytes
    if present is NULL and all_clear(nulls, present_count):
        return walk_strides(table.strides, table.strides + table.stride_count, p, end, spans, culprit)
    return walk_columns(table.columns, table.column_count, present, nulls, p, end, spans, culprit)


# --- errors -----------------------------------------------------------------------------------------------------


cdef Batch put_off(Batch batch, size_t i, size_t event):
    """Takes the events of transaction `i` from `event` on, and the transactions behind it, off the batch, and gives them
    back as another. The transaction goes on there, with the table maps of its statement repeated."""
    cdef Batch rest = Batch(batch.number, batch.file, batch.format_description, batch.failure, batch.budget)
    cdef Transaction* t = &batch.transactions[i]
    cdef Transaction* moved
    cdef size_t k, end = t.event_first + t.event_count, statement = t.event_first
    batch.failure = None
    rest.piece = batch.piece + 1
    rest.buffers.extend(batch.buffers)
    if event < end:
        for k in range(t.event_first, event):
            if ends_statement(&batch.events[k]):
                statement = k + 1
        for k in range(statement, end):
            if k >= event or batch.events[k].type == TABLE_MAP_EVENT:
                rest.add_event(batch.events[k].data, batch.events[k].length, batch.events[k].type)
            if k >= event:
                t.byte_count -= batch.events[k].length
        moved = rest.add_transaction()
        moved[0] = t[0]
        moved.flags &= ~<uint32_t>T_FIRST_PART
        moved.event_first = 0
        moved.event_count = <uint32_t>rest.event_count
        moved.byte_count = 0
        for k in range(rest.event_count):
            moved.byte_count += rest.events[k].length
        rest.byte_count += moved.byte_count
        t.flags &= ~<uint32_t>T_LAST_PART
        t.event_count = <uint32_t>(event - t.event_first)
    for k in range(i + 1, batch.transaction_count):
        moved = rest.add_transaction()
        moved[0] = batch.transactions[k]
        moved.event_first = <uint32_t>rest.event_count
        for end in range(batch.transactions[k].event_first,
                         batch.transactions[k].event_first + batch.transactions[k].event_count):
            rest.add_event(batch.events[end].data, batch.events[end].length, batch.events[end].type)
        rest.byte_count += moved.byte_count
    batch.byte_count -= min(batch.byte_count, rest.byte_count)
    batch.transaction_count = i + 1
    return rest


cdef bint ends_statement(const Event* event) noexcept nogil:
    return (is_rows_event(event.type) and event.length >= HEADER_BYTES + ROWS_POST_HEADER_BYTES
            and load_u16(event.data + HEADER_BYTES + TABLE_ID_BYTES) & ROWS_STMT_END != 0)


cdef int truncate(Batch batch, size_t transaction) except -1:
    """Takes this transaction and what follows off the batch."""
    cdef size_t i
    for i in range(transaction, batch.transaction_count):
        batch.byte_count -= batch.transactions[i].byte_count
    batch.transaction_count = transaction
    batch.row_count = batch.touches.count = 0
    if transaction:
        batch.row_count = batch.transactions[transaction - 1].row_first + batch.transactions[transaction - 1].row_count
        batch.touches.count = (batch.transactions[transaction - 1].touch_first
                               + batch.transactions[transaction - 1].touch_count)
    return 0


cdef str place_of(Batch batch, Transaction* transaction, size_t event):
    """Where an event is. Events of a compressed transaction have no position of their own."""
    cdef uint32_t end_log_pos = load_u32(batch.events[event].data + LOG_POS_OFFSET)
    cdef str file = batch.file or "the log"
    if end_log_pos:
        return f"{file}, in the event that ends at position {end_log_pos}"
    number = event - transaction.event_first + 1
    return f"{file}, event {number} of the transaction that ends at position {transaction.end_log_pos}"


cdef int corrupt(Batch batch, Transaction* transaction, size_t event, const Table* table,
                 const char* what) except -1 nogil:
    with gil:
        detail = (<bytes>what).decode("ascii")
        if table is not NULL:
            detail = f"table {(<tuple>table.pair)[0]}: {detail}"
        raise CorruptEvent(place=place_of(batch, transaction, event), detail=detail)


cdef int corrupt_column(Batch batch, Transaction* transaction, size_t event, const Table* table,
                        uint32_t column) except -1 nogil:
    with gil:
        table_map = (<tuple>table.pair)[0]
        label = f"column {table_map.columns[column].label} ends" if column < len(table_map.columns) else "a row ends"
        raise CorruptEvent(place=place_of(batch, transaction, event),
                           detail=f"table {table_map}: {label} after the end of the event")


# --- slow paths: single rows as Python objects ------------------------------------------------------------------


def row_touches(Batch batch, size_t i):
    """What row `i` of a decoded batch touches: [(hash, Access), …]. Raises IndexError."""
    if i >= batch.row_count:
        raise IndexError(f"row {i} of {batch.row_count}")
    first = batch.rows[i].touch_first
    return [(batch.touches.hashes[<size_t>touch], batch.touches.modes[<size_t>touch])
            for touch in range(first, first + batch.rows[i].touch_count)]


def row_cells(Batch batch, size_t i):
    """(kind, table_map, before, after) of row `i` of a decoded batch, for messages and tests.

    Each image is None, or a list with a (state, bytes) for each column: state is a `CellState` of
    `applier.events.values`, bytes the value without its length prefix. Raises IndexError.
    """
    cdef Row* row
    cdef Event* e
    cdef RowsHeader header
    cdef const uint8_t* partial_bits = NULL
    cdef const uint8_t* p
    if i >= batch.row_count:
        raise IndexError(f"row {i} of {batch.row_count}")
    row = &batch.rows[i]
    e = &batch.events[row.event]
    if read_rows_header(e.data, e.length, e.type, &header) is not NULL:
        raise ValueError(f"event {row.event} is not a row event")
    table_map = batch.tables[row.table][0]
    before = after = None
    if row.before is not NULL:
        before = cells(table_map, header.present, header.present_count, row.before, header.end, NULL)
    if row.after is not NULL:
        p = row.after
        if header.partial:
            json_count = sum(column.type == ColumnType.JSON for column in table_map.columns)
            p = skip_value_options(p, header.end, json_count, &partial_bits)
        if row.kind == ROW_UPDATE:
            after = cells(table_map, header.present_after, header.present_after_count, p, header.end, partial_bits)
        else:
            after = cells(table_map, header.present, header.present_count, p, header.end, NULL)
    return row.kind, table_map, before, after


cdef list cells(object table_map, const uint8_t* present, uint32_t present_count, const uint8_t* p,
                const uint8_t* end, const uint8_t* partial_bits):
    """The columns of an image that has been walked before."""
    cdef size_t count = len(table_map.columns)
    cdef ColumnLayout* columns = <ColumnLayout*>malloc((count + 1) * sizeof(ColumnLayout))
    cdef Span* spans = <Span*>malloc((count + 1) * sizeof(Span))
    cdef uint32_t culprit = 0, json = 0
    cdef size_t i
    cdef list found = []
    try:
        if columns is NULL or spans is NULL:
            raise MemoryError
        for i in range(count):
            columns[i].prefix_bytes, columns[i].fixed_bytes = table_map.columns[i].layout
            columns[i].is_json = table_map.columns[i].type == ColumnType.JSON
            columns[i].wanted = 1
        walk_columns(columns, <uint32_t>count, present, p, p + ((present_count + 7) >> 3), end, spans, &culprit)
        for i in range(count):
            state = <int>spans[i].state
            if columns[i].is_json:
                if partial_bits is not NULL and bit(partial_bits, json) and state == COLUMN_PRESENT:
                    state = 3
                json += 1
            found.append((state, (<const char*>spans[i].data)[:spans[i].length]))
        return found
    finally:
        free(columns)
        free(spans)
