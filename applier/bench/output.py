"""Results on the terminal, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STDOUT = "-"


def write_json(facts: Mapping[str, Any], place: str) -> None:
    """To a file, or to stdout for `-`."""
    text = json.dumps(facts, indent=1) + "\n"
    if place == STDOUT:
        sys.stdout.write(text)
    else:
        Path(place).write_text(text)


def console(json_place: str | None) -> Console:
    """Where tables go: stdout, unless the JSON goes there."""
    return Console(stderr=json_place == STDOUT)


def on_machine(facts: Mapping[str, Any]) -> str:
    """`2 cores, 23 GiB, MySQL 9.7.4, Python 3.11.2`."""
    machine = facts["machine"]
    mysql = f", MySQL {facts['mysql_version']}" if "mysql_version" in facts else ""
    return f"{machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB{mysql}, Python {machine['python']}"


def number_table(title: str, *columns: str, caption: str | None = None) -> Table:
    """The first column holds names, the others numbers."""
    table = Table(title=title, caption=caption)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=number == 0)
    return table
