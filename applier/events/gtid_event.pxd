"""GTID events (33, 34 and the tagged 42) into the GTID fields of a Transaction."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from applier.events.batch cimport T_ANONYMOUS, Transaction
from applier.events.event_types cimport *
from applier.events.wire cimport load_u56, load_u64, load_varlen, load_varlen_signed

cdef enum:
    LOGICAL_TIMESTAMP_TYPE = 2      # "last_committed and sequence_number follow"
    TAG_BYTES_MAX = 32

# Fields of the tagged event, by number. Those above are newer than this program and may be skipped.
cdef enum TaggedField:
    FIELD_FLAGS = 0
    FIELD_UUID = 1
    FIELD_GNO = 2
    FIELD_TAG = 3
    FIELD_LAST_COMMITTED = 4
    FIELD_SEQUENCE_NUMBER = 5
    FIELD_IMMEDIATE_COMMIT = 6
    FIELD_ORIGINAL_COMMIT = 7
    FIELD_LAST_READ = 7


# Fixed layout: flags 1, sid 16, gno 8, timestamp type 1, last_committed 8, sequence_number 8, then from 8.0.1 on
# immediate commit time 7 (its top bit says that the original one, 7, follows; else both are the same).
cdef inline int parse_untagged_gtid(const uint8_t* data, uint32_t length, Transaction* t) noexcept nogil:
    cdef const uint8_t* body = data + HEADER_BYTES
    cdef uint32_t size = length - HEADER_BYTES
    cdef uint64_t time
    if size < 25:
        return -1
    memcpy(t.sid, body + 1, 16)
    t.gno = <int64_t>load_u64(body + 17)
    if size >= 42 and body[25] == LOGICAL_TIMESTAMP_TYPE:
        t.source_last_committed = <int64_t>load_u64(body + 26)
        t.source_sequence_number = <int64_t>load_u64(body + 34)
    if size >= 49 and body[25] == LOGICAL_TIMESTAMP_TYPE:
        time = load_u56(body + 42)
        t.immediate_commit_microseconds = time & ~(<uint64_t>1 << 55)
        if time >> 55:
            if size < 56:
                return -1
            t.original_commit_microseconds = load_u56(body + 49)
        else:
            t.original_commit_microseconds = t.immediate_commit_microseconds
    return 0


# The server's rule. What else comes must not get into `SET gtid_next='…'`.
cdef inline bint is_tag(const uint8_t* text, size_t length) noexcept nogil:
    cdef size_t i
    for i in range(length):
        if not (c'a' <= text[i] <= c'z' or text[i] == c'_' or (i > 0 and c'0' <= text[i] <= c'9')):
            return False
    return True


cdef inline int parse_tag(const uint8_t** at, const uint8_t* end, Transaction* t) noexcept nogil:
    cdef uint64_t size
    if load_varlen(at, end, &size) or size > TAG_BYTES_MAX or size > <uint64_t>(end - at[0]):
        return -1
    if not is_tag(at[0], size):
        return -1
    t.tag_length = <uint8_t>size
    memcpy(t.tag, at[0], size)
    at[0] += size
    return 0


cdef inline int parse_sid(const uint8_t** at, const uint8_t* end, Transaction* t) noexcept nogil:
    cdef uint64_t byte
    cdef int i
    for i in range(16):
        if load_varlen(at, end, &byte) or byte > 255:
            return -1
        t.sid[i] = <uint8_t>byte
    return 0


# Serialization library's layout: version, size of the whole message, last field that may not be ignored, then
# (field number, value) in rising order; a field that is left out has its default.
cdef inline int parse_tagged_gtid(const uint8_t* data, uint32_t length, Transaction* t) noexcept nogil:
    cdef const uint8_t* at = data + HEADER_BYTES
    cdef const uint8_t* end = data + length
    cdef uint64_t version, size, required, field, ignored
    cdef int bad = 0
    if load_varlen(&at, end, &version) or version != 1:
        return -1
    if load_varlen(&at, end, &size) or size > length - HEADER_BYTES or load_varlen(&at, end, &required):
        return -1
    end = data + HEADER_BYTES + size
    while at < end and not bad:
        if load_varlen(&at, end, &field):
            return -1
        if field > FIELD_LAST_READ:
            break
        if field == FIELD_UUID:
            bad = parse_sid(&at, end, t)
        elif field == FIELD_GNO:
            bad = load_varlen_signed(&at, end, &t.gno)
        elif field == FIELD_TAG:
            bad = parse_tag(&at, end, t)
        elif field == FIELD_LAST_COMMITTED:
            bad = load_varlen_signed(&at, end, &t.source_last_committed)
        elif field == FIELD_SEQUENCE_NUMBER:
            bad = load_varlen_signed(&at, end, &t.source_sequence_number)
        elif field == FIELD_IMMEDIATE_COMMIT:
            bad = load_varlen(&at, end, &t.immediate_commit_microseconds)
        elif field == FIELD_ORIGINAL_COMMIT:
            bad = load_varlen(&at, end, &t.original_commit_microseconds)
        else:
            bad = load_varlen(&at, end, &ignored)
    if t.original_commit_microseconds == 0:
        t.original_commit_microseconds = t.immediate_commit_microseconds
    return bad


# Returns 0, or -1 when the event is too short or contradicts itself. `t` is zeroed by the caller.
cdef inline int parse_gtid_event(const uint8_t* data, uint32_t length, Transaction* t) noexcept nogil:
    cdef int bad
    if data[TYPE_OFFSET] == GTID_TAGGED_EVENT:
        bad = parse_tagged_gtid(data, length, t)
    else:
        bad = parse_untagged_gtid(data, length, t)
    if bad:
        return -1
    if data[TYPE_OFFSET] == ANONYMOUS_GTID_EVENT:
        t.gno = 0
        t.flags |= T_ANONYMOUS
        return 0
    # The server keeps the last number of 64 bits with a sign for itself.
    return 0 if 0 < t.gno < <int64_t>0x7FFFFFFFFFFFFFFF else -1
