"""A source that does foreign keys as MySQL did before 9.6: what a cascade changes is not in its log."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

CASCADES_IN_INNODB = {"loose_innodb_native_foreign_keys": "ON"}  # before 9.6 there is no other way

TABLES = (
    "CREATE DATABASE d",
    "CREATE TABLE d.parent (id INT PRIMARY KEY, code INT UNIQUE)",
    "CREATE TABLE d.child (id INT PRIMARY KEY, parent INT, n INT,"
    " FOREIGN KEY (parent) REFERENCES d.parent (id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE d.grandchild (id INT PRIMARY KEY, child INT, n INT,"
    " FOREIGN KEY (child) REFERENCES d.child (id) ON DELETE SET NULL ON UPDATE CASCADE)",
    "CREATE TABLE d.other (id INT PRIMARY KEY, n INT)",
)


def history(seed: int = 7, rounds: int = 40) -> Iterator[str]:
    """Statements of one session: cascades between changes of the rows that they change."""
    chance = Random(seed)
    yield from TABLES
    for number in range(8):
        yield f"INSERT INTO d.parent VALUES ({number}, {number})"
        yield f"INSERT INTO d.child VALUES ({number}, {number}, 0), ({number + 100}, {number}, 0)"
        yield f"INSERT INTO d.grandchild VALUES ({number}, {number}, 0)"
    for number in range(rounds):
        one = chance.randrange(8)
        yield f"INSERT INTO d.other VALUES ({number}, 0)"
        yield f"UPDATE d.child SET n = n + 1 WHERE id = {one}"
        yield f"UPDATE d.parent SET id = id + 1000 WHERE code = {one}"
        yield f"UPDATE d.grandchild SET n = n + 1 WHERE child = {one}"
        if chance.random() < 0.3:
            yield f"DELETE FROM d.parent WHERE code = {one}"
            yield f"INSERT INTO d.parent VALUES ({one}, {one})"
            yield f"INSERT INTO d.child VALUES ({one}, {one}, 0)"
            yield f"INSERT INTO d.child VALUES ({one + 100}, {one}, 0)"
            yield f"UPDATE d.grandchild SET child = {one} WHERE id = {one}"
