"""Keeps the checkpoint's session heard of, and the target's GTIDs up to date."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from applier.errors import ApplierError, LinkLost, PreflightFailed
from applier.events.gtid import GtidSet
from applier.target.checkpoint import Checkpoint

log = logging.getLogger(__name__)

PERIOD_SECONDS: Final = 1.0


class CheckpointKeeper(threading.Thread):
    """Once a second, and at the end, adds to the target's GTIDs what was committed without a binary log; and shows the
    target by a statement that this applier lives.

    A lost session means that the channel's lock is lost too, so it ends the flow."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        newest: Callable[[], GtidSet | None],
        on_loss: Callable[[ApplierError], None],
    ) -> None:
        """`newest()`: the GTIDs that the target must have by now, a set that is never changed; None for none."""
        super().__init__(name="checkpoint-keeper", daemon=True)
        self.failure: LinkLost | PreflightFailed | None = None
        self._checkpoint = checkpoint
        self._newest = newest
        self._on_loss = on_loss
        self._added: GtidSet | None = None
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(PERIOD_SECONDS):
            try:
                self._add()
                self._checkpoint.show_life()
            except (LinkLost, PreflightFailed) as error:
                log.warning("the checkpoint's session is lost", extra={"detail": str(error)})
                self.failure = error
                self._on_loss(error)
                return

    @property
    def complete(self) -> bool:
        """The target's GTIDs tell of everything."""
        newest = self._newest()
        return newest is None or newest is self._added

    def _add(self) -> None:
        newest = self._newest()
        if newest is not None and newest is not self._added:
            self._checkpoint.add_gtids(newest)
            self._added = newest

    def end(self) -> None:
        """Once no worker runs any more: nothing is left out. Raises LinkLost, PreflightFailed."""
        self._ending.set()
        self.join()
        if self.failure is None:
            self._add()
