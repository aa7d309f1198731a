# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Net changes: the row changes of consecutive transactions that commit together, folded into one for each row.

Why the result is the same
--------------------------
A group is one transaction on the target, so nobody sees the states inside it; only its end state counts, and that
no constraint is violated on the way.

*One row.* A row is what has one identity (primary key, or unique key without NULLs). Of its changes only the image
before the first and the image after the last matter: insert + update = insert, update + delete = delete of the first
image, delete + insert = update, insert + delete and updates that end where they began = nothing. A change of the
identity is a delete and an insert. Identities are compared by their bytes. Where the server may find different bytes
equal (text, prefixes, -0.0), identities whose form is equal and whose bytes differ stop the table from folding.

*One table.* The net changes of distinct rows meet only in unique keys. A row whose value of another unique key
changes is deleted and inserted; whether it changes is judged by its bytes, so never overlooked. Deletes run first,
then updates, then inserts. During the deletes the unique values in the table are among those before the group; the
updates change none; during the inserts they are among those after the group. Both states were valid on the source.

*Several tables.* Row events fire no triggers, and a table that is child or parent of a foreign key does not fold.
So changes of a table that folds neither see nor touch another table: they commute with everything else. Tables that do
not fold keep the order of their events among themselves, statement by statement, and run after the others.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from applier.events.batch cimport T_KEYS_UNKNOWN, Event, Row, Transaction
from applier.events.event_types cimport DELETE_ROWS_EVENT, PARTIAL_UPDATE_ROWS_EVENT, UPDATE_ROWS_EVENT, WRITE_ROWS_EVENT
from applier.events.fold_table cimport (
    EQUAL_VALUES, FLAGS_DIFFER, FOLDS, KEYS_UNKNOWN, NO_KEY, OLD_EVENTS, OUT_OF_ORDER, PARTIAL_IMAGE, PARTIAL_JSON,
    TABLE_CHANGED, TEXT_KEY_CHANGED, FoldTable, Layout, find_columns, identity_key)
from applier.events.net_group cimport (
    ENTRY_AMBIGUOUS, ENTRY_MAY_MOVE, ENTRY_NEW, NET_DELETE, NET_INSERT, NET_MOVE, NET_NOTHING, NET_UPDATE, Entry,
    FoldedGroup, GroupTable, View)
from applier.events.net_rest cimport collect_rest
from applier.events.row_image cimport ROWS_FLAGS_OFFSET, ROWS_STMT_END
from applier.events.wire cimport load_u16
from writeset.hashing cimport COLUMN_PRESENT, EXCLUSIVE, ROW_DELETE, ROW_INSERT, ROW_UPDATE, Span, hash_bytes

cdef enum:
    NO_EVENT = 0xFFFFFFFF
    EXTRA_INFO_OFFSET = ROWS_FLAGS_OFFSET + 2


def fold(slices, *, int hash_bits=64):
    """Folds the row changes of consecutive transactions into one change for each row. Returns a FoldedGroup.

    slices: [(batch, first, end), …], transactions `first` to `end` (exclusive) of decoded batches, in log order, all
        of them T_ROWS. The group keeps the batches alive.
    hash_bits: how much of the hash of an identity is used; fewer than 64 only in tests of collisions.

    Raises IndexError for transactions that are not there, ValueError for one that is not made of rows.
    """
    cdef FoldedGroup group = FoldedGroup(list(slices), hash_bits)
    with nogil:
        fold_rows(group)
    refuse_changed_tables(group)
    order_tables(group)
    with nogil:
        collect_rest(group)
        settle(group)
        group.charge_arrays()
    return group


# --- every row --------------------------------------------------------------------------------------------------


cdef int fold_rows(FoldedGroup group) except -1 nogil:
    cdef View* view
    cdef const Transaction* transaction
    cdef const Row* row
    cdef GroupTable* table
    cdef size_t v, t, r
    cdef uint32_t event, table_number, number = 0
    for v in range(group.view_count):
        view = &group.views[v]
        for t in range(view.transaction_count):
            transaction = &view.transactions[t]
            event = NO_EVENT
            for r in range(transaction.row_first, transaction.row_first + transaction.row_count):
                row = &view.rows[r]
                table_number = view.tables[row.table]
                table = &group.tables[table_number]
                if row.event != event:
                    event = row.event
                    take_event(table, &view.events[event], transaction.flags)
                table.row_count += 1
                if table.refusal == FOLDS:
                    fold_row(group, view, row, table_number, number)
                number += 1
    return 0


