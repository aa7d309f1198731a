# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Row transactions as statements for the target: `BINLOG '<base64>'`, framed for the wire.

The server decodes a BINLOG statement back into table maps and row events and applies them with its own code. The
statement may hold the events of several statements and transactions. It may be cut between row events: the last row
event of each piece then ends its statement, and the next piece begins with the table maps in force. Events are never
changed in place, so encoding can be repeated.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from applier.events.base64 cimport Base64, base64_add, base64_end, base64_length, base64_prepare
from applier.events.batch cimport T_ANONYMOUS, T_ROWS, Batch, Event, Transaction
from applier.events.event_types cimport TABLE_MAP_EVENT, is_rows_event
from applier.events.row_image cimport ROWS_FLAGS_OFFSET, ROWS_STMT_END

base64_prepare()

DEFAULT_PACKET_BYTES_MAX = 64 << 20
"""The server's default of max_allowed_packet."""

cdef size_t FRAME_BYTES = 4                  # length in three bytes, sequence id
cdef size_t FRAME_PAYLOAD_MAX = 0xFFFFFF
cdef uint8_t COM_QUERY = 3
cdef const char* OPENING = b"BINLOG '"
cdef size_t OPENING_BYTES = 8
cdef enum:
    GTID_TEXT_MAX = 36 + 1 + 32 + 1 + 20     # uuid:tag:gno


# One event of a statement.
cdef struct Piece:
    const uint8_t* data
    uint32_t length
    bint ends_statement                      # write its flags with STMT_END

# One BINLOG statement.
cdef struct Statement:
    size_t first                             # into pieces
    size_t count
    size_t length                            # of the events, together


cdef class Pieces:
    """Events in the order in which they are sent, cut into statements of at most `length_max` bytes of events
    (more when a single row event is larger)."""

    cdef Piece* pieces
    cdef size_t piece_count, piece_capacity
    cdef Statement* statements
    cdef size_t statement_count, statement_capacity
    cdef Event* maps                         # in force
    cdef size_t map_count, map_capacity
    cdef size_t maps_written                 # of them, in the statement being built
    cdef size_t length_max

    def __cinit__(self, size_t length_max):
        self.length_max = length_max

    def __dealloc__(self):
        free(self.pieces)
        free(self.statements)
        free(self.maps)

    cdef int add_transaction(self, Batch batch, size_t i) except -1 nogil:
        cdef Transaction* transaction = &batch.transactions[i]
        cdef Event* event = &batch.events[transaction.event_first]
        cdef Event* end = event + transaction.event_count
        self.map_count = self.maps_written = 0
        while event != end:
            if event.type == TABLE_MAP_EVENT:
                self.maps = <Event*>room(self.maps, self.map_count, &self.map_capacity, sizeof(Event))
                self.maps[self.map_count] = event[0]
                self.map_count += 1
            elif is_rows_event(event.type) and event.length >= ROWS_FLAGS_OFFSET + 2:
                self.add_rows(event)
            event += 1
        self.end_statement()
        return 0

    cdef int add_rows(self, const Event* event) except -1 nogil:
        cdef size_t length = event.length
        cdef size_t i
        for i in range(self.maps_written, self.map_count):
            length += self.maps[i].length
        if self.statement_count == 0:
            self.open()
        elif (self.statements[self.statement_count - 1].count
                and self.statements[self.statement_count - 1].length + length > self.length_max):
            self.end_statement()
            self.maps_written = 0
            self.open()
        # Table maps are written only before a row event that may need them, so that no statement ends with one.
        while self.maps_written < self.map_count:
            self.append(&self.maps[self.maps_written])
            self.maps_written += 1
        self.append(event)
        if event.data[ROWS_FLAGS_OFFSET] & ROWS_STMT_END:
            self.map_count = self.maps_written = 0
        return 0

    cdef int open(self) except -1 nogil:
        cdef Statement* statement
        self.statements = <Statement*>room(
            self.statements, self.statement_count, &self.statement_capacity, sizeof(Statement))
        statement = &self.statements[self.statement_count]
        statement.first = self.piece_count
        statement.count = statement.length = 0
        self.statement_count += 1
        return 0

    cdef int append(self, const Event* event) except -1 nogil:
        cdef Piece* piece
        self.pieces = <Piece*>room(self.pieces, self.piece_count, &self.piece_capacity, sizeof(Piece))
        piece = &self.pieces[self.piece_count]
        piece.data = event.data
        piece.length = event.length
        piece.ends_statement = False
        self.piece_count += 1
        self.statements[self.statement_count - 1].count += 1
        self.statements[self.statement_count - 1].length += event.length
        return 0

    cdef void end_statement(self) noexcept nogil:
        """The last piece, always a row event, is the last of its statement."""
        if self.piece_count:
            self.pieces[self.piece_count - 1].ends_statement = True

    cdef uint8_t* write(self, size_t i, uint8_t* out) noexcept nogil:
        """`BINLOG '…'` of statement `i`; `text_length` tells the room that it takes."""
        cdef Statement* statement = &self.statements[i]
        cdef Piece* piece = &self.pieces[statement.first]
        cdef Piece* end = piece + statement.count
        cdef Base64 base64
        cdef uint8_t flags
        memcpy(out, OPENING, OPENING_BYTES)
        base64.out = out + OPENING_BYTES
        base64.pending = base64.pending_count = 0
        while piece != end:
            if piece.ends_statement:
                flags = piece.data[ROWS_FLAGS_OFFSET] | ROWS_STMT_END
                base64_add(&base64, piece.data, ROWS_FLAGS_OFFSET)
                base64_add(&base64, &flags, 1)
                base64_add(&base64, piece.data + ROWS_FLAGS_OFFSET + 1, piece.length - ROWS_FLAGS_OFFSET - 1)
            else:
                base64_add(&base64, piece.data, piece.length)
            piece += 1
        base64_end(&base64)
        base64.out[0] = c"'"
        return base64.out + 1

    cdef size_t text_length(self, size_t i) noexcept nogil:
        return OPENING_BYTES + base64_length(self.statements[i].length) + 1


