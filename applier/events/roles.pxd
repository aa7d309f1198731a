"""What an event does to the transaction around it: the server's own transaction boundary rules."""
from libc.stdint cimport uint8_t, uint32_t

from applier.events.event_types cimport *
from applier.events.wire cimport load_u16

cdef enum Role:
    ROLE_IGNORED          # of no transaction, and nothing to do
    ROLE_CONTROL          # of no transaction, changes the state of the stream
    ROLE_UNKNOWN
    ROLE_MALFORMED        # too short to hold what it must
    ROLE_GTID             # opens a transaction
    # What follows is part of a transaction.
    ROLE_BEGIN
    ROLE_XA_START
    ROLE_COMMIT
    ROLE_ROLLBACK
    ROLE_XA_PREPARE
    ROLE_TABLE_MAP
    ROLE_ROWS
    ROLE_ROWS_QUERY       # a comment for readers of the log
    ROLE_QUERY            # a statement that leaves the schema alone
    ROLE_SCHEMA_QUERY     # any other statement
    ROLE_XA_COMMIT        # of a transaction prepared before: a statement that commits by itself
    ROLE_PREFIX           # belongs to the statement that follows: INTVAR, USER_VAR, LOAD DATA blocks …
    ROLE_LOAD_QUERY       # LOAD DATA in statement format
    ROLE_PAYLOAD          # a whole compressed transaction

cdef enum:
    QUERY_POST_HEADER_BYTES = 13


# Whether `text` begins with `word` (upper case letters and blanks), whatever its case.
cdef inline bint starts_with(const uint8_t* text, size_t length, const char* word, size_t size) noexcept nogil:
    cdef size_t i
    cdef uint8_t c
    if length < size:
        return False
    for i in range(size):
        c = text[i]
        if c'a' <= c <= c'z':
            c -= 32
        if c != <uint8_t>word[i]:
            return False
    return True


cdef inline bint is_word(const uint8_t* text, size_t length, const char* word, size_t size) noexcept nogil:
    return length == size and starts_with(text, length, word, size)


# The server writes BEGIN, COMMIT, ROLLBACK, SAVEPOINT and XA statements itself, in exactly these forms.
cdef inline Role role_of_statement(const uint8_t* text, size_t length) noexcept nogil:
    if is_word(text, length, b"BEGIN", 5):
        return ROLE_BEGIN
    if is_word(text, length, b"COMMIT", 6):
        return ROLE_COMMIT
    if starts_with(text, length, b"ROLLBACK", 8):
        return ROLE_QUERY if starts_with(text, length, b"ROLLBACK TO ", 12) else ROLE_ROLLBACK
    if starts_with(text, length, b"XA ", 3):
        if starts_with(text, length, b"XA START", 8):
            return ROLE_XA_START
        if starts_with(text, length, b"XA END", 6):
            return ROLE_QUERY
        return ROLE_XA_COMMIT
    if (starts_with(text, length, b"SAVEPOINT ", 10) or starts_with(text, length, b"INSERT ", 7)
            or starts_with(text, length, b"UPDATE ", 7) or starts_with(text, length, b"DELETE ", 7)
            or starts_with(text, length, b"REPLACE ", 8)):
        return ROLE_QUERY
    return ROLE_SCHEMA_QUERY


cdef inline Role role_of_query(const uint8_t* data, uint32_t length) noexcept nogil:
    cdef const uint8_t* body = data + HEADER_BYTES
    cdef size_t skipped
    if length < HEADER_BYTES + QUERY_POST_HEADER_BYTES + 1:
        return ROLE_MALFORMED
    # status variables, default database (its length is in byte 8) and a zero byte
    skipped = HEADER_BYTES + QUERY_POST_HEADER_BYTES + load_u16(body + 11) + body[8] + 1
    if skipped > length:
        return ROLE_MALFORMED
    return role_of_statement(data + skipped, length - skipped)


# `data[0:length]` is a whole event without checksum, at least a header long.
cdef inline Role role_of(const uint8_t* data, uint32_t length) noexcept nogil:
    cdef int type = data[TYPE_OFFSET]
    if type == TABLE_MAP_EVENT:
        return ROLE_TABLE_MAP if length >= HEADER_BYTES + 8 else ROLE_MALFORMED
    if is_rows_event(type):
        return ROLE_ROWS if length >= HEADER_BYTES + 8 else ROLE_MALFORMED
    if type == GTID_EVENT or type == GTID_TAGGED_EVENT or type == ANONYMOUS_GTID_EVENT:
        return ROLE_GTID
    if type == QUERY_EVENT:
        return role_of_query(data, length)
    if type == XID_EVENT:
        return ROLE_COMMIT
    if type == TRANSACTION_PAYLOAD_EVENT:
        return ROLE_PAYLOAD
    if type == ROWS_QUERY_EVENT:
        return ROLE_ROWS_QUERY
    if type == XA_PREPARE_EVENT:
        return ROLE_XA_PREPARE
    if (type == INTVAR_EVENT or type == RAND_EVENT or type == USER_VAR_EVENT or type == BEGIN_LOAD_QUERY_EVENT
            or type == APPEND_BLOCK_EVENT or type == DELETE_FILE_EVENT):
        return ROLE_PREFIX
    if type == EXECUTE_LOAD_QUERY_EVENT:
        return ROLE_LOAD_QUERY
    if (type == FORMAT_DESCRIPTION_EVENT or type == ROTATE_EVENT or type == HEARTBEAT_EVENT
            or type == HEARTBEAT_EVENT_V2 or type == INCIDENT_EVENT):
        return ROLE_CONTROL
    # Group replication logs a view change inside a transaction that is otherwise empty.
    if (type == STOP_EVENT or type == PREVIOUS_GTIDS_EVENT or type == IGNORABLE_EVENT
            or type == TRANSACTION_CONTEXT_EVENT or type == VIEW_CHANGE_EVENT):
        return ROLE_IGNORED
    return ROLE_IGNORED if load_u16(data + FLAGS_OFFSET) & FLAG_IGNORABLE else ROLE_UNKNOWN
