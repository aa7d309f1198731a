"""The row events of tables that do not fold."""
from applier.events.net_group cimport FoldedGroup

# Collects them in `group.rests`, once it is known which tables fold.
cdef int collect_rest(FoldedGroup group) except -1 nogil
