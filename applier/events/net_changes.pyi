from collections.abc import Iterable

from applier.events.batch import Batch
from applier.events.net_group import FoldedGroup

def fold(slices: Iterable[tuple[Batch, int, int]], *, hash_bits: int = 64) -> FoldedGroup: ...
