"""The command line's groups: their commands are imported when they are asked for."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from applier import cli


def commands(group: click.Group, *names: str) -> list[tuple[str, ...]]:
    """Those of a group, and of the groups in it."""
    found: list[tuple[str, ...]] = []
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            found.append((*names, name))
            if isinstance(command, click.Group):
                found += commands(command, *names, name)
    return found


def test_every_command_has_its_help() -> None:
    every = commands(cli.commands)
    assert {("run",), ("migrate", "cutover"), ("bench", "replay"), ("sandbox", "start")} <= set(every)
    for names in every:
        result = CliRunner().invoke(cli.commands, [*names, "--help"])
        assert result.exit_code == 0, names
        assert result.output.startswith("Usage: "), names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["migrate", "verfy", "--source", "mysql://a@b"], "No such command 'verfy'"),
        (["migrate", "--schemas", "a"], "Missing option '--source'"),  # `run` is meant
    ],
)
def test_what_is_mistyped_is_named(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli.commands, arguments)
    assert result.exit_code == 2
    assert words in result.output
