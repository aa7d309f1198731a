"""What a figure was measured on, and what a process has used: from /proc."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from applier.sandbox import Server

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# Those that decide how fast a server commits and replays; recorded with every figure.
RECORDED_VARIABLES = (
    "version",
    "sync_binlog",
    "innodb_flush_log_at_trx_commit",
    "innodb_buffer_pool_size",
    "innodb_redo_log_capacity",
    "innodb_flush_method",
    "innodb_doublewrite",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_transaction_compression",
    "log_replica_updates",
    "max_binlog_size",
)


def machine() -> dict[str, Any]:
    """Cores, memory and versions, for JSON."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_name(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "applier": version("applier"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def server_settings(server: Server) -> dict[str, str]:
    """The recorded variables of a running server; those that its version lacks are left out."""
    marks = ", ".join(["%s"] * len(RECORDED_VARIABLES))
    rows = server.execute(
        "SELECT variable_name, variable_value FROM performance_schema.global_variables"
        f" WHERE variable_name IN ({marks}) ORDER BY variable_name",
        RECORDED_VARIABLES,
    )
    return dict(rows)


def cpu_seconds(pid: int) -> float:
    """User and system time that a running process and all its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peak_rss_bytes(pid: int | str = "self") -> int:
    """Most memory that a running process ever had resident. 0 where the kernel does not tell."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
