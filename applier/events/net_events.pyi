from typing import Final

from applier.events.batch import Batch
from applier.events.net_group import FoldedGroup

EVENT_BYTES_MAX: Final[int]
EVERYTHING: Final[int]
READY: Final[int]
HELD: Final[int]

def folded_packets(
    group: FoldedGroup,
    head: bytes = b"",
    head_replies: int = 0,
    tail: bytes = b"",
    tail_replies: int = 0,
    packet_bytes_max: int = ...,
    *,
    part: int = ...,
    narrow: bool = True,
) -> list[tuple[bytes, int]]: ...
def folded_batch(
    group: FoldedGroup, packet_bytes_max: int = ..., *, part: int = ..., narrow: bool = True
) -> Batch: ...
