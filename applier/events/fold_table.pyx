# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Which tables may fold, and where their keys lie. Made once for each table map and plan, then remembered."""
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from applier.events.row_image cimport compile_strides
from writeset.hashing cimport EXCLUSIVE, FORM_ANY, FORM_RAW, Key, TablePlan

from applier.events.column_types import ColumnType
from applier.events.table_map import COLUMNS_REMEMBERED_MAX, TABLE_MAPS_MAX

REFUSALS_TEXT = {
    <int>NO_IDENTITY: "no primary key and no unique key without NULLs",
    <int>FOREIGN_KEYS: "child or parent of a foreign key",
    <int>ALWAYS_BARRIER: "every change of it runs alone",
    <int>NOT_COMPARABLE: "a key column whose equality is known to the server only",
    <int>OTHER_COLUMNS: "source and target differ in the number of columns",
    <int>KEYS_UNKNOWN: "a change whose keys could not be named",
    <int>PARTIAL_IMAGE: "row images without some columns (binlog_row_image)",
    <int>PARTIAL_JSON: "a partial JSON update",
    <int>OLD_EVENTS: "row events of version 1",
    <int>FLAGS_DIFFER: "row events under different session settings",
    <int>TABLE_CHANGED: "its definition changes within the group",
    <int>EQUAL_VALUES: "keys of different bytes that may be equal",
    <int>TEXT_KEY_CHANGED: "an update of a text key",
    <int>NO_KEY: "a row whose key has NULL in it or is too long",
    <int>OUT_OF_ORDER: "changes of a row that do not follow from one another",
}
"""Why a table does not fold, by number."""

# Types whose values are numbers, least significant byte first. Signed ones only if the table map does not say otherwise.
cdef object INTEGERS = frozenset({
    ColumnType.TINY, ColumnType.SHORT, ColumnType.INT24, ColumnType.LONG, ColumnType.LONGLONG})
cdef object UNSIGNED = frozenset({
    ColumnType.YEAR, ColumnType.DATE, ColumnType.NEWDATE, ColumnType.ENUM, ColumnType.SET, ColumnType.TIMESTAMP,
    ColumnType.DATETIME, ColumnType.TIME})

cdef dict by_pair = {}
cdef dict by_content = {}
cdef Py_ssize_t columns_remembered = 0       # of all in by_pair


cdef FoldTable fold_table(tuple pair):
    """The FoldTable of a (TableMap, TablePlan). Equal content and equal keys give one object, also when decoders
    have come by them separately."""
    global columns_remembered
    found = by_pair.get(pair)
    if found is None:
        if len(by_pair) >= TABLE_MAPS_MAX or columns_remembered > COLUMNS_REMEMBERED_MAX:
            by_pair.clear()
            by_content.clear()
            columns_remembered = 0
        columns_remembered += pair[0].weight
        found = by_content.setdefault((pair[0].content, pair[1].definition), FoldTable(*pair))
        by_pair[pair] = found
    return found


cdef class FoldTable:
    """How the rows of one table fold. Immutable."""

    def __cinit__(self, table_map, TablePlan plan):
        memset(&self.layout, 0, sizeof(Layout))
        self.table_map = table_map
        self.plan = plan
        self.fill()

    def __dealloc__(self):
        free_walker(&self.layout.identity)
        free_walker(&self.layout.other)
        free_walker(&self.layout.whole)
        free(self.layout.identity_columns.positions)
        free(self.layout.columns_head)

    def __repr__(self):
        return f"FoldTable({self.table_map})"

    cdef int fill(self) except -1:
        cdef Layout* layout = &self.layout
        cdef bytes content = self.table_map.content
        cdef bytes head = packed(len(self.table_map.columns))
        layout.content = content                     # kept alive by self.table_map
        layout.content_length = <uint32_t>len(content)
        layout.column_count = <uint32_t>len(self.table_map.columns)
        layout.null_bytes = layout.bitmap_bytes = (layout.column_count + 7) >> 3
        layout.count_bytes = <uint32_t>len(head)
        layout.columns_head = <uint8_t*>calloc(1, layout.count_bytes + layout.bitmap_bytes + 1)
        if layout.columns_head is NULL:
            raise MemoryError
        memcpy(layout.columns_head, <const uint8_t*>head, layout.count_bytes)
        memset(layout.columns_head + layout.count_bytes, 0xFF, layout.bitmap_bytes)
        layout.refusal = refusal_of(self.plan, layout.column_count)
        if layout.refusal == FOLDS:
            fill_identity(layout, self.plan, self.table_map.columns)
            fill_other(layout, self.plan, self.table_map.columns)
            fill_narrow(layout, self.plan, self.table_map.columns)
        return 0


