"""The process that follows the source ends when another one cuts over: it watches the phase in the state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from applier.errors import ApplierError, UsageError
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import Phase, State
from applier.replay import Replay

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2


@contextmanager
def following(settings: MigrateSettings, replay: Replay, during: Phase = Phase.CATCH_UP) -> Iterator[None]:
    """Drains the replay once the phase is another than `during`. Raises UsageError when it is at the start."""
    with State(settings.target, settings.name) as state:
        phase = state.require().phase
    if phase is not during:
        raise UsageError(
            detail=f"migration {settings.name!r} is in phase {phase}: there is nothing to follow"
        )
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(settings, replay, during, stop), name="phase-watch", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(settings: MigrateSettings, replay: Replay, during: Phase, stop: threading.Event) -> None:
    while not stop.wait(LOOK_SECONDS):
        try:
            with State(settings.target, settings.name) as state:
                while not stop.wait(LOOK_SECONDS):
                    found = state.read()
                    if found is None or found.phase is not during:
                        log.info("another process cuts over")
                        replay.drain()
                        return
        except ApplierError as error:  # the replay itself deals with a target that is gone
            log.debug("phase could not be read", extra={"detail": str(error)})
