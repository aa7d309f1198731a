from collections.abc import Callable

from applier.events.batch import Batch
from applier.events.table_map import TableMap
from writeset.hashing import TablePlan

Cells = list[tuple[int, bytes]]

class RowDecoder:
    def decode(
        self,
        batch: Batch,
        plans: Callable[[TableMap, int], TablePlan],
        schema_version: object = 0,
        bytes_max: int = 0,
    ) -> Batch | None: ...
    @property
    def tables_learnt(self) -> int: ...

def row_cells(batch: Batch, i: int) -> tuple[int, TableMap, Cells | None, Cells | None]: ...
def row_touches(batch: Batch, i: int) -> list[tuple[int, int]]: ...
