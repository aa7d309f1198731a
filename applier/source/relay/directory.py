"""The folder of a relay log: its lock, its index, the names of its files."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from applier.errors import RelayLogFailed, RelayLogTaken, UsageError

FILE_MODE, FOLDER_MODE = 0o600, 0o700
INDEX, LOCK = "relay.index", "relay.lock"
_NAME = re.compile(r"relay\.(\d{6,})")


def file_name(number: int) -> str:
    return f"relay.{number:06}"


class RelayDirectory:
    """Ours alone from the start until `close`."""

    def __init__(self, path: Path) -> None:
        """Makes the folder where it is missing. Raises UsageError, RelayLogTaken."""
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(detail=f"--relay-log {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise RelayLogTaken(directory=self.path) from None

    def close(self) -> None:
        os.close(self._lock)
        os.close(self._folder)

    def file(self, number: int) -> Path:
        return self.path / file_name(number)

    def numbers_in_index(self) -> list[int]:
        """Of the files that belong to the relay log, in its order. Raises RelayLogFailed."""
        try:
            lines = (self.path / INDEX).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise RelayLogFailed(file=self.path / INDEX, detail=str(error)) from None
        found = [_NAME.fullmatch(Path(line.strip()).name) for line in lines if line.strip()]
        return [int(match[1]) for match in found if match]

    def numbers_on_disk(self) -> list[int]:
        found = (_NAME.fullmatch(path.name) for path in self.path.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def write_index(self, numbers: list[int]) -> None:
        """In one step: whoever looks sees the old index or the new one, whatever happens. Raises OSError."""
        fresh = self.path / f"{INDEX}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            os.write(descriptor, "".join(f"./{file_name(number)}\n" for number in numbers).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.rename(self.path / INDEX)
        os.fsync(self._folder)
