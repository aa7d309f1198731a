"""Which MySQL the sandbox runs: the user's, else the one on PATH, else one fetched into the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from applier.errors import PreflightFailed

OLDEST_VERSION = (8, 0, 30)  # innodb_redo_log_capacity
SERVER_FOLDERS = ("/usr/sbin", "/usr/local/mysql/bin")  # where servers live, often not on a user's PATH
VERSION_SECONDS = 30.0
_VERSION = re.compile(r"Ver (\d+)\.(\d+)\.(\d+)(\S*)")


@dataclass(frozen=True, slots=True)
class Installation:
    """A MySQL installation.

    `version` is what mysqld prints (`9.7.4-2`), `numbers` its first three numbers. `prefix` is what must
    stand before a program of a fetched tree (its own loader), empty for an installed one; `arguments` are
    the options by which mysqld finds its files.
    """

    mysqld: Path
    version: str
    numbers: tuple[int, int, int]
    prefix: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def release(self) -> str:
        """As in `9.7.4`."""
        return ".".join(map(str, self.numbers))

    @property
    def command(self) -> tuple[str, ...]:
        """How to run mysqld, as root too, without reading any option file."""
        user = ("--user=root",) if os.geteuid() == 0 else ()
        return (*self.prefix, str(self.mysqld), "--no-defaults", *self.arguments, *user)

    def tool(self, name: str) -> tuple[str, ...]:
        """How to run a client program, `mysql` or `mysqlbinlog`; raises PreflightFailed."""
        beside = [self.mysqld.with_name(name), self.mysqld.parent.parent / "bin" / name]
        for path in beside:
            if path.is_file():
                return (*self.prefix, str(path))
        if found := shutil.which(name):
            return (found,)
        raise PreflightFailed(detail=f"{name} is neither beside {self.mysqld} nor on PATH")


def _ask_version(command: list[str], shown: str) -> tuple[str, tuple[int, int, int]]:
    try:
        answer = subprocess.run(
            [*command, "--no-defaults", "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PreflightFailed(detail=f"{shown} cannot be run: {error}") from error
    found = _VERSION.search(answer.stdout)
    if answer.returncode or not found:
        said = (answer.stderr or answer.stdout).strip()[:300] or f"exit code {answer.returncode}"
        raise PreflightFailed(detail=f"{shown} --version does not answer as a MySQL server does: {said}")
    if "mariadb" in answer.stdout.lower():
        raise PreflightFailed(detail=f"{shown} is MariaDB; the sandbox needs MySQL")
    numbers = (int(found[1]), int(found[2]), int(found[3]))
    if numbers < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise PreflightFailed(detail=f"{shown} is MySQL {found[0][4:]}; the sandbox needs {oldest} or later")
    return found[0].removeprefix("Ver "), numbers


def installed(mysqld: Path) -> Installation:
    """The installation that the program `mysqld` belongs to; raises PreflightFailed when it is not MySQL."""
    path = mysqld.expanduser()
    if not path.is_file():
        raise PreflightFailed(
            detail=f"there is no mysqld at {path}; give --mysqld (or APPLIER_MYSQLD) its path"
        )
    version, numbers = _ask_version([str(path)], str(path))
    return Installation(path.resolve(), version, numbers)


def _loader(usr: Path) -> Path | None:
    """The dynamic loader that packages brought along."""
    found = [*sorted(usr.glob("lib*/ld-linux*.so.*")), *sorted(usr.glob("lib/*/ld-linux*.so.*"))]
    return found[0] if found else None


def unpacked(tree: Path) -> Installation:
    """The installation in a folder that packages were unpacked into. Raises PreflightFailed.

    It runs with the loader and libraries of the same folder, since they may be newer than the machine's.
    """
    usr = tree / "usr"
    mysqld = usr / "sbin" / "mysqld"
    loader = _loader(usr)
    if loader is None or not mysqld.is_file():
        raise PreflightFailed(detail=f"{tree} holds no complete MySQL; delete it and start again")
    libraries = [*sorted(usr.glob("lib/*-linux-gnu*")), usr / "lib"]
    prefix = (str(loader), "--library-path", ":".join(map(str, libraries)))
    version, numbers = _ask_version([*prefix, str(mysqld)], str(mysqld))
    arguments = (
        f"--basedir={usr}",
        f"--lc-messages-dir={usr / 'share' / 'mysql'}",
        f"--character-sets-dir={usr / 'share' / 'mysql' / 'charsets'}",
        f"--plugin-dir={usr / 'lib' / 'mysql' / 'plugin'}",
    )
    return Installation(mysqld, version, numbers, prefix, arguments)


def _on_path() -> Installation | None:
    """The first mysqld on PATH (and in the folders where servers live) that is MySQL and new enough."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *SERVER_FOLDERS]
    for folder in dict.fromkeys(filter(None, folders)):
        path = Path(folder) / "mysqld"
        if path.is_file() and os.access(path, os.X_OK):
            try:
                return installed(path)
            except PreflightFailed:
                continue  # MariaDB links its server under this name
    return None


def recorded(mysqld: Path) -> Installation:
    """The installation that a server ran with before: installed, or unpacked. Raises PreflightFailed."""
    tree = next((folder for folder in mysqld.parents if mysqld == folder / "usr" / "sbin" / "mysqld"), None)
    if tree is not None and tree != Path("/") and _loader(tree / "usr") is not None:
        return unpacked(tree)
    return installed(mysqld)


def find(mysqld: Path | None = None) -> Installation:
    """The MySQL to run: `mysqld`, else APPLIER_MYSQLD, else PATH, else fetched. Raises PreflightFailed."""
    named = mysqld or (Path(value) if (value := os.environ.get("APPLIER_MYSQLD")) else None)
    if named is not None:
        return installed(named)
    if (found := _on_path()) is not None:
        return found
    from applier.sandbox.fetch import fetched

    return unpacked(fetched(try_out=unpacked))
