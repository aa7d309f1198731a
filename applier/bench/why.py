"""Where the time of a replay went, in one short text: "62 % commit turn; 21 % row warehouse(w_id=3)"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from applier.observe.sampling import DEPENDENCY_WAITS, Attribution
from applier.sandbox import Server

EXECUTING = "executing"
TURN = "waiting for its commit turn"
STATEMENTS = ("binlog", "begin", "set_option")
SHARE_MIN = 0.01


@dataclass(frozen=True, slots=True)
class ServerSeconds:
    """What the server itself spent in the statements of the applier's sessions, all sessions together."""

    executing: float = 0.0
    committing: float = 0.0

    def since(self, earlier: ServerSeconds) -> ServerSeconds:
        return ServerSeconds(self.executing - earlier.executing, self.committing - earlier.committing)


def server_seconds(server: Server) -> ServerSeconds:
    """Since the server's start."""
    rows = server.execute(
        "SELECT event_name, sum_timer_wait FROM performance_schema.events_statements_summary_global_by_event_name"
        " WHERE event_name IN ('statement/sql/binlog', 'statement/sql/begin', 'statement/sql/set_option',"
        " 'statement/sql/commit')"
    )
    seconds = {name.rpartition("/")[2]: float(picoseconds) / 1e12 for name, picoseconds in rows}
    return ServerSeconds(sum(seconds.get(name, 0.0) for name in STATEMENTS), seconds.get("commit", 0.0))


def shares(attribution: Attribution, server: ServerSeconds, workers: int, seconds: float) -> dict[str, float]:
    """Of the workers' time. "executing" is told apart into the server's part and the network's (with our own encoding),
    "commit turn" into the wait and the commit."""
    found = dict(attribution.workers)
    all_time = workers * seconds
    executing, turn = found.pop(EXECUTING, 0.0), found.pop(TURN, 0.0)
    in_server = min(executing, server.executing / all_time)
    committing = min(turn, server.committing / all_time)
    found |= {
        "server executing": in_server,
        "network": executing - in_server,
        "commit turn": turn - committing,
        "server committing": committing,
    }
    return {
        name: round(share, 4) for name, share in sorted(found.items(), key=lambda item: -item[1]) if share > 0
    }


def mean(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of the shares of several rounds, the largest first."""
    names = {name for one in many for name in one}
    means = {name: sum(one.get(name, 0.0) for one in many) / len(many) for name in names}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def as_text(found: Mapping[str, float], rows: Mapping[str, float] | None = None) -> str:
    """Shares of one per cent and more; waits for a dependency with the rows waited for."""
    parts = []
    for name, share in found.items():
        if share >= SHARE_MIN:
            parts.append(f"{share:.0%} {name}")
            if rows and name in DEPENDENCY_WAITS:
                named = [f"{row} {part:.0%}" for row, part in rows.items() if part >= SHARE_MIN]
                parts[-1] += f" ({', '.join(named[:3])})"
    return "; ".join(parts)
