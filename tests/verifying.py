"""Helpers of the tests of `applier verify`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from applier.address import ServerAddress
from applier.cli.verify import verify as verify_command
from applier.errors import NotComparable
from applier.sandbox import Server
from applier.verify import VerifyOptions, VerifyReport, verify


def _address(server: Server, role: Any) -> ServerAddress:
    return ServerAddress(host=server.host, port=server.port, user="root", role=role)


@dataclass(frozen=True)
class Pair:
    """Source and target; set-up leaves no GTIDs, so both stay at the same position."""

    source: Server
    target: Server

    def on(self, server: Server, *statements: str) -> None:
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET sql_log_bin = 0, sql_mode = '', time_zone = '+00:00'")
            cursor.execute("CREATE DATABASE IF NOT EXISTS v")
            cursor.execute("USE v")
            for statement in statements:
                cursor.execute(statement)

    def both(self, *statements: str) -> None:
        self.on(self.source, *statements)
        self.on(self.target, *statements)

    @property
    def addresses(self) -> tuple[ServerAddress, ServerAddress]:
        return _address(self.source, "source"), _address(self.target, "target")

    def verify(self, **options: Any) -> VerifyReport:
        return verify(*self.addresses, VerifyOptions(**options))


def found_rows(report: VerifyReport) -> list[tuple[str, dict[str, Any], tuple[str, ...]]]:
    return [(found.kind.value, found.key, found.columns) for found in report.differences]


def verify_by_command(pair: Pair, *options: str) -> tuple[int, str]:
    """Exit code and output."""
    urls = ["--source", pair.source.url, "--target", pair.target.url]
    result = CliRunner(env={"MYSQL_PWD": ""}).invoke(verify_command, [*urls, *options])
    if isinstance(result.exception, NotComparable):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.stdout
