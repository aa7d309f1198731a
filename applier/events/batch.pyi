from collections.abc import Sequence
from typing import Any

from applier.errors import ApplierError
from applier.events.transaction import TransactionInfo
from scheduler.budget import MemoryBudget

class Buffer:
    capacity: int
    def __init__(self, capacity: int, budget: MemoryBudget | None = None) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

class Batch:
    number: int
    piece: int
    buffers: list[Any]
    tables: list[Any]
    file: str
    format_description: bytes
    failure: ApplierError | None
    decoded: bool
    byte_count: int
    budget: MemoryBudget | None
    def __init__(
        self,
        number: int = 0,
        file: str = "",
        format_description: bytes = b"",
        failure: ApplierError | None = None,
        budget: MemoryBudget | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def event_total(self) -> int: ...
    @property
    def row_total(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def first_sequence_number(self) -> int: ...
    @property
    def last_sequence_number(self) -> int: ...
    def enter(self) -> None: ...
    def event(self, i: int) -> tuple[int, bytes]: ...
    def transaction(self, i: int) -> TransactionInfo: ...
    def append_transaction(self, events: Sequence[bytes], flags: int, sequence_number: int) -> None: ...
