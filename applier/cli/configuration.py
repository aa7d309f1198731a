"""The TOML file of options: one table a command, keys as on the command line without the dashes in front.

    [run]
    source = "mysql://repl@db1:3306"
    target = "mysql://repl@db2:3306"
    group-transactions = 1000

What the command line or the environment says goes before the file. Whatever the file has that no command knows is
refused, with the name that comes nearest.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from applier.cli.options import environment_option
from applier.errors import UsageError

SIMPLE = (str, int, float, bool)


def configuration_option(command: Any) -> Any:
    """`--config FILE`, for the command line as a whole."""
    return environment_option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_take,
        help="TOML file with options, one table a command: [run], [bench.replay] …",
    )(command)


def _take(context: click.Context, parameter: click.Parameter, file: Path | None) -> None:
    if file is not None:
        assert isinstance(context.command, click.Group)
        context.default_map = read_configuration(file, context.command)


def read_configuration(file: Path, commands: click.Group) -> dict[str, Any]:
    """For click's `default_map`: by command, then by parameter. Raises UsageError, which names the file and the key."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(detail=f"--config {file}: {error}") from error
    try:
        return _of_group(tables, commands, ())
    except UsageError as error:
        raise UsageError(detail=f"--config {file}: {error}") from error


def _of_group(tables: dict[str, Any], group: click.Group, path: tuple[str, ...]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    options = _options(group)
    context = click.Context(group)
    for name, value in tables.items():
        command = group.get_command(context, name)
        where = (*path, name)
        if command is None and name in options and path:
            known[options[name].name or name] = _plain(value, options[name], where)
        elif command is None:
            raise _unknown(name, [*group.list_commands(context), *(options if path else ())], path)
        elif not isinstance(value, dict):
            raise UsageError(
                detail=f"{name} is a command: write its options into a table [{'.'.join(where)}]"
            )
        elif isinstance(command, click.Group):
            known[name] = _of_group(value, command, where)
        else:
            known[name] = _of_command(value, command, where)
    return known


def _of_command(table: dict[str, Any], command: click.Command, path: tuple[str, ...]) -> dict[str, Any]:
    options = _options(command)
    values: dict[str, Any] = {}
    for name, value in table.items():
        option = options.get(name)
        if option is None:
            raise _unknown(name, options, path)
        values[option.name or name] = _plain(value, option, (*path, name))
    return values


def _options(command: click.Command) -> dict[str, click.Option]:
    """By their long names, without the dashes."""
    return {
        text.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.expose_value
        for text in option.opts
        if text.startswith("--")
    }


def _plain(value: Any, option: click.Option, path: tuple[str, ...]) -> Any:
    """What click converts and checks later, as it does what the command line says."""
    values = value if option.multiple and isinstance(value, list) else [value]
    if not all(isinstance(one, SIMPLE) for one in values):
        raise UsageError(detail=f"{'.'.join(path)}: {type(value).__name__} where a plain value is wanted")
    if option.is_flag != isinstance(values[0], bool) and values:
        raise UsageError(
            detail=f"{'.'.join(path)}: {'true or false' if option.is_flag else 'not true or false'}"
        )
    if option.is_flag:
        return value
    return [str(one) for one in values] if option.multiple else str(value)


def _unknown(name: str, names: Iterable[str], path: tuple[str, ...]) -> UsageError:
    near = difflib.get_close_matches(name, list(names), 1)
    place = f"in [{'.'.join(path)}]" if path else "as a table"
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(names))}"
    return UsageError(detail=f"{name!r} is not known {place}; {hint}")
