"""Event types and header layout of the binary log (source: the manual, "Binary Log Event", and the server's enum)."""

cdef enum:
    HEADER_BYTES = 19
    CHECKSUM_BYTES = 4
    TYPE_OFFSET = 4
    LENGTH_OFFSET = 9
    LOG_POS_OFFSET = 13
    FLAGS_OFFSET = 17
    # An event cannot be larger than the largest max_allowed_packet.
    EVENT_BYTES_MAX = 1 << 30

cdef enum HeaderFlags:
    FLAG_IN_USE = 0x01          # the file is open for writing; not part of the checksum
    FLAG_ARTIFICIAL = 0x20      # made for this stream, is in no file
    FLAG_RELAY_LOG = 0x40       # written by a replica about its own relay log
    FLAG_IGNORABLE = 0x80       # whoever does not know the type may skip it

cdef enum RowsFlags:
    ROWS_STATEMENT_END = 1

cdef enum EventType:
    QUERY_EVENT = 2
    STOP_EVENT = 3
    ROTATE_EVENT = 4
    INTVAR_EVENT = 5
    APPEND_BLOCK_EVENT = 9
    DELETE_FILE_EVENT = 11
    RAND_EVENT = 13
    USER_VAR_EVENT = 14
    FORMAT_DESCRIPTION_EVENT = 15
    XID_EVENT = 16
    BEGIN_LOAD_QUERY_EVENT = 17
    EXECUTE_LOAD_QUERY_EVENT = 18
    TABLE_MAP_EVENT = 19
    WRITE_ROWS_EVENT_V1 = 23
    UPDATE_ROWS_EVENT_V1 = 24
    DELETE_ROWS_EVENT_V1 = 25
    INCIDENT_EVENT = 26
    HEARTBEAT_EVENT = 27
    IGNORABLE_EVENT = 28
    ROWS_QUERY_EVENT = 29
    WRITE_ROWS_EVENT = 30
    UPDATE_ROWS_EVENT = 31
    DELETE_ROWS_EVENT = 32
    GTID_EVENT = 33
    ANONYMOUS_GTID_EVENT = 34
    PREVIOUS_GTIDS_EVENT = 35
    TRANSACTION_CONTEXT_EVENT = 36
    VIEW_CHANGE_EVENT = 37
    XA_PREPARE_EVENT = 38
    PARTIAL_UPDATE_ROWS_EVENT = 39
    TRANSACTION_PAYLOAD_EVENT = 40
    HEARTBEAT_EVENT_V2 = 41
    GTID_TAGGED_EVENT = 42


cdef inline bint is_rows_event(int type) noexcept nogil:
    return (WRITE_ROWS_EVENT <= type <= DELETE_ROWS_EVENT or type == PARTIAL_UPDATE_ROWS_EVENT
            or WRITE_ROWS_EVENT_V1 <= type <= DELETE_ROWS_EVENT_V1)