cdef void take_event(GroupTable* table, const Event* event, uint32_t transaction_flags) noexcept nogil:
    """Refuses the table when the rows of this event cannot be folded."""
    cdef uint16_t flags = load_u16(event.data + ROWS_FLAGS_OFFSET) & ~<uint16_t>ROWS_STMT_END
    cdef const uint8_t* columns
    if table.header is NULL:
        table.header = event.data
        table.flags = flags
    if table.refusal != FOLDS:
        return
    if transaction_flags & T_KEYS_UNKNOWN:
        table.refusal = KEYS_UNKNOWN
    elif flags != table.flags:
        table.refusal = FLAGS_DIFFER
    elif event.type == PARTIAL_UPDATE_ROWS_EVENT:
        table.refusal = PARTIAL_JSON
    elif not WRITE_ROWS_EVENT <= event.type <= DELETE_ROWS_EVENT:
        table.refusal = OLD_EVENTS
    else:
        columns = event.data + EXTRA_INFO_OFFSET
        columns += load_u16(columns)
        # The head as we write it: a column count may come in more bytes than it needs.
        if (memcmp(columns, table.layout.columns_head, table.layout.count_bytes) != 0
                or not is_full(table.layout, columns, event.type == UPDATE_ROWS_EVENT)):
            table.refusal = PARTIAL_IMAGE


cdef bint is_full(const Layout* layout, const uint8_t* columns, bint update) noexcept nogil:
    """Whether all columns are in the image, in both of an update. The decoder has seen that the bitmaps are there."""
    cdef uint32_t whole_bytes = layout.column_count >> 3
    cdef uint8_t rest = <uint8_t>((1 << (layout.column_count & 7)) - 1)
    cdef const uint8_t* full = layout.columns_head + layout.count_bytes
    cdef int bitmap
    columns += layout.count_bytes
    for bitmap in range(2 if update else 1):
        if memcmp(columns, full, whole_bytes) != 0 or (rest and columns[whole_bytes] & rest != rest):
            return False
        columns += layout.bitmap_bytes
    return True


# --- one row ----------------------------------------------------------------------------------------------------


cdef int fold_row(FoldedGroup group, const View* view, const Row* row, uint32_t table_number,
                  uint32_t number) except -1 nogil:
    cdef GroupTable* table = &group.tables[table_number]
    cdef const Layout* layout = table.layout
    cdef uint32_t length, other_length
    cdef uint64_t hash
    if row.touch_count == 0 or view.modes[row.touch_first] != EXCLUSIVE:
        # Without an identity touch, or with "any value": the form of the key is not known.
        table.refusal = KEYS_UNKNOWN
        return 0
    if row.kind == ROW_INSERT:
        length = identity_key(layout, row.after, row.after_length, group.spans, group.key)
    else:
        length = identity_key(layout, row.before, row.before_length, group.spans, group.key)
    if length == 0:
        table.refusal = NO_KEY
        return 0
    hash = view.hashes[row.touch_first]
    if layout.exact:
        hash = hash_bytes(group.key, length, table_number)
    if row.kind != ROW_UPDATE:
        return fold_change(group, table_number, number, 0, hash, group.key, length, row, row.kind)
    other_length = identity_key(layout, row.after, row.after_length, group.spans, group.other_key)
    if other_length == length and memcmp(group.key, group.other_key, length) == 0:
        return fold_change(group, table_number, number, 0, hash, group.key, length, row, ROW_UPDATE)
    if other_length == 0:
        table.refusal = NO_KEY
        return 0
    if not layout.exact:
        table.refusal = TEXT_KEY_CHANGED
        return 0
    fold_change(group, table_number, number, 0, hash, group.key, length, row, ROW_DELETE)
    if table.refusal == FOLDS:
        hash = hash_bytes(group.other_key, other_length, table_number)
        fold_change(group, table_number, number, 1, hash, group.other_key, other_length, row, ROW_INSERT)
    return 0


