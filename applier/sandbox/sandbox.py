"""A set of throw-away MySQL servers in one folder."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from applier.errors import PreflightFailed, UsageError
from applier.sandbox.cache import exclusive
from applier.sandbox.installation import Installation, find, recorded
from applier.sandbox.launcher import Launcher
from applier.sandbox.options import REPLICA, layout_of, normalised
from applier.sandbox.ports import free_port
from applier.sandbox.replication import account_password, ensure_account, replicate
from applier.sandbox.server import Server
from applier.sandbox.state import State
from applier.sandbox.template import template

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class Sandbox:
    """Throw-away MySQL servers on loopback, each with a folder, a port and a socket of its own.

    `directory`: where they live; None makes a temporary folder, deleted at `stop()`. A folder that was used
    before is taken up with its data. `servers`: names; one called `replica` becomes a stock replica of
    `source` when both are there. `options`: mysqld options by server name, `all` for every server. `mysqld`:
    the program to run, else found or fetched (see `installation.find`).

    The servers die with this process, however it ends, unless `detached`: then they live until `stop()`, in
    whichever process. Raises PreflightFailed when there is no usable MySQL, or a server does not start.

        with Sandbox() as sandbox:
            sandbox["source"].execute("CREATE DATABASE d")
    """

    def __init__(
        self,
        directory: Path | None = None,
        servers: Sequence[str] = ("source", "target"),
        *,
        options: Mapping[str, Mapping[str, str]] | None = None,
        mysqld: Path | None = None,
        detached: bool = False,
    ) -> None:
        self._wanted = list(dict.fromkeys(servers))
        self._options = {name: normalised(some) for name, some in (options or {}).items()}
        self._check_names()
        self._mysqld = mysqld
        self._recorded_mysqld: Path | None = None
        self._detached = detached
        self._temporary = directory is None
        self._directory = directory.absolute() if directory is not None else None
        self._installation: Installation | None = None
        self._launcher: Launcher | None = None
        self._servers: dict[str, Server] = {}

    def _check_names(self) -> None:
        for name in self._wanted:
            if not _NAME.fullmatch(name) or name == "all":
                raise UsageError(detail=f"not a server name: {name!r}")
        for name in self._options:
            if name != "all" and name not in self._wanted:
                raise UsageError(detail=f"options are given for {name!r}, which is not among the servers")

    @classmethod
    def attach(cls, directory: Path) -> Sandbox:
        """The sandbox that lives in `directory`, running or not. Raises PreflightFailed if there is none."""
        names = [path.parent.name for path in sorted(directory.glob("*/server.json"))]
        if not names:
            raise PreflightFailed(detail=f"there is no sandbox in {directory}")
        sandbox = cls(directory, names, detached=True)
        for name in names:
            state = State.load(directory.absolute() / name / "server.json")
            sandbox._recorded_mysqld = Path(state.mysqld)
            sandbox._servers[name] = sandbox._server(state)
        return sandbox

    # --- access -----------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise UsageError(detail="the sandbox has no folder before it is started")
        return self._directory

    @property
    def installation(self) -> Installation:
        """The MySQL that runs here. Raises PreflightFailed when there is none."""
        if self._installation is None:
            self._installation = (
                recorded(self._recorded_mysqld) if self._recorded_mysqld else find(self._mysqld)
            )
        return self._installation

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    # --- life -------------------------------------------------------------------------------------------

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start what is not running; returns when every server answers. Raises PreflightFailed."""
        self._make_directory()
        try:
            with exclusive(self.directory / "lock"), self._launching():
                for name in self._wanted:
                    self._servers[name] = self._known_or_new(name)
                for layout in {tuple(sorted(layout_of(server.options).items())) for server in self}:
                    template(self.installation, dict(layout))
                _together(Server.start, self)
                self._connect_servers()
        except BaseException:
            if not self._detached:
                self.stop()
            raise

    def stop(self, *, delete: bool = False) -> None:
        """Stop all servers; `delete` removes their data too, as always for a temporary folder."""
        if self._directory is None:
            return
        with exclusive(self.directory / "lock"):
            if self._temporary or delete:
                _together(Server.kill, self)
            else:
                _together(Server.stop, self)
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)
            self._directory = None
        elif delete:
            self._delete_own()
        if self._temporary or delete:
            self._servers.clear()

    def _delete_own(self) -> None:
        """Delete what is ours in the folder, and the folder when nothing else is in it."""
        for server in self:
            shutil.rmtree(server.folder)
        for name in ("repl.password", "lock"):
            (self.directory / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.directory.rmdir()

    def add(
        self,
        name: str,
        *,
        options: Mapping[str, str] | None = None,
        snapshot: Path | None = None,
        replica_of: str | None = None,
    ) -> Server:
        """Start one more server; its data a copy of `snapshot` (see `Server.snapshot`) when given."""
        if name in self._servers or not _NAME.fullmatch(name) or name == "all":
            raise UsageError(detail=f"not a free server name: {name!r}")
        with self._launching():
            server = self._servers[name] = self._new(name, normalised(options or {}), replica_of)
            try:
                if snapshot is not None:
                    server.restore(snapshot)
                server.start()
                self._connect_servers()
            except BaseException:
                self.remove(name)
                raise
        return server

    def remove(self, name: str) -> None:
        """Kill the server `name` and delete its data."""
        server = self._servers.pop(name)
        server.kill()
        shutil.rmtree(server.folder)

    # --- inside -----------------------------------------------------------------------------------------

    def _make_directory(self) -> None:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="applier-sandbox-"))
        self._directory.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _launching(self) -> Iterator[Launcher]:
        """A launcher to start servers with: the one that keeps them, or a passing one that lets them go."""
        if self._launcher is not None and self._launcher.alive():
            yield self._launcher
            return
        launcher = self._launcher = Launcher(detached=self._detached)
        if self._temporary and not self._detached:
            launcher.remove_at_end(self.directory)
        if not self._detached:
            yield launcher
            return
        try:
            yield launcher
            launcher.release()
        finally:
            launcher.close()
            self._launcher = None

    def _server(self, state: State) -> Server:
        return Server(self.directory / state.name, state, lambda: self.installation, self._launching)

    def _known_or_new(self, name: str) -> Server:
        options = {**self._options.get("all", {}), **self._options.get(name, {})}
        if (known := self._servers.get(name)) is not None:
            return known
        path = self.directory / name / "server.json"
        if path.is_file():
            state = State.load(path)
            server = self._server(state)
            self._refuse_foreign(server)
            if not server.running:
                state.options |= options
            return server
        replica_of = "source" if name == "replica" and "source" in self._wanted else None
        return self._new(name, options, replica_of)

    def _new(self, name: str, options: dict[str, str], replica_of: str | None) -> Server:
        taken = {State.load(path).server_id for path in self.directory.glob("*/server.json")}
        taken |= {server.server_id for server in self}
        state = State(
            name=name,
            port=free_port(),
            socket="",
            server_id=next(number for number in range(1, len(taken) + 2) if number not in taken),
            version=self.installation.release,
            mysqld=str(self.installation.mysqld),
            options={**(REPLICA if replica_of else {}), **options},
            replica_of=replica_of,
        )
        return self._server(state)

    def _refuse_foreign(self, server: Server) -> None:
        """A server that another process keeps would die under our hands, or we would end it."""
        if server.running and not self._detached:
            raise PreflightFailed(
                detail=f"{self.directory} is in use: server {server.name} runs with pid {server.pid}; "
                f"stop it first (applier sandbox stop --dir {self.directory})"
            )

    def _connect_servers(self) -> None:
        password = account_password(self.directory)
        _together(lambda server: ensure_account(server, password), self)
        for server in self:
            if server.replica_of is not None:
                replicate(server, self[server.replica_of], password)


def _together(action: Callable[[Server], None], servers: Iterable[Server]) -> None:
    """Do it on all servers at once; waits for all, then raises the first error."""
    listed = list(servers)
    if not listed:
        return
    with ThreadPoolExecutor(len(listed)) as pool:
        for outcome in [pool.submit(action, server) for server in listed]:
            outcome.result()
