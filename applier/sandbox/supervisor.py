"""Process that starts the servers of one sandbox and ends them when its owner is gone.

Run by path, as a program of its own (standard library only, so that it starts in a few milliseconds).
The owner speaks to it over a pipe, one JSON object a line: `{"spawn": [argv…], "log": path}` is answered
with `{"pid": n}` or `{"error": text}`; `{"remove": [paths]}` names what to delete at the end;
`{"release": true}` lets the servers live on and ends the supervisor. When the pipe ends without a release, or
the owner dies in any way, kill -9 included, every server gets SIGKILL.

Why a process and not PR_SET_PDEATHSIG alone: that signal is sent when the *thread* that forked ends, and
servers are started by short-lived threads. Here the forking thread is the only one, so it is set as a second
line: it covers the death of the supervisor itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
READ_BYTES = 1 << 16


class Supervisor:
    """Children by pid. A pid stays in `children` until it is reaped, so it is never a recycled one."""

    def __init__(self) -> None:
        self.children: set[int] = set()
        self.remove: list[str] = []
        self.released = False
        self.die_with_us = True
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl

    def serve(self, owner: int) -> None:
        """Answer requests until the pipe ends, the owner (a pidfd) dies, or a release."""
        pending = b""
        while not self.released:
            ready, _, _ = select.select([0, owner], [], [])
            if 0 not in ready:
                return  # the owner is dead but a forked child of it still holds the pipe
            chunk = os.read(0, READ_BYTES)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self.answer(json.loads(line))

    def answer(self, request: dict[str, Any]) -> None:
        if "spawn" in request:
            reply: dict[str, Any]
            try:
                reply = {"pid": self.spawn(request["spawn"], request["log"])}
            except (OSError, subprocess.SubprocessError) as error:
                reply = {"error": str(error)}
            os.write(1, json.dumps(reply).encode() + b"\n")
        self.remove += request.get("remove", [])
        self.die_with_us = request.get("die_with_us", self.die_with_us)
        self.released = request.get("release", False)

    def spawn(self, argv: list[str], log: str) -> int:
        before_exec: Callable[[], None] | None = self._follow_parent if self.die_with_us else None
        with open(log, "ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=before_exec,  # noqa: PLW1509 - this process has one thread
            )
        self.children.add(process.pid)
        return process.pid

    def _follow_parent(self) -> None:
        self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def reap(self, *_: object) -> None:
        for pid in list(self.children):
            try:
                ended, _status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self.children.discard(pid)

    def end(self) -> None:
        if self.released:
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
        for pid in self.children:
            os.waitpid(pid, 0)
        for path in self.remove:
            shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    supervisor = Supervisor()
    owner = os.pidfd_open(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGCHLD, supervisor.reap)
    try:
        supervisor.serve(owner)
    finally:
        supervisor.end()


if __name__ == "__main__":
    main()