cdef int fold_change(FoldedGroup group, uint32_t table_number, uint32_t number, int half, uint64_t hash,
                     const uint8_t* key, uint32_t length, const Row* row, int kind) except -1 nogil:
    """Adds one change to what is known of its row. `half` is 1 for the second half of a change of key."""
    cdef GroupTable* table = &group.tables[table_number]
    cdef Entry* entry = NULL
    cdef int found = group.entry_of(table_number, hash, key, length, &entry)
    if found == ENTRY_AMBIGUOUS:
        table.refusal = EQUAL_VALUES
        return 0
    if found == ENTRY_NEW:
        entry.row_first = number
        if kind != ROW_INSERT:
            entry.before = row.before
            entry.before_length = row.before_length
    elif (kind == ROW_INSERT) != (entry.after is NULL):
        # An insert of a row that is there, or a change of one that is not.
        table.refusal = OUT_OF_ORDER
        return 0
    if kind == ROW_DELETE:
        entry.after = NULL
        entry.after_length = 0
    else:
        entry.after = row.after
        entry.after_length = row.after_length
    # An update that changes no other unique key touches the identity alone, and "any value" if it is guarded.
    if kind == ROW_UPDATE:
        if row.touch_count > 1 + table.layout.guarded:
            entry.flags |= ENTRY_MAY_MOVE
    elif kind == ROW_INSERT and found != ENTRY_NEW:
        entry.flags |= ENTRY_MAY_MOVE
    group.row_entries[number * 2 + half] = <uint32_t>(entry - group.entries)
    return 0


# --- the tables -------------------------------------------------------------------------------------------------


cdef int refuse_changed_tables(FoldedGroup group) except -1:
    """A table of which there are two definitions in the group does not fold."""
    cdef size_t i
    first = {}
    for i in range(group.table_count):
        table_map = (<FoldTable>group.fold_tables[<Py_ssize_t>i]).table_map
        other = first.setdefault((table_map.schema, table_map.table), i)
        if other != i:
            group.tables[<size_t>other].refusal = group.tables[i].refusal = TABLE_CHANGED
    return 0


cdef int order_tables(FoldedGroup group) except -1:
    """Tables are written in one order everywhere, so that groups which run side by side do not lock crosswise;
    and those with the same flags together, for flags go by statements."""
    cdef size_t i
    order = []
    for i in range(group.table_count):
        if group.tables[i].row_count and group.tables[i].refusal == FOLDS:
            table_map = (<FoldTable>group.fold_tables[<Py_ssize_t>i]).table_map
            order.append((group.tables[i].flags, table_map.schema, table_map.table, i))
    group.table_order = [entry[3] for entry in sorted(order)]
    return 0


# --- what remains of each row -----------------------------------------------------------------------------------


cdef int settle(FoldedGroup group) except -1 nogil:
    """Says of each entry what is to be done, and counts it."""
    cdef Entry* entry
    cdef size_t i
    cdef uint8_t kind
    cdef uint64_t rows = 0
    for i in range(group.table_count):
        if group.tables[i].refusal != FOLDS:
            rows += group.tables[i].row_count
    for i in range(group.entry_count):
        entry = &group.entries[i]
        if group.tables[entry.table].refusal == FOLDS:
            kind = net_kind(group, entry)
            entry.kind = kind
            rows += <int>(kind != NET_NOTHING) + <int>(kind == NET_MOVE)
    group.rows_out = rows
    return 0


cdef uint8_t net_kind(FoldedGroup group, const Entry* entry) noexcept nogil:
    cdef const Layout* layout = group.tables[entry.table].layout
    if entry.before is NULL:
        return NET_NOTHING if entry.after is NULL else NET_INSERT
    if entry.after is NULL:
        return NET_DELETE
    if entry.before_length == entry.after_length and memcmp(entry.before, entry.after, entry.before_length) == 0:
        return NET_NOTHING
    if layout.other_keys and entry.flags & ENTRY_MAY_MOVE and moves(group, layout, entry):
        return NET_MOVE
    return NET_UPDATE


cdef bint moves(FoldedGroup group, const Layout* layout, const Entry* entry) noexcept nogil:
    """Whether any byte of a unique key besides the identity changes."""
    cdef Span* old = group.spans
    cdef Span* new = group.other_spans
    cdef uint32_t i
    if layout.other_unknown:
        return True
    if (find_columns(&layout.other, layout.column_count, entry.before, entry.before + entry.before_length, old) is NULL
            or find_columns(&layout.other, layout.column_count, entry.after, entry.after + entry.after_length,
                            new) is NULL):
        return True
    for i in range(layout.other.count):
        if layout.other.columns[i].wanted and old[i].state != new[i].state:
            return True
        if layout.other.columns[i].wanted and old[i].state == COLUMN_PRESENT and (
                old[i].length != new[i].length or memcmp(old[i].data, new[i].data, old[i].length) != 0):
            return True
    return False
