"""Which package may import what: by the syntax tree for Python, by the text for Cython."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w., ]+))", re.MULTILINE)
# What could open a connection or talk to a database.
NETWORK = {"socket", "socketserver", "ssl", "asyncio", "http", "urllib", "selectors", "select"}
DRIVERS = {
    "pymysql",
    "sqlalchemy",
    "MySQLdb",
    "mysql",
    "mysqlclient",
    "asyncmy",
    "aiomysql",
    "pymysqlreplication",
}


def python_imports(source: str) -> Iterator[str]:
    """Modules that Python source imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def cython_imports(source: str) -> Iterator[str]:
    """Modules that Cython source imports or cimports."""
    for module, modules in CYTHON_IMPORT.findall(source):
        names = [module] if module else modules.split(",")
        yield from (name.split(" as ")[0].strip() for name in names)


def imports_of(package: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / package).rglob("*.p*")):
        if path.suffix in {".py", ".pyi"}:
            yield from ((path, module) for module in python_imports(path.read_text()))
        elif path.suffix in {".pyx", ".pxd"}:
            yield from ((path, module) for module in cython_imports(path.read_text()))


def offenders(package: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path, module in imports_of(package)
        if module.split(".")[0] in forbidden or module.startswith("..")
    ]


@pytest.mark.parametrize("package", ["writeset", "scheduler"])
def test_writeset_and_scheduler_know_nothing_of_the_applier(package: str) -> None:
    assert offenders(package, {"applier"}) == []


def test_writeset_knows_nothing_of_the_scheduler() -> None:
    assert offenders("writeset", {"scheduler"}) == []


def test_events_open_no_socket_and_know_no_database_driver() -> None:
    assert offenders("applier/events", NETWORK | DRIVERS) == []


def test_the_kernels_of_writeset_know_no_database_driver() -> None:
    kernels = {"hashing.pyx", "hashing.pxd", "buckets.pyx", "buckets.pxd", "definitions.py", "collation.py"}
    found = [(path, module) for path, module in imports_of("writeset") if path.name in kernels]
    assert found
    assert not [pair for pair in found if pair[1].split(".")[0] in NETWORK | DRIVERS]


def test_nothing_is_overlooked() -> None:
    """The rule test itself: it sees imports of every kind."""
    python = "def f():\n    from applier.errors import DataError\nimport a.b, c\n"
    assert sorted(python_imports(python)) == ["a.b", "applier.errors", "c"]
    cython = "from applier.events.batch cimport Batch\ncimport socket as s, os\n    from a import (\n"
    assert list(cython_imports(cython)) == ["applier.events.batch", "socket", "os", "a"]
    for package in ("writeset", "scheduler", "applier/events"):
        assert len({path for path, _ in imports_of(package)}) >= 3
