# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Leaves out of a batch what is about tables that nobody wants. Before the rows are decoded, after payloads are inflated.

A transaction of which nothing is left stays, empty: its GTID counts as applied.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from applier.events.batch cimport (
    T_BARRIER, T_DDL, T_ROWS, T_SCHEMA, T_STATEMENTS, Batch, Event, Transaction)
from applier.events.event_types cimport (
    HEADER_BYTES, QUERY_EVENT, ROWS_STATEMENT_END, TABLE_MAP_EVENT, is_rows_event)
from applier.events.wire cimport load_u16, load_u32

from applier.errors import DataError

cdef enum:
    TABLES_MAX = 4096          # of one transaction whose maps are remembered at once; beyond it nothing is left out
    PREFIX_FIRST = 5           # INTVAR_EVENT
    RAND_EVENT = 13
    USER_VAR_EVENT = 14


cdef struct Known:
    uint64_t id
    bint wanted


def leave_out(Batch batch, dict tables, object wanted, object statement_wanted):
    """Takes rows off that are not wanted, and statements.

    tables:           what `wanted` answered before, by the name as table maps spell it; filled here
    wanted:           `wanted(schema, table) -> bool`
    statement_wanted: `statement_wanted(bytes of a query event) -> bool`

    Raises what the two raise, and DataError; that transaction and those behind it are then taken off.
    """
    cdef size_t i
    cdef Known[TABLES_MAX] known
    try:
        for i in range(batch.transaction_count):
            filter_transaction(batch, &batch.transactions[i], known, tables, wanted, statement_wanted)
    except BaseException:
        batch.transaction_count = i
        raise


cdef int filter_transaction(Batch batch, Transaction* t, Known* known, dict tables, object wanted,
                            object statement_wanted) except -1:
    cdef size_t number, to = t.event_first, count = 0, prefixes = t.event_first
    cdef size_t statement = to             # where the rows of this statement begin among the kept
    cdef Event* event
    cdef Event* last_rows = NULL           # the last rows kept of this statement
    cdef uint64_t size = 0
    cdef bint changes = False, keep
    for number in range(t.event_first, t.event_first + t.event_count):
        event = &batch.events[number]
        keep = True
        if event.type == TABLE_MAP_EVENT:
            keep = map_wanted(event, known, &count, tables, wanted)
            changes = changes or keep
        elif is_rows_event(event.type):
            keep = rows_wanted(event, known, count)
            changes = changes or keep
            if not keep and ends_statement(event):
                # The end goes to the rows before; a statement without rows goes with its table maps.
                if last_rows is not NULL:
                    last_rows.data[HEADER_BYTES + 6] |= ROWS_STATEMENT_END
                else:
                    to = statement
        elif event.type == QUERY_EVENT and t.flags & T_STATEMENTS:
            answer = statement_wanted((<const char*>event.data)[:event.length])
            keep = answer is not False
            changes = changes or answer is True
            if not keep:
                to = prefixes              # variables that were set for it go with it
        elif event.type not in (PREFIX_FIRST, RAND_EVENT, USER_VAR_EVENT) and not t.flags & T_ROWS:
            changes = changes or event.type not in (16, 29)     # XID and a comment change nothing
        if keep:
            batch.events[to] = event[0]
            if is_rows_event(event.type) and event.length >= HEADER_BYTES + 8:   # a shorter one is refused when decoded
                last_rows = &batch.events[to]
            to += 1
        if is_rows_event(event.type) and ends_statement(event):
            statement, last_rows, count = to, NULL, 0
        if event.type not in (PREFIX_FIRST, RAND_EVENT, USER_VAR_EVENT):
            prefixes = to
    if to == t.event_first + t.event_count:
        return 0
    t.event_count = <uint32_t>(to - t.event_first)
    for number in range(t.event_first, to):
        size += batch.events[number].length
    t.byte_count = size
    if not changes and t.flags & T_STATEMENTS:
        t.event_count = 0
        t.byte_count = 0
        t.flags = (t.flags & ~<uint32_t>(T_STATEMENTS | T_BARRIER | T_DDL | T_SCHEMA)) | T_ROWS
    return 0


cdef bint map_wanted(Event* event, Known* known, size_t* count, dict tables, object wanted) except -1:
    cdef const uint8_t* body = event.data + HEADER_BYTES
    cdef uint64_t id
    cdef size_t length, i
    cdef bint keep
    if event.length < HEADER_BYTES + 10:
        return True                        # the decoder says what is wrong with it
    id = load_u32(body) | <uint64_t>load_u16(body + 4) << 32
    length = body[8]
    if event.length < HEADER_BYTES + 9 + length + 2 or event.length < HEADER_BYTES + 11 + length + body[10 + length]:
        return True
    name = (<const char*>body)[8:11 + length + body[10 + length]]
    answer = tables.get(name)
    if answer is None:
        schema = name[1:1 + length].decode("utf-8", "surrogateescape")
        answer = bool(wanted(schema, name[3 + length:].decode("utf-8", "surrogateescape")))
        tables[name] = answer
    keep = answer
    for i in range(count[0]):
        if known[i].id == id:
            known[i].wanted = keep
            return keep
    if count[0] < TABLES_MAX:
        known[count[0]].id = id
        known[count[0]].wanted = keep
        count[0] += 1
    elif not keep:
        raise DataError(detail="a statement names more than 4096 tables, too many to leave some of them out")
    return keep


cdef bint ends_statement(Event* event) noexcept:
    return event.length >= HEADER_BYTES + 8 and load_u16(event.data + HEADER_BYTES + 6) & ROWS_STATEMENT_END


cdef bint rows_wanted(Event* event, Known* known, size_t count) noexcept:
    cdef uint64_t id
    cdef size_t i
    if event.length < HEADER_BYTES + 6:
        return True
    id = load_u32(event.data + HEADER_BYTES) | <uint64_t>load_u16(event.data + HEADER_BYTES + 4) << 32
    for i in range(count):
        if known[i].id == id:
            return known[i].wanted
    return True