# Room for one more item of a growing array.
cdef void* room(void* items, size_t count, size_t* capacity, size_t item_bytes) except NULL nogil:
    cdef size_t wanted = capacity[0] * 2 + 32
    if count < capacity[0]:
        return items
    items = realloc(items, wanted * item_bytes)
    if items is NULL:
        with gil:
            raise MemoryError(f"no memory for {wanted} items of {item_bytes} bytes")
    capacity[0] = wanted
    return items


# How many bytes of events fit into a text of `text_bytes_max`, of which `other_bytes` are taken.
cdef size_t events_that_fit(size_t text_bytes_max, size_t other_bytes) noexcept nogil:
    other_bytes += OPENING_BYTES + 1 + FRAME_BYTES + 1
    return (text_bytes_max - other_bytes) // 4 * 3 if text_bytes_max > other_bytes else 0


cdef Pieces pieces_of(Batch batch, size_t first, size_t end, Pieces pieces):
    cdef size_t i
    if first > end or end > batch.transaction_count:
        raise IndexError(f"transactions {first} to {end} of {batch.transaction_count}")
    for i in range(first, end):
        if not batch.transactions[i].flags & T_ROWS:
            raise ValueError(f"transaction {batch.transactions[i].sequence_number} is not made of rows only")
    with nogil:
        for i in range(first, end):
            pieces.add_transaction(batch, i)
    return pieces


