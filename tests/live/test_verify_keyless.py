"""`applier verify` of tables without a key: rows are told apart by all their columns, and counted."""

from __future__ import annotations

import pytest

from applier.sandbox import Server
from applier.verify import Kind, comparison, sessions
from applier.verify.definitions import Record
from tests.verifying import Pair


@pytest.fixture
def pair(source: Server, target: Server) -> Pair:
    return Pair(source, target)


def _numbers(count: int) -> str:
    return ", ".join(f"({number})" for number in range(count))


def test_equal_rows_do_not_cancel_each_other_out(pair: Pair) -> None:
    pair.both("CREATE TABLE t (a INT, b VARCHAR(5))")
    pair.on(pair.source, "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, NULL)")
    pair.on(pair.target, "INSERT INTO t VALUES (3, 'y'), (3, 'y'), (2, NULL)")
    report = pair.verify()
    assert [(found.kind, found.rows, found.key) for found in report.differences] == [
        (Kind.MISSING, 2, {"a": "1", "b": "x"}),
        (Kind.EXTRA, 2, {"a": "3", "b": "y"}),
    ]


def test_a_column_may_be_called_like_what_we_compute(pair: Pair) -> None:
    pair.both("CREATE TABLE t (digest INT, b INT)")
    pair.on(pair.source, "INSERT INTO t VALUES (1, 1), (1, 2), (1, 2)")
    pair.on(pair.target, "INSERT INTO t VALUES (1, 1), (1, 1), (1, 2)")
    assert [(one.kind, one.rows, one.key) for one in pair.verify().differences] == [
        (Kind.EXTRA, 1, {"digest": "1", "b": "1"}),
        (Kind.MISSING, 1, {"digest": "1", "b": "2"}),
    ]


def test_the_number_of_equal_rows_counts(pair: Pair) -> None:
    pair.both("CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1), (1), (2)")
    assert pair.verify().identical
    pair.on(pair.target, "INSERT INTO t VALUES (1)", "DELETE FROM t WHERE a = 2")
    found = {(one.kind, one.rows, one.key["a"]) for one in pair.verify().differences}
    assert found == {(Kind.EXTRA, 1, "1"), (Kind.MISSING, 1, "2")}


def test_of_a_large_table_without_a_key_only_rows_near_a_difference_are_fetched(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    both = sessions.Pair.both

    def counted(asked: sessions.Pair, statement: str) -> tuple[list[Record], list[Record]]:
        answers = both(asked, statement)
        fetched.append(max(map(len, answers)))
        return answers

    monkeypatch.setattr(sessions.Pair, "both", counted)
    pair.both("CREATE TABLE t (a INT)", f"INSERT INTO t VALUES {_numbers(20_000)}")
    pair.on(pair.target, "UPDATE t SET a = -1 WHERE a = 17")
    assert {(one.kind, one.key["a"]) for one in pair.verify().differences} == {
        (Kind.EXTRA, "-1"),
        (Kind.MISSING, "17"),
    }
    assert 0 < sum(fetched) < comparison.BUCKETS + 200


def test_a_table_without_a_key_that_differs_altogether_is_not_fetched_as_a_whole(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "KEYLESS_ROWS_FETCHED_MAX", 100)
    pair.both("CREATE TABLE t (a INT)")
    pair.on(pair.source, f"INSERT INTO t VALUES {_numbers(5000)}")
    (table,) = pair.verify().tables
    assert 0 < table.rows_different <= 100
    assert table.truncated
