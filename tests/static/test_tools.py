"""The linter, the formatter and the type checker have nothing to say, and the README says what CI runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["linter", "formatter", "types"],
)
def test_tool_finds_nothing(command: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_readme_begins_with_the_command_for_the_demo_and_the_one_for_the_tests() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "applier demo" in blocks[0]
    assert "pytest" in blocks[1]
    for command in blocks[:2]:
        assert command.count("\n") == 1, "one command, on one line"
        assert "venv" in command
        assert "pip install" in command


def test_agreed_layout_holds_at_the_top() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    directories = {path.split("/")[0] for path in tracked if "/" in path}
    assert directories <= {"applier", "scheduler", "writeset", "tests", "grafana", ".ci"}
    assert {"applier", "scheduler", "writeset", "tests"} <= directories
