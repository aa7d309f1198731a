"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from applier.address import Role, ServerAddress, parse_url

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULTS_FILE = "defaults_file"


def address_option(
    role: Role, *, several: bool = False, required: bool = True
) -> Callable[[Command], Command]:
    """`--source` or `--target`: a URL that arrives at the command as a ServerAddress.

    `several`: given once or more, in the environment variable apart by blanks, and arrives as a tuple. Not `required`:
    None when it is not given."""

    def parse(
        context: click.Context, parameter: click.Parameter, value: str | tuple[str, ...] | None
    ) -> ServerAddress | tuple[ServerAddress, ...] | None:
        defaults_file = context.params.get(DEFAULTS_FILE)
        if value is None:
            return None
        if isinstance(value, str):
            return parse_url(value, role, defaults_file=defaults_file)
        return tuple(parse_url(url, role, defaults_file=defaults_file) for url in value)

    more = " Given again: where to go on when it is lost, a server with the same GTIDs." if several else ""
    return click.option(
        f"--{role}",
        role,
        required=required,
        multiple=several,
        metavar="URL",
        envvar=f"APPLIER_{role.upper()}",
        show_envvar=True,
        callback=parse,
        help=f"The {role}: mysql://user@host:port. Its password comes from APPLIER_{role.upper()}_PASSWORD, MYSQL_PWD, "
        f"an option file or a prompt.{more}",
    )


def defaults_file_option(command: Command) -> Command:
    """`--defaults-file`, read before the URLs are."""
    return click.option(
        "--defaults-file",
        DEFAULTS_FILE,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        envvar="APPLIER_DEFAULTS_FILE",
        show_envvar=True,
        help="MySQL option file; groups [client], [applier-source], [applier-target].",
    )(command)


def environment_option(name: str, *more: str, **facts: Any) -> Callable[[Command], Command]:
    """An option that can be given by an environment variable too, which help names: `--a-b` by APPLIER_A_B."""
    variable = "APPLIER_" + name.partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return click.option(name, *more, envvar=variable, show_envvar=True, **facts)