def binlog_statements(Batch batch, size_t i, size_t statement_bytes_max=DEFAULT_PACKET_BYTES_MAX):
    """`BINLOG '…'` for all row events of transaction `i` (or part of one), as a list of bytes.

    Normally one; none when it changed no row; several, cut between row events, when it is larger than
    `statement_bytes_max`. Only a single row event larger than that makes a larger statement.
    Raises IndexError, and ValueError unless the transaction is T_ROWS.
    """
    cdef Pieces pieces = pieces_of(batch, i, i + 1, Pieces(events_that_fit(statement_bytes_max, 0)))
    cdef size_t s
    cdef bytes text
    cdef uint8_t* out
    texts = []
    for s in range(pieces.statement_count):
        text = PyBytes_FromStringAndSize(NULL, pieces.text_length(s))
        out = <uint8_t*>PyBytes_AS_STRING(text)
        with nogil:
            pieces.write(s, out)
        texts.append(text)
    return texts


def transaction_packet(Batch batch, size_t i, bytes prefix=b"", int prefix_replies=0, *, bint gtid=True,
                       bint begin=True, bint commit=False):
    """(packet, replies owed): a whole transaction as one framed COM_QUERY, whatever its size.

    `prefix;SET gtid_next='…';BEGIN;BINLOG '…';COMMIT`, less what is switched off. `prefix` holds `prefix_replies`
    statements. An anonymous transaction gets `SET gtid_next='AUTOMATIC'`. Raises as `binlog_statements`.
    """
    packets = transaction_packets(batch, i, prefix, prefix_replies, gtid=gtid, begin=begin, commit=commit,
                                  packet_bytes_max=1 << 62)
    return packets[0]


def transaction_packets(Batch batch, size_t i, bytes prefix=b"", int prefix_replies=0, *, bint gtid=True,
                        bint begin=True, bint commit=False, size_t packet_bytes_max=DEFAULT_PACKET_BYTES_MAX):
    """The same as a list of packets of at most `packet_bytes_max` bytes (the target's max_allowed_packet), to be
    sent one after the other. Only a single row event larger than that makes a larger packet."""
    cdef list head = [prefix] if prefix else []
    cdef char text[GTID_TEXT_MAX]
    cdef size_t length
    if i >= batch.transaction_count:
        raise IndexError(f"transaction {i} of {batch.transaction_count}")
    if gtid:
        length = write_gtid(&batch.transactions[i], text)
        head.append(b"SET gtid_next='" + text[:length] + b"'")
    if begin:
        head.append(b"BEGIN")
    return rows_packets([(batch, i, i + 1)], b";".join(head), prefix_replies + gtid + begin,
                        b"COMMIT" if commit else b"", int(commit), packet_bytes_max)


def rows_packets(slices, bytes head=b"", int head_replies=0, bytes tail=b"", int tail_replies=0,
                 size_t packet_bytes_max=DEFAULT_PACKET_BYTES_MAX):
    """[(packet, replies owed), …] for the rows of many transactions: `head;BINLOG '…';tail`.

    slices: [(batch, first, end), …], transactions `first` to `end` (exclusive) of each batch, in order.
    head, tail: statements before and after the rows, which are owed `head_replies` and `tail_replies`.
    Packets are framed and at most `packet_bytes_max` bytes long; send one, wait for its replies, send the next.
    There is always at least one, unless there is nothing to send at all. Raises as `binlog_statements`.
    """
    cdef Pieces pieces = Pieces(events_that_fit(packet_bytes_max, len(head) + len(tail) + 2))
    cdef size_t s, count
    for batch, first, end in slices:
        pieces_of(batch, first, end, pieces)
    count = pieces.statement_count
    if count == 0:
        text = b";".join(part for part in (head, tail) if part)
        return [(frame_packet(bytes([COM_QUERY]) + text), head_replies + tail_replies)] if text else []
    packets = []
    for s in range(count):
        is_first, is_last = s == 0, s == count - 1
        packets.append((
            one_packet(pieces, s, head if is_first else b"", tail if is_last else b""),
            1 + (head_replies if is_first else 0) + (tail_replies if is_last else 0)))
    return packets


