"""CREATE TABLE cut in two, and what is left of a table to copy."""

from __future__ import annotations

import itertools
import random

from applier.migrate.chunks import Part, copy_table, parts_left
from applier.migrate.definitions import is_small, lines_of, split_create
from applier.verify.definitions import Column, Key, Table

STATEMENT = """CREATE TABLE `t` (
  `id` bigint NOT NULL AUTO_INCREMENT,
  `a,b` int DEFAULT NULL COMMENT 'KEY `x` (`y`)',
  `c` varchar(9) DEFAULT NULL,
  PRIMARY KEY (`c`),
  UNIQUE KEY `u``q` (`a,b`),
  KEY `auto` (`id`),
  KEY `f` ((`id` + 1)),
  FULLTEXT KEY `words` (`c`),
  CONSTRAINT `fk` FOREIGN KEY (`a,b`) REFERENCES `p` (`id`) ON DELETE CASCADE,
  CONSTRAINT `positive` CHECK ((`id` > 0))
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4
/*!50100 PARTITION BY HASH (`id`)
PARTITIONS 4 */"""


def test_indexes_and_foreign_keys_come_after_the_rows() -> None:
    split = split_create(STATEMENT, defer=True)
    assert split.later == (
        "ADD UNIQUE KEY `u``q` (`a,b`)",
        "ADD KEY `f` ((`id` + 1))",
        "ADD FULLTEXT KEY `words` (`c`)",
        "ADD CONSTRAINT `fk` FOREIGN KEY (`a,b`) REFERENCES `p` (`id`) ON DELETE CASCADE",
    )
    assert split.now == (
        "CREATE TABLE `t` (\n"
        "  `id` bigint NOT NULL AUTO_INCREMENT,\n"
        "  `a,b` int DEFAULT NULL COMMENT 'KEY `x` (`y`)',\n"
        "  `c` varchar(9) DEFAULT NULL,\n"
        "  PRIMARY KEY (`c`),\n"
        "  KEY `auto` (`id`),\n"
        "  CONSTRAINT `positive` CHECK ((`id` > 0))\n"
        ") ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4\n"
        "/*!50100 PARTITION BY HASH (`id`)\nPARTITIONS 4 */"
    )


def test_without_a_counter_an_index_over_an_expression_waits() -> None:
    without = STATEMENT.replace(" AUTO_INCREMENT,", ",")
    assert "ADD KEY `f` ((`id` + 1))" in split_create(without, defer=True).later


def test_only_foreign_keys_wait_when_indexes_are_not_to() -> None:
    assert [clause[:21] for clause in split_create(STATEMENT, defer=False).later] == ["ADD CONSTRAINT `fk` F"]


def test_of_a_small_table_only_what_is_built_in_bulk_waits() -> None:
    split = split_create(STATEMENT, defer=True, small=True)
    assert [clause[:14] for clause in split.later] == ["ADD FULLTEXT K", "ADD CONSTRAINT"]
    assert "  UNIQUE KEY `u``q` (`a,b`),\n  KEY `auto` (`id`),\n  KEY `f` ((`id` + 1)),\n" in split.now


def test_a_table_is_small_by_rows_and_by_bytes() -> None:
    assert is_small(9000, 2 << 20)
    assert not is_small(10_000_000, 2 << 20)
    assert not is_small(100, 1 << 30)


def test_a_unique_key_stays_where_it_tells_rows_apart() -> None:
    without = STATEMENT.replace("  PRIMARY KEY (`c`),\n", "")
    assert "  UNIQUE KEY `u``q` (`a,b`)" in split_create(without, defer=True).now


def test_what_is_there_is_found_again() -> None:
    assert set(split_create(STATEMENT, defer=True).later) <= lines_of(STATEMENT)


# --- parts -------------------------------------------------------------------------------------------------

COLUMN = Column("id", "int", "int", False, None, None, 4)
TABLE = copy_table(Table("d", "t", (COLUMN,), Key(("id",), "PRIMARY")), 10, 1)


def cut_up(part: Part, boundaries: list[int]) -> list[Part]:
    """The chunks of a head with rows up to each boundary."""
    chunks, rest = [], part
    for boundary in boundaries:
        chunk, more = rest.cut((str(boundary),))
        chunks.append(chunk)
        assert more is not None
        rest = more
    return [*chunks, rest.cut(None)[0]]


def inside(part: Part) -> tuple[float, float]:
    lower = float("-inf") if part.lower is None else int(part.lower[0])
    return lower, float("inf") if part.upper is None else int(part.upper[0])


def test_what_is_copied_and_what_is_left_are_the_whole_table_however_often_it_was_interrupted() -> None:
    chance = random.Random(7)
    for _ in range(200):
        copied = []
        left = parts_left(TABLE, [])
        while left:
            chunks = []
            for part in left:
                low, high = (max(-1000, inside(part)[0]), min(1000, inside(part)[1]))
                points = sorted({chance.randint(-999, 999) for _ in range(3)})
                chunks += cut_up(part, [point for point in points if low < point < high])
            chance.shuffle(chunks)
            copied += [chunk.as_chunk() for chunk in chunks[: chance.randint(1, len(chunks))]]
            left = parts_left(TABLE, copied)
            ranges = sorted(inside(Part(TABLE, one.lower, one.upper)) for one in copied)
            ranges += [inside(part) for part in left]
            ranges.sort()
            assert ranges[0][0] == float("-inf")
            assert ranges[-1][1] == float("inf")
            assert all(one[1] == other[0] for one, other in itertools.pairwise(ranges)), ranges


def test_nothing_is_left_of_a_table_without_a_key_that_is_copied() -> None:
    keyless = copy_table(Table("d", "t", (COLUMN,), Key((), None)), 10, 1)
    (part,) = parts_left(keyless, [])
    chunk, rest = part.cut(None)
    assert rest is None
    assert parts_left(keyless, [chunk.as_chunk()]) == []
