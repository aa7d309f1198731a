"""The row walker: from a batch's events to its rows and what they touch.

`Row.before` and `Row.after` begin with the null bitmap over the columns present. The after image of a partial
update (event type 39) begins with its value options and partial bits: `skip_value_options` steps over them.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from applier.events.batch cimport Batch, Event, Transaction
from applier.events.row_image cimport RowsHeader
from applier.events.table_cache cimport Table, TableCache
from writeset.hashing cimport Span

cdef struct InForce:
    uint64_t table_id
    Table* table

cdef class RowDecoder:
    cdef readonly TableCache cache
    cdef object schema_version
    cdef object plans
    cdef InForce* in_force           # table maps of the current statement
    cdef size_t in_force_count
    cdef size_t transaction          # the one being decoded, into Batch.transactions
    cdef uint64_t misses
    cdef size_t bytes_max            # of what is known of a batch, before the rest of it is put off; 0: no limit
    cdef size_t stopped              # the first event that was put off, into Batch.events; 0: none

    cdef int decode_transaction(self, Batch batch, Transaction* transaction) except -1 nogil
    cdef bint is_full(self, Batch batch, size_t event, size_t end) noexcept nogil
    cdef int take_table_map(self, Batch batch, Transaction* transaction, size_t event) except -1 nogil
    cdef Table* learn(self, Batch batch, Transaction* transaction, size_t event) except NULL
    cdef Table* table_of(self, uint64_t table_id) noexcept nogil
    cdef int take_rows(self, Batch batch, Transaction* transaction, size_t event) except -1 nogil
    cdef int take_row(self, Batch batch, Transaction* transaction, size_t event, Table* table, RowsHeader* header,
                      const uint8_t** at) except -1 nogil
    cdef int forget(self, Batch batch) except -1
