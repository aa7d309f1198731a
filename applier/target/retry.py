"""What to do about an error of the target, by its number."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Action(Enum):
    """What a worker does with the unit that met the error."""

    RETRY = "retry"  # roll back and run it again
    RETRY_ALONE = "retry alone"  # the same, after everything before it has committed
    RECONNECT = "reconnect"  # the session is of no use any more: open another, ask what was committed
    STOP = "stop"  # an operator is needed


# https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html
ACTION: Final[dict[int, Action]] = {
    1205: Action.RETRY,  # lock wait timeout exceeded
    1213: Action.RETRY,  # deadlock found
    1206: Action.RETRY_ALONE,  # the total number of locks exceeds the lock table size
    1613: Action.RETRY,  # XA_RBTIMEOUT
    1614: Action.RETRY,  # XA_RBDEADLOCK
    3101: Action.RETRY,  # rolled back on behalf of group replication's certification
    3572: Action.RETRY,  # NOWAIT lock could not be had
    1317: Action.RETRY,  # query execution was interrupted (KILL QUERY)
    1053: Action.RECONNECT,  # server shutdown in progress
    1077: Action.RECONNECT,  # normal shutdown
    1152: Action.RECONNECT,  # aborted connection
    1158: Action.RECONNECT,  # error reading communication packets
    1159: Action.RECONNECT,  # timeout reading communication packets
    1160: Action.RECONNECT,  # error writing communication packets
    1161: Action.RECONNECT,  # timeout writing communication packets
    3169: Action.RECONNECT,  # session was killed
    4031: Action.RECONNECT,  # disconnected because of inactivity
}

LOCK_WAIT_TIMEOUT: Final = 1205
DUPLICATE_KEY: Final = 1062
PACKET_TOO_LARGE: Final = 1153

# BINLOG answers a missing table privilege with 1105 "Unknown error" and nothing more.
UNKNOWN_ERROR: Final = 1105

HINTS: Final[dict[int, str]] = {
    1044: "the target account lacks a privilege: see 'applier check'",
    1032: "the target has no such row: it was changed by somebody else. Compare both sides with 'applier verify'",
    1062: "the target already has a row with this key: it was written by somebody else. "
    "Compare both sides with 'applier verify'",
    1105: "the target account lacks INSERT, UPDATE or DELETE on a table of this transaction (see 'applier check'), or "
    "a column's type there does not fit the source's (see the target's error log). BINLOG finds that also of a table "
    "with both a generated invisible primary key and a functional index: ALTER TABLE … ALTER COLUMN my_row_id "
    "SET VISIBLE on the target",
    1142: "the target account lacks a privilege: see 'applier check'",
    1146: "the target has no such table: copy the schema first, or start from an earlier GTID set",
    1153: "SET PERSIST max_allowed_packet to more than that on the target, then start again",
    1227: "the target account lacks a privilege: see 'applier check'",
    1290: "the target runs with an option that forbids this (read_only, super_read_only, …)",
    1452: "the parent row of a foreign key is missing on the target",
    1677: "a column's type on the target does not fit the source's: compare the table's definitions",
    1836: "the target is in read-only mode",
    3100: "a plugin of the target refused the commit",
}


def action_for(code: int) -> Action:
    """Unknown errors stop: nothing may be lost by guessing."""
    return ACTION.get(code, Action.STOP)
