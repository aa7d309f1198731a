"""Programs that tests need beside MySQL: those on PATH, else Debian's, fetched into the cache as MySQL is."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from applier.sandbox.fetch import Selection, fetched

OS_RELEASE = Path("/etc/os-release")
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{tree}/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and what must be in its environment."""

    path: Path
    environment: dict[str, str]

    def output(self, *arguments: str, seconds: float = 60.0) -> str:
        """Its standard output and standard error. Raises CalledProcessError."""
        done = subprocess.run(
            [str(self.path), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=True,
        )
        return done.stdout


def prometheus(name: str = "prometheus") -> Program:
    """`prometheus` or `promtool`: they need no libraries of other packages."""
    return _on_path(name) or Program(
        fetched(_selection("prometheus", "prometheus")) / "usr/bin" / name, dict(os.environ)
    )


def chromium() -> tuple[Program, Program]:
    """The browser and its driver."""
    browser, driver = _on_path("chromium"), _on_path("chromedriver")
    if browser and driver:
        return browser, driver
    tree = fetched(_selection("chromium", "chromium", "chromium-driver", "fonts-dejavu-core"))
    system = Path("usr/lib") / f"{os.uname().machine}-linux-gnu"
    libraries = [tree / system, tree / system / "pulseaudio", tree / system.relative_to("usr")]
    fonts = tree / "fonts.conf"
    fonts.write_text(FONTS.format(tree=tree, cache=tree / "font-cache"))
    environment = dict(os.environ) | {
        "LD_LIBRARY_PATH": ":".join(str(folder) for folder in libraries if folder.is_dir()),
        "FONTCONFIG_FILE": str(fonts),
    }
    return (
        Program(tree / "usr/lib/chromium/chromium", environment),
        Program(tree / "usr/bin/chromedriver", environment),
    )


def _on_path(name: str) -> Program | None:
    path = shutil.which(name)
    return None if path is None else Program(Path(path), dict(os.environ))


def _selection(name: str, *packages: str) -> Selection:
    """From the suite of this machine: its C library runs them."""
    facts = dict(line.split("=", 1) for line in OS_RELEASE.read_text().splitlines() if "=" in line)
    return Selection(name, packages, facts["VERSION_CODENAME"].strip('"'))
