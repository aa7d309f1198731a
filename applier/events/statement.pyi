from collections.abc import Iterable
from typing import Final

from applier.events.batch import Batch

DEFAULT_PACKET_BYTES_MAX: Final[int]

def binlog_statements(batch: Batch, i: int, statement_bytes_max: int = ...) -> list[bytes]: ...
def transaction_packet(
    batch: Batch,
    i: int,
    prefix: bytes = b"",
    prefix_replies: int = 0,
    *,
    gtid: bool = True,
    begin: bool = True,
    commit: bool = False,
) -> tuple[bytes, int]: ...
def transaction_packets(
    batch: Batch,
    i: int,
    prefix: bytes = b"",
    prefix_replies: int = 0,
    *,
    gtid: bool = True,
    begin: bool = True,
    commit: bool = False,
    packet_bytes_max: int = ...,
) -> list[tuple[bytes, int]]: ...
def rows_packets(
    slices: Iterable[tuple[Batch, int, int]],
    head: bytes = b"",
    head_replies: int = 0,
    tail: bytes = b"",
    tail_replies: int = 0,
    packet_bytes_max: int = ...,
) -> list[tuple[bytes, int]]: ...
def frame_packet(payload: bytes | bytearray | memoryview) -> bytes: ...
def encode_format_description(fde: bytes) -> bytes: ...
