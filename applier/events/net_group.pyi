from applier.events.batch import Batch

class FoldedGroup:
    slices: list[tuple[Batch, int, int]]
    rows_in: int
    rows_out: int
    rows_held: int
    events_out: int
    group_first: int
    group_last: int
    def __init__(self, slices: list[tuple[Batch, int, int]], hash_bits: int = 64) -> None: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def tables_folded(self) -> int: ...
    @property
    def tables_unfolded(self) -> dict[str, str]: ...
