"""`applier migrate`: move live schemas to another server, phase by phase or all at once."""

from __future__ import annotations

from typing import Any

import click

WHOLE = "run"


class WithDefault(click.Group):
    """A group whose command WHOLE is meant when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [WHOLE, *args]
        return super().parse_args(ctx, args)


@click.group(cls=WithDefault)
def migrate() -> None:
    """Move live schemas to another server: schema, snapshot copy, indexes, and from then on following the source
    until cut-over. Stopped at any moment, the same command goes on where it was.

    `applier migrate --source URL --target URL --schemas a,b` is short for `applier migrate run …`."""


COMMANDS: tuple[Any, ...] = ()
for command in COMMANDS:
    migrate.add_command(command)
