"""Runs that are stopped, killed or lose a server: what was begun is whole, and the next run goes on from there."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pymysql
import pytest

from applier import connection
from applier.address import Tls, TlsMode
from applier.replay import Replay
from applier.sandbox import Server
from tests.proxy import FaultProxy
from tests.replaying import (
    Command,
    Running,
    address,
    assert_identical,
    command,
    executed,
    replay,
    replaying,
    run_all,
    session,
    settings,
)
from tests.waiting import wait_until

WRITERS = 3


@pytest.fixture
def table(source: Server) -> str:
    run_all(
        source,
        ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT, s CHAR(80))"],
    )
    return "d.t"


def _write(source: Server, table: str, stop: threading.Event) -> None:
    """Transactions of a few rows, as long as `stop` is not set; a source that goes away is waited for."""
    done = 0
    while not stop.is_set():
        try:
            with session(source, connect_timeout=2) as run:
                while not stop.is_set():
                    run("BEGIN")
                    run(f"INSERT INTO {table} (v, s) VALUES ({done}, 'a'), ({done}, 'b')")
                    run(f"UPDATE {table} SET v = v + 1 WHERE id = {1 + done % 20}")
                    run("COMMIT")
                    done += 1
                    stop.wait(0.002)
        except (pymysql.err.OperationalError, pymysql.err.InterfaceError):
            stop.wait(0.1)


@contextmanager
def writing(source: Server, table: str) -> Iterator[None]:
    """Some sessions write until the block ends."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=_write, args=(source, table, stop), name="writer") for _ in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def transactions(server: Server) -> int:
    return executed(server).count


def wait_for_more(target: Server, count: int, run: Command | None = None) -> None:
    """Until the target has `count` transactions more than now."""
    wanted = transactions(target) + count

    def there() -> bool:
        assert run is None or run.process.poll() is None, "the run ended by itself"
        return transactions(target) >= wanted

    wait_until(there, 30, f"{wanted} transactions on the target")


# --- servers that go away ----------------------------------------------------------------------------


def rotate(source: Server, target: Server) -> None:
    for _ in range(3):
        source.execute("FLUSH BINARY LOGS")


def restart_source(source: Server, target: Server) -> None:
    source.stop()
    source.start()


def kill_source(source: Server, target: Server) -> None:
    source.kill()
    source.start()


def restart_target(source: Server, target: Server) -> None:
    target.stop()
    target.start()


def kill_target(source: Server, target: Server) -> None:
    target.kill()
    target.start()


def kill_sessions_of_target(source: Server, target: Server) -> None:
    for (number,) in target.execute(
        "SELECT id FROM performance_schema.processlist WHERE id <> CONNECTION_ID()"
    ):
        try:
            target.execute(f"KILL {number}")
        except pymysql.err.OperationalError as error:
            assert error.args[0] in (1094, 1095)  # noqa: PT017 - gone meanwhile, or the server's own


