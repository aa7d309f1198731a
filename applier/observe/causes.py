"""Time by cause: raw blames of the sampler, told apart by what the links and the servers take, over sliding windows."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from applier.observe.blame import Blame
from applier.observe.status import Cause, CauseShare
from applier.target.worker_state import WorkerState

SLICE_SECONDS: Final = 0.5
WINDOW_SLICES: Final = 20

Seconds = dict[Cause, float]


@dataclass(frozen=True, slots=True)
class Spent:
    """What all workers have spent so far, and in how many pieces."""

    execute_seconds: float = 0.0
    execute_count: int = 0
    exchanges: int = 0
    commit_seconds: float = 0.0
    commits: int = 0

    @classmethod
    def by(cls, states: Iterable[WorkerState]) -> Spent:
        states = tuple(states)
        return cls(
            sum(state.execute.total for state in states),
            sum(state.execute.count for state in states),
            sum(state.exchanges for state in states),
            sum(state.commit.total for state in states),
            sum(state.commit.count for state in states),
        )

    def since(self, earlier: Spent) -> Spent:
        return Spent(
            self.execute_seconds - earlier.execute_seconds,
            self.execute_count - earlier.execute_count,
            self.exchanges - earlier.exchanges,
            self.commit_seconds - earlier.commit_seconds,
            self.commits - earlier.commits,
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """Shares, 0 … 1. Of executing: `network`, and `commit` where the COMMIT travels with the rows; of a commit:
    `commit_network`. Of dependencies: `keyless` and `barrier`, the rest are rows. `durable`: commits wait for the
    disk."""

    network: float = 0.0
    commit: float = 0.0
    commit_network: float = 0.0
    keyless: float = 0.0
    barrier: float = 0.0
    durable: bool = True


def parts_of(spent: Spent, round_trip_seconds: float, *, ordered: bool, before: Parts) -> Parts:
    """From what was spent in a window. What nothing is known of stays as `before`."""
    network, commit, commit_network = before.network, before.commit, before.commit_network
    if spent.commits and spent.commit_seconds > 0:
        commit_network = min(1.0, spent.commits * round_trip_seconds / spent.commit_seconds)
    if spent.execute_count and spent.execute_seconds > 0:
        network = min(1.0, spent.exchanges * round_trip_seconds / spent.execute_seconds)
        if not ordered and spent.commits:
            # Only some commits are sent apart, to be measured; the others took as long, within the execution.
            within = (1 - spent.commits / spent.execute_count) * spent.execute_count
            commit_server = spent.commit_seconds / spent.commits * (1 - commit_network)
            commit = min(1.0 - network, within * commit_server / spent.execute_seconds)
    return replace(before, network=network, commit=max(0.0, commit), commit_network=commit_network)


def by_cause(raw: Mapping[Blame, float], parts: Parts) -> Seconds:
    """Seconds of blames → seconds of causes; the sum stays."""
    executing, ordering = raw.get(Blame.EXECUTING, 0.0), raw.get(Blame.ORDER, 0.0)
    committing, dependency = raw.get(Blame.COMMITTING, 0.0), raw.get(Blame.DEPENDENCY, 0.0)
    rows = max(0.0, 1 - parts.keyless - parts.barrier)
    server = max(0.0, 1 - parts.network - parts.commit)
    commits = committing * (1 - parts.commit_network) + (executing + ordering) * parts.commit
    found = {
        Cause.HOT_KEY: dependency * rows,
        Cause.NO_PRIMARY_KEY: raw.get(Blame.SEARCH, 0.0) + dependency * parts.keyless,
        Cause.BARRIER: raw.get(Blame.BARRIER, 0.0) + dependency * parts.barrier,
        Cause.LOCK_WAIT: raw.get(Blame.LOCK_WAIT, 0.0),
        Cause.COMMIT_TURN: ordering * server,
        Cause.EXECUTION: executing * server + (0.0 if parts.durable else commits),
        Cause.FSYNC: commits if parts.durable else 0.0,
        Cause.NETWORK: committing * parts.commit_network
        + (executing + ordering) * parts.network
        + raw.get(Blame.SOURCE_LINK, 0.0),
        Cause.DECODING: raw.get(Blame.FRONT, 0.0),
        Cause.IDLE: raw.get(Blame.IDLE, 0.0),
    }
    return {cause: seconds for cause, seconds in found.items() if seconds > 0}


class CauseTimes:
    """Written by the sampler's thread, slice by slice; read by any."""

    def __init__(self, window_slices: int = WINDOW_SLICES) -> None:
        self.run: Seconds = {}
        self._slices: deque[Seconds] = deque(maxlen=window_slices)

    def add(self, seconds: Seconds) -> None:
        """A slice."""
        self._slices.append(seconds)
        self.run = _summed((self.run, seconds))

    def window(self) -> Seconds:
        """Of the last slices together."""
        return _summed(tuple(self._slices))

    def clear(self) -> None:
        self.run = {}
        self._slices.clear()


def _summed(many: Iterable[Seconds]) -> Seconds:
    total: defaultdict[Cause, float] = defaultdict(float)
    for one in many:
        for cause, seconds in one.items():
            total[cause] += seconds
    return dict(total)


def shares_of(seconds: Mapping[Cause, float], details: Mapping[Cause, str]) -> tuple[CauseShare, ...]:
    """The largest first."""
    total = sum(seconds.values())
    if total <= 0:
        return ()
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return tuple(
        CauseShare(cause, round(spent / total, 4), round(spent, 3), details.get(cause, ""))
        for cause, spent in ordered
        if spent > 0
    )


def main_cause(seconds: Mapping[Cause, float]) -> Cause:
    """The largest that is not idleness, unless there is nothing else; little work in much idleness is no hold-up."""
    held = {cause: spent for cause, spent in seconds.items() if cause is not Cause.IDLE}
    if not held or sum(held.values()) < 0.01 * sum(seconds.values()):
        return Cause.IDLE
    return max(held, key=lambda cause: held[cause])
