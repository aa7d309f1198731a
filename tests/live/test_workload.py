"""Workloads on a real source: what they leave behind is what their specification says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
from click.testing import CliRunner

from applier.cli.workload import workload as workload_command
from applier.errors import SourceError, SourceLost, UsageError
from applier.sandbox import Server
from applier.workload import WORKLOADS, Counters, Workload, workload_named
from tests.waiting import wait_until

SMALL = 0.01

# TPC-C 5.11, clause 3.3.2: each statement lists what violates the condition of that number.
CONSISTENCY = {
    1: "SELECT w_id FROM warehouse WHERE w_ytd <> (SELECT SUM(d_ytd) FROM district WHERE d_w_id = w_id)",
    2: """SELECT d_w_id, d_id FROM district WHERE d_next_o_id - 1 <> (
            SELECT MAX(o_id) FROM orders WHERE o_w_id = d_w_id AND o_d_id = d_id)
          OR d_next_o_id - 1 <> (
            SELECT MAX(no_o_id) FROM new_orders WHERE no_w_id = d_w_id AND no_d_id = d_id)""",
    3: """SELECT no_w_id, no_d_id FROM new_orders GROUP BY no_w_id, no_d_id
          HAVING MAX(no_o_id) - MIN(no_o_id) + 1 <> COUNT(*)""",
    4: """SELECT d_w_id, d_id FROM district
          WHERE (SELECT SUM(o_ol_cnt) FROM orders WHERE o_w_id = d_w_id AND o_d_id = d_id)
             <> (SELECT COUNT(*) FROM order_line WHERE ol_w_id = d_w_id AND ol_d_id = d_id)""",
    5: """SELECT o_w_id, o_d_id, o_id FROM orders
          LEFT JOIN new_orders ON no_w_id = o_w_id AND no_d_id = o_d_id AND no_o_id = o_id
          WHERE (o_carrier_id IS NULL) <> (no_o_id IS NOT NULL)""",
    6: """SELECT o_w_id, o_d_id, o_id FROM orders WHERE o_ol_cnt <> (
            SELECT COUNT(*) FROM order_line
            WHERE ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id)""",
    7: """SELECT ol_w_id, ol_d_id, ol_o_id, ol_number FROM order_line
          JOIN orders ON o_w_id = ol_w_id AND o_d_id = ol_d_id AND o_id = ol_o_id
          WHERE (ol_delivery_d IS NULL) <> (o_carrier_id IS NULL)""",
    8: """SELECT w_id FROM warehouse
          WHERE w_ytd <> (SELECT SUM(h_amount) FROM history WHERE h_w_id = w_id)""",
    9: """SELECT d_w_id, d_id FROM district WHERE d_ytd <> (
            SELECT SUM(h_amount) FROM history WHERE h_w_id = d_w_id AND h_d_id = d_id)""",
    10: """SELECT c_w_id, c_d_id, c_id FROM customer
           LEFT JOIN (SELECT o_w_id, o_d_id, o_c_id, SUM(ol_amount) AS owed FROM orders
             JOIN order_line ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id
             WHERE ol_delivery_d IS NOT NULL GROUP BY o_w_id, o_d_id, o_c_id) AS delivered
           ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id
           WHERE c_balance <> COALESCE(owed, 0) - (SELECT SUM(h_amount) FROM history
             WHERE h_c_w_id = c_w_id AND h_c_d_id = c_d_id AND h_c_id = c_id)""",
    12: """SELECT c_w_id, c_d_id, c_id FROM customer
           LEFT JOIN (SELECT o_w_id, o_d_id, o_c_id, SUM(ol_amount) AS owed FROM orders
             JOIN order_line ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id
             WHERE ol_delivery_d IS NOT NULL GROUP BY o_w_id, o_d_id, o_c_id) AS delivered
           ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id
           WHERE c_balance + c_ytd_payment <> COALESCE(owed, 0)""",
}

ORDERS_LOADED = 30  # of a district at the scale SMALL

# The specification says in clause 2.4.2.2 what a new order does to stock, but has no condition for it.
STOCK = f"""SELECT s_w_id, s_i_id FROM stock
    LEFT JOIN (SELECT ol_supply_w_id, ol_i_id, SUM(ol_quantity) AS pieces, COUNT(*) AS times,
        SUM(ol_supply_w_id <> ol_w_id) AS remote FROM order_line
      WHERE ol_o_id > {ORDERS_LOADED} GROUP BY ol_supply_w_id, ol_i_id) AS ordered
    ON ol_supply_w_id = s_w_id AND ol_i_id = s_i_id
    WHERE s_ytd <> COALESCE(pieces, 0) OR s_order_cnt <> COALESCE(times, 0)
      OR s_remote_cnt <> COALESCE(remote, 0) OR s_quantity NOT BETWEEN 10 AND 100"""


def violations(source: Server) -> dict[int, Any]:
    found = {number: source.execute(sql, database="tpcc") for number, sql in CONSISTENCY.items()}
    return {number: rows for number, rows in found.items() if rows}


def checksums(source: Server, workload: Workload) -> dict[str, int]:
    database = workload.settings.database
    tables = source.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (database,)
    )
    names = ", ".join(f"`{database}`.`{name}`" for (name,) in tables)
    return dict(source.execute(f"CHECKSUM TABLE {names}"))


def count(source: Server, table: str) -> int:
    ((rows,),) = source.execute(f"SELECT COUNT(*) FROM {table}")
    return int(rows)


# --- TPC-C --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign_keys", [False, True], ids=["plain", "foreign-keys"])
def test_tpcc_is_consistent_after_terminals_have_worked_side_by_side(
    source: Server, foreign_keys: bool
) -> None:
    tpcc = workload_named("tpcc", warehouses=2, terminals=6, scale=SMALL, foreign_keys=foreign_keys)
    tpcc.prepare(source.connect)
    assert violations(source) == {}
    result = tpcc.run(source.connect, transactions=600)
    assert violations(source) == {}
    assert source.execute(STOCK, database="tpcc") == ()
    assert result.transactions == 600
    assert result.new_orders == 270
    # What the run counted is what the tables hold: 30 orders a district at the start, one payment a customer.
    assert count(source, "tpcc.orders") == 600 + result.by_kind["new_order"]
    assert count(source, "tpcc.history") == 600 + result.by_kind["payment"]
    assert result.tpmc == pytest.approx(270 * 60 / result.seconds)


def test_tpcc_starts_with_the_sizes_of_the_specification_at_scale(source: Server) -> None:
    tpcc = workload_named("tpcc", warehouses=2, scale=SMALL)
    tpcc.prepare(source.connect)
    sizes = {
        table: count(source, f"tpcc.{table}")
        for table in ("warehouse", "district", "item", "stock", "customer", "history", "orders", "new_orders")
    }
    assert sizes == {
        "warehouse": 2,
        "district": 20,
        "item": 1000,
        "stock": 2000,
        "customer": 600,
        "history": 600,
        "orders": 600,
        "new_orders": 180,
    }
    assert tpcc.counters.rows_loaded == sum(sizes.values()) + count(source, "tpcc.order_line")
    # Condition 11 holds before the first delivery only.
    assert sizes["orders"] - sizes["new_orders"] == 20 * 21


def test_a_new_order_with_an_unknown_item_leaves_nothing_behind(source: Server) -> None:
    tpcc = workload_named("tpcc", warehouses=1, scale=SMALL)
    tpcc.prepare(source.connect)
    before = checksums(source, tpcc)
    lines = "000001" + "00001" + "03" + "001001" + "00001" + "01"  # item 1001 is one too many
    source.execute(f"CALL tpcc_new_order(1, 1, 1, 2, 1, '{lines}', '2026-01-01')", database="tpcc")
    assert checksums(source, tpcc) == before


# --- all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKLOADS)
def test_two_hundred_transactions_are_two_hundred_transactions(source: Server, name: str) -> None:
    workload = workload_named(name, scale=SMALL, terminals=4)
    workload.prepare(source.connect)
    before = checksums(source, workload)
    seen: list[Counters] = []
    result = workload.run(source.connect, transactions=200, progress=seen.append)
    assert result.transactions == workload.counters.transactions == sum(result.by_kind.values()) == 200
    assert result.workload == name
    assert checksums(source, workload) != before
    assert seen[-1] is workload.counters
    assert 0 < result.latency_milliseconds["p50"] <= result.latency_milliseconds["max"]
    assert (result.tpmc > 0) == (name == "tpcc")


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_gives_the_same_rows_with_one_terminal(source: Server, name: str) -> None:
    def rows_after(run_of: Callable[[Workload], object], **parameters: Any) -> dict[str, int]:
        workload = workload_named(name, scale=SMALL, terminals=1, replace=True, **parameters)
        workload.prepare(source.connect)
        run_of(workload)
        return checksums(source, workload)

    def together(workload: Workload) -> object:
        return workload.run(source.connect, transactions=60)

    rows = rows_after(together, seed=5)
    assert rows_after(together, seed=5) == rows
    assert rows_after(together, seed=5, calls_per_packet=7) == rows
    assert rows_after(together, seed=6) != rows


def test_prepare_keeps_its_hands_off_tables_that_are_there(source: Server) -> None:
    workload_named("oltp", scale=SMALL).prepare(source.connect)
    before = count(source, "sbtest.sbtest1")
    with pytest.raises(UsageError, match="already has the table sbtest1"):
        workload_named("oltp", scale=2 * SMALL).prepare(source.connect)
    assert count(source, "sbtest.sbtest1") == before
    workload_named("oltp", scale=2 * SMALL, replace=True).prepare(source.connect)
    assert count(source, "sbtest.sbtest1") == 2 * before


def test_run_without_prepare_says_what_is_missing(source: Server) -> None:
    with pytest.raises(SourceError, match="Unknown database 'sbtest'"):
        workload_named("oltp").run(source.connect, transactions=1)
    source.execute("CREATE DATABASE sbtest")
    with pytest.raises(SourceError, match="oltp_write_only does not exist"):
        workload_named("oltp").run(source.connect, transactions=1)


# --- pace and end -------------------------------------------------------------------------------------


def test_a_controlled_rate_is_never_exceeded(source: Server) -> None:
    workload = workload_named("update-index", scale=SMALL, terminals=4)
    workload.prepare(source.connect)
    result = workload.run(source.connect, transactions=100, rate=200.0)
    assert result.transactions == 100
    assert result.seconds >= 99 / 200
    by_time = workload.run(source.connect, seconds=0.5, rate=100.0)
    # 51 are due within half a second; a source that has stalled may have done fewer.
    assert 0 < by_time.transactions <= 51


def test_stop_ends_a_run_that_has_no_other_end(source: Server) -> None:
    workload = workload_named("oltp", scale=SMALL, terminals=4)
    workload.prepare(source.connect)
    stop = threading.Event()
    thread = threading.Thread(target=lambda: workload.run(source.connect, stop=stop))
    thread.start()
    wait_until(lambda: workload.counters.transactions >= 20, what="20 transactions")
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_source_that_dies_ends_the_run_of_all_terminals(source: Server) -> None:
    workload = workload_named("oltp", scale=SMALL, terminals=4)
    workload.prepare(source.connect)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            workload.run(source.connect)
        except SourceLost as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: workload.counters.transactions >= 20, what="20 transactions")
    source.kill()
    thread.join(30)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_a_transaction_that_waited_too_long_for_a_lock_is_done_once_after_all(source: Server) -> None:
    workload = workload_named("hot-row", scale=SMALL, terminals=2, calls_per_packet=5)
    workload.prepare(source.connect)

    def impatient() -> pymysql.Connection[Any]:
        connection = source.connect()
        with connection.cursor() as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = 1")
        return connection

    with source.connect() as holder, holder.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM hot_row.totals FOR UPDATE")
        results = []
        thread = threading.Thread(target=lambda: results.append(workload.run(impatient, transactions=40)))
        thread.start()
        wait_until(lambda: workload.counters.retries > 0, what="a lock wait time-out")
        cursor.execute("ROLLBACK")
        thread.join(60)
    assert [result.transactions for result in results] == [40]
    totals = source.execute(
        "SELECT SUM(total), (SELECT SUM(balance) FROM hot_row.accounts) FROM hot_row.totals"
    )
    once = workload_named("hot-row", scale=SMALL, terminals=2, replace=True)
    once.prepare(source.connect)
    once.run(source.connect, transactions=40)
    assert totals == source.execute(
        "SELECT SUM(total), (SELECT SUM(balance) FROM hot_row.accounts) FROM hot_row.totals"
    )


# --- the command --------------------------------------------------------------------------------------


def test_the_command_prepares_and_runs(source: Server) -> None:
    def command(*arguments: str) -> Any:
        outcome = CliRunner().invoke(
            workload_command, [*arguments, "--source", source.url, "--json"], catch_exceptions=False
        )
        assert outcome.exit_code == 0
        return json.loads(outcome.stdout)

    size = ("--workload", "large", "--set", "rows-per-transaction=10")
    prepared = command("prepare", *size)
    assert prepared["rows"] == 400
    done = command("run", *size, "--terminals", "2", "--transactions", "30")
    assert done["transactions"] == 30
    assert {"tpmc", "retries", "transactions_per_second", "latency_milliseconds", "by_kind"} <= set(done)
