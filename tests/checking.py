"""Helpers of the tests of `applier check`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from applier.preflight import Finding, Report, Requirements, preflight
from applier.sandbox import Server


@dataclass(frozen=True)
class Pair:
    """Source and target, and who asks them."""

    source: Server
    target: Server

    def check(self, source_user: str = "root", target_user: str = "root", **requirements: Any) -> Report:
        with (
            closing(self.source.connect(user=source_user)) as source,
            closing(self.target.connect(user=target_user)) as target,
        ):
            return preflight(source, target, Requirements(**requirements))

    def finding(self, name: str, **arguments: Any) -> Finding:
        """The one finding of this name."""
        (found,) = (one for one in self.check(**arguments).findings if one.name == name)
        return found


def quietly(server: Server, *statements: str) -> None:
    """Without a trace in the binary log."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for statement in ("SET sql_log_bin = 0", *statements):
            cursor.execute(statement)


def make_shop(pair: Pair) -> None:
    """A schema on both sides, which no GTID tells of."""
    for server in (pair.source, pair.target):
        quietly(server, "CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY, c VARCHAR(10))")
