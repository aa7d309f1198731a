"""A session on the target: long statements, silent servers, variables that do not outlive their statement."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from applier.address import Tls, TlsMode
from applier.events.statement import binlog_statements
from applier.sandbox import Server
from applier.target.session import SESSION_VARIABLES, Session
from applier.target.wire import ServerReplied, WireLost
from scheduler.clock import Decision
from tests.decoding import batches_of
from tests.proxy import FaultProxy
from tests.replaying import address, run_all
from tests.touching import log_of
from tests.waiting import wait_until

MODES = [TlsMode.DISABLED, TlsMode.REQUIRED]


@pytest.fixture(params=MODES, ids=[mode.value for mode in MODES])
def session(request: pytest.FixtureRequest, target: Server) -> Iterator[Session]:
    session = Session(address(target, "target", tls=Tls(request.param)))
    session.open()
    yield session
    session.close()


@pytest.fixture
def proxy(target: Server) -> Iterator[FaultProxy]:
    with FaultProxy(target.port) as proxy:
        yield proxy


def test_a_statement_may_take_long(session: Session) -> None:
    session.execute_sql("DO 1; DO SLEEP(1.2); DO 2", owed=3, seconds=0.25)
    assert session.replies.received == 3
    assert session.query("SELECT 5") == [(5,)]


def test_a_commit_may_take_long(session: Session, target: Server) -> None:
    """COMMIT waits for whoever locks the instance."""
    target.execute("CREATE DATABASE d")
    target.execute("CREATE TABLE d.t (a INT)")
    session.execute_sql("BEGIN; INSERT INTO d.t VALUES (1)", owed=2)
    with target.connect() as other, other.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        session.prepare_decision()
        session.release(Decision.COMMIT)
        with pytest.raises(AssertionError):
            wait_until(lambda: target.execute("SELECT COUNT(*) FROM d.t") == ((1,),), 0.5)
        cursor.execute("UNLOCK TABLES")
        session.await_decision(lambda: True, 0.1)
    assert target.execute("SELECT COUNT(*) FROM d.t") == ((1,),)


def test_nobody_hurries_a_unit_that_waits_for_its_turn(session: Session) -> None:
    session.execute_sql("BEGIN")
    session.prepare_decision()
    asked: list[bool] = []

    def answered() -> bool:
        asked.append(True)
        if len(asked) == 3:
            session.release(Decision.ROLLBACK)
        return len(asked) >= 3

    if session.address.tls.mode is TlsMode.REQUIRED:
        session.release(Decision.ROLLBACK)
    session.await_decision(answered, 0.05)
    assert session.query("SELECT 1") == [(1,)]


@pytest.mark.parametrize("mode", MODES)
def test_a_link_that_says_nothing_is_lost(target: Server, proxy: FaultProxy, mode: TlsMode) -> None:
    session = Session(address(target, "target", port=proxy.port, tls=Tls(mode)))
    session.open()
    proxy.stall()
    proxy.refuse()
    with pytest.raises(WireLost):
        session.execute_sql("DO 1", seconds=0.2)
    session.close()
    with pytest.raises(WireLost, match="not connected"):
        session.execute_sql("DO 1")


def test_a_session_that_was_killed_is_lost(session: Session, target: Server) -> None:
    ((number,),) = session.query("SELECT CONNECTION_ID()")
    target.execute(f"KILL {number}")
    with pytest.raises((WireLost, ServerReplied)):
        session.execute_sql("DO 1")
    session.open()
    assert session.query("SELECT 1") == [(1,)]


def test_an_error_in_the_middle_leaves_the_session_usable(session: Session) -> None:
    with pytest.raises(ServerReplied) as caught:
        session.execute_sql("BEGIN; SELECT_ NONSENSE; DO 1", owed=3)
    assert (caught.value.code, caught.value.replies) == (1064, 1)
    session.roll_back()
    with pytest.raises(ServerReplied) as caught:
        session.statement(b"DROP TABLE nowhere.nothing")
    assert caught.value.code in (1049, 1051)
    session.statement(b"SELECT 1, 'a result set'")
    session.execute_sql("DO 1; DO 2", owed=2)


def test_each_connection_is_told_the_format_of_the_log_and_may_begin(
    session: Session, source: Server, target: Server
) -> None:
    """The first BINLOG of a session leaves its gtid_next where BEGIN is an error (1782)."""
    tables = ["CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY)"]
    batch = batches_of(log_of(source, [*tables, "INSERT INTO d.t VALUES (1)"]))[-1]
    run_all(target, tables)
    (rows,) = binlog_statements(batch, 0)
    for _ in range(2):
        session.use_format_description(batch.format_description)
        session.execute_sql(b"BEGIN;" + rows + b";ROLLBACK", owed=3)
        session.open()


def test_variables_do_not_outlive_their_statement(session: Session) -> None:
    names = ["sql_mode", "time_zone", "auto_increment_increment", "collation_connection", "lc_time_names"]
    query = "SELECT " + ", ".join(f"@@SESSION.{name}" for name in names)
    before = session.query(query)
    session.set_variables({"sql_mode": "'ANSI'", "time_zone": "'+05:00'", "auto_increment_increment": "7"})
    session.set_variables({"collation_connection": "8", "lc_time_names": "5"})
    assert session.query(query) != before
    session.forget_variables()
    assert session.query(query) == before
    assert before[0][0] == SESSION_VARIABLES["sql_mode"].strip("'")
