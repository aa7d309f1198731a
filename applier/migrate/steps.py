"""Steps that are done in order, and undone in the opposite order when one of them fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from applier.errors import ApplierError

log = logging.getLogger(__name__)

Told = Callable[[str], None]


def nothing() -> None:
    """What there is to undo of a step that changes nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """`do` gives a few words on what was done. `undo` must be harmless whether `do` was begun, ended or neither.

    `final`: once it is begun nothing is undone any more, only gone on with.
    """

    name: str
    do: Callable[[], str]
    undo: Callable[[], None] = nothing
    final: bool = False


class StepFailed(Exception):
    """A step failed. `undone`: everything before it is undone; otherwise `left` says what is not."""

    def __init__(self, step: Step, cause: BaseException, undone: bool, left: Sequence[str] = ()) -> None:
        self.step = step
        self.cause = cause
        self.undone = undone
        self.left = tuple(left)
        super().__init__(f"{step.name}: {cause}")


@dataclass(slots=True)
class Steps:
    """Runs steps. `seconds`: how long each of them took."""

    told: Told
    seconds: dict[str, float] = field(default_factory=dict)
    _begun: list[Step] = field(default_factory=list)
    _final: bool = False

    def run(self, steps: Sequence[Step]) -> None:
        """Raises StepFailed. An interrupt from the keyboard is a failure like others."""
        for step in steps:
            self._begun.append(step)
            self._final |= step.final
            started = time.monotonic()
            try:
                detail = step.do()
            except (ApplierError, KeyboardInterrupt, Exception) as error:
                log.debug("step failed", exc_info=True)
                self.told(f"{step.name}: FAILED: {error or type(error).__name__}")
                if self._final:
                    raise StepFailed(step, error, undone=False) from error
                left = self._undo()
                raise StepFailed(step, error, undone=not left, left=left) from error
            self.seconds[step.name] = time.monotonic() - started
            self.told(f"{step.name}: {detail or 'done'} ({self.seconds[step.name]:.3f} s)")

    def _undo(self) -> list[str]:
        """Undo what was begun; gives what could not be."""
        left = []
        for step in reversed(self._begun):
            if step.undo is nothing:
                continue
            try:
                step.undo()
                self.told(f"undone: {step.name}")
            except Exception as error:
                log.debug("undo failed", exc_info=True)
                left.append(f"{step.name}: {error}")
                self.told(f"NOT undone: {step.name}: {error}")
        return left
