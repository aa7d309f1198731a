"""Many writers on the source, many workers on the target: the same data in the end, whatever the interleaving."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable

import pymysql
import pytest

from applier.sandbox import Server
from tests.replaying import assert_identical, replay, replaying, run_all, session
from tests.servers import GlobalVariables, reset

TABLES = (
    "CREATE DATABASE d",
    "USE d",
    # Equal by case, accent, trailing blanks and ß = ss; two collations that differ in that.
    "CREATE TABLE swap (id INT PRIMARY KEY, u INT UNIQUE, name VARCHAR(20) COLLATE utf8mb4_0900_ai_ci UNIQUE,"
    " padded VARCHAR(20) COLLATE latin1_swedish_ci, UNIQUE KEY (padded), v INT)",
    "CREATE TABLE keyless (a INT, b VARCHAR(10), KEY (a))",
    "CREATE TABLE hot (id INT PRIMARY KEY, n INT)",
    "CREATE TABLE parent (id INT PRIMARY KEY, v INT)",
    "CREATE TABLE child (id INT PRIMARY KEY AUTO_INCREMENT, p INT, FOREIGN KEY (p) REFERENCES parent (id)"
    " ON DELETE CASCADE ON UPDATE CASCADE)",
    "INSERT INTO hot VALUES (1, 0)",
    "INSERT INTO swap VALUES " + ", ".join(f"({i}, {i}, 'k{i}', 'p{i}', 0)" for i in range(30)),
    "INSERT INTO parent VALUES " + ", ".join(f"({i}, 0)" for i in range(10)),
)
KEYS = 60

Run = Callable[[str], object]


def _name(choose: random.Random, number: int) -> str:
    """One of several spellings of the same key."""
    return choose.choice(["k", "K"]) + str(number) + choose.choice(["", "ß", "ss", "SS", "é", "E"])


def _padded(choose: random.Random, number: int) -> str:
    return choose.choice(["p", "P"]) + str(number) + choose.choice(["", " ", "   "])


def _change(choose: random.Random, run: Run) -> None:
    a, b = choose.randrange(KEYS), choose.randrange(KEYS)
    kind = choose.randrange(11)
    if kind == 0:  # a unique value under another primary key
        run(f"DELETE FROM swap WHERE u = {a}")
        run(f"INSERT IGNORE INTO swap VALUES ({b}, {a}, '{_name(choose, a)}', '{_padded(choose, b)}', 1)")
    elif kind == 1:
        run(f"UPDATE IGNORE swap SET u = {a}, name = '{_name(choose, b)}' WHERE id = {b}")
    elif kind == 2:  # two rows swap their unique values
        run(f"UPDATE swap SET u = u + 1000 WHERE u IN ({a}, {b})")
        run(f"UPDATE IGNORE swap SET u = {b} WHERE u = {a} + 1000")
        run(f"UPDATE IGNORE swap SET u = {a} WHERE u = {b} + 1000")
    elif kind == 3:
        run(f"UPDATE swap SET u = NULL, padded = NULL WHERE id = {a}")
        run(f"UPDATE IGNORE swap SET padded = '{_padded(choose, b)}' WHERE id = {b}")
    elif kind == 4:
        run(f"REPLACE INTO swap VALUES ({a}, {b}, '{_name(choose, a)}', '{_padded(choose, a)}', 4)")
    elif kind == 5:
        run(f"INSERT INTO keyless VALUES ({a}, '{b}'), ({a}, '{b}')")
    elif kind == 6:
        run(f"UPDATE keyless SET b = 'z{b}' WHERE a = {a} LIMIT 2")
    elif kind == 7:
        run("UPDATE hot SET n = n + 1")
    elif kind == 8:
        run(f"INSERT IGNORE INTO parent VALUES ({a}, {b})")
        run(f"INSERT IGNORE INTO child (p) VALUES ({a})")
    elif kind == 9:
        run(f"DELETE FROM parent WHERE id = {a}")
    else:
        run(f"UPDATE IGNORE parent SET id = {b} WHERE id = {a}")


def _writer(source: Server, seed: int, transactions: int) -> None:
    choose = random.Random(seed)
    with session(source, "USE d") as run:
        for _ in range(transactions):
            try:
                run("BEGIN")
                for _ in range(choose.randint(1, 4)):
                    _change(choose, run)
                run("COMMIT" if choose.random() < 0.9 else "ROLLBACK")
            except pymysql.err.OperationalError as error:
                if error.args[0] not in (1205, 1213):
                    raise
                run("ROLLBACK")


def load(source: Server, seed: int, *, writers: int, transactions: int) -> None:
    """Writers with seeds of their own; how they meet is up to the server."""
    threads = [
        threading.Thread(
            target=_writer, args=(source, seed * 1000 + number, transactions), name=f"writer-{number}"
        )
        for number in range(writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_any_number_of_workers_comes_to_the_same_data(
    source: Server, target: Server, baselines: dict[str, GlobalVariables]
) -> None:
    run_all(source, TABLES)
    load(source, seed=7, writers=6, transactions=60)
    for workers, options in (
        (1, {}),
        (4, {}),
        (16, {}),
        (16, {"use_source_bounds": False}),
        (16, {"ordered": False}),
        (16, {"ordered": False, "use_source_bounds": False}),
    ):
        reset(target, baselines["target"])
        replay(source, target, workers=workers, **options)
        assert_identical(source, target)


@pytest.mark.parametrize("ordered", [True, False], ids=["strict", "relaxed"])
def test_writers_and_workers_at_the_same_time(source: Server, target: Server, ordered: bool) -> None:
    run_all(source, TABLES)
    with replaying(source, target, workers=8, ordered=ordered) as running:
        load(source, seed=11, writers=4, transactions=60)
        running.wait_for(source, target)
    assert_identical(source, target)


def test_definitions_change_under_load(source: Server, target: Server) -> None:
    """Unique keys come and go while rows are written: each row is scheduled by the keys of its time."""
    run_all(
        source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT UNIQUE, w VARCHAR(20))"]
    )
    stop = threading.Event()
    with replaying(source, target, workers=8) as running:
        writers = [
            threading.Thread(target=_upsert_and_delete, args=(source, random.Random(seed), stop))
            for seed in range(4)
        ]
        for writer in writers:
            writer.start()
        with session(source, "USE d") as run:
            for number in range(8):
                for change in (
                    "ADD UNIQUE uw (w)",
                    "DROP INDEX uw",
                ):  # which may fail: there are duplicates, or no such key
                    with contextlib.suppress(pymysql.err.MySQLError):
                        run(f"ALTER TABLE t {change}")
                run("ALTER TABLE t DROP INDEX v, ADD UNIQUE v (v)")
                run("RENAME TABLE t TO other")
                run("RENAME TABLE other TO t")
                run(f"ALTER TABLE t ADD c{number} INT")
        stop.set()
        for writer in writers:
            writer.join()
        running.wait_for(source, target)
    assert_identical(source, target)


def _upsert_and_delete(source: Server, choose: random.Random, stop: threading.Event) -> None:
    with session(source, "USE d") as run:
        while not stop.is_set():
            word = choose.choice("aAbBäÄß") + str(choose.randrange(60))
            # Duplicates in another key, deadlocks, and the moment when the table is called otherwise.
            with contextlib.suppress(pymysql.err.MySQLError):
                run(
                    f"INSERT INTO t (id, v, w) VALUES ({choose.randrange(60)}, {choose.randrange(60)}, '{word}')"
                    " ON DUPLICATE KEY UPDATE w = VALUES(w)"
                )
                run(f"DELETE FROM t WHERE v = {choose.randrange(60)}")
            stop.wait(0.002)


def test_readers_see_states_of_the_source_only(source: Server, target: Server) -> None:
    """In strict order a reader of the target never sees a transaction without the one before it."""
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, n INT)"])
    run_all(source, [f"INSERT INTO d.t VALUES ({i}, 0)" for i in range(8)])
    replay(source, target)
    # Writer n counts row n up; rows are written one after the other, so no row is ever two ahead of the next one.
    run_all(source, [f"UPDATE d.t SET n = n + 1 WHERE id = {i}" for _ in range(60) for i in range(8)])
    states = _states_during_replay(source, target)
    for counts in states:
        assert list(counts) == sorted(counts, reverse=True)
        assert counts[0] - counts[-1] <= 1
    assert len(set(states)) > 2, "the replay was over before anybody looked"
    assert_identical(source, target)


def _states_during_replay(source: Server, target: Server) -> list[tuple[int, ...]]:
    query = "SELECT n FROM d.t ORDER BY id"
    last = tuple(n for (n,) in source.execute(query))
    states: list[tuple[int, ...]] = []
    with replaying(source, target, workers=8) as running, session(target) as read:
        while not states or states[-1] != last:
            states.append(tuple(n for (n,) in read(query)))
            if running.failure is not None:
                raise running.failure
    return states
