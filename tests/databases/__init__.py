"""Databases to move: what fills them, and the transactions of their clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from applier.sandbox import Server

NUMBERS = "WITH RECURSIVE r AS (SELECT {} n UNION ALL SELECT n + 1 FROM r WHERE n < {}) "
ROWS_A_STATEMENT = 200_000

Transactions = Callable[[int], Iterator[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Database:
    """`fill` makes `schemas` on a server that has the clients' account. `transactions`: an endless sequence for each
    client's number, each the statements between BEGIN and COMMIT."""

    schemas: tuple[str, ...]
    fill: Callable[[Server], None]
    transactions: Transactions


def run_all(server: Server, statements: Iterator[str] | tuple[str, ...], user: str = "root") -> None:
    """In one session, which makes rows by the million."""
    with server.connect(user=user) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION cte_max_recursion_depth = 100000000, time_zone = '+00:00'")
        for statement in statements:
            cursor.execute(statement)


def many(table: str, columns: str, values: str, rows: int) -> Iterator[str]:
    """Statements that insert rows of numbers n = 1, 2, 3 …"""
    for first in range(1, rows + 1, ROWS_A_STATEMENT):
        numbers = NUMBERS.format(first, min(first + ROWS_A_STATEMENT - 1, rows))
        yield f"INSERT INTO {table} ({columns}) {numbers} SELECT {values} FROM r"
