from typing import Final

from applier.events.batch import Batch

WORKERS: Final[tuple[int, ...]]
POLICY_NAMES: Final[tuple[str, ...]]

class Simulation:
    transaction_cost: float
    serial_cost: float
    transactions: int
    rows: int
    source_numbers: int
    def __init__(self, transaction_cost: float) -> None: ...
    def feed(self, batch: Batch) -> None: ...
    def times(self) -> dict[str, tuple[float, ...]]: ...
