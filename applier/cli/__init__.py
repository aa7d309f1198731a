"""The command line. One file a command; this one holds what they share."""

from __future__ import annotations

import logging
import sys
from typing import Final

import click

from applier.cli.configuration import configuration_option
from applier.cli.lazy import LazyGroup
from applier.cli.logs import Format, configure_logging
from applier.cli.options import environment_option
from applier.errors import ApplierError

log = logging.getLogger("applier")

COMMANDS: Final = (
    *(
        "bench",
        "check",
        "demo",
        "deploy",
        "migrate",
        "plan",
        "run",
        "sandbox",
        "status",
        "verify",
        "workload",
    ),
)


@click.group(
    cls=LazyGroup,
    modules={name: f"applier.cli.{name}" for name in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="applier", prog_name="applier")
@configuration_option
@environment_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="debug also logs row data where it helps.",
)
@environment_option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="One event a line, on stderr.",
)
def commands(log_level: str, log_format: Format) -> None:
    """Reads the binary log of a source MySQL and replays it into a target MySQL, in parallel, in commit order,
    exactly once.

    Exit codes: 0 done, or drained on request; 1 unexpected; 2 usage; 3 preflight failed; 4 stopped on a data error,
    an operator is needed; 75 temporary, retries exhausted."""
    configure_logging(log_level, log_format)


def main() -> None:
    """The console script: every failure becomes one line on stderr and an exit code."""
    try:
        commands(standalone_mode=False)
    except ApplierError as error:
        click.echo(f"applier: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        click.echo("applier: interrupted", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        log.debug("unexpected failure", exc_info=True)
        click.echo(
            f"applier: unexpected failure: {type(error).__name__}: {error} (--log-level debug tells more)",
            err=True,
        )
        sys.exit(1)
