"""Free TCP ports for servers that keep theirs across restarts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from applier.errors import PreflightFailed

LOWEST_PORT = 15_000
ATTEMPTS = 200


def _first_ephemeral_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def free_port() -> int:
    """A loopback port that nobody listens on. Another process may take it meanwhile: be ready to ask again.

    Taken below the range from which the kernel gives ports to outgoing connections, so that a connection
    opened while a server is down cannot take its port.
    """
    highest = max(LOWEST_PORT + 1000, min(_first_ephemeral_port(), 60_000))
    for _ in range(ATTEMPTS):
        port = random.randrange(LOWEST_PORT, highest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PreflightFailed(detail=f"no free port between {LOWEST_PORT} and {highest}")
