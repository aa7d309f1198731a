"""The user's cache folder, and locks that two runs at once respect."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/applier` (by default `~/.cache/applier`), made when missing."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells to ignore relative paths.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    folder = root / "applier"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Hold the lock file `path`; waits for another holder. The kernel frees it when a holder dies.

    Gives the descriptor: a program that inherits it holds the lock too, until it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
