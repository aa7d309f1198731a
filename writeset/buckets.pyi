from collections.abc import Iterable
from typing import Final

from _typeshed import ReadableBuffer, WriteableBuffer

NO_BOUND: Final[int]

class BucketIndex:
    bucket_bits: Final[int]
    bucket_entries: Final[int]
    keys_max: Final[int]
    @property
    def low_water_mark(self) -> int: ...
    @property
    def floor(self) -> int: ...
    @property
    def sequence_number(self) -> int: ...
    @property
    def touch_total(self) -> int: ...
    @property
    def barrier_total(self) -> int: ...
    @property
    def checkpoints(self) -> dict[str, int]: ...
    @property
    def entry_total(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    def __init__(
        self, bucket_bits: int = 16, bucket_entries: int = 511, keys_max: int | None = None
    ) -> None: ...
    def assign(
        self,
        touches: Iterable[tuple[int, int]],
        sequence_number: int,
        low_water_mark: int = 0,
        barrier: bool = False,
        bound: int = ...,
    ) -> int: ...
    def assign_batch(
        self,
        hashes: ReadableBuffer,
        modes: ReadableBuffer,
        touch_ends: ReadableBuffer,
        sequence_first: int,
        low_water_mark: int,
        last_committed: WriteableBuffer,
        barriers: ReadableBuffer | None = None,
        bounds: ReadableBuffer | None = None,
    ) -> None: ...
    def assign_row_batch(
        self,
        hashes: ReadableBuffer,
        modes: ReadableBuffer,
        row_ends: ReadableBuffer,
        sequence_number: int,
        low_water_mark: int,
        row_last_committed: WriteableBuffer,
        barrier: bool = False,
    ) -> int: ...
