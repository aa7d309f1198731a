"""Debian mirrors that this machine already uses, read from its own apt sources.

Both forms of sources.list(5): one line a source (`*.list`) and deb822 stanzas (`*.sources`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APT_FOLDER = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
ALIASES = {"stable", "oldstable", "oldoldstable", "testing", "unstable", "sid"}
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class Source:
    uri: str
    suite: str
    components: tuple[str, ...]


def parse_one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        if found := _ONE_LINE.match(line):
            yield Source(found[1], found[2], tuple(found[3].split()))


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """deb822: `Name: value`; values go on in lines that begin with a space; an empty line ends a stanza."""
    for block in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def parse_deb822(text: str) -> Iterator[Source]:
    for fields in _stanzas(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, components)


def _codename(os_release: Path) -> str:
    if not os_release.is_file():
        return ""
    found = re.search(r'^VERSION_CODENAME="?([\w-]+)"?$', os_release.read_text(), re.MULTILINE)
    return found[1] if found else ""


def debian_mirrors(apt_folder: Path = APT_FOLDER, os_release: Path = OS_RELEASE) -> list[str]:
    """Addresses of the main Debian archive in this machine's apt sources, in their order, without repeats.

    Third parties and the security archive are left out: they serve other suites, or no `sid`.
    """
    sources: list[Source] = []
    parts = apt_folder / "sources.list.d"
    for path in [apt_folder / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            sources += parse_one_line(path.read_text(errors="replace"))
    for path in sorted(parts.glob("*.sources")):
        sources += parse_deb822(path.read_text(errors="replace"))
    suites = ALIASES | {_codename(os_release)}
    return list(dict.fromkeys(s.uri for s in sources if s.suite in suites and "main" in s.components))
