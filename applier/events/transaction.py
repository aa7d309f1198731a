"""One transaction of a batch as a Python record, for tests, messages and slow paths.

The hot paths read the C structs of `batch.pxd` and never make one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag


class TransactionFlag(IntFlag):
    """What a transaction is made of. The values are those of `TransactionFlags` in `batch.pxd`."""

    ROWS = 1
    STATEMENTS = 2
    BARRIER = 4
    ANONYMOUS = 8
    COMPRESSED = 16
    FIRST_PART = 32
    LAST_PART = 64
    ROLLBACK = 128
    DDL = 256
    XA = 512
    KEYS_UNKNOWN = 1024
    SCHEMA = 2048
    CHECKPOINT = 4096
    OWN_KEYS_ONLY = 8192


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """A transaction, or a part of a very large one. Times in microseconds since the epoch; 0: not given."""

    sequence_number: int
    last_committed: int
    gtid: str
    """As the server prints it, `uuid:gno` or `uuid:tag:gno`; empty when the transaction is anonymous."""
    source_sequence_number: int
    source_last_committed: int
    source_epoch: int
    original_commit_microseconds: int
    immediate_commit_microseconds: int
    end_log_pos: int
    byte_count: int
    event_first: int
    event_count: int
    row_first: int
    row_count: int
    touch_first: int
    touch_count: int
    flags: TransactionFlag