def kill_dump(source: Server, target: Server) -> None:
    for (number,) in source.execute(
        "SELECT id FROM performance_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    ):
        source.execute(f"KILL {number}")


@pytest.mark.parametrize(
    "trouble",
    [rotate, restart_source, kill_source, restart_target, kill_target, kill_sessions_of_target, kill_dump],
)
def test_a_run_goes_on_after(
    source: Server, target: Server, table: str, trouble: Callable[[Server, Server], None]
) -> None:
    with replaying(source, target, workers=4) as running:
        with writing(source, table):
            wait_for_more(target, 50)
            trouble(source, target)
            wait_until(lambda: target.running and source.running)
            wait_for_more(target, 50)
        running.wait_for(source, target)
    assert_identical(source, target)


def test_a_large_transaction_in_the_middle_of_which_a_server_goes(
    source: Server, target: Server, table: str
) -> None:
    """Its first parts have been executed when the link breaks, first that to the source, then that to the target."""
    run_all(source, [f"INSERT INTO d.t (v) VALUES {', '.join(f'({i})' for i in range(29))}"])
    run_all(source, ["CREATE TABLE d.big (id INT PRIMARY KEY AUTO_INCREMENT, s TEXT)"])
    for trouble in (kill_dump, kill_sessions_of_target):
        run_all(
            source,
            [
                "INSERT INTO d.big (s) SELECT REPEAT('x', 600) FROM d.t a, d.t b, d.t c",
                "DELETE FROM d.t LIMIT 1",
            ],
        )
        with replaying(source, target, memory_bytes_max=32 << 20) as running:  # parts of half a megabyte
            some = rows_inserted(target) + 8_000
            wait_until(lambda some=some: rows_inserted(target) > some)  # type: ignore[misc]
            trouble(source, target)
            running.wait_for(source, target)
            assert trouble is not kill_dump or running.replay.progress().reconnects == 1
        assert_identical(source, target)
        run_all(source, ["TRUNCATE TABLE d.big"])


def rows_inserted(server: Server) -> int:
    """Since its start, committed or not."""
    return int(server.execute("SHOW GLOBAL STATUS LIKE 'Innodb_rows_inserted'")[0][1])


# --- stopping and going on ---------------------------------------------------------------------------


def test_terminated_at_random_points_and_resumed(source: Server, target: Server, table: str) -> None:
    """SIGTERM ends with exit code 0, SIGKILL ends at once; neither leaves a gap or does anything twice."""
    choose = random.Random(3)
    with writing(source, table):
        for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            with command(source, target, "--workers", "4", "--no-check") as run:
                wait_for_more(target, choose.randint(1, 200), run)
                run.process.send_signal(how)
                assert run.wait() == (-signal.SIGKILL if how == signal.SIGKILL else 0), run.errors
                assert run.error_lines == []
                assert (how == signal.SIGKILL) or "applied" in run.errors
            # Strict order: what is there is a beginning of what the source has.
            ((_, _, intervals),) = executed(target).sources()
            assert len(intervals) == 1
    replay(source, target)
    assert_identical(source, target)


def test_drain_waits_for_what_was_begun_and_a_second_signal_does_not(
    source: Server, target: Server, table: str
) -> None:
    run_all(source, ["INSERT INTO d.t (v) VALUES (1), (2)"])
    replay(source, target)
    before = executed(target)
    run_all(source, ["UPDATE d.t SET v = v + 1 WHERE id = 1"])
    with session(target, "BEGIN", "SELECT * FROM d.t FOR UPDATE") as run:
        with command(source, target, "--no-check") as applier:
            wait_until(lambda: _waits_for_a_lock(target), what="the applier waits for the lock")
            applier.terminate()
            with pytest.raises(AssertionError):
                wait_until(lambda: applier.process.poll() is not None, 1.0)
            applier.terminate()
            assert applier.wait(10) == 1
            assert applier.error_lines == ["applier: interrupted"]
        assert executed(target) == before
        run("ROLLBACK")
    replay(source, target)
    assert_identical(source, target)


@pytest.mark.parametrize("role", ["source", "target"])
def test_a_drain_while_a_server_is_away_is_no_failure(
    source: Server, target: Server, table: str, role: str
) -> None:
    run_all(source, ["INSERT INTO d.t (v) VALUES (1), (2)"])
    running = Running(Replay(settings(source, target, stop_at_end=False)))
    running.wait_for(source, target)
    away, since = {"source": source, "target": target}[role], time.monotonic()
    away.kill()

    def waiting() -> bool:
        """Between two attempts to connect, of which the next one comes later than this test waits."""
        return time.monotonic() - since > 4 and (
            running.replay.pipeline is None or running.replay.progress().reconnects > 2
        )

    wait_until(waiting, what="the replay waits for the server")
    running.replay.drain()
    assert running.end().transactions == transactions(source if away is target else target)
    away.start()
    assert_identical(source, target)


def test_a_target_that_falls_silent_while_keys_are_read_is_lost_and_found_again(
    source: Server, target: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link stays open, so nothing but a time-out ends the wait of a decoder."""
    monkeypatch.setattr(connection, "SCHEMA_TIMEOUT_SECONDS", 1.0)
    tables = ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "CREATE TABLE d.u LIKE d.t"]
    run_all(source, [*tables, "INSERT INTO d.t VALUES (1)"])
    with FaultProxy(target.port) as proxy:
        through = address(target, "target", port=proxy.port)
        running = Running(Replay(settings(source, target, stop_at_end=False, target=through)))
        running.wait_for(source, target)
        before = running.replay.pipeline
        proxy.stall()
        proxy.refuse()
        run_all(source, ["INSERT INTO d.u VALUES (1)"])
        wait_until(lambda: running.replay.pipeline is not before, what="the pipeline has ended")
        proxy.cut()
        proxy.reset()
        running.wait_for(source, target)
        running.finish()
    assert_identical(source, target)


def _waits_for_a_lock(target: Server) -> bool:
    return bool(target.execute("SELECT 1 FROM performance_schema.data_lock_waits"))


def test_relaxed_order_resumes_over_its_gaps(source: Server, target: Server, table: str) -> None:
    with writing(source, table):
        for _ in range(3):
            with command(source, target, "--commit-order", "relaxed", "--no-check") as run:
                wait_for_more(target, 80, run)
                run.process.kill()
                run.wait()
    replay(source, target, ordered=False)
    assert_identical(source, target)


# --- TLS ---------------------------------------------------------------------------------------------


def test_both_links_under_tls(source: Server, target: Server, table: str) -> None:
    tls = Tls(TlsMode.REQUIRED)
    ends = {"source": address(source, "source", tls=tls), "target": address(target, "target", tls=tls)}
    with replaying(source, target, workers=4, **ends) as running, writing(source, table):
        wait_for_more(target, 100)
        ciphers = target.execute(
            "SELECT s.variable_value <> '' FROM performance_schema.status_by_thread s JOIN performance_schema.threads t"
            " USING (thread_id) WHERE s.variable_name = 'Ssl_cipher' AND t.processlist_id <> CONNECTION_ID()"
        )
        assert ciphers.count((1,)) >= 4
        kill_sessions_of_target(source, target)
        wait_for_more(target, 100)
        run_all(
            source, ["CREATE TABLE d.x SELECT * FROM d.t LIMIT 10", "INSERT INTO d.t (s) VALUES ('last')"]
        )
    running.end()
    replay(source, target, **ends)
    assert_identical(source, target)


def test_a_duplicate_that_goes_away_does_not_stop_the_run(source: Server, target: Server) -> None:
    """9.7 reports some that are none until the purge; here it is another client's row, for a moment."""
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"])
    replay(source, target)
    with session(target, "SET sql_log_bin = 0", "INSERT INTO d.t VALUES (1)") as run:
        source.execute("INSERT INTO d.t VALUES (1), (2)")
        with replaying(source, target) as running:

            def tried() -> bool:
                if running.failure is not None:
                    raise running.failure
                pipeline = running.replay.pipeline
                return pipeline is not None and any(one.state.failed_attempts > 2 for one in pipeline.workers)

            wait_until(tried)
            run("DELETE FROM d.t")
            running.wait_for(source, target)
    assert_identical(source, target)
