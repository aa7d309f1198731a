"""Options of the sandbox's servers: durable, GTIDs on, loopback only; the caller's come last and win."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from applier.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9_.-]*", re.IGNORECASE)

# Options that decide how a data directory is laid out: a template is made for each set of them.
LAYOUT = (
    "innodb_page_size",
    "innodb_undo_tablespaces",
    "innodb_data_file_path",
    "innodb_log_file_size",
    "lower_case_table_names",
)

COMMON: Mapping[str, str] = {
    "bind_address": "127.0.0.1",
    "mysqlx": "OFF",
    "skip_name_resolve": "ON",
    "secure_file_priv": "",
    "local_infile": "ON",
    "max_connections": "300",
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "relay_log": "relay",
    "gtid_mode": "ON",
    "enforce_gtid_consistency": "ON",
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_buffer_pool_size": "256M",
    "innodb_redo_log_capacity": "128M",
    "report_host": "127.0.0.1",
}

REPLICA: Mapping[str, str] = {
    "replica_parallel_workers": "4",
    "replica_preserve_commit_order": "ON",
}


def normalised(options: Mapping[str, str]) -> dict[str, str]:
    """Option names spelled as the variables are (`sync-binlog` is `sync_binlog`); raises UsageError."""
    result = {}
    for name, value in options.items():
        if not _NAME.fullmatch(name) or "\n" in value:
            raise UsageError(detail=f"not a server option: {name}={value!r}")
        result[name.lower().replace("-", "_")] = value
    return result


def layout_of(options: Mapping[str, str]) -> dict[str, str]:
    """Those of `options` that the template data directory must have been made with."""
    return {name: options[name] for name in LAYOUT if name in options}


def server_arguments(
    *, datadir: Path, socket: str, port: int, server_id: int, error_log: Path, options: Mapping[str, str]
) -> list[str]:
    """Command-line options of one server. `options` are normalised and win over the sandbox's own."""
    merged = {
        "datadir": str(datadir),
        "socket": socket,
        "port": str(port),
        "report_port": str(port),
        "server_id": str(server_id),
        "log_error": str(error_log),
        "pid_file": str(datadir / "mysqld.pid"),
        **COMMON,
        **options,
    }
    # An installation may be built without the X plugin; `loose` lets it ignore the option.
    merged["loose_mysqlx"] = merged.pop("mysqlx")
    return [f"--{name}={value}" for name, value in merged.items()]


def parse_settings(settings: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """`server.option=value` as given to `--set`, by server; raises UsageError."""
    result: dict[str, dict[str, str]] = {}
    for setting in settings:
        place, equals, value = setting.partition("=")
        server, dot, option = place.partition(".")
        if not (equals and dot and server and option):
            raise UsageError(detail=f"--set takes server.option=value, not {setting!r}")
        result.setdefault(server, {})[option] = value
    return result
