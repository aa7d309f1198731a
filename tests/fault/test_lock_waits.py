"""Lock waits that InnoDB cannot see, made to happen on purpose: each is found at once, and nothing is lost by it.

A transaction that deletes a unique value and inserts it again locks the gap below it, for a check of duplicates, at
any isolation level. An earlier transaction that inserts a neighbouring value shares no key with it, so both run at the
same time; slowed down by rows of another table, the earlier one comes too late and waits for the gap.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pymysql
import pytest

from applier.errors import ApplyError
from applier.pipeline import Pipeline
from applier.replay import Replay
from applier.sandbox import Server
from applier.target.lock_waits import LockWaits
from applier.target.retry import LOCK_WAIT_TIMEOUT
from scheduler.grouping import GroupLimits
from tests.replaying import Running, assert_identical, replay, run_all, session, settings
from tests.waiting import wait_until

TABLES = (
    "CREATE DATABASE d",
    "USE d",
    "CREATE TABLE parent (id INT PRIMARY KEY, v INT)",
    "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, u INT UNIQUE)",
    "CREATE TABLE child (id INT PRIMARY KEY AUTO_INCREMENT, u INT UNIQUE, p INT,"
    " FOREIGN KEY (p) REFERENCES parent (id))",
    "CREATE TABLE slow (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(100), KEY (v), KEY (v, id), KEY (id, v))",
    "CREATE TABLE hot (id INT PRIMARY KEY, n INT)",
    "INSERT INTO parent VALUES (1, 0), (2, 0)",
    "INSERT INTO hot VALUES (1, 0)",
)
SLOW = f"INSERT INTO slow (v) VALUES {', '.join(['(UUID())'] * 300)}"
STEP = 100  # between the values of two rounds

Transactions = list[list[str]]
Round = Callable[[int], Transactions]


def again(value: int, table: str = "t") -> list[str]:
    """Locks the gap below the value."""
    values = f"({value})" if table == "t" else f"({value}, 1)"
    columns = "(u)" if table == "t" else "(u, p)"
    return [f"DELETE FROM {table} WHERE u = {value}", f"INSERT INTO {table} {columns} VALUES {values}"]


def neighbours(at: int) -> Transactions:
    return [[SLOW, f"INSERT INTO t (u) VALUES ({at + 9})"], again(at + 10)]


def children(at: int) -> Transactions:
    """The same among the children of a parent, whose row both lock as well."""
    return [[SLOW, f"INSERT INTO child (u, p) VALUES ({at + 9}, 2)"], again(at + 10, "child")]


def several(at: int) -> Transactions:
    """One needs the locks of three later ones."""
    inserts = [f"INSERT INTO t (u) VALUES ({at + ten + 9})" for ten in (0, 10, 20)]
    return [[SLOW, *inserts], again(at + 10), again(at + 20), again(at + 30)]


def chain(at: int) -> Transactions:
    """The first waits for the third, which executes still and waits for the second, which waits for its turn."""
    third = [*again(at + 10), f"INSERT INTO t (u) VALUES ({at + 19})"]
    return [[SLOW, f"INSERT INTO t (u) VALUES ({at + 9})"], again(at + 20), third]


def hot_neighbours(at: int) -> Transactions:
    """All of them change one row, so that groups wait for it with locks held."""
    hot = "UPDATE hot SET n = n + 1"
    return [[hot, *statements] for statements in neighbours(at)]


def write(source: Server, target: Server, rounds: int, *make: Round) -> None:
    """The tables on both sides, the transactions on the source only."""
    run_all(source, TABLES)
    starts = range(0, rounds * STEP, STEP)
    for table, columns, last in (("t", "(u)", ""), ("child", "(u, p)", ", 1")):
        rows = ", ".join(f"({at + ten}{last})" for at in starts for ten in (10, 20, 30))
        run_all(source, [f"INSERT INTO d.{table} {columns} VALUES {rows}"])
    replay(source, target)
    with session(source, "USE d") as run:
        for at, one in zip(starts, itertools.cycle(make), strict=False):
            for statements in one(at):
                for statement in ("BEGIN", *statements, "COMMIT"):
                    run(statement)


EVERY_KIND: list[Round] = [several, chain, children, neighbours]

ALONE: dict[str, Any] = {"workers": 8}
GROUPS: dict[str, Any] = {"workers": 6, "group": GroupLimits(2)}
NET_CHANGES: dict[str, Any] = {"workers": 6, "group": GroupLimits(2), "net_changes": True}


def often(name: str, short: list[Any], other: list[Any]) -> Any:
    """How often each is made to happen, and in how many it has to: who comes first is up to the machine."""
    long = [pytest.mark.long, pytest.mark.timeout(900)]
    cases = [pytest.param(one, 40, 8, id=f"{label(one)}-short") for one in short]
    cases += [pytest.param(one, 600, 200, id=f"{label(one)}-hundreds", marks=long) for one in short + other]
    return pytest.mark.parametrize((name, "rounds", "least"), cases)


def label(case: Any) -> str:
    if callable(case):
        return str(case.__name__)
    return "one-by-one" if "group" not in case else "net-changes" if "net_changes" in case else "groups"


class Watched:
    """A replay in a thread of its own, and the pipeline it runs."""

    def __init__(self, run: Replay) -> None:
        self.running = Running(run)
        self.pipeline: Pipeline = wait_until(lambda: run.pipeline or self._failed(), what="it runs")
        self.lock_waits: LockWaits = self.pipeline.lock_waits

    def _failed(self) -> None:
        if self.running.failure is not None:
            raise self.running.failure

    @property
    def timeouts(self) -> int:
        return sum(worker.state.retry_codes.get(LOCK_WAIT_TIMEOUT, 0) for worker in self.pipeline.workers)


def watched(source: Server, target: Server, **changes: Any) -> Watched:
    return Watched(Replay(settings(source, target, **changes)))


def replayed(source: Server, target: Server, **changes: Any) -> Watched:
    run = watched(source, target, **changes)
    run.running.end()
    assert_identical(source, target)
    assert not run.lock_waits.is_alive()
    return run


# --- on purpose, again and again ---------------------------------------------------------------------


@often("make", [several, chain, children], [neighbours])
def test_waits_for_later_units_are_found_at_once(
    source: Server, target: Server, make: Round, rounds: int, least: int
) -> None:
    write(source, target, rounds, make)
    run = replayed(source, target, **ALONE)
    assert run.lock_waits.resolved >= least
    assert run.lock_waits.rolled_back >= run.lock_waits.resolved
    assert (run.lock_waits.fallback, run.lock_waits.outside, run.timeouts) == (0, 0, 0)


@often("mode", [NET_CHANGES], [GROUPS])
def test_groups_that_wait_with_locks_held_are_found_too(
    source: Server, target: Server, mode: dict[str, Any], rounds: int, least: int
) -> None:
    write(source, target, 3 * rounds, *EVERY_KIND, hot_neighbours)
    run = replayed(source, target, **mode)
    assert run.lock_waits.resolved >= least
    assert (run.lock_waits.fallback, run.lock_waits.outside, run.timeouts) == (0, 0, 0)


@often("mode", [ALONE], [GROUPS, NET_CHANGES])
def test_without_the_privilege_later_units_are_rolled_back_on_suspicion(
    source: Server, target: Server, mode: dict[str, Any], rounds: int, least: int
) -> None:
    write(source, target, 2 * rounds, *EVERY_KIND, hot_neighbours)
    lean = settings(source, target, **mode)
    run = Watched(Replay(replace(lean, target=replace(lean.target, user=lean_account(target), password=""))))
    run.running.end()
    assert_identical(source, target)
    assert run.lock_waits.fallback >= least
    assert (run.lock_waits.resolved, run.timeouts) == (0, 0)


def lean_account(target: Server) -> str:
    """Whatever replaying rows needs, and nothing more."""
    run_all(
        target,
        [
            "SET sql_log_bin = 0",
            "CREATE USER lean@'%' IDENTIFIED BY ''",
            "GRANT REPLICATION_APPLIER, SESSION_VARIABLES_ADMIN, SYSTEM_VARIABLES_ADMIN ON *.* TO lean@'%'",
            "GRANT INSERT, UPDATE, DELETE ON d.* TO lean@'%'",
            "GRANT CREATE, SELECT, INSERT, UPDATE ON applier.* TO lean@'%'",
        ],
    )
    return "lean"


# --- when something else goes wrong meanwhile --------------------------------------------------------


def test_the_watchers_own_connection_may_be_killed(source: Server, target: Server) -> None:
    write(source, target, 120, neighbours, several)
    run = watched(source, target, **ALONE)
    kills = 0
    while kills < 3 and run.running.replay.pipeline is run.pipeline:
        connection = run.lock_waits._locks._connection
        if connection is not None:
            with contextlib.suppress(pymysql.err.OperationalError):  # there is none of this number any more
                target.execute(f"KILL {connection.thread_id()}")
                kills += 1
        wait_until(partial(has_another_connection, run, connection))
    run.running.end()
    assert_identical(source, target)
    assert kills > 0
    assert run.lock_waits.resolved > kills


def has_another_connection(run: Watched, connection: object) -> bool:
    return run.lock_waits._locks._connection is not connection or not run.lock_waits.is_alive()


@pytest.mark.long
def test_the_target_may_be_lost_meanwhile(source: Server, target: Server) -> None:
    write(source, target, 100, neighbours, several)
    run = watched(source, target, **ALONE)
    wait_until(lambda: run.lock_waits.resolved > 3)
    target.kill()
    target.start()
    run.running.end()
    assert_identical(source, target)
    assert not run.lock_waits.is_alive()


def test_drained_meanwhile_it_ends_and_goes_on_later(source: Server, target: Server) -> None:
    write(source, target, 60, neighbours, several)
    run = watched(source, target, **ALONE, stop_at_end=False)
    wait_until(lambda: run.lock_waits.resolved > 3)
    run.running.finish()
    assert not run.lock_waits.is_alive()
    replayed(source, target, **ALONE)


def test_failing_meanwhile_everything_before_is_committed(source: Server, target: Server) -> None:
    write(source, target, 60, neighbours, several)
    value = 40 * STEP + 9
    with session(target, "SET sql_log_bin = 0") as sql:
        sql(f"INSERT INTO d.t (id, u) VALUES (1000000, {value})")
        run = watched(source, target, **ALONE)
        with pytest.raises(ApplyError, match="Duplicate entry"):
            run.running.end()
        assert run.lock_waits.resolved >= 8
        assert sql(f"SELECT COUNT(*) FROM d.t WHERE u = {value - STEP}") == ((1,),)
        assert sql(f"SELECT COUNT(*) FROM d.t WHERE u = {value + STEP}") == ((0,),)
        sql("DELETE FROM d.t WHERE id = 1000000")
    replayed(source, target, **ALONE)


# --- other clients -----------------------------------------------------------------------------------


@pytest.fixture
def client(target: Server) -> Iterator[Callable[[str], Any]]:
    """Another client of the target, in a transaction that leaves no trace."""
    with session(target, "SET sql_log_bin = 0, innodb_lock_wait_timeout = 50, lock_wait_timeout = 50") as run:
        yield run


class Statement:
    """A statement in a thread of its own."""

    def __init__(self, run: Callable[[str], Any], statement: str) -> None:
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(run, statement), daemon=True)
        self._thread.start()

    def _run(self, run: Callable[[str], Any], statement: str) -> None:
        try:
            run(statement)
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            self.failure = error

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "still waiting"
        if self.failure is not None:
            raise self.failure


def two_rows(source: Server, target: Server) -> None:
    """Two transactions that share nothing: the earlier one changes `hot` and inserts into t, the later one t only."""
    write(source, target, 1)
    run_all(source, ["USE d", "BEGIN", "UPDATE hot SET n = 7", "INSERT INTO t (u) VALUES (1)", "COMMIT"])
    run_all(source, ["USE d", "UPDATE t SET u = 32 WHERE u = 30"])


def waits_for_its_turn(run: Watched) -> bool:
    return any(worker.state.activity == "waiting for its commit turn" for worker in run.pipeline.workers)


def test_a_lock_of_another_client_is_waited_for_and_counted_apart(
    source: Server, target: Server, client: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    two_rows(source, target)
    client("BEGIN")
    client("UPDATE d.hot SET n = 8")
    run = watched(source, target, **ALONE)
    wait_until(lambda: run.lock_waits.outside)
    client("ROLLBACK")  # it is there still
    run.running.end()
    assert_identical(source, target)
    assert run.lock_waits.resolved == 0
    (told,) = (record for record in caplog.records if "another client" in record.message)
    assert vars(told)["table"] == "d.hot"
    assert vars(told)["index"] == "PRIMARY"
    assert "of root@" in vars(told)["held_by"]


def test_another_client_between_two_of_ours_is_no_deadlock(
    source: Server, target: Server, client: Callable[[str], Any]
) -> None:
    """The earlier unit waits for the client, the client for the later unit, and that one for its turn."""
    two_rows(source, target)
    client("BEGIN")
    client("UPDATE d.hot SET n = 8")
    run = watched(source, target, **ALONE)
    wait_until(lambda: waits_for_its_turn(run))
    between = Statement(client, "UPDATE d.t SET id = id + 1000000 WHERE u = 30")
    between.end()
    client("ROLLBACK")
    run.running.end()
    assert_identical(source, target)
    assert run.lock_waits.resolved >= 1


def test_a_metadata_lock_that_waits_between_two_of_ours_is_no_deadlock(
    source: Server, target: Server, client: Callable[[str], Any]
) -> None:
    """ALTER TABLE waits for the later unit; the earlier one, which comes to that table now, queues behind it."""
    two_rows(source, target)
    client("BEGIN")
    client("UPDATE d.hot SET n = 8")
    run = watched(source, target, **ALONE)
    wait_until(lambda: waits_for_its_turn(run))
    with session(target, "SET sql_log_bin = 0, lock_wait_timeout = 50") as another:
        alter = Statement(another, "ALTER TABLE d.t FORCE")
        waiting = "SELECT COUNT(*) FROM performance_schema.processlist WHERE state LIKE 'Waiting for table metadata%'"
        wait_until(lambda: client(waiting) == ((1,),))
        client("ROLLBACK")
        alter.end()
    run.running.end()
    assert_identical(source, target)
    assert run.lock_waits.metadata == 1
