"""Fetch programs from Debian into the user's cache, without root: MySQL's server and client from `sid`.

apt does the network work: mirror and proxy are this machine's own, signatures are checked against the Debian
archive keyring. Its state is private to the cache, so nothing of the machine's package system is touched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from applier.errors import PreflightFailed
from applier.sandbox.cache import cache_folder, exclusive
from applier.sandbox.mirrors import debian_mirrors
from applier.sandbox.progress import Progress

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
NOT_FOUND = "no MySQL server found, and none can be fetched"
REMEDY = "Install MySQL's mysqld, or give the path of one with --mysqld (or APPLIER_MYSQLD)."
ATTEMPTS = 3
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Selection:
    """What to fetch, with all it depends on. `name`: of its folder in the cache; `suite` of Debian."""

    name: str
    packages: tuple[str, ...]
    suite: str = "sid"


MYSQL = Selection("mysql", ("mysql-server-core", "mysql-client-core"))


@dataclass(frozen=True, slots=True)
class Package:
    """A package file to download. `file` is apt's name for it, `size` in bytes."""

    name: str
    file: str
    size: int


def parse_uris(text: str) -> list[Package]:
    """Packages in the answer of `apt-get --print-uris`, lines of `'uri' file size hash`.

    Without perl: the scripts that want it are of no use here.
    """
    packages = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[0].startswith("'"):
            name = fields[1].partition("_")[0]
            if not name.startswith(("perl", "libperl")):
                packages.append(Package(name, fields[1], int(fields[2])))
    return packages


class Apt:
    """apt with a private state below `folder`, knowing one source: `suite` of `mirror`.

    apt-get inherits `lock`: when we are killed, it ends its work before the next run begins.
    """

    def __init__(self, folder: Path, mirror: str, suite: str, keyring: Path, lock: int) -> None:
        self.downloads = folder / "packages"
        self._lock = lock
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {suite} main\n")
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "APT::Install-Recommends": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": ATTEMPTS,
        }
        if os.geteuid() == 0:
            settings["APT::Sandbox::User"] = "root"
        self._options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["apt-get", "-q", *self._options, *arguments],
            cwd=self.downloads,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(self._lock,),
        )

    def _run(self, *arguments: str) -> str:
        process = self._start(*arguments)
        output, errors = process.communicate()
        _check(process.returncode, f"apt-get {arguments[0]}", errors)
        return output

    def update(self) -> None:
        self._run("update")

    def resolve(self, names: tuple[str, ...]) -> list[Package]:
        """The packages to fetch, dependencies included."""
        return parse_uris(self._run("install", "--print-uris", "-y", *names))

    def download(self, packages: list[Package], progress: Progress) -> None:
        """Fetch into `downloads`. What is there already is kept, what is there in part is resumed by apt."""
        process = self._start("download", *(package.name for package in packages))
        with process:
            while True:
                try:
                    _, errors = process.communicate(timeout=POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    progress.advance_to(self._downloaded_bytes(packages))
                except BaseException:
                    process.kill()
                    raise
        _check(process.returncode, "apt-get download", errors)

    def _downloaded_bytes(self, packages: list[Package]) -> int:
        total = 0
        for package in packages:
            try:
                total += min(package.size, (self.downloads / package.file).stat().st_size)
            except FileNotFoundError:
                continue
        return total


def _check(exit_code: int, what: str, errors: str) -> None:
    if exit_code:
        said = " ".join(line for line in errors.splitlines() if line.startswith(("E:", "W:")))[:600]
        raise PreflightFailed(detail=f"fetching packages: {what} failed: {said or exit_code}. {REMEDY}")


def _requirements() -> tuple[list[str], Path]:
    """Mirrors and keyring of this machine; raises PreflightFailed with the way out when it cannot do it."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise PreflightFailed(detail=f"{NOT_FOUND}: no {program}. {REMEDY}")
    mirrors = debian_mirrors()
    keyring = next((path for path in KEYRINGS if path.is_file()), None)
    if not mirrors or keyring is None:
        lacks = "no Debian mirror in the apt sources" if not mirrors else "no Debian archive keyring"
        raise PreflightFailed(detail=f"{NOT_FOUND}: {lacks}. {REMEDY}")
    return mirrors, keyring


def _updated_apt(folder: Path, suite: str, lock: int, progress: Progress) -> Apt:
    mirrors, keyring = _requirements()
    progress.stage("reading package lists")
    for number, mirror in enumerate(mirrors, start=1):
        # Lists of one mirror are of no use for another, and a changed mirror must not see them.
        apt = Apt(folder / hashlib.sha256(mirror.encode()).hexdigest()[:12], mirror, suite, keyring, lock)
        try:
            apt.update()
        except PreflightFailed:
            if number == len(mirrors):
                raise
        else:
            return apt
    raise AssertionError("unreachable: the last mirror returns or raises")


def _unpack(apt: Apt, packages: list[Package], tree: Path, progress: Progress) -> None:
    progress.begin("unpacking", len(packages), unit_bytes=False)
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for number, package in enumerate(packages, start=1):
        answer = subprocess.run(
            ["dpkg-deb", "-x", str(apt.downloads / package.file), str(tree)],
            capture_output=True,
            text=True,
            check=False,
        )
        _check(answer.returncode, f"unpacking {package.file}", f"E: {answer.stderr.strip()}")
        progress.advance_to(number)


def fetched(selection: Selection = MYSQL, try_out: Callable[[Path], object] | None = None) -> Path:
    """The folder with the unpacked packages in the cache, fetched when it is not there. Raises PreflightFailed.

    `try_out` gets the folder before it has its name, and raises when the programs in it do not run.
    Safe when several run at once: one fetches while the others wait. Interrupted, it resumes. The folder
    appears under its name only when it is complete.
    """
    folder = cache_folder()
    tree = folder / selection.name
    if tree.is_dir():
        return tree
    with exclusive(folder / f"{selection.name}.lock") as lock:
        if tree.is_dir():
            return tree
        state = folder / f"{selection.name}.fetch"
        state.mkdir(exist_ok=True)
        with Progress() as progress:
            apt = _updated_apt(state, selection.suite, lock, progress)
            packages = apt.resolve(selection.packages)
            progress.begin(
                f"fetching {selection.name}", sum(package.size for package in packages), unit_bytes=True
            )
            apt.download(packages, progress)
            _unpack(apt, packages, state / "tree", progress)
        if try_out is not None:
            try_out(state / "tree")
        (state / "tree").rename(tree)
        shutil.rmtree(state, ignore_errors=True)
    return tree
