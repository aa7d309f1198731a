from applier.events.batch import Batch
from scheduler.grouping import Cut
from writeset.buckets import BucketIndex

class Dependencies:
    index: BucketIndex
    barriers: int
    transactions: int
    def __init__(self, index: BucketIndex, *, use_source_bounds: bool = True) -> None: ...
    def schedule(self, batch: Batch, low_water_mark: int) -> None: ...

def cut(batch: Batch, start: int, transactions_max: int, bytes_max: int, unit_first: int) -> Cut: ...
