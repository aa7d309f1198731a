"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from applier.address import Role, ServerAddress, parse_url

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULTS_FILE = "defaults_file"


def address_option(role: Role) -> Callable[[Command], Command]:
    """`--source` or `--target`: a URL that arrives at the command as a ServerAddress."""

    def parse(context: click.Context, parameter: click.Parameter, url: str) -> ServerAddress:
        return parse_url(url, role, defaults_file=context.params.get(DEFAULTS_FILE))

    return click.option(
        f"--{role}",
        role,
        required=True,
        metavar="URL",
        envvar=f"APPLIER_{role.upper()}",
        show_envvar=True,
        callback=parse,
        help=f"The {role}: mysql://user@host:port. Its password comes from APPLIER_{role.upper()}_PASSWORD, MYSQL_PWD, "
        "an option file or a prompt.",
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
