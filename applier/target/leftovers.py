"""What an applier leaves on the target that was killed or cut off, and how the next start gets rid of it.

A server notices that a client is gone when its socket ends. When the client's machine vanished, or the network did, the
socket does not end for hours: the sessions stay, with their locks. An applier that lives is heard of every second
(`applier.target.keeper`), so the one that holds the channel and is silent has gone; and once the channel is ours, all
other sessions of the channel are of earlier runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from applier.errors import ChannelTaken, PreflightFailed

log = logging.getLogger(__name__)

LOCK_WAIT_SECONDS: Final = 5.0  # an applier that has just ended may still hold the lock
SILENT_SECONDS_MAX: Final = 10  # of an applier that lives: ten times what it takes
HEARD_SECONDS_MAX: Final = 2
SESSIONS_WAIT_SECONDS: Final = 60.0  # for transactions that are rolled back
CHANNEL_ATTRIBUTE: Final = "applier_channel"  # of our sessions, see applier.connection

Value = Callable[
    ..., Any
]  # runs a statement with arguments: first column of the first row, None when there is none


def take_channel(value: Value, channel: str, place: str) -> None:
    """Takes the channel's lock, from an applier that has gone if need be. Raises ChannelTaken."""
    lock = f"applier:{channel}"
    refuse_at = time.monotonic() + LOCK_WAIT_SECONDS
    while value("SELECT GET_LOCK(%s, 1)", lock) != 1:
        holder = value("SELECT IS_USED_LOCK(%s)", lock)
        silent_seconds = _silent_seconds(value, holder)
        if silent_seconds is not None and silent_seconds > SILENT_SECONDS_MAX:
            log.warning(
                "ended the session of an applier that has gone",
                extra={"channel": channel, "session": holder, "silent_seconds": silent_seconds},
            )
            _kill(value, holder)
        elif time.monotonic() > refuse_at and (silent_seconds is None or silent_seconds <= HEARD_SECONDS_MAX):
            raise ChannelTaken(channel=channel, place=place)


def end_earlier_sessions(value: Value, channel: str) -> None:
    """Ends what earlier runs have left, and waits until they have rolled back. Call with the channel taken."""
    ended: set[int] = set()
    give_up_at = time.monotonic() + SESSIONS_WAIT_SECONDS
    while (session := _earlier_session(value, channel)) is not None:
        if session not in ended:
            log.warning(
                "ended a session that an earlier run has left",
                extra={"channel": channel, "session": session},
            )
            ended.add(session)
            _kill(value, session)
        if time.monotonic() > give_up_at:
            log.warning("it is still there", extra={"channel": channel, "session": session})
            return
        value("DO SLEEP(0.05)")


def _earlier_session(value: Value, channel: str) -> int | None:
    """One of those of our account: others we could not end."""
    number = value(
        "SELECT processlist_id FROM performance_schema.session_account_connect_attrs"
        " WHERE attr_name = %s AND attr_value = %s AND processlist_id <> CONNECTION_ID() LIMIT 1",
        CHANNEL_ATTRIBUTE,
        channel,
    )
    return None if number is None else int(number)


def _silent_seconds(value: Value, session: int | None) -> int | None:
    """How long it has sent nothing; None when it is not of our account, or has ended."""
    if session is None:
        return None
    number = value(
        "SELECT time FROM performance_schema.processlist WHERE id = %s AND command = 'Sleep'", session
    )
    return None if number is None else int(number)


def _kill(value: Value, session: int) -> None:
    try:
        value(f"KILL {session}")
    except PreflightFailed as error:  # it has ended meanwhile
        log.debug("not ended", extra={"session": session, "detail": str(error)})
