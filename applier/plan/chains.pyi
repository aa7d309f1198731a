from applier.events.batch import Batch
from applier.plan.key_table import KeyTable

class Chains:
    transaction_cost: float
    distance: int
    touches: int
    barriers: int
    barrier_waits: int
    depth: int
    cost: float
    keys: KeyTable
    def __init__(self, transaction_cost: float, distance: int = 64, keys_max: int = ...) -> None: ...
    @property
    def exact(self) -> bool: ...
    def feed(self, batch: Batch) -> list[tuple[int, int, int, int, int]]: ...
    def hottest(self) -> list[tuple[int, int, int, int]]: ...

def barriers_of(batch: Batch) -> list[int]: ...
