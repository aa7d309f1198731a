"""The owner's end of the supervisor: start servers, keep them tied to this process or let them go."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from applier.errors import PreflightFailed

SUPERVISOR = Path(__file__).with_name("supervisor.py")
END_SECONDS = 30.0


class Launcher:
    """Starts servers through a supervisor process. They die with this process unless `release()` is called.

    Thread safe. `detached` says that a release is meant to come: the servers then do not follow the
    supervisor's death, but still die when the pipe ends before the release.
    """

    def __init__(self, *, detached: bool = False) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        if detached:
            self._send({"die_with_us": False})

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def spawn(self, argv: Sequence[str], log: Path) -> int:
        """Start a program with its output in `log`; gives its pid. Raises PreflightFailed."""
        assert self._process.stdout is not None
        with self._lock:
            try:
                self._send({"spawn": list(argv), "log": str(log)})
                line = self._process.stdout.readline()
            except OSError:
                line = b""
        reply = json.loads(line) if line else {"error": "the sandbox's supervisor process is gone"}
        if "error" in reply:
            raise PreflightFailed(detail=f"cannot run {argv[0]}: {reply['error']}")
        return int(reply["pid"])

    def remove_at_end(self, path: Path) -> None:
        """Delete the folder `path` after the servers, also when this process is killed."""
        with self._lock:
            self._send({"remove": [str(path)]})

    def alive(self) -> bool:
        return self._process.poll() is None

    def release(self) -> None:
        """Let the servers live on without us."""
        with self._lock:
            self._send({"release": True})
        self.close()

    def close(self) -> None:
        """End the supervisor, and with it every server that still runs (unless released)."""
        with self._lock:
            with contextlib.suppress(OSError):
                if self._process.stdin is not None:
                    self._process.stdin.close()
            self._process.wait(END_SECONDS)
            if self._process.stdout is not None:
                self._process.stdout.close()
