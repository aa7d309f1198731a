"""Is it well? Each function answers with what is wrong; an empty text means all is well."""

from __future__ import annotations

import time
from typing import Final

from applier.observe.observer import Observer
from applier.observe.status import State

TICK_LATE_SECONDS: Final = 15.0


def unwell(observer: Observer) -> str:
    """Whether a restart might help: the run has failed, or its threads do not get on."""
    if observer.state is State.FAILED:
        return f"failed: {observer.failure}"
    points = observer.history
    since = time.time() - (points[-1].at if points else observer.started)
    return f"no sign of life for {since:.0f} s" if since > TICK_LATE_SECONDS and not observer.ended else ""


def unready(observer: Observer, lag_seconds_max: float | None) -> str:
    """Whether readers should not be sent to the target."""
    state = observer.state
    if state is not State.RUNNING:
        return str(state)
    seconds, transactions = observer.lag()
    if lag_seconds_max is not None and seconds > lag_seconds_max:
        return f"{seconds:.1f} s ({transactions} transactions) behind, {lag_seconds_max:g} s are allowed"
    return ""
