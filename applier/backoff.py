"""How long to wait before trying again, and when to give up."""

from __future__ import annotations

import random
from threading import Event


class Backoff:
    """Waits that double from `initial_seconds` up to `max_seconds`, at most `attempts_max` of them in a row.

    Each wait is drawn from the upper half of its step, so that many appliers which lost one server do not all
    come back at the same moment, and none comes back at once.
    """

    def __init__(
        self,
        initial_seconds: float = 0.1,
        max_seconds: float = 30.0,
        attempts_max: int = 20,
        chance: random.Random | None = None,
    ) -> None:
        if not (0 < initial_seconds <= max_seconds and attempts_max >= 0):
            raise ValueError("backoff needs 0 < initial_seconds <= max_seconds and attempts_max >= 0")
        self.initial_seconds = initial_seconds
        self.max_seconds = max_seconds
        self.attempts_max = attempts_max
        self.attempts = 0
        """Waits since the start or the last reset."""
        self._chance = chance or random.Random()

    @property
    def exhausted(self) -> bool:
        """No attempt is left."""
        return self.attempts >= self.attempts_max

    def next_seconds(self) -> float:
        """Count one attempt; the seconds to wait before it."""
        # 2 ** 64 is beyond every max_seconds; without a limit the power of a float overflows.
        step = min(self.max_seconds, self.initial_seconds * 2.0 ** min(self.attempts, 64))
        self.attempts += 1
        return self._chance.uniform(step / 2, step)

    def wait(self, stop: Event) -> bool:
        """Wait before the next attempt, or until `stop` is set. False if no attempt is left."""
        if self.exhausted:
            return False
        stop.wait(self.next_seconds())
        return True

    def reset(self) -> None:
        """It worked: the next failure starts from the beginning."""
        self.attempts = 0
