# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Row images to 64-bit key hashes, without the GIL.

Which touches of an update may be left out
------------------------------------------
A row's identity is touched exclusively by every change of the row, so all changes of one row are in one order
already. A further key whose value an update leaves alone needs no touch of its own: whoever frees that value
(deletes the row or changes the key) touches the identity too, hence is ordered after this update; and whoever
takes the freed value touches it, hence is ordered after the one who freed it. The same holds for a child's
foreign key (the parent's value can go only after the child row has gone or moved) and for a parent's referenced
key. It holds for tables without an identity as well, where the table itself is touched instead.
"Left alone" is judged on the bytes of the binary log, not on hashes: a coarse form may give one hash to two values.

A parent's identity stays exclusive over its sharers even if the update leaves it alone: InnoDB's check of a new
child row locks the parent's row, so letting both run at once would only make them meet in a lock wait.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp

from writeset import definitions


cdef extern from "hash64.h":
    uint64_t ws_hash(const uint8_t* data, size_t length, uint64_t seed) noexcept nogil
    uint64_t ws_mix(uint64_t a, uint64_t b) noexcept nogil


cdef uint64_t GUARD_SALT = 0x5bd1e995973af0b1
cdef enum:
    FOLD_BYTES_MAX = 256

# What the value of a key in one row image is.
cdef enum KeyState:
    KEY_KNOWN        # the hash says it
    KEY_NONE         # a NULL part: equal to no other
    KEY_UNKNOWN      # absent from the image, or of no proven form


cdef uint64_t hash_bytes(const uint8_t* data, size_t length, uint64_t seed) noexcept nogil:
    return ws_hash(data, length, seed)


# --- the output -----------------------------------------------------------------------------------------------


cdef int touches_reserve(Touches* touches, size_t extra) except -1 nogil:
    """Makes room for `extra` more touches; MemoryError when there is none."""
    cdef size_t capacity = touches.capacity
    cdef void* grown
    if touches.count + extra <= capacity:
        return 0
    capacity = max(touches.count + extra, capacity * 2, <size_t>256)
    grown = realloc(touches.hashes, capacity * sizeof(uint64_t))
    if grown == NULL:
        raise MemoryError
    touches.hashes = <uint64_t*>grown
    grown = realloc(touches.modes, capacity)
    if grown == NULL:
        raise MemoryError
    touches.modes = <uint8_t*>grown
    touches.capacity = capacity
    return 0


cdef void touches_free(Touches* touches) noexcept nogil:
    free(touches.hashes)
    free(touches.modes)
    touches.hashes = NULL
    touches.modes = NULL
    touches.count = 0
    touches.capacity = 0


cdef inline void push(Touches* out, uint64_t hash, uint8_t mode) noexcept nogil:
    out.hashes[out.count] = hash
    out.modes[out.count] = mode
    out.count += 1


# --- one value ------------------------------------------------------------------------------------------------


cdef inline size_t utf8_prefix(const uint8_t* data, size_t length, size_t characters) noexcept nogil:
    """Bytes of the first `characters` characters."""
    cdef size_t at = 0
    while at < length:
        if (data[at] & 0xC0) != 0x80:          # starts a character
            if characters == 0:
                return at
            characters -= 1
        at += 1
    return length


cdef inline size_t prefix_bytes(const KeyColumn* column, const uint8_t* data, size_t length) noexcept nogil:
    """Where the index prefix ends. Fewer characters than the prefix has are safe: equal prefixes begin equally."""
    cdef size_t shortest = <size_t>column.prefix_characters * column.code_unit_bytes
    if length <= shortest:
        return length
    if column.utf8:
        return utf8_prefix(data, length, column.prefix_characters)
    return shortest


cdef inline uint32_t code_unit(const KeyColumn* column, const uint8_t* at) noexcept nogil:
    if column.code_unit_bytes == 1:
        return at[0]
    if column.code_unit_bytes == 2:
        return (at[1] << 8 | at[0]) if column.little_endian else (at[0] << 8 | at[1])
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline size_t trimmed(const KeyColumn* column, const uint8_t* data, size_t length) noexcept nogil:
    """Length without trailing spaces."""
    cdef size_t unit = column.code_unit_bytes
    if unit == 1:
        while length > 0 and data[length - 1] == 0x20:
            length -= 1
        return length
    while length >= unit and code_unit(column, data + length - unit) == 0x20:
        length -= unit
    return length


cdef int hash_folded(const KeyColumn* column, const uint8_t* data, size_t length, uint64_t* hash) noexcept nogil:
    """Hashes the folded value in pieces; 0 when the value holds a unit of which nothing is known."""
    cdef uint8_t folded[FOLD_BYTES_MAX]
    cdef size_t unit = column.code_unit_bytes
    cdef size_t at = 0, filled = 0
    cdef uint32_t value
    cdef uint8_t target
    if length % unit:
        return 0
    while at < length:
        value = code_unit(column, data + at)
        target = column.fold[value] if value < 256 else 0
        if target == 0:
            return 0
        folded[filled] = target
        filled += 1
        if filled == FOLD_BYTES_MAX:
            hash[0] = ws_hash(folded, filled, hash[0])
            filled = 0
        at += unit
    hash[0] = ws_hash(folded, filled, hash[0])
    return 1


cdef inline int is_negative_zero(const uint8_t* data, size_t length) noexcept nogil:
    cdef size_t at
    if length == 0 or data[length - 1] != 0x80:
        return 0
    for at in range(length - 1):
        if data[at]:
            return 0
    return 1


cdef int hash_value(const KeyColumn* column, const Span* span, uint64_t* hash) noexcept nogil:
    """Adds one value to the hash; 0 when its form is not known."""
    cdef const uint8_t* data = span.data
    cdef size_t length = span.length
    cdef uint8_t zero[8]
    if column.prefix_characters:
        length = prefix_bytes(column, data, length)
    if column.form == FORM_RAW:
        pass
    elif column.form == FORM_PAD_TRIMMED:
        length = trimmed(column, data, length)
    elif column.form == FORM_FOLDED:
        return hash_folded(column, data, length, hash)
    elif column.form == FORM_FOLDED_TRIMMED:
        return hash_folded(column, data, trimmed(column, data, length), hash)
    elif column.form == FORM_ZERO_TRIMMED:
        while length > 0 and data[length - 1] == 0:
            length -= 1
    elif column.form == FORM_FLOAT or column.form == FORM_DOUBLE:
        if length <= 8 and is_negative_zero(data, length):
            for index in range(8):
                zero[index] = 0
            data = zero
    hash[0] = ws_hash(data, length, hash[0])
    return 1


# --- one key --------------------------------------------------------------------------------------------------


cdef inline const Span* span_of(const Span* image, const Span* fallback, size_t position) noexcept nogil:
    """The column in `image`; in `fallback` when `image` lacks it (a minimal after image: unchanged)."""
    if image[position].state == COLUMN_ABSENT and fallback != NULL:
        return &fallback[position]
    return &image[position]


cdef int key_value(TablePlan plan, const Key* key, const Span* image, const Span* fallback,
                   uint64_t* hash) noexcept nogil:
    cdef const KeyColumn* column = plan.columns + key.column_first
    cdef const KeyColumn* end = column + key.column_count
    cdef const Span* span
    cdef uint64_t value = key.seed
    cdef int state = KEY_KNOWN
    while column != end:
        if column.form != FORM_ANY:
            span = span_of(image, fallback, column.position)
            if span.state == COLUMN_NULL:
                # A NULL part makes the key equal to no other, whatever the other parts are.
                return KEY_NONE
            if span.state == COLUMN_ABSENT or not hash_value(column, span, &value):
                state = KEY_UNKNOWN
        column += 1
    hash[0] = value
    return state


cdef bint is_unchanged(TablePlan plan, const Key* key, const Span* before, const Span* after) noexcept nogil:
    """Whether an update leaves every column of the key as it was, byte by byte."""
    cdef const KeyColumn* column = plan.columns + key.column_first
    cdef const KeyColumn* end = column + key.column_count
    cdef const Span* old
    cdef const Span* new
    while column != end:
        if column.form == FORM_ANY:
            return False
        new = &after[column.position]
        if new.state != COLUMN_ABSENT:
            old = &before[column.position]
            if old.state != new.state:
                return False
            if new.state == COLUMN_PRESENT and (
                    old.length != new.length or memcmp(old.data, new.data, new.length) != 0):
                return False
        column += 1
    return True


cdef int touch(const Key* key, int state, uint64_t hash, Touches* out) noexcept nogil:
    """Appends what a key value touches; 1 when that cannot be known."""
    if state == KEY_KNOWN:
        push(out, hash, key.access)
        if key.guarded:
            push(out, ws_mix(key.seed ^ GUARD_SALT, GUARD_SALT), SHARED)
    elif state == KEY_UNKNOWN:
        if not key.guarded:
            return 1
        push(out, ws_mix(key.seed ^ GUARD_SALT, GUARD_SALT), EXCLUSIVE_OVER_SHARED)
    return 0


cdef int touch_changed(TablePlan plan, const Key* key, const Span* before, const Span* after,
                       Touches* out) noexcept nogil:
    """Appends what an update of a key touches: the value that it frees and the value that it takes."""
    cdef uint64_t old_hash = 0
    cdef uint64_t new_hash = 0
    cdef int old = key_value(plan, key, before, NULL, &old_hash)
    cdef int new = key_value(plan, key, after, before, &new_hash)
    if touch(key, old, old_hash, out):
        return 1
    if old == new and (old == KEY_UNKNOWN or old_hash == new_hash):
        return 0
    return touch(key, new, new_hash, out)


# --- one row --------------------------------------------------------------------------------------------------


cdef bint may_cascade(TablePlan plan, int kind, const Span* before, const Span* after) noexcept nogil:
    """Whether a change of a parent row may change rows of its children."""
    cdef size_t index
    if kind != ROW_UPDATE:
        return kind == ROW_DELETE
    for index in range(plan.key_count):
        if plan.keys[index].access == EXCLUSIVE_OVER_SHARED and not is_unchanged(
                plan, &plan.keys[index], before, after):
            return True
    return False


cdef int hash_row(TablePlan plan, int kind, const Span* before, const Span* after, bint cascades_logged,
                  Touches* out) except -1 nogil:
    cdef const Key* key = plan.keys
    cdef const Key* end = plan.keys + plan.key_count
    cdef const Span* image = after if before == NULL else before
    cdef uint64_t hash = 0
    cdef int state
    cdef bint moved = False
    if plan.always_barrier or (plan.cascades and not cascades_logged and may_cascade(plan, kind, before, after)):
        return 1
    touches_reserve(out, 4 * plan.key_count + 1)
    if plan.keyless:
        push(out, plan.table_seed, SHARED if kind == ROW_INSERT else EXCLUSIVE_OVER_SHARED)
    elif kind == ROW_UPDATE and is_unchanged(plan, key, before, after):
        state = key_value(plan, key, before, NULL, &hash)
        if touch(key, state, hash, out):
            return 1
        key += 1
    elif kind == ROW_UPDATE:
        moved = True
    while key != end:
        if kind == ROW_UPDATE and not is_unchanged(plan, key, before, after):
            if touch_changed(plan, key, before, after, out):
                return 1
        elif kind == ROW_UPDATE:
            # A parent's value that stays may move within its index all the same, when other columns of the row change.
            # InnoDB's check of a foreign key that meets it on the move does not find it (1452), so the check must wait.
            if key.access == EXCLUSIVE_OVER_SHARED or (moved and key.access == SHARED):
                state = key_value(plan, key, before, NULL, &hash)
                if touch(key, state, hash, out):
                    return 1
        elif not (plan.keyless and kind == ROW_DELETE and key.access == EXCLUSIVE):
            state = key_value(plan, key, image, NULL, &hash)
            if touch(key, state, hash, out):
                return 1
        key += 1
    return 0


# --- the plan of a table --------------------------------------------------------------------------------------


def hash_name(*parts: str) -> int:
    """64-bit hash of a name such as (schema, table, index); the parts keep their boundaries."""
    cdef uint64_t value = 0
    cdef bytes encoded
    for part in parts:
        encoded = part.encode()
        value = ws_hash(<const uint8_t*>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), value)
    return value


