"""`applier verify` beside a target that lags, moves on, or tells its position otherwise."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from applier.errors import NotComparable, UsageError
from applier.sandbox import Server
from applier.target import checkpoint
from applier.verify import VerifyOptions, position, recheck, verify
from applier.verify.definitions import Session, query
from applier.verify.sessions import open_session
from tests.verifying import Pair, found_rows, verify_by_command
from tests.waiting import wait_until


@pytest.fixture
def pair(source: Server, target: Server) -> Pair:
    return Pair(source, target)


@dataclass
class Follower:
    """Carries out statements on the source, then on the target under the same GTID, as an applier would."""

    pair: Pair

    def on_source(self, *statements: str) -> str:
        """One transaction; gives its GTID."""
        with closing(self.pair.source.connect()) as connection, connection.cursor() as cursor:
            return self._commit(cursor, statements)

    def _commit(self, cursor: Any, statements: Sequence[str]) -> str:
        cursor.execute("SET SESSION session_track_gtids = OFF")
        before = _executed(cursor)
        cursor.execute("BEGIN")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("COMMIT")
        cursor.execute("SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, %s)", (before,))
        return str(cursor.fetchone()[0])

    def on_target(self, gtid: str, *statements: str) -> None:
        with closing(self.pair.target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET gtid_next = %s", (gtid,))
            cursor.execute("BEGIN")
            for statement in statements:
                cursor.execute(statement)
            cursor.execute("COMMIT")


def _executed(cursor: Any) -> str:
    cursor.execute("SELECT @@GLOBAL.gtid_executed")
    return str(cursor.fetchone()[0])


@pytest.fixture
def follower(pair: Pair) -> Follower:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY, n INT)", "INSERT INTO t VALUES (1, 0), (2, 0)")
    return Follower(pair)


def test_it_waits_until_the_target_has_caught_up(follower: Follower) -> None:
    gtid = follower.on_source("UPDATE v.t SET n = 1")
    late = threading.Timer(0.5, follower.on_target, (gtid, "UPDATE v.t SET n = 1"))
    late.start()
    report = follower.pair.verify()
    late.join()
    assert report.identical
    assert report.exact
    assert report.position == gtid


@dataclass(frozen=True)
class Delayed(position.AppliedPosition):
    """A target that is always as far behind."""

    seconds: float = 0.0

    def wait(self, target: Session, gtid_set: str, seconds: float) -> bool:
        threading.Event().wait(min(seconds, self.seconds))
        return seconds > self.seconds


@pytest.mark.parametrize("lag_seconds", [0.4, 0.6])
def test_a_target_with_a_steady_lag_is_compared(follower: Follower, lag_seconds: float) -> None:
    delayed = Delayed(seconds=lag_seconds)
    assert verify(*follower.pair.addresses, VerifyOptions(wait_seconds=1.0), position=delayed).identical


def test_a_target_that_does_not_catch_up_is_not_compared(follower: Follower) -> None:
    gtid = follower.on_source("UPDATE v.t SET n = 1")
    with pytest.raises(NotComparable, match=gtid) as caught:
        follower.pair.verify(wait_seconds=0.5)
    assert caught.value.exit_code == 75


def test_the_targets_own_transactions_do_not_hide_what_they_changed(follower: Follower) -> None:
    follower.pair.target.execute("UPDATE v.t SET n = 9 WHERE id = 2")
    report = follower.pair.verify()
    assert found_rows(report) == [("different", {"id": 2}, ("n",))]
    assert any("transactions of its own" in warning for warning in report.warnings)


def test_a_progress_row_tells_the_position_of_groups(follower: Follower) -> None:
    """As an applier writes it that keeps no GTIDs: in the same transaction as the changes."""
    pair = follower.pair
    pair.on(pair.target, *checkpoint.CREATE)
    gtid = follower.on_source("UPDATE v.t SET n = 1")
    with pytest.raises(NotComparable, match=gtid):
        pair.verify(wait_seconds=0.3)
    told = f"INSERT INTO applier.progress (channel, owner, executed, file, position) VALUES ('c', 1, '{gtid}', '', 0)"
    pair.on(pair.target, "BEGIN", "UPDATE t SET n = 1", told, "COMMIT")
    report = pair.verify()
    assert report.identical
    assert report.exact
    assert report.position == gtid


@contextmanager
def kept_moving(follower: Follower, change: str) -> Iterator[None]:
    """The change, with another number for each {}, on the source, and soon after on the target; again and again."""
    stop = threading.Event()

    def run() -> None:
        for number in itertools.count(1):
            if stop.is_set():
                return
            statement = change.format(number)
            follower.on_target(follower.on_source(statement), statement)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def moving(follower: Follower) -> Iterator[Pair]:
    with kept_moving(follower, "UPDATE v.t SET n = {} WHERE id = 1"):
        yield follower.pair


def test_a_moving_pair_is_not_called_different(moving: Pair) -> None:
    for _ in range(5):
        assert moving.verify().exit_code in (0, 75)


def test_a_lock_gives_a_moving_pair_one_position(moving: Pair) -> None:
    report = moving.verify(allow_lock=True)
    assert report.identical
    assert report.exact


def test_the_lock_lets_transactions_end_that_others_wait_for(follower: Follower) -> None:
    """Their next statement waits for the lock, which waits for those that wait for their rows."""
    pair = follower.pair
    address = pair.addresses[0]

    def hold() -> None:
        with closing(open_session(address)) as control, position.commits_held(address, control):
            pass

    with (
        closing(pair.source.connect()) as one,
        closing(pair.source.connect()) as other,
        ThreadPoolExecutor(2) as threads,
    ):
        query(one, "BEGIN")
        query(one, "UPDATE v.t SET n = 1 WHERE id = 1")
        waiting = threads.submit(query, other, "UPDATE v.t SET n = n + 1 WHERE id = 1")
        wait_until(lambda: pair.source.execute("SELECT 1 FROM performance_schema.data_lock_waits"))
        holding = threads.submit(hold)
        statement = "SELECT 1 FROM performance_schema.processlist WHERE info LIKE 'FLUSH TABLES%'"
        wait_until(lambda: pair.source.execute(statement))
        query(one, "UPDATE v.t SET n = 1 WHERE id = 2")
        query(one, "COMMIT")
        waiting.result(30)
        holding.result(30)


def test_a_true_difference_of_a_moving_pair_is_found_at_one_position(moving: Pair) -> None:
    moving.on(moving.target, "INSERT INTO t VALUES (77, 7)")
    report = moving.verify(allow_lock=True)
    assert found_rows(report) == [("extra", {"id": 77}, ())]


def test_a_table_without_a_key_that_grows_need_not_be_locked(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = follower.pair
    opened = position.open_snapshots

    def opened_later(*arguments: Any) -> position.Snapshots:
        """The target is never where the source was."""
        before = pair.target.execute("SELECT COUNT(*) FROM v.log")
        wait_until(lambda: pair.target.execute("SELECT COUNT(*) FROM v.log") != before)
        return opened(*arguments)

    monkeypatch.setattr(position, "open_snapshots", opened_later)
    monkeypatch.setattr(
        recheck, "KEYLESS_ROWS_MAX", -1
    )  # what would need a lock is reported as never compared
    pair.both("CREATE TABLE log (n INT, text VARCHAR(9))")
    with kept_moving(follower, "INSERT INTO v.log VALUES ({}, 'text')"):
        reports = [pair.verify() for _ in range(3)]
    assert [(report.identical, report.rounds) for report in reports] == [(True, 2)] * 3


def test_servers_without_gtids_are_compared_when_they_stand_still(pair: Pair) -> None:
    pair.both("CREATE TABLE t (id INT PRIMARY KEY)")
    for server in (pair.source, pair.target):
        server.execute("SET GLOBAL gtid_mode = ON_PERMISSIVE")
    with pytest.raises(UsageError, match="--assume-quiesced"):
        pair.verify()
    assert pair.verify(assume_quiesced=True).identical
    pair.on(pair.target, "INSERT INTO t VALUES (1)")
    assert not pair.verify(assume_quiesced=True).identical


def test_the_command_ends_with_75_when_the_target_lags(follower: Follower) -> None:
    follower.on_source("UPDATE v.t SET n = 1")
    assert verify_by_command(follower.pair, "--wait-seconds", "0.3")[0] == 75
