from array import array

from applier.events.batch import Batch

class StudyIndex:
    checkpoints: int
    memory_bytes: int
    def checkpoint(self) -> None: ...
    def assign_batch(
        self, hashes: array[int], touch_ends: array[int], sequence_first: int, last_committed: array[int]
    ) -> None: ...

def touches_of(batch: Batch) -> tuple[array[int], array[int], array[int]]: ...
