"""Plans of logs of real servers, whose parallelism is known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from applier.address import parse_url
from applier.connection import connect
from applier.plan.collation_ids import COLLATION_NAMES
from applier.plan.keys import PlanKeys
from applier.plan.log import batches_of_files, batches_of_source
from applier.plan.planning import make_plan
from applier.plan.report import Plan
from applier.plan.simulate import WORKERS
from applier.sandbox import Server
from applier.workload import workload_named
from tests.replaying import run_all
from tests.servers import ServerFactory
from tests.waiting import wait_until

TABLE = ("CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, u INT UNIQUE, v INT)")


def start_log(server: Server) -> str:
    """A new binary log file, so that what came before does not count. Its name."""
    server.execute("FLUSH BINARY LOGS")
    return str(server.execute("SHOW BINARY LOGS")[-1][0])


def plan_of(server: Server, start_file: str) -> Plan:
    address = parse_url(server.url, "source", prompt=False)
    return make_plan(batches_of_source(address, start_file), PlanKeys(address))


def filled(server: Server, count: int) -> str:
    """d.t with rows 1 to `count`; the name of the log that begins after that."""
    rows = ",".join(f"({number},{number},0)" for number in range(1, count + 1))
    run_all(server, [*TABLE, f"INSERT INTO d.t VALUES {rows}"])
    return start_log(server)


def update_each(keys: Iterable[int]) -> list[str]:
    return [f"UPDATE d.t SET v = v + 1 WHERE id = {key}" for key in keys]


def copied(server: Server, folder: Path, names: Iterable[str], prefix: str = "") -> list[Path]:
    return [Path(shutil.copy(server.folder / "data" / name, folder / (prefix + name))) for name in names]


def run_plan(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "applier", "plan", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


# --- known parallelism -----------------------------------------------------------------------------------


def test_distinct_rows_scale_with_the_workers(source: Server) -> None:
    first_file = filled(source, 640)
    run_all(source, update_each(range(1, 641)))
    plan = plan_of(source, first_file)
    assert plan.transactions == 640
    assert plan.critical_path == 1
    for workers in WORKERS:
        assert plan.speedup["ours"][workers] == pytest.approx(workers)
        assert plan.speedup["handoff"][workers] == pytest.approx(workers)
        # The source lets everything wait for the first transaction of a file.
        assert 0.9 * workers < plan.speedup["source"][workers] <= workers
    assert plan.keys_text.startswith("the schema of")


def test_one_hot_row_allows_nothing(source: Server) -> None:
    first_file = filled(source, 5)
    run_all(source, update_each([3] * 100))
    plan = plan_of(source, first_file)
    assert plan.critical_path == 100
    for factors in plan.speedup.values():
        assert factors[64] == pytest.approx(1)
    (hot,) = plan.hot_keys
    assert (hot.name.table, hot.name.index, hot.name.values) == ("d.t", "PRIMARY", {"id": 3})
    assert hot.waits == 99


def test_log_of_two_phases_is_the_mean_of_both(source: Server) -> None:
    first_file = filled(source, 640)
    run_all(source, update_each(range(1, 641)) + update_each([1] * 640))
    plan = plan_of(source, first_file)
    assert plan.speedup["ours"][64] == pytest.approx(1280 / (640 / 64 + 640), rel=0.02)


def test_unique_value_that_wanders_is_a_chain_of_its_secondary_index(source: Server) -> None:
    """Every transaction takes the value that the one before has freed, each under another primary key."""
    first_file = filled(source, 50)
    moves = []
    for key in range(1, 50):
        moves += [f"UPDATE d.t SET u = NULL WHERE id = {key}", f"UPDATE d.t SET u = 1 WHERE id = {key + 1}"]
    run_all(source, moves)
    plan = plan_of(source, first_file)
    assert plan.critical_path == len(moves)
    assert plan.speedup["ours"][8] == pytest.approx(1)
    assert (plan.hot_keys[0].name.index, plan.hot_keys[0].name.values) == ("u", {"u": 1})


def test_children_of_one_parent_run_side_by_side(source: Server) -> None:
    run_all(
        source,
        [
            "CREATE DATABASE d",
            "CREATE TABLE d.p (id INT PRIMARY KEY)",
            "CREATE TABLE d.c (id INT PRIMARY KEY, p INT, FOREIGN KEY f (p) REFERENCES d.p (id))",
            "INSERT INTO d.p VALUES (1)",
        ],
    )
    first_file = start_log(source)
    run_all(
        source,
        [f"INSERT INTO d.c VALUES ({key}, 1)" for key in range(1, 129)]
        + ["DELETE FROM d.c", "DELETE FROM d.p"],
    )
    plan = plan_of(source, first_file)
    assert plan.critical_path == 3
    assert plan.speedup["ours"][64] > 1.4 * plan.speedup["source"][64]


# --- barriers --------------------------------------------------------------------------------------------


def test_each_barrier_is_listed_with_gtid_and_reason(source: Server) -> None:
    first_file = filled(source, 5)
    before = int(source.execute("SELECT @@global.gtid_executed")[0][0].split("-")[-1])
    statements = [
        "UPDATE d.t SET v = 9 WHERE id = 1",
        "ALTER TABLE d.t ADD w INT",
        "UPDATE d.t SET v = 10 WHERE id = 1",
        "CREATE USER somebody",
        "GRANT SELECT ON d.* TO somebody",
        "CREATE TABLE d.copy AS SELECT * FROM d.t",
        *(
            "XA START 'x'",
            "UPDATE d.t SET v = 11 WHERE id = 2",
            "XA END 'x'",
            "XA PREPARE 'x'",
            "XA COMMIT 'x'",
        ),
        *("BEGIN", "SAVEPOINT s", "UPDATE d.t SET v = 12 WHERE id = 3", "SAVEPOINT s2", "COMMIT"),
        "SET binlog_format = STATEMENT",
        "UPDATE d.t SET v = 13 WHERE id = 4",
    ]
    run_all(source, statements)
    plan = plan_of(source, first_file)
    assert [(int(one.gtid.split(":")[1]) - before, one.reason) for one in plan.barriers] == [
        (2, "DDL"),
        (4, "account statement"),
        (5, "account statement"),
        (6, "CREATE TABLE … SELECT"),
        (7, "XA transaction"),
        (8, "XA transaction"),
        (9, "savepoint"),
        (10, "statement format"),
    ]
    assert plan.barriers[0].detail == "ALTER TABLE d.t ADD w INT"
    assert plan.barriers[0].file == first_file


def test_minimal_images_that_lack_a_key_are_a_barrier(source: Server) -> None:
    first_file = filled(source, 5)
    run_all(source, ["SET SESSION binlog_row_image = MINIMAL", "UPDATE d.t SET u = 100 WHERE id = 2"])
    plan = plan_of(source, first_file)
    assert plan.barriers_by_reason == {"key columns missing in the row images": 1}
    assert plan.barriers[0].detail == "d.t"


# --- TPC-C -------------------------------------------------------------------------------------------------


@pytest.fixture
def tpcc_log(source: Server) -> str:
    """The log of TPC-C with one warehouse, where every payment updates the same row."""
    source.execute("SET GLOBAL binlog_row_metadata = FULL")
    address = parse_url(source.url, "source", prompt=False)
    workload = workload_named("tpcc", warehouses=1, scale=0.02, terminals=4, seed=7)
    workload.prepare(lambda: connect(address))
    first_file = start_log(source)
    workload.run(lambda: connect(address), transactions=600)
    return first_file


def test_tpcc_is_held_up_by_its_warehouse_unless_rows_are_handed_on_alone(
    source: Server, tpcc_log: str
) -> None:
    plan = plan_of(source, tpcc_log)
    assert plan.hot_keys[0].name.table == "tpcc.warehouse"
    assert plan.hot_keys[0].name.values == {"w_id": 1}
    assert "tpcc.warehouse" in [table.name for table in plan.tables[:2]]
    assert [table.name for table in plan.keyless] == ["tpcc.history"]
    assert plan.barriers == ()
    for workers in (4, 16, 64):
        source_factor, ours, handoff = (
            plan.speedup[policy][workers] for policy in ("source", "ours", "handoff")
        )
        assert 1 < source_factor <= ours < handoff <= workers
    assert plan.speedup["handoff"][16] > 1.3 * plan.speedup["ours"][16]
    assert plan.speedup["ours"][64] <= plan.speedup_limit


def test_plan_is_the_same_from_stream_files_and_relay_logs(
    source: Server, tpcc_log: str, server_factory: ServerFactory, tmp_path: Path
) -> None:
    streamed = plan_of(source, tpcc_log)
    from_file = make_plan(batches_of_files(copied(source, tmp_path, [tpcc_log])), PlanKeys())
    assert from_file.keys_text.startswith("primary keys from the log only"), "binlog_row_metadata is FULL"
    assert from_file.speedup == streamed.speedup
    assert from_file.critical_path == streamed.critical_path
    assert from_file.keys == streamed.keys
    assert [key.name.values for key in from_file.hot_keys] == [key.name.values for key in streamed.hot_keys]

    whole = make_plan(batches_of_source(parse_url(source.url, "source", prompt=False)), PlanKeys())
    replica = server_factory({"relay_log_purge": "0", "relay_log": "relay"}, replica_of="source")
    executed = source.execute("SELECT @@global.gtid_executed")[0][0]
    wait_until(
        lambda: replica.execute(f"SELECT GTID_SUBSET('{executed}', @@global.gtid_executed)") == ((1,),),
        60,
        "caught up",
    )
    replica.execute("STOP REPLICA")
    names = sorted(path.name for path in (replica.folder / "data").glob("relay.0*"))
    relayed = make_plan(batches_of_files(copied(replica, tmp_path, names)), PlanKeys())
    assert relayed.transactions == whole.transactions
    assert relayed.rows == whole.rows
    assert relayed.critical_path == whole.critical_path


def test_compressed_transactions_make_the_same_plan(source: Server) -> None:
    plans = []
    filled(source, 200)
    for compression in ("OFF", "ON"):
        first_file = start_log(source)
        run_all(
            source,
            [f"SET binlog_transaction_compression = {compression}", *update_each([*range(1, 201), 1, 2])],
        )
        plans.append(plan_of(source, first_file))
    assert plans[0].speedup == plans[1].speedup
    assert plans[0].critical_path == plans[1].critical_path == 2


# --- the command -------------------------------------------------------------------------------------------


def test_command_needs_no_more_than_to_read(source: Server, tmp_path: Path) -> None:
    first_file = filled(source, 20)
    run_all(source, update_each(range(1, 21)))
    source.execute("CREATE USER reader IDENTIFIED BY 'secret'")
    source.execute("GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO reader")
    executed = source.execute("SELECT @@global.gtid_executed")
    url = f"mysql://reader:secret@{source.host}:{source.port}"
    finished = run_plan("--source", url, "--start-file", first_file, "--json", tmp_path / "plan.json")
    assert finished.returncode == 0, finished.stderr
    facts: dict[str, Any] = json.loads((tmp_path / "plan.json").read_text())
    assert facts["transactions"] == 22
    assert facts["barriers_by_reason"] == {"account statement": 2}
    assert source.execute("SELECT @@global.gtid_executed") == executed

    (path,) = copied(source, tmp_path, [first_file])
    alone = json.loads(run_plan(path, "--json", "-").stdout)
    assert alone["keys_from"].startswith("unknown"), "binlog_row_metadata is MINIMAL"
    told = json.loads(run_plan(path, "--schema-from", url, "--json", "-").stdout)
    assert told["speedup"] == facts["speedup"]


def test_missing_privilege_and_missing_file_are_told(source: Server) -> None:
    source.execute("CREATE USER nobody IDENTIFIED BY 'secret'")
    refused = run_plan("--source", f"mysql://nobody:secret@{source.host}:{source.port}")
    assert refused.returncode == 3
    assert "lacks a privilege" in refused.stderr
    missing = run_plan("--source", source.url, "--start-file", "binlog.999999")
    assert missing.returncode == 2
    assert "has no binary log binlog.999999" in missing.stderr


def test_collations_that_the_log_numbers_have_the_names_of_the_server(source: Server) -> None:
    rows = source.execute("SELECT id, collation_name FROM information_schema.collations")
    names: dict[int, str] = dict(rows)
    assert {number: names[number] for number in COLLATION_NAMES} == COLLATION_NAMES


def test_table_that_has_changed_since_is_read_from_the_log(source: Server) -> None:
    source.execute("SET GLOBAL binlog_row_metadata = FULL")
    first_file = filled(source, 20)
    run_all(source, [*update_each(range(1, 21)), "ALTER TABLE d.t ADD w INT", "DROP DATABASE d"])
    plan = plan_of(source, first_file)
    assert plan.keys_text.startswith("primary keys from the log only")
    assert plan.critical_path == 3