cdef bytes one_packet(Pieces pieces, size_t s, bytes head, bytes tail):
    """The packet is written in one pass into its final place; only beyond 16 MB it is copied once more."""
    cdef size_t head_length = PyBytes_GET_SIZE(head), tail_length = PyBytes_GET_SIZE(tail)
    cdef size_t payload = 1 + head_length + (head_length > 0) + pieces.text_length(s) + tail_length + (tail_length > 0)
    cdef bytes packet = PyBytes_FromStringAndSize(NULL, FRAME_BYTES + payload)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(packet)
    cdef const char* head_text = PyBytes_AS_STRING(head)
    cdef const char* tail_text = PyBytes_AS_STRING(tail)
    with nogil:
        write_frame(out, payload, 0)
        out += FRAME_BYTES
        out[0] = COM_QUERY
        out += 1
        if head_length:
            memcpy(out, head_text, head_length)
            out[head_length] = c";"
            out += head_length + 1
        out = pieces.write(s, out)
        if tail_length:
            out[0] = c";"
            memcpy(out + 1, tail_text, tail_length)
    return packet if payload < FRAME_PAYLOAD_MAX else frame_packet(memoryview(packet)[FRAME_BYTES:])


def frame_packet(const uint8_t[::1] payload not None):
    """A payload of any size as protocol packets: pieces of at most 0xFFFFFF bytes, the last one shorter (maybe
    empty), each after its length and a sequence id that begins with 0."""
    cdef size_t length = payload.shape[0]
    cdef size_t count = length // FRAME_PAYLOAD_MAX + 1
    cdef bytes framed = PyBytes_FromStringAndSize(NULL, length + count * FRAME_BYTES)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(framed)
    cdef const uint8_t* data = &payload[0] if length else NULL
    cdef size_t i, size
    with nogil:
        for i in range(count):
            size = min(length, FRAME_PAYLOAD_MAX)
            write_frame(out, size, <uint8_t>i)
            if size:
                memcpy(out + FRAME_BYTES, data, size)
                data += size
            out += FRAME_BYTES + size
            length -= size
    return framed


cdef void write_frame(uint8_t* out, size_t length, uint8_t sequence_id) noexcept nogil:
    out[0] = <uint8_t>length
    out[1] = <uint8_t>(length >> 8)
    out[2] = <uint8_t>(length >> 16)
    out[3] = sequence_id


def encode_format_description(bytes fde not None):
    """`BINLOG '…'` of a format description event: the first statement of a session, before any rows."""
    cdef size_t length = PyBytes_GET_SIZE(fde)
    cdef bytes text = PyBytes_FromStringAndSize(NULL, OPENING_BYTES + base64_length(length) + 1)
    cdef Base64 base64
    memcpy(PyBytes_AS_STRING(text), OPENING, OPENING_BYTES)
    base64.out = <uint8_t*>PyBytes_AS_STRING(text) + OPENING_BYTES
    base64.pending = base64.pending_count = 0
    base64_add(&base64, <const uint8_t*>PyBytes_AS_STRING(fde), length)
    base64_end(&base64)
    base64.out[0] = c"'"
    return text


cdef size_t write_gtid(const Transaction* transaction, char* text) noexcept nogil:
    """`uuid:gno` or `uuid:tag:gno` as the server prints it; returns its length, at most GTID_TEXT_MAX."""
    cdef const char* digits = b"0123456789abcdef"
    cdef size_t at = 0
    cdef uint64_t rest = <uint64_t>transaction.gno
    cdef uint64_t power = 1
    cdef int i
    if transaction.flags & T_ANONYMOUS or transaction.gno <= 0:
        memcpy(text, b"AUTOMATIC", 9)
        return 9
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            text[at] = c"-"
            at += 1
        text[at] = digits[transaction.sid[i] >> 4]
        text[at + 1] = digits[transaction.sid[i] & 15]
        at += 2
    text[at] = c":"
    at += 1
    if transaction.tag_length:
        memcpy(text + at, transaction.tag, transaction.tag_length)
        at += transaction.tag_length
        text[at] = c":"
        at += 1
    while rest // power >= 10:
        power *= 10
    while power:
        text[at] = <char>(c"0" + rest // power % 10)
        at += 1
        power //= 10
    return at
