"""What both servers spent during a run."""

from __future__ import annotations

from dataclasses import dataclass

from applier.bench.backlog import binlog_files
from applier.bench.machine import cpu_seconds, peak_rss_bytes
from applier.bench.why import ServerSeconds, server_seconds
from applier.errors import UnexpectedFailure
from applier.sandbox import Server


@dataclass(frozen=True, slots=True)
class Spent:
    """`binlog_bytes`: what the target wrote to its own log. `in_server`: in statements of the applier's sessions."""

    source_cpu_seconds: float
    target_cpu_seconds: float
    target_peak_rss_bytes: int
    binlog_bytes: int
    in_server: ServerSeconds


class Meter:
    """Starts when it is made. Raises UnexpectedFailure when a server has died."""

    def __init__(self, source: Server, target: Server) -> None:
        self._source, self._target = source, target
        self._binlog_bytes = _binlog_bytes(target)
        self._in_server = server_seconds(target)
        self._cpu = cpu_seconds(_pid(source)), cpu_seconds(_pid(target))

    def read(self) -> Spent:
        """Since the start."""
        cpu = cpu_seconds(_pid(self._source)), cpu_seconds(_pid(self._target))
        return Spent(
            source_cpu_seconds=cpu[0] - self._cpu[0],
            target_cpu_seconds=cpu[1] - self._cpu[1],
            target_peak_rss_bytes=peak_rss_bytes(_pid(self._target)),
            binlog_bytes=_binlog_bytes(self._target) - self._binlog_bytes,
            in_server=server_seconds(self._target).since(self._in_server),
        )


def _pid(server: Server) -> int:
    if server.pid is None:
        raise UnexpectedFailure(detail=f"the server {server.name} has died; see {server.error_log}")
    return server.pid


def _binlog_bytes(server: Server) -> int:
    return sum((server.datadir / name).stat().st_size for name in binlog_files(server))


def commit_milliseconds(server: Server) -> dict[str, float]:
    """How long COMMIT took in the server since its start, by the server's own histogram; empty if there was none.

    The stock replica's commits are no statements, so this does not see them.
    """
    rows = server.execute(
        "SELECT count_star, avg_timer_wait, quantile_95, quantile_99, max_timer_wait"
        " FROM performance_schema.events_statements_summary_by_digest WHERE digest_text = 'COMMIT'"
    )
    if not rows:
        return {}
    count, *picoseconds = rows[0]
    names = ("mean", "p95", "p99", "max")
    return {"count": float(count)} | {
        name: round(float(value) / 1e9, 3) for name, value in zip(names, picoseconds, strict=True)
    }
