"""The source's own last_committed, where it is a second bound and where it must not count."""

from __future__ import annotations

import pytest

from applier.events.batch import Batch
from applier.events.rows import RowDecoder
from applier.events.scheduling import Dependencies
from applier.events.table_map import TableMap
from applier.sandbox import Server
from tests.decoding import batches_of
from tests.touching import log_of, read_plan
from writeset.buckets import BucketIndex
from writeset.hashing import TablePlan


def scheduled(source: Server, statements: list[str]) -> Batch:
    """The transactions that the statements make on the source, with both bounds."""

    def plan(table_map: TableMap, sequence_number: int) -> TablePlan:
        found = read_plan(source, table_map.schema, table_map.table)
        assert found is not None
        return found

    (batch,) = batches_of(log_of(source, statements))
    RowDecoder().decode(batch, plan)
    Dependencies(BucketIndex(bucket_bits=8)).schedule(batch, 0)
    return batch


PARENTS = {
    "a nullable unique key": "CREATE TABLE d.parent (id INT, note INT, UNIQUE (id))",
    "a primary key": "CREATE TABLE d.parent (id INT PRIMARY KEY, note INT)",
    "a unique key that counts as primary": "CREATE TABLE d.parent (id INT NOT NULL, note INT, UNIQUE (id))",
}


@pytest.mark.parametrize("create", PARENTS.values(), ids=PARENTS.keys())
def test_child_waits_for_its_parent_whatever_keys_the_parent_has(source: Server, create: str) -> None:
    """MySQL 9.7 leaves a parent without a primary key out of its writesets: it says that the child need not wait."""
    source.execute("CREATE DATABASE d")
    source.execute(create)
    source.execute(
        "CREATE TABLE d.child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES d.parent (id))"
    )
    batch = scheduled(
        source,
        [
            "INSERT INTO d.child VALUES (1, NULL)",
            "INSERT INTO d.parent VALUES (7, 0)",
            "INSERT INTO d.child VALUES (2, 7)",
        ],
    )
    assert batch.transaction(2).last_committed == 2


def test_source_knows_better_which_texts_are_different(source: Server) -> None:
    """Of characters beyond what is proven we only know that they may be equal; the source has compared them."""
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (word VARCHAR(10) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY)")
    batch = scheduled(source, [f"INSERT INTO d.t VALUES ('{word}')" for word in ("a", "ж", "щ")])
    assert [batch.transaction(index).last_committed for index in range(3)] == [
        0,
        1,
        1,
    ]  # 1: its log begins there