cdef int refusal_of(TablePlan plan, uint32_t column_count) except -1:
    """What speaks against folding the table whatever the changes are."""
    cdef Key* identity = plan.keys
    cdef size_t i
    if plan.always_barrier:
        return ALWAYS_BARRIER
    if plan.has_foreign_keys or plan.cascades:
        return FOREIGN_KEYS
    if not plan.has_identity:
        return NO_IDENTITY
    if plan.column_total != column_count:
        return OTHER_COLUMNS
    if identity.access != EXCLUSIVE or identity.column_count > KEY_PARTS_MAX:
        return NOT_COMPARABLE
    for i in range(identity.column_count):
        if plan.columns[identity.column_first + i].form == FORM_ANY:
            return NOT_COMPARABLE
    return FOLDS


cdef int fill_identity(Layout* layout, TablePlan plan, tuple columns) except -1:
    cdef Key* identity = plan.keys
    cdef KeyPart* part
    cdef size_t i, position
    layout.part_count = identity.column_count
    layout.guarded = identity.guarded
    layout.exact = True
    wanted = [plan.columns[identity.column_first + i].position for i in range(identity.column_count)]
    fill_walker(&layout.identity, columns, wanted)
    layout.fixed = all(columns[position].layout[0] == 0 for position in range(max(wanted) + 1))
    for i in range(identity.column_count):
        part = &layout.parts[i]
        column = columns[wanted[<Py_ssize_t>i]]
        part.column = column.position
        part.transform = transform_of(column)
        part.fixed_bytes = column.layout[1] if column.layout[0] == 0 else 0
        part.offset = sum(columns[position].layout[1] for position in range(column.position)) if layout.fixed else 0
        if (plan.columns[identity.column_first + i].form != FORM_RAW
                or plan.columns[identity.column_first + i].prefix_characters):
            layout.exact = False
    return 0


cdef int transform_of(column) except -1:
    if column.layout[0]:
        return KEY_VARIABLE
    if column.type in UNSIGNED or (column.type in INTEGERS and column.unsigned):
        return KEY_LITTLE_ENDIAN
    return KEY_SIGNED if column.type in INTEGERS else KEY_COPY


cdef int fill_other(Layout* layout, TablePlan plan, tuple columns) except -1:
    """The unique keys besides the identity; without foreign keys there are no others."""
    cdef size_t i, c
    wanted = []
    for i in range(1, plan.key_count):
        layout.other_keys = True
        for c in range(plan.keys[i].column_first, <size_t>plan.keys[i].column_first + plan.keys[i].column_count):
            if plan.columns[c].form == FORM_ANY:
                layout.other_unknown = True
            else:
                wanted.append(plan.columns[c].position)
    if wanted:
        fill_walker(&layout.other, columns, wanted)
    return 0


cdef int fill_narrow(Layout* layout, TablePlan plan, tuple columns) except -1:
    cdef Key* identity = plan.keys
    cdef ColumnList* kept = &layout.identity_columns
    cdef uint32_t i
    positions = sorted({plan.columns[identity.column_first + i].position for i in range(identity.column_count)})
    kept.positions = <uint32_t*>calloc(len(positions), sizeof(uint32_t))
    if kept.positions is NULL:
        raise MemoryError
    for i in range(<uint32_t>len(positions)):
        kept.positions[i] = positions[<Py_ssize_t>i]
    kept.count = <uint32_t>len(positions)
    fill_walker(&layout.whole, columns, list(range(len(columns))))
    layout.narrow = not plan.has_computed_columns
    return 0


cdef int fill_walker(Walker* walker, tuple columns, list wanted) except -1:
    cdef uint32_t position
    walker.count = max(wanted) + 1
    walker.columns = <ColumnLayout*>calloc(walker.count, sizeof(ColumnLayout))
    walker.strides = <Stride*>calloc(walker.count + 1, sizeof(Stride))
    if walker.columns is NULL or walker.strides is NULL:
        raise MemoryError
    for position in range(walker.count):
        walker.columns[position].prefix_bytes, walker.columns[position].fixed_bytes = columns[position].layout
        walker.columns[position].wanted = position in wanted
    walker.stride_count = compile_strides(walker.columns, walker.count, walker.strides)
    return 0


cdef void free_walker(Walker* walker) noexcept nogil:
    free(walker.columns)
    free(walker.strides)


cdef bytes packed(size_t count):
    """A length-encoded integer of at most two bytes: a table has at most 4,096 columns."""
    return bytes([count]) if count < 251 else b"\xfc" + (<int>count).to_bytes(2, "little")
