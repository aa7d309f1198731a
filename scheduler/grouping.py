"""Consecutive transactions → the unit that one worker applies and commits.

A unit is one transaction, or with group limits above one as many as are waiting when a worker becomes free:
without a backlog every unit is one transaction, with a backlog units grow up to the limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar


class Cut(NamedTuple):
    """How far a unit reaches into one batch."""

    end: int  # index of the first transaction that is not in the unit
    sequence_first: int
    sequence_last: int
    last_committed: int  # what its transactions tell that they need from outside the unit
    size_bytes: int
    alone: bool  # a barrier, or a part of a very large transaction: a unit of its own
    first_part: bool
    last_part: bool
    keys_need: int = (
        0  # what its keys need from outside the unit, whatever is known of its transactions otherwise
    )
    hidden: bool = False  # a last_committed lies in the unit, so it does not tell what is needed from outside
    closes: bool = False  # the unit must end here


class SchedulableBatch(Protocol):
    """What the scheduler sees of a decoded batch of transactions."""

    @property
    def memory_bytes(self) -> int: ...
    def __len__(self) -> int: ...


B = TypeVar("B", bound=SchedulableBatch)
B_contra = TypeVar("B_contra", bound=SchedulableBatch, contravariant=True)


class CutFunction(Protocol[B_contra]):
    """The longest run of transactions of `batch` from `start` on within the limits.

    At least one transaction; a barrier only by itself. `unit_first` is the sequence number of the unit's first
    transaction, 0 when the unit begins here: dependencies inside the unit do not count."""

    def __call__(
        self, batch: B_contra, start: int, transactions_max: int, bytes_max: int, unit_first: int
    ) -> Cut: ...


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """Most that one unit may hold; it is closed by whichever is reached first.

    bytes_max: of events in the log. seconds_max: that it may take to execute, going by the units before it. So a
    group stays small where every row is slow, and readers of the target see changes that long after they were read.
    delay_seconds: how long whoever reads the log waits for more once it has all there is. Without a backlog groups are
    then larger and fewer, and every thread of the flow wakes up less often.
    """

    transactions_max: int = 1
    bytes_max: int = 32 << 20
    seconds_max: float = 1.0
    delay_seconds: float = 0.0


@dataclass(slots=True)
class Slice(Generic[B]):
    """Transactions `first` to `end` (exclusive) of a batch."""

    batch: B
    first: int
    end: int


@dataclass(slots=True)
class Unit(Generic[B]):
    """Consecutive transactions that commit together."""

    sequence_first: int = 0
    sequence_last: int = -1
    last_committed: int = 0  # everything up to here must have committed before the unit executes
    slices: list[Slice[B]] = field(default_factory=list)
    size_bytes: int = 0
    first_part: bool = True
    last_part: bool = True
    own_needs: int = 0  # the largest Cut.last_committed; likewise the next two
    keys_need: int = 0
    hidden: bool = False
    progress: object = None  # for whoever keeps checkpoints: set when the unit is taken, in log order

    @property
    def transactions(self) -> int:
        return self.sequence_last - self.sequence_first + 1

    def split(self) -> Iterator[Unit[B]]:
        """Units of one transaction each, in order; without progress."""
        number = self.sequence_first
        for piece in self.slices:
            for index in range(piece.first, piece.end):
                yield Unit(number, number, number - 1, [Slice(piece.batch, index, index + 1)])
                number += 1

    def add(self, piece: Slice[B], cut: Cut) -> None:
        if not self.slices:
            self.sequence_first = cut.sequence_first
        self.slices.append(piece)
        self.sequence_last = cut.sequence_last
        self.own_needs = max(self.own_needs, cut.last_committed)
        self.keys_need = max(self.keys_need, cut.keys_need)
        self.hidden = self.hidden or cut.hidden
        self.last_committed = max(self.own_needs, self.keys_need) if self.hidden else self.own_needs
        self.size_bytes += cut.size_bytes
        self.first_part, self.last_part = cut.first_part, cut.last_part
