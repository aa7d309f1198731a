"""Progress of a fetch on stderr: a bar on a terminal, a line per stage elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars


class Progress:
    """One bar at a time. Entered and left as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Bars | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def stage(self, title: str) -> None:
        """Say what goes on where no amount is known."""
        self._close()
        self._console.print(f"{title} …", style="dim", highlight=False)

    def begin(self, title: str, total: int, *, unit_bytes: bool) -> None:
        """Start a bar of `total` bytes or pieces."""
        if not self._console.is_terminal:
            amount = f" ({total / 1e6:.0f} MB)" if unit_bytes else ""
            self.stage(title + amount)
            return
        self._close()
        amount_column = DownloadColumn() if unit_bytes else MofNCompleteColumn()
        self._bars = Bars(TextColumn("{task.description}"), BarColumn(), amount_column, console=self._console)
        self._task = self._bars.add_task(title, total=total)
        self._bars.start()

    def advance_to(self, done: int) -> None:
        if self._bars is not None:
            self._bars.update(self._task, completed=done)
