import builtins

from applier.events.batch import Batch
from applier.events.gtid import GtidSet
from scheduler.budget import MemoryBudget

class StreamAssembler:
    next_sequence_number: int
    source_epoch: int
    transaction_end_offset: int
    heartbeat_position: int
    heartbeat_monotonic_seconds: float
    file: str
    ended: bool
    bytes: int
    events: int
    transactions: int
    skipped: int
    abandoned: int
    heartbeats: int
    def __init__(
        self,
        executed: GtidSet | None = None,
        first_sequence_number: int = 1,
        *,
        packets: bool = True,
        batch_number: int = 0,
        source_epoch: int = 0,
        file: str = "",
        batch_bytes_max: int = ...,
        part_bytes_max: int = ...,
        payload_bytes_max: int = ...,
        buffer_bytes: int = ...,
        verify_checksums: bool = True,
        budget: MemoryBudget | None = None,
    ) -> None: ...
    @property
    def position(self) -> int: ...
    @property
    def file_offset(self) -> int: ...
    @property
    def in_transaction(self) -> bool: ...
    def writable(self) -> memoryview: ...
    def received(self, count: int) -> None: ...
    def feed(self, data: builtins.bytes | bytearray | memoryview) -> None: ...
    def begin_file(self, file: str | None = None, start_offset: int = 4) -> None: ...
    def finish(self) -> int: ...
    def take(self, flush: bool = False) -> Batch | None: ...