cdef class TablePlan:
    """What `hash_row` needs of one table. Built from a `TableDefinition`; immutable.
    """

    def __cinit__(self, definition):
        cdef size_t column_count = sum(len(key.columns) for key in definition.keys)
        self.definition = definition
        self.schema = definition.schema
        self.table = definition.table
        self.column_total = definition.column_total
        self.has_identity = definition.has_identity
        self.keyless = not definition.has_identity
        self.always_barrier = definition.always_barrier
        self.cascades = definition.cascades
        self.has_foreign_keys = definition.has_foreign_keys
        self.source_overlooks = definition.source_overlooks
        self.has_computed_columns = definition.has_computed_columns
        self.table_seed = hash_name(definition.schema, definition.table)
        self.key_count = len(definition.keys)
        self.keys = <Key*>calloc(self.key_count + 1, sizeof(Key))
        self.columns = <KeyColumn*>calloc(column_count + 1, sizeof(KeyColumn))
        self.wanted = <uint8_t*>calloc(self.column_total + 1, 1)
        if self.keys == NULL or self.columns == NULL or self.wanted == NULL:
            raise MemoryError
        self._fill()

    cdef int _fill(self) except -1:
        cdef size_t column_index = 0
        cdef size_t key_index
        cdef KeyColumn* column
        for key_index, key in enumerate(self.definition.keys):
            self.keys[key_index].seed = hash_name(*key.seed_name)
            self.keys[key_index].column_first = column_index
            self.keys[key_index].column_count = len(key.columns)
            self.keys[key_index].access = key.access
            self.keys[key_index].guarded = key.guarded
            for part in key.columns:
                column = &self.columns[column_index]
                column.position = part.position
                column.form = part.form
                column.prefix_characters = part.prefix_characters
                column.character_bytes_max = part.character_bytes_max
                column.code_unit_bytes = part.code_unit_bytes
                column.little_endian = part.little_endian
                column.utf8 = part.utf8
                if part.fold is not None:            # kept alive by self.definition
                    column.fold = <const uint8_t*>PyBytes_AS_STRING(part.fold)
                if column.form != FORM_ANY:
                    self.wanted[column.position] = 1
                column_index += 1
        return 0

    def __dealloc__(self):
        free(self.keys)
        free(self.columns)
        free(self.wanted)

    def __repr__(self):
        return f"TablePlan({self.definition!r})"

    @property
    def wanted_columns(self):
        """Numbers of the columns that some key needs."""
        return tuple(index for index in range(self.column_total) if self.wanted[index])

    def touches(self, kind, before=None, after=None, *, bint cascades_logged=True):
        """What one row touches, as [(hash, Access), …] in order; None when the transaction must be a barrier.

        Each image is a sequence of `column_total` values: bytes, None for NULL, `...` for an absent column.
        For tests and tools; the decoder calls `hash_row`.
        """
        cdef Touches out
        cdef Span* old = NULL
        cdef Span* new = NULL
        cdef size_t index
        out.hashes, out.modes, out.count, out.capacity = NULL, NULL, 0, 0
        try:
            old = image_spans(self, before)
            new = image_spans(self, after)
            if hash_row(self, kind, old, new, cascades_logged, &out):
                return None
            return [(out.hashes[index], definitions.Access(out.modes[index])) for index in range(out.count)]
        finally:
            free(old)
            free(new)
            touches_free(&out)


cdef Span* image_spans(TablePlan plan, image) except? NULL:
    cdef Span* spans
    cdef size_t index
    if image is None:
        return NULL
    if len(image) != plan.column_total:
        raise ValueError(f"an image of {plan.table} has {plan.column_total} columns, not {len(image)}")
    spans = <Span*>calloc(plan.column_total + 1, sizeof(Span))
    if spans == NULL:
        raise MemoryError
    for index, value in enumerate(image):
        if value is None:
            spans[index].state = COLUMN_NULL
        elif value is ...:
            spans[index].state = COLUMN_ABSENT
        else:
            spans[index].data = <const uint8_t*>PyBytes_AS_STRING(value)
            spans[index].length = PyBytes_GET_SIZE(value)
    return spans


def hash_of(data: bytes, seed: int = 0) -> int:
    """`hash_bytes` for Python."""
    return hash_bytes(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), seed)
