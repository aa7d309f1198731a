"""A target that stands still: the reader stops when the memory is used up, and goes on when the target does."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from applier.replay import Replay
from applier.sandbox import Server
from scheduler.grouping import GroupLimits
from tests.fault.test_soak import field
from tests.proxy import FaultProxy
from tests.replaying import (
    Mode,
    Running,
    assert_same_data,
    checksums,
    command,
    executed,
    replay,
    run_all,
    session,
    settings,
)
from tests.waiting import wait_until

MEMORY_MIB = 128
STILL_SECONDS = 1.0
PEAK_SECONDS = 0.05  # between looks at it
TABLES = 300


WIDE = ["CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b MEDIUMBLOB)"]


def wide_rows(source: Server) -> None:
    """200 MB in transactions of a megabyte."""
    insert = "INSERT INTO d.t (b) VALUES " + ", ".join(["(REPEAT(UUID(), 5000))"] * 6)
    run_all(source, [insert] * 200)


def compressed(source: Server) -> None:
    """Little log, which inflates to 300 MB."""
    insert = "INSERT INTO d.t (b) VALUES " + ", ".join(["(REPEAT('x', 500000))"] * 6)
    run_all(source, ["SET SESSION binlog_transaction_compression = ON", *[insert] * 100])


def one_compressed(source: Server) -> None:
    """A single transaction, which inflates to 300 MB: it passes in parts."""
    insert = "INSERT INTO d.t (b) VALUES " + ", ".join(["(REPEAT(UUID(), 14000))"] * 6)
    run_all(source, ["SET SESSION binlog_transaction_compression = ON", "BEGIN", *[insert] * 100, "COMMIT"])


TINY = ["CREATE TABLE d.t (id INT PRIMARY KEY)", "CREATE TABLE d.n (i INT)"]


NULLS = ["CREATE TABLE d.t (i INT)", "CREATE TABLE d.n (i INT)"]


def null_rows(source: Server) -> None:
    """Rows of a byte, a million in one transaction and a million in many."""
    run_all(source, ["INSERT INTO d.n VALUES " + ", ".join(f"({i})" for i in range(1000))])
    rows = "INSERT INTO d.t SELECT NULL FROM d.n a, d.n b, d.n c WHERE a.i < {} AND c.i < {}"
    run_all(source, [rows.format(1000, 1), *[rows.format(20, 1)] * 50])


def tiny_rows(source: Server) -> None:
    """Rows of 5 bytes: what is known of each takes more than the row itself."""
    run_all(source, ["INSERT INTO d.n VALUES " + ", ".join(f"({i})" for i in range(1000))])
    rows = "SELECT a.i * 1000 + b.i + {} FROM d.n a, d.n b WHERE a.i < 20"
    run_all(source, [f"INSERT INTO d.t {rows.format(1_000_000 * i)}" for i in range(30)])


MANY = [
    f"CREATE TABLE d.t{i} (id INT AUTO_INCREMENT PRIMARY KEY, b BLOB, KEY (b (10)))" for i in range(TABLES)
]


def many_tables(source: Server) -> None:
    """Each transaction in another table."""
    insert = "INSERT INTO d.t{} (b) VALUES " + ", ".join(["(REPEAT(UUID(), 400))"] * 30)
    run_all(source, [insert.format(i % TABLES) for i in range(400)])


ONE_BY_ONE: Mode = {}
GROUPS: Mode = {"group": GroupLimits(100), "net_changes": True}


@pytest.mark.parametrize(
    ("schema", "load", "mode"),
    [
        (WIDE, wide_rows, ONE_BY_ONE),
        pytest.param(WIDE, wide_rows, GROUPS, marks=pytest.mark.long),
        pytest.param(WIDE, compressed, GROUPS, marks=pytest.mark.long),
        pytest.param(WIDE, one_compressed, GROUPS, marks=pytest.mark.long),
        pytest.param(WIDE, one_compressed, ONE_BY_ONE, marks=pytest.mark.long),
        pytest.param(NULLS, null_rows, GROUPS, marks=pytest.mark.long),
        pytest.param(TINY, tiny_rows, GROUPS, marks=pytest.mark.long),
        pytest.param(MANY, many_tables, GROUPS, marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(600)
def test_target_that_stands_still_stops_the_reader(
    source: Server, target: Server, schema: list[str], load: Callable[[Server], None], mode: Mode
) -> None:
    run_all(source, ["CREATE DATABASE d", *schema])
    replay(source, target, **mode)
    load(source)
    options = ("--group-transactions", "100") if mode else ()
    with FaultProxy(source.port) as link, session(target) as run_on_target:
        through = source.url.replace(str(source.port), str(link.port))
        stand_still(run_on_target)
        end = ("--until-gtid-set", str(executed(source)).replace("\n", ""))
        with command(through, target, "--no-check", "--memory-max", str(MEMORY_MIB), *end, *options) as run:
            wait_until(lambda: link.bytes_to_client > 10_000)
            wait_until_still(link)
            assert run.process.poll() is None
            assert link.bytes_to_client < MEMORY_MIB << 20
            run_on_target("UNLOCK TABLES")
            status = Path(f"/proc/{run.process.pid}/status")
            peak = 0
            while run.process.poll() is None:
                try:
                    peak = field(status.read_text(encoding="utf-8"), "VmHWM") << 10
                except (OSError, AssertionError):  # it has ended
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(PEAK_SECONDS)
            assert run.wait(300) == 0, run.errors
    assert executed(target) == executed(source)
    assert checksums(target) == checksums(source)
    assert 0 < peak < MEMORY_MIB << 20, f"{peak >> 20} MiB"


def stand_still(run_on_target: Callable[[str], Any]) -> None:
    """Until UNLOCK TABLES nobody else can write to a table of d."""
    tables = run_on_target("SELECT table_name FROM information_schema.tables WHERE table_schema = 'd'")
    run_on_target("LOCK TABLES " + ", ".join(f"d.{name} WRITE" for (name,) in tables))


def wait_until_still(link: FaultProxy) -> None:
    """No byte has come for a while, but for heartbeats."""
    seen, since = 0, time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        if link.bytes_to_client > seen + 200:
            seen, since = link.bytes_to_client, time.monotonic()
        return time.monotonic() - since > STILL_SECONDS

    wait_until(still, 60.0)


def test_what_is_held_is_counted_and_given_back(source: Server, target: Server) -> None:
    run_all(source, ["CREATE DATABASE d", *WIDE])
    replay(source, target, **GROUPS)
    wide_rows(source)
    with session(target) as run_on_target:
        stand_still(run_on_target)
        running = Running(
            Replay(
                settings(source, target, memory_bytes_max=64 << 20, group=GroupLimits(100), net_changes=True)
            )
        )
        wait_until(lambda: running.replay.pipeline is not None and running.replay.pipeline.budget.waits > 0)
        pipeline = running.replay.pipeline
        assert pipeline is not None
        budget = pipeline.budget
        assert budget.used > budget.limit // 4
        assert budget.batches > 0
        run_on_target("UNLOCK TABLES")
        running.end()
    assert budget.peak < 1.2 * budget.limit  # charged before it is looked at: what one stage works on
    assert budget.wait_seconds > 0
    assert budget.batches == 0
    assert_same_data(source, target)


def test_transaction_that_needs_more_than_all_the_memory_gets_through(source: Server, target: Server) -> None:
    """A single row that is larger than the budget: nobody waits for room that only its own commit would make."""
    target.execute("SET GLOBAL max_allowed_packet = 128 << 20")  # an update has both images, in base64
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, b LONGBLOB)"])
    run_all(
        source,
        [
            "INSERT INTO d.t VALUES (1, 'before')",
            "INSERT INTO d.t VALUES (2, REPEAT('x', 30000000))",
            "INSERT INTO d.t VALUES (3, 'behind')",
        ],
    )
    for mode in (ONE_BY_ONE, GROUPS):
        replay(source, target, memory_bytes_max=16 << 20, **mode)
        assert_same_data(source, target)
        run_all(source, ["UPDATE d.t SET b = REVERSE(b), id = id + 10"])
        replay(source, target, memory_bytes_max=16 << 20, **mode)
        assert_same_data(source, target)
