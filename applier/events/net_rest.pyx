# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The row events of tables that do not fold: as they are, in their order, statement by statement.

Of a statement about several tables only the events of those that do not fold are taken, and the table maps that these
events need. A statement stays in one piece: with foreign keys its events may rely on each other.
"""
from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from applier.events.batch cimport Event, Row, Transaction
from applier.events.event_types cimport HEADER_BYTES, TABLE_MAP_EVENT, is_rows_event
from applier.events.fold_table cimport FOLDS
from applier.events.net_group cimport NO_ENTRY, Rest, View, room
from applier.events.row_image cimport ROWS_FLAGS_OFFSET, ROWS_STMT_END, TABLE_ID_BYTES


cdef int collect_rest(FoldedGroup group) except -1 nogil:
    cdef size_t v, t, i
    cdef uint32_t number = 0
    cdef bint needed = False
    for i in range(group.table_count):
        needed = needed or group.tables[i].refusal != FOLDS
    if not needed:
        return 0
    for v in range(group.view_count):
        for t in range(group.views[v].transaction_count):
            collect_transaction(group, &group.views[v], &group.views[v].transactions[t], number)
            number += group.views[v].transactions[t].row_count
    return 0


cdef int collect_transaction(FoldedGroup group, const View* view, const Transaction* transaction,
                             uint32_t number) except -1 nogil:
    """`number` is that of the transaction's first row in the group."""
    cdef const Event* event = view.events + transaction.event_first
    cdef const Event* end = event + transaction.event_count
    cdef const Event* statement = event
    cdef const Row* row = view.rows + transaction.row_first
    cdef const Row* row_end = row + transaction.row_count
    cdef Rest* rest = NULL
    cdef bint stays
    while event != end:
        if is_rows_event(event.type):
            stays = (row != row_end and view.events + row.event == event
                     and group.tables[view.tables[row.table]].refusal != FOLDS)
            if stays:
                if rest is NULL:
                    rest = open_rest(group, number)
                add_event(group, rest, event)
            while row != row_end and view.events + row.event == event:
                if stays:
                    group.row_entries[2 * number] = <uint32_t>(group.rest_count - 1)
                    group.row_entries[2 * number + 1] = NO_ENTRY
                number += 1
                row += 1
            if event.data[ROWS_FLAGS_OFFSET] & ROWS_STMT_END:
                if rest is not NULL:
                    add_table_maps(group, rest, statement, event)
                rest = NULL
                statement = event + 1
        event += 1
    if rest is not NULL:
        add_table_maps(group, rest, statement, end)
    return 0


cdef Rest* open_rest(FoldedGroup group, uint32_t number) except NULL nogil:
    cdef Rest* rest
    group.rests = <Rest*>room(group.rests, group.rest_count, &group.rest_capacity, sizeof(Rest))
    rest = &group.rests[group.rest_count]
    rest.event_first = group.rest_event_count
    rest.event_count = 0
    rest.row_first = number
    rest.held = False
    group.rest_count += 1
    return rest


cdef int add_event(FoldedGroup group, Rest* rest, const Event* event) except -1 nogil:
    group.rest_events = <Event*>room(
        group.rest_events, group.rest_event_count, &group.rest_event_capacity, sizeof(Event))
    group.rest_events[group.rest_event_count] = event[0]
    group.rest_event_count += 1
    rest.event_count += 1
    return 0


cdef int add_table_maps(FoldedGroup group, Rest* rest, const Event* event, const Event* end) except -1 nogil:
    """Puts those table maps of a statement that the rest needs before its row events: a statement names all its
    tables before it changes any."""
    cdef size_t row_events = rest.event_count
    cdef size_t maps = 0, i
    cdef Event* events
    while event != end:
        if event.type == TABLE_MAP_EVENT and is_needed(
                group.rest_events + rest.event_first, row_events, event):
            add_event(group, rest, event)
            maps += 1
        event += 1
    events = group.rest_events + rest.event_first
    rotate(events, row_events, maps)
    return 0


cdef bint is_needed(const Event* events, size_t count, const Event* table_map) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if memcmp(events[i].data + HEADER_BYTES, table_map.data + HEADER_BYTES, TABLE_ID_BYTES) == 0:
            return True
    return False


cdef void rotate(Event* events, size_t left, size_t right) noexcept nogil:
    """Brings the last `right` events before the first `left`, each in their order."""
    reverse(events, left)
    reverse(events + left, right)
    reverse(events, left + right)


cdef void reverse(Event* events, size_t count) noexcept nogil:
    cdef size_t i
    cdef Event event
    for i in range(count // 2):
        event = events[i]
        events[i] = events[count - 1 - i]
        events[count - 1 - i] = event
