"""When the transactions of a terminal are due."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """An open-loop schedule: transaction n of all is due n / rate seconds after the start, whatever became of
    the ones before. The transactions go to the terminals in turn, so each terminal knows its own due times
    without asking anyone, and the error does not add up as it does with a sleep after each.

    rate: transactions a second, of all terminals together; None is "at once".
    """

    rate: float | None
    terminals: int

    def due_seconds(self, terminal: int, number: int) -> float:
        """Seconds after the start at which transaction `number` (0, 1, …) of the terminal is due."""
        if self.rate is None:
            return 0.0
        return (number * self.terminals + terminal) / self.rate


def share(transactions: int, terminal: int, terminals: int) -> int:
    """How many of `transactions` this terminal does: as the schedule deals them out, one each in turn."""
    return (transactions - terminal + terminals - 1) // terminals
