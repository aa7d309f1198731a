"""The TOML file of options: what it may say, and how it is told that it may not."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from applier.cli import commands
from applier.cli.configuration import read_configuration
from applier.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "applier.toml"


@click.group()
def tool() -> None: ...


@tool.command()
@click.option("--workers", type=click.IntRange(1, 8), default=2, envvar="TOOL_WORKERS")
@click.option("--source", multiple=True)
@click.option("--net-changes/--no-net-changes", default=True)
def run(workers: int, source: tuple[str, ...], net_changes: bool) -> None:
    click.echo(f"{workers} {' '.join(source)} {net_changes}")


@tool.group()
def bench() -> None: ...


@bench.command()
@click.option("--rounds", type=int, default=1)
def replay(rounds: int) -> None:
    click.echo(rounds)


def said(file: Path, *words: str, **environment: str) -> str:
    defaults = read_configuration(file, tool)
    result = CliRunner().invoke(tool, list(words), default_map=defaults, env=environment)
    return result.output.strip()


def refusal(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_configuration(file, tool)
    assert str(file) in str(refused.value)
    return str(refused.value)


def test_options_of_a_command_are_taken_from_its_table(file: Path) -> None:
    file.write_text(
        '[run]\nworkers = 5\nsource = ["a", "b"]\nnet-changes = false\n[bench.replay]\nrounds = 7\n'
    )
    assert said(file, "run") == "5 a b False"
    assert said(file, "bench", "replay") == "7"


def test_one_value_is_enough_for_an_option_that_may_be_repeated(file: Path) -> None:
    file.write_text('[run]\nsource = "a"\n')
    assert said(file, "run") == "2 a True"


def test_environment_goes_before_the_file_and_the_command_line_before_both(file: Path) -> None:
    file.write_text("[run]\nworkers = 3\n")
    assert said(file, "run", TOOL_WORKERS="4").startswith("4")
    assert said(file, "run", "--workers", "6", TOOL_WORKERS="4").startswith("6")


def test_values_are_checked_as_on_the_command_line(file: Path) -> None:
    file.write_text("[run]\nworkers = 99\n")
    assert "99 is not in the range 1<=x<=8" in said(file, "run")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nworker = 3\n", "'worker' is not known in [run]; did you mean 'workers'?"),
        ("[runs]\nworkers = 3\n", "'runs' is not known as a table; did you mean 'run'?"),
        ("[bench.reply]\n", "'reply' is not known in [bench]; did you mean 'replay'?"),
        ("[run]\nzzz = 3\n", "there are net-changes, source, workers"),
        ("run = 3\n", "write its options into a table [run]"),
        ("[run]\nnet-changes = 1\n", "run.net-changes: true or false"),
        ("[run]\nworkers = true\n", "run.workers: not true or false"),
        ("[run]\nworkers = [1]\n", "list where a plain value is wanted"),
        ("[run]\nworkers = 1979-05-27\n", "date where a plain value is wanted"),
        ("[run\n", "Expected ']'"),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, words: str) -> None:
    assert words in refusal(file, text)


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="utf-8"):
        read_configuration(file, tool)


def test_every_option_of_every_command_can_be_written_into_the_file() -> None:
    def walk(group: click.Group) -> list[click.Option]:
        found = [option for option in group.params if isinstance(option, click.Option)]
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            nested = walk(command) if isinstance(command, click.Group) else command.params
            found += [option for option in nested if isinstance(option, click.Option)]
        return found

    nameless = [option.name for option in walk(commands) if not any(o.startswith("--") for o in option.opts)]
    assert nameless == []


def test_the_applier_takes_its_options_from_the_file(file: Path) -> None:
    file.write_text('[run]\nsource = "mysql://u@127.0.0.1:1"\ntarget = "nonsense"\n')
    result = CliRunner().invoke(commands, ["--config", str(file), "run"])
    assert isinstance(result.exception, UsageError)
    assert "does not start with mysql://" in str(result.exception)
