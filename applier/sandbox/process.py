"""A process that we can name again later: pid, start time, boot. A recycled pid never matches."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def _start_ticks(pid: int) -> int | None:
    """Clock ticks after boot at which `pid` started; None when it is gone or a zombie (proc(5), field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The running process `pid`, or None when it has already ended."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, _boot_id())

    def alive(self) -> bool:
        return _start_ticks(self.pid) == self.start_ticks and _boot_id() == self.boot_id

    @contextmanager
    def _descriptor(self) -> Iterator[int | None]:
        """A pidfd of this very process, None when it has ended. Checked after opening: no race with reuse."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield descriptor if self.alive() else None
        finally:
            os.close(descriptor)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        with self._descriptor() as descriptor:
            if descriptor is not None:
                try:
                    signal.pidfd_send_signal(descriptor, number)
                except ProcessLookupError:
                    return

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process; False when it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._descriptor() as descriptor:
            if descriptor is None:
                return True
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            return bool(ready)
