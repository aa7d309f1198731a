"""A status under the names that MySQL's own replica uses, for people and tools that know those.

https://dev.mysql.com/doc/refman/9.7/en/show-replica-status.html and
https://dev.mysql.com/doc/refman/9.7/en/performance-schema-replication-applier-status-by-worker-table.html
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

Value = str | int | None

READING: Final = ("running", "draining")
NEVER: Final = "0000-00-00 00:00:00.000000"


def replica_status(status: Mapping[str, Any]) -> dict[str, Value]:
    """What SHOW REPLICA STATUS would say, of the JSON of `/status`; columns without a meaning here are left out."""
    source, target, lag = status["source"], status["target"], status["lag"]
    host, _, port = str(source["place"]).rpartition(":")
    connected, state, error = source["connected"], status["state"], status["error"]
    runs = state in (*READING, "reconnecting")
    idle = lag["transactions"] == 0
    return {
        "Replica_IO_State": "Waiting for source to send event"
        if connected
        else "Reconnecting"
        if runs
        else "",
        "Source_Host": host or source["place"],
        "Source_User": source["user"],
        "Source_Port": int(port) if port.isdigit() else None,
        "Source_Log_File": source["file"],
        "Read_Source_Log_Pos": source["position"],
        "Relay_Source_Log_File": target["file"],
        "Replica_IO_Running": "Yes" if connected else "Connecting" if runs else "No",
        "Replica_SQL_Running": "Yes" if runs else "No",
        "Last_Errno": 0 if not error else 1,
        "Last_Error": error,
        "Exec_Source_Log_Pos": target["position"],
        "Relay_Log_Space": (status["relay_log"] or {"bytes": 0})["bytes"],
        "Seconds_Behind_Source": round(lag["seconds"]) if runs else None,
        "Last_SQL_Error": error,
        "Source_Server_Id": source["server_id"],
        "Source_UUID": source["server_uuid"] or "",
        "Replica_SQL_Running_State": _applier_state(runs, idle, lag),
        "Last_SQL_Error_Timestamp": timestamp(status["at"]) if error else "",
        "Retrieved_Gtid_Set": source["received_gtid_set"] or "",
        "Executed_Gtid_Set": target["applied_gtid_set"] or "",
        "Auto_Position": 1,
        "Channel_Name": status["settings"]["channel"],
    }


def _applier_state(runs: bool, idle: bool, lag: Mapping[str, Any]) -> str:
    if not runs:
        return ""
    return (
        "Replica has read all relay log; waiting for more updates" if idle else f"Applying; {lag['because']}"
    )


def worker_rows(status: Mapping[str, Any]) -> list[dict[str, Value]]:
    """Like those of replication_applier_status_by_worker, with ACTIVITY, UNIT_TRANSACTIONS and WAITS_FOR behind."""
    channel = status["settings"]["channel"]
    return [_worker_row(worker, channel) for worker in status["workers"]]


def _worker_row(worker: Mapping[str, Any], channel: str) -> dict[str, Value]:
    return {
        "CHANNEL_NAME": channel,
        "WORKER_ID": worker["number"] + 1,
        "SERVICE_STATE": "OFF" if worker["activity"] == "stopped" else "ON",
        "LAST_ERROR_NUMBER": worker["last_error_number"],
        "LAST_ERROR_MESSAGE": worker["last_error"],
        "LAST_ERROR_TIMESTAMP": timestamp(worker["last_error_at"]) or NEVER,
        "LAST_APPLIED_TRANSACTION": worker["last_applied_gtid"],
        "APPLYING_TRANSACTION": worker["gtid"],
        "APPLYING_TRANSACTION_RETRIES_COUNT": worker["attempts"],
        "ACTIVITY": worker["activity"],
        "UNIT_TRANSACTIONS": worker["transactions_in_unit"],
        "WAITS_FOR": worker["waits_for"] or None,
    }


def timestamp(seconds: float | None) -> str:
    """As the server prints one, in UTC."""
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def vertical(row: Mapping[str, Value]) -> str:
    """As the mysql client prints a row with \\G."""
    width = max(map(len, row))
    return "\n".join(f"{name:>{width}}: {'NULL' if value is None else value}" for name, value in row.items())


def table(rows: Sequence[Mapping[str, Value]]) -> str:
    """Columns of equal width, two blanks between; empty without rows."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [names, *([("NULL" if row[name] is None else str(row[name])) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
