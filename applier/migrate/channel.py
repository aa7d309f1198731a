"""A replay in a thread of its own, and how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from applier.errors import ApplierError, DataError, LinkLost, Refused
from applier.events.gtid import GtidSet
from applier.migrate.server import Server
from applier.replay import Replay
from applier.settings import RunSettings
from applier.target import checkpoint
from applier.target.checkpoint import Checkpoint, GtidMode

POLL_SECONDS: Final = 0.002
END_SECONDS: Final = 60.0
FOLLOWER_SECONDS: Final = 15.0
NOT_THERE: Final = frozenset({1049, 1146})


class Channel:
    """Replays from `origin` into `destination`, whose sessions it asks for positions."""

    def __init__(self, settings: RunSettings, origin: Server, destination: Server) -> None:
        self.settings = settings
        self._origin = origin
        self._destination = destination
        self._replay: Replay | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start_from(self, gtid_set: str) -> None:
        """Makes exactly this count as applied. Raises ChannelTaken, LinkLost, PreflightFailed."""
        with Checkpoint(self.settings.target, GtidMode.OWN, self.settings.channel) as held:
            held.start_from(GtidSet.parse(gtid_set))

    def start(self) -> None:
        """Returns at once, when the applier that works on the channel has ended, or ought to have: the replay deals
        with one that has gone."""
        lock = f"applier:{self.settings.channel}"
        deadline = time.monotonic() + FOLLOWER_SECONDS
        while self._destination.run("SELECT IS_USED_LOCK(%s)", lock)[0][0] is not None:
            if time.monotonic() > deadline:
                break
            threading.Event().wait(POLL_SECONDS)
        replay = self._replay = Replay(self.settings)

        def run() -> None:
            try:
                replay.run()
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits for a position
                self._failure = error

        self._thread = threading.Thread(target=run, name="channel", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Drains; harmless when it does not run. Raises DataError when it does not end."""
        replay, thread = self._replay, self._thread
        if replay is None or thread is None:
            return
        replay.drain()
        thread.join(END_SECONDS)
        if thread.is_alive():
            replay.abort()
            thread.join(END_SECONDS)
            if thread.is_alive():
                raise DataError(detail="the replay does not end")
        self._replay = self._thread = None

    def applied(self) -> GtidSet:
        """Of the origin's transactions. Raises LinkLost."""
        found = GtidSet.parse(self._destination.executed())
        try:
            rows = self._destination.run(
                f"SELECT executed FROM {checkpoint.SCHEMA}.progress WHERE channel = %s", self.settings.channel
            )
        except Refused as error:
            if error.facts["code"] not in NOT_THERE:
                raise
            rows = []
        for (executed,) in rows:
            found.update(GtidSet.parse(str(executed)))
        return found

    def wait_for(
        self, gtid_set: str, seconds: float, told: Callable[[float], None] = lambda _: None
    ) -> float:
        """Until the destination has this; gives the seconds that it took.

        Raises DataError when it has not after `seconds`, and whatever ended the replay."""
        wanted = GtidSet.parse(gtid_set)
        started = time.monotonic()
        while not wanted <= self.applied():
            if self._failure is not None:
                raise self._failure if isinstance(self._failure, ApplierError) else DataError(
                    detail=f"the replay failed: {self._failure}"
                )  # fmt: skip
            if self._thread is None or not self._thread.is_alive():
                raise LinkLost(role="target", detail="the replay has ended")
            passed = time.monotonic() - started
            if passed > seconds:
                missing = wanted - self.applied()
                raise DataError(
                    detail=f"after {seconds:g} s the {self._destination.role} still lacks {missing} of the "
                    f"{self._origin.role}"
                )
            told(passed)
            threading.Event().wait(POLL_SECONDS)
        return time.monotonic() - started
