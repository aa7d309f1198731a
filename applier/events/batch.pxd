"""A batch: consecutive whole transactions of the log, their events, and (after decoding) what they touch.

Written by the assembler (bytes to transactions), filled in by the decoder (payloads, rows, touches), read by the
scheduler and the workers. Pointers point into `buffers`, which never move and live as long as the batch.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from scheduler.budget cimport MemoryBudget
from writeset.hashing cimport Touches

# An event, from its 19-byte header to its last byte before the checksum. The length field in the header has been
# corrected to exclude the checksum, so `data[0:length]` can be sent in a BINLOG statement as it is.
cdef struct Event:
    uint8_t* data
    uint32_t length
    uint8_t type

cdef enum TransactionFlags:
    T_ROWS = 1            # BEGIN, table maps, row events, COMMIT/XID and nothing else: may pass through BINLOG
    T_STATEMENTS = 2      # anything else (DDL, statement format, savepoints, XA …): executed event by event
    T_BARRIER = 4         # depends on everything before it, everything after depends on it
    T_ANONYMOUS = 8       # no GTID
    T_COMPRESSED = 16     # came as a transaction payload event
    T_FIRST_PART = 32     # of a transaction cut into parts because it is larger than part_bytes_max
    T_LAST_PART = 64      # a whole transaction has both
    T_ROLLBACK = 128      # ends with ROLLBACK
    T_DDL = 256           # a single query event that commits by itself: schema may change
    T_XA = 512            # ends with XA PREPARE
    T_KEYS_UNKNOWN = 1024 # the decoder could not name the keys (implies T_BARRIER)
    T_SCHEMA = 2048       # the schema may differ after it (set with T_DDL, and for CREATE TABLE … SELECT)
    T_CHECKPOINT = 4096   # the bucket index forgot everything after it: the last of its group
    T_OWN_KEYS_ONLY = 8192 # the source's last_committed may overlook a parent: see TableDefinition.source_overlooks

# struct of one transaction, or of one part of a very large one (parts share the sequence number).
cdef struct Transaction:
    uint64_t sequence_number          # ours: 1, 2, 3 … without gaps over the whole run
    uint64_t last_committed           # set by the scheduler
    int64_t source_sequence_number    # of the GTID event; restarts in each binlog file; 0 = not given
    int64_t source_last_committed
    uint64_t source_epoch             # counts binlog files: source numbers compare only within one epoch
    uint64_t original_commit_microseconds    # since the epoch UTC; 0 = not given
    uint64_t immediate_commit_microseconds
    uint64_t end_log_pos              # of its last event, in its binlog file; 0 inside files before 4 GB wrap
    uint64_t byte_count               # of its events, uncompressed
    uint32_t event_first              # into Batch.events; the GTID event is not among them
    uint32_t event_count
    uint32_t row_first                # into Batch.rows, after decoding
    uint32_t row_count
    uint32_t touch_first              # into Batch.touches, after decoding
    uint32_t touch_count
    uint32_t flags                    # TransactionFlags
    int64_t gno
    uint8_t sid[16]
    uint8_t tag_length                # 0 = untagged
    char tag[32]

# One row change. Images are raw: null bitmap over the present columns, then the values.
cdef struct Row:
    const uint8_t* before             # NULL for an insert
    const uint8_t* after              # NULL for a delete
    uint32_t before_length
    uint32_t after_length
    uint32_t event                    # index into Batch.events of the row event
    uint32_t table                    # index into Batch.tables
    uint32_t touch_first              # index into Batch.touches; the first is the row's identity if the plan has one
    uint16_t touch_count
    uint8_t kind                      # RowKind
    uint8_t flags

# Memory that events point into: never moves, freed with its last owner. Python sees a writable buffer.
cdef class Buffer:
    cdef uint8_t* data
    cdef MemoryBudget budget                  # that `capacity` is charged to, or None
    cdef readonly size_t capacity             # bytes

    # Makes it larger. It may move: only before anybody points into it.
    cdef int grow(self, size_t capacity) except -1

cdef class Batch:
    cdef readonly uint64_t number             # 0, 1, 2 … in log order
    cdef readonly uint32_t piece              # a batch may be decoded piece by piece: which one this is, from 0
    cdef readonly list buffers                # what the pointers point into
    cdef readonly list tables                 # a (TableMap, TablePlan) pair for each table map met, set by the decoder
    cdef readonly str file                    # binlog file of its last event
    cdef readonly object format_description   # bytes of the FDE in force, checksum off (for BINLOG)
    cdef readonly object failure              # an ApplierError to raise when everything before has been applied, or None
    cdef readonly bint decoded
    cdef Event* events
    cdef size_t event_count
    cdef size_t event_capacity
    cdef Transaction* transactions
    cdef size_t transaction_count
    cdef size_t transaction_capacity
    cdef Row* rows
    cdef size_t row_count
    cdef size_t row_capacity
    cdef Touches touches
    cdef uint64_t* touch_waits                # parallel to touches, or NULL: what each touch alone waits for
    cdef readonly uint64_t byte_count         # of the log that it covers, as it came
    cdef readonly MemoryBudget budget         # what it holds is charged to it, or None
    cdef int64_t charged                      # of its arrays
    cdef uint64_t table_bytes                 # of tables that were learnt for it
    cdef bint in_flight

    # Each appends and may move its array: pointers into it are good until the next call. MemoryError.
    cdef int add_event(self, uint8_t* data, uint32_t length, uint8_t type) except -1 nogil
    cdef Transaction* add_transaction(self) except NULL nogil
    # Charges the budget for what the arrays have grown by; call it once whenever a stage is through with the batch.
    cdef void settle(self) noexcept nogil
    cdef size_t array_bytes(self) noexcept nogil
    # Charges what has grown in the middle of a stage. TooLargeForMemory when it alone is more than all of the budget.
    cdef int check_room(self, const char* what) except -1 nogil
    cdef Row* add_row(self) except NULL nogil
    # Room for a wait for each touch, all 0, once the batch is decoded. The scheduler fills it in: the last writer (or
    # sharer) of that key before the touch's transaction. MemoryError.
    cdef uint64_t* ensure_touch_waits(self) except NULL nogil
