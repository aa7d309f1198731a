"""MySQL option files: where they are, and what the groups that concern us say.

The syntax is that of MySQL's own programs (manual, "Using Option Files"): groups, `key = value`, quotes,
backslash escapes, `!include` and `!includedir`; dashes and underscores in names are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from applier.errors import UsageError

STANDARD_FILES = (Path("/etc/my.cnf"), Path("/etc/mysql/my.cnf"), Path("~/.my.cnf"))
INCLUDE_DEPTH_MAX = 10
ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "r": "\r", "\\": "\\", "s": " "}


def read_options(defaults_file: str | Path | None, groups: Sequence[str]) -> dict[str, str]:
    """The options of `groups`, a later group winning over an earlier one, a later line over an earlier line.

    `defaults_file` replaces the standard files, and must exist then. Names come with dashes, without
    `loose-`. Raises UsageError for a file that is missing, cannot be read, or is not an option file; never
    quotes a line, because it may hold a password.
    """
    options: dict[str, dict[str, str]] = {group: {} for group in groups}
    for path in _files(defaults_file):
        for group, name, value in _read(path, depth=0):
            if group in options:
                options[group][name] = value
    merged: dict[str, str] = {}
    for group in groups:
        merged |= options[group]
    return merged


def _files(defaults_file: str | Path | None) -> Iterable[Path]:
    if defaults_file is not None:
        return [Path(defaults_file).expanduser()]
    return [path for path in map(_expanded, STANDARD_FILES) if path.is_file()]


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no home directory: a service account may have none
        return path


def _read(path: Path, depth: int) -> Iterator[tuple[str, str, str]]:
    """(group, name, value) of each option line of a file and of the files that it includes."""
    if depth > INCLUDE_DEPTH_MAX:
        raise UsageError(
            detail=f"the option file {path} includes itself, or more than {INCLUDE_DEPTH_MAX} deep"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(detail=f"the option file {path} cannot be read: {reason}") from None
    group = ""
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("!"):
            for included in _included(path, line):
                yield from _read(included, depth + 1)
        elif line.startswith("["):
            end = line.find("]")
            if end < 0:
                raise UsageError(detail=f"the option file {path} has a group without ']' in line {number}")
            group = line[1:end].strip()
        elif not group:
            raise UsageError(detail=f"the option file {path} has an option before any group in line {number}")
        else:
            name, _, value = line.partition("=")
            yield group, _normal_name(name), _unquoted(value)


def _included(path: Path, directive: str) -> Iterable[Path]:
    word, _, argument = directive.partition(" ")
    named = path.parent / Path(argument.strip()).expanduser()
    if word == "!include":
        return [named]
    if word == "!includedir":
        return sorted(named.glob("*.cnf")) if named.is_dir() else []
    raise UsageError(detail=f"the option file {path} has a '!' line that is neither !include nor !includedir")


def _normal_name(name: str) -> str:
    return name.strip().replace("_", "-").removeprefix("loose-")


def _unquoted(value: str) -> str:
    """The value without surrounding quotes, a trailing comment or escapes."""
    value = value.strip()
    if len(value) >= 2 and value[0] in "'\"" and value[-1] == value[0]:
        value = value[1:-1]
    elif not value.startswith(("'", '"')):
        # A comment may start in the middle of a line, but only '#' starts one there.
        value = value.partition("#")[0].rstrip()
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[0]), value)
