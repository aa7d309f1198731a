"""Binary log and relay log files from disk, read as the live stream is read."""

from __future__ import annotations

from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from applier.errors import EncryptedLog, SourceError, UsageError

MAGIC = b"\xfebin"
MAGIC_ENCRYPTED = b"\xfdbin"


def files_of_index(index: Path) -> list[Path]:
    """The files that an index file (`binlog.index`) names, in its order.

    A server writes their paths as it saw them; where these do not lead to a file, as after a copy, the file
    of that name beside the index is meant. Raises UsageError.
    """
    try:
        lines = index.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(detail=f"the index file {index} cannot be read: {error}") from None
    named = [Path(line.strip()) for line in lines if line.strip()]
    if any("\0" in str(path) for path in named):
        raise UsageError(detail=f"the index file {index} is not a text file")
    if not named:
        raise UsageError(detail=f"the index file {index} names no files")
    return [path if path.is_absolute() and path.is_file() else index.parent / path.name for path in named]


class LogFiles:
    """Files in log order. One thread reads.

    The bytes are those of the files, magic numbers included, and one read never crosses from a file into
    the next: when `file` has changed after a read, its bytes are the first of a new file. The end of the
    last file is the end: a file that is still written is not followed.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Raises UsageError (no such file), EncryptedLog, SourceError (not a log), all before a byte is
        handed out.
        """
        self._paths = list(paths)
        for path in self._paths:
            check_magic(path)
        self._left = list(self._paths)
        self._current: FileIO | None = None
        self.file = ""
        """Name, without folder, of the file that the last bytes came from."""
        self.at_end = False
        """Every file has been read to its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_into(self, buffer: memoryview, timeout_seconds: float = 0.0) -> int:
        """Put the next bytes at the start of `buffer`; how many. 0: the end, or closed.

        Files never keep one waiting: `timeout_seconds` is there because the live stream has it. Raises
        SourceError when the disk fails.
        """
        while True:
            if self._current is None:
                if not self._left:
                    self.at_end = True
                    return 0
                self._current = FileIO(self._left[0])
            try:
                count = self._current.readinto(buffer)
            except OSError as error:
                raise SourceError(detail=f"{self._left[0]} cannot be read: {error.strerror}") from error
            if count:
                self.file = self._left[0].name
                return count
            self._current.close()
            self._current = None
            del self._left[0]

    def has_more(self) -> bool:
        """The next read is worth making: false only at the end of the last file."""
        return not self.at_end

    def close(self) -> None:
        """The end, wherever it is. May be called twice."""
        self._left.clear()
        if self._current is not None:
            self._current.close()
            self._current = None


def check_magic(path: Path) -> None:
    """Raises UsageError (cannot be read), EncryptedLog or SourceError (no binary log)."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise UsageError(detail=f"{path} cannot be read: {error.strerror}") from None
    if magic == MAGIC_ENCRYPTED:
        raise EncryptedLog(file=path)
    if magic != MAGIC:
        raise SourceError(detail=f"{path} is not a binary log or relay log file")
