"""One throw-away MySQL server: start, stop, kill, restart, connect, snapshot."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from applier.errors import PreflightFailed
from applier.sandbox.installation import Installation
from applier.sandbox.launcher import Launcher
from applier.sandbox.options import layout_of, server_arguments
from applier.sandbox.ports import free_port
from applier.sandbox.process import Process
from applier.sandbox.state import State
from applier.sandbox.template import copy_tree, error_lines, template

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.02
PORT_ATTEMPTS = 5
SOCKET_BYTES_MAX = 107  # sockaddr_un.sun_path, less its terminating zero

Rows = tuple[tuple[Any, ...], ...]


class Server:
    """A server of a sandbox, made by it. Port, folder and data stay the same over restarts.

    Everything lies in `folder`: `data`, `error.log`, `server.json`. Not thread safe, but different servers
    may be used in different threads.
    """

    def __init__(
        self,
        folder: Path,
        state: State,
        find_installation: Callable[[], Installation],
        launching: Callable[[], AbstractContextManager[Launcher]],
    ) -> None:
        self.folder = folder
        self._state = state
        self._find_installation = find_installation
        self._launching = launching

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.url} {self.status}>"

    # --- facts ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._state.name

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        return self._state.port

    @property
    def socket(self) -> str:
        return self._state.socket

    @property
    def server_id(self) -> int:
        return self._state.server_id

    @property
    def version(self) -> str:
        """As in `9.7.4`."""
        return self._state.version

    @property
    def options(self) -> dict[str, str]:
        """What the server was given beyond the sandbox's own options; as of the next start when changed."""
        return self._state.options

    @property
    def replica_of(self) -> str | None:
        return self._state.replica_of

    @property
    def installation(self) -> Installation:
        """The MySQL that the next start runs. Raises PreflightFailed when there is none."""
        return self._find_installation()

    @property
    def url(self) -> str:
        return f"mysql://root@{HOST}:{self.port}"

    @property
    def datadir(self) -> Path:
        return self.folder / "data"

    @property
    def error_log(self) -> Path:
        return self.folder / "error.log"

    @property
    def running(self) -> bool:
        return self._state.process is not None and self._state.process.alive()

    @property
    def pid(self) -> int | None:
        """None when the server is not running."""
        return self._state.process.pid if self._state.process is not None and self.running else None

    @property
    def status(self) -> str:
        """`running`, `stopped`, or `died` when it ended and nobody stopped it."""
        if self._state.process is None:
            return "stopped"
        return "running" if self.running else "died"

    # --- life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server on its data and port; nothing happens when it runs. Raises PreflightFailed.

        A server without data gets a copy of the template, and may change its port when that is taken.
        """
        if self.running:
            return
        fresh = not self.datadir.is_dir()
        if fresh:
            self.save()
            copy_tree(template(self.installation, layout_of(self.options)), self.datadir)
        with self._launching() as launcher:
            for attempts_left in reversed(range(PORT_ATTEMPTS if fresh else 1)):
                self._spawn(launcher)
                if self._wait_until_ready():
                    return
                self._forget_process()
                if not (attempts_left and self._port_was_taken()):
                    break
                self._state.port = free_port()
        raise self._failure("did not start")

    def _spawn(self, launcher: Launcher) -> None:
        self._place_socket()
        self.error_log.unlink(missing_ok=True)
        arguments = server_arguments(
            datadir=self.datadir,
            socket=self.socket,
            port=self.port,
            server_id=self.server_id,
            error_log=self.error_log,
            options=self.options,
        )
        # The console output is apart: mysqld renames nothing, but says there why it cannot open its log.
        self._state.version = self.installation.release
        self._state.mysqld = str(self.installation.mysqld)
        pid = launcher.spawn([*self.installation.command, *arguments], self.folder / "console.log")
        self._state.process = Process.of(pid)
        self.save()

    def _place_socket(self) -> None:
        """A socket path that fits into the kernel's limit, in a private folder where ours is too long.

        A lock file that a killed server left would make mysqld refuse when its pid is in use again.
        """
        self._remove_socket()
        path = str(self.folder / "mysqld.sock")
        if len(path.encode()) > SOCKET_BYTES_MAX:
            path = tempfile.mkdtemp(prefix="applier-", dir="/tmp") + "/mysqld.sock"
        self._state.socket = path

    def _remove_socket(self) -> None:
        path = Path(self._state.socket)
        if self._state.socket and path.parent != self.folder:
            shutil.rmtree(path.parent, ignore_errors=True)
        for leftover in (self.folder / "mysqld.sock", self.folder / "mysqld.sock.lock"):
            leftover.unlink(missing_ok=True)

    def _wait_until_ready(self) -> bool:
        """Wait until the server answers; False when it ended instead. Raises PreflightFailed if late."""
        process = self._state.process
        deadline = time.monotonic() + START_SECONDS
        while process is not None and not process.wait(POLL_SECONDS):
            if self._listens() and self._answers():
                return True
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"did not answer within {START_SECONDS:.0f} s")
        return False

    def _listens(self) -> bool:
        """Cheap, and closes its socket: PyMySQL leaves one that was refused to the garbage collector."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket) == 0

    def _answers(self) -> bool:
        try:
            self.connect(unix_socket=self.socket).close()
        except pymysql.OperationalError:
            return False
        return True

    def _failure(self, what: str) -> PreflightFailed:
        return PreflightFailed(detail=f"server {self.name} {what}; from {self.error_log}:\n{self._errors()}")

    def _errors(self) -> str:
        log = self.error_log if self.error_log.is_file() else self.folder / "console.log"
        return error_lines(log)

    def _port_was_taken(self) -> bool:
        return "Bind on TCP/IP port" in self._errors() or "already in use" in self._errors()

    def _forget_process(self) -> None:
        self._state.process = None
        self._remove_socket()
        self.save()

    def stop(self) -> None:
        """Shut down cleanly; SIGKILL when that takes longer than STOP_SECONDS."""
        process = self._state.process
        if process is not None:
            self._end_dumps()
            process.signal(signal.SIGTERM)
            if not process.wait(STOP_SECONDS):
                process.signal(signal.SIGKILL)
                process.wait(STOP_SECONDS)
        self._forget_process()

    def _end_dumps(self) -> None:
        """End the sessions that send the binary log: at shutdown the server waits 10 s for them (9.7.4)."""
        if not (self.running and self._listens()):
            return
        with suppress(pymysql.Error), self.connect(connect_timeout=5, read_timeout=5) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT id FROM performance_schema.processlist WHERE command LIKE 'Binlog Dump%'")
            for (session,) in cursor.fetchall():
                with suppress(pymysql.Error):
                    cursor.execute(f"KILL {session}")

    def kill(self) -> None:
        """SIGKILL, as a power cut of the process; returns when it is gone. The next start() recovers."""
        process = self._state.process
        if process is not None:
            process.signal(signal.SIGKILL)
            process.wait(STOP_SECONDS)
        self._forget_process()

    def restart(self) -> None:
        self.stop()
        self.start()

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._state.save(self.folder / "server.json")

    # --- use --------------------------------------------------------------------------------------------

    def connect(self, **settings: Any) -> Connection[Cursor]:
        """A connection as root over TCP with autocommit; `settings` are PyMySQL's and win.

        Without TLS: it is loopback, and PyMySQL reads all the machine's certificates for each connection (20 ms)."""
        defaults: dict[str, Any] = {
            "user": "root",
            "charset": "utf8mb4",
            "autocommit": True,
            "ssl_disabled": True,
        }
        if "unix_socket" not in settings:
            defaults |= {"host": HOST, "port": self.port}
        return pymysql.connect(**(defaults | settings))

    def execute(self, sql: str, arguments: Sequence[Any] = (), *, database: str | None = None) -> Rows:
        """Run one statement as root on a connection of its own; gives its rows as tuples."""
        connection = self.connect(database=database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, arguments or None)  # without arguments a % is a %
                return tuple(cursor.fetchall())
        finally:
            connection.close()

    # --- data directories -------------------------------------------------------------------------------

    def snapshot(self, path: Path) -> None:
        """Copy the data directory to `path` (must not exist); the server is stopped meanwhile."""
        was_running = self.running
        self.stop()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            copy_tree(self.datadir, path)
        finally:
            if was_running:
                self.start()

    def restore(self, path: Path) -> None:
        """Put a copy of the snapshot `path` in place of the data; keeps server UUID and port; stopped."""
        self.kill()
        identity = self.datadir / "auto.cnf"
        own = identity.read_bytes() if identity.is_file() else None
        if self.datadir.is_dir():
            shutil.rmtree(self.datadir)
        copy_tree(path, self.datadir)
        identity.unlink(missing_ok=True)
        if own is not None:
            identity.write_bytes(own)

    def reconfigure(self, **options: str) -> None:
        """Change options as of the next start."""
        self._state = replace(self._state, options={**self._state.options, **options})
        self.save()
