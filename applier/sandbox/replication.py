"""Stock MySQL replication between servers of a sandbox: the peer that an applier is measured against."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from applier.sandbox.server import Server

ACCOUNT = "repl"


def account_password(directory: Path) -> str:
    """The password of the replication account, made once per sandbox; only the owner can read its file."""
    path = directory / "repl.password"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        password = secrets.token_urlsafe(18)
        file.write(password + "\n")
    return password


def ensure_account(server: Server, password: str) -> None:
    """Make the replication account, on each server for itself: it is not in the binary log."""
    if server.execute("SELECT 1 FROM mysql.user WHERE user = %s", (ACCOUNT,)):
        return
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute(f"CREATE USER {ACCOUNT}@'%%' IDENTIFIED BY %s", (password,))
        cursor.execute(f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {ACCOUNT}@'%'")


def replicate(replica: Server, source: Server, password: str) -> None:
    """Make `replica` follow `source` by GTID; nothing happens when it follows one already."""
    if replica.execute("SHOW REPLICA STATUS"):
        return
    replica.execute(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, "
        "SOURCE_PASSWORD = %s, SOURCE_AUTO_POSITION = 1, SOURCE_CONNECT_RETRY = 1, GET_SOURCE_PUBLIC_KEY = 1",
        (source.host, source.port, ACCOUNT, password),
    )
    replica.execute("START REPLICA")
