"""One table of many short rows."""

from __future__ import annotations

import random
from collections.abc import Iterator

from applier.sandbox import Server
from tests.databases import Database, many, run_all


def narrow(rows: int) -> Database:
    def fill(server: Server) -> None:
        run_all(
            server,
            (
                "CREATE DATABASE narrow",
                "CREATE TABLE narrow.t (id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c CHAR(20) NOT NULL,"
                " d DECIMAL(10, 2), ts DATETIME NOT NULL, KEY (k))",
                *many(
                    "narrow.t",
                    "id, k, c, d, ts",
                    "n, n * 7919 % 1000003, CONCAT('row ', n), n / 7, '2024-01-01' + INTERVAL n SECOND",
                    rows,
                ),
                "ANALYZE TABLE narrow.t",
            ),
        )

    def transactions(client: int) -> Iterator[tuple[str, ...]]:
        chance = random.Random(client)
        while True:
            one, other = chance.randint(1, rows), chance.randint(1, rows)
            yield (
                f"UPDATE narrow.t SET k = k + 1, c = 'changed' WHERE id = {one}",
                f"INSERT INTO narrow.t (k, c, ts) VALUES ({other}, 'new', NOW())",
            )
            yield (f"DELETE FROM narrow.t WHERE id = {other}",)

    return Database(("narrow",), fill, transactions)
