"""A data directory made once per MySQL version, copied for each server: a copy takes a tenth of a second."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from applier.errors import PreflightFailed
from applier.sandbox.cache import cache_folder, exclusive
from applier.sandbox.installation import Installation

TEMPLATE_VERSION = 1  # raise it when what is made below changes
MAKE_SECONDS = 180.0

# With skip_name_resolve the server knows a loopback client as 127.0.0.1, never as localhost.
# SHUTDOWN ends the one start that makes TLS keys and leaves a clean redo log.
ACCOUNTS = """\
CREATE USER IF NOT EXISTS root@'127.0.0.1';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
GRANT PROXY ON ''@'' TO root@'127.0.0.1' WITH GRANT OPTION;
SHUTDOWN;
"""


def copy_tree(source: Path, destination: Path) -> None:
    """Copy a folder as it is; shares blocks where the file system can. `destination` must not exist."""
    answer = subprocess.run(
        ["cp", "-a", "--reflink=auto", "--sparse=auto", "--", str(source), str(destination)],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise PreflightFailed(detail=f"copying {source} to {destination} failed: {answer.stderr.strip()}")


def error_lines(log: Path, limit: int = 8) -> str:
    """The last error lines of a server's log, or its last lines where none is marked."""
    if not log.is_file():
        return "(no log)"
    lines = log.read_text(errors="replace").splitlines()
    marked = [line for line in lines if "[ERROR]" in line]
    return "\n".join((marked or lines)[-limit:])


def _run_mysqld(installation: Installation, arguments: list[str], log: Path) -> None:
    try:
        answer = subprocess.run(
            [*installation.command, *arguments, f"--log-error={log}", "--secure-file-priv="],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MAKE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PreflightFailed(detail=f"{installation.mysqld} made no data directory: {error}") from error
    if answer.returncode:
        said = error_lines(log) if log.is_file() else answer.stderr.strip()
        raise PreflightFailed(detail=f"{installation.mysqld} made no data directory: {said}")


def _make(installation: Installation, layout: Mapping[str, str], folder: Path) -> None:
    """Make `folder`/data. The binary log stays off: the copies must begin with an empty gtid_executed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    accounts = folder / "accounts.sql"
    accounts.write_text(ACCOUNTS)
    arguments = [f"--datadir={folder / 'data'}", *(f"--{name}={value}" for name, value in layout.items())]
    log = folder / "error.log"
    _run_mysqld(installation, ["--initialize-insecure", *arguments], log)
    start = ["--skip-networking", "--loose-mysqlx=OFF", "--skip-log-bin", f"--init-file={accounts}"]
    # A relative socket lies in the data directory: no path can be too long.
    _run_mysqld(installation, [*arguments, *start, "--socket=template.sock"], log)
    (folder / "data" / "auto.cnf").unlink(missing_ok=True)  # holds the server UUID, must differ in each copy


def template(installation: Installation, layout: Mapping[str, str]) -> Path:
    """The template data directory for this MySQL and layout, made when missing. Raises PreflightFailed.

    Safe when several run at once; it appears under its name only when complete.
    """
    facts = [TEMPLATE_VERSION, str(installation.mysqld), installation.version, sorted(layout.items())]
    stat = installation.mysqld.stat()
    facts += [stat.st_size, stat.st_mtime_ns, os.geteuid()]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    folder = cache_folder() / "templates"
    final = folder / f"{installation.version}-{digest}"
    if not final.is_dir():
        with exclusive(folder / f"{final.name}.lock"):
            if not final.is_dir():
                making = folder / f"{final.name}.making"
                _make(installation, layout, making)
                making.rename(final)
    return final / "data"
