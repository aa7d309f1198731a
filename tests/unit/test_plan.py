"""Plans of logs made byte by byte, against a model of dictionaries; what is read, refused and written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.errors import ApplierError, DataError, UsageError
from applier.plan.keys import PlanKeys
from applier.plan.log import batches_of_files, first
from applier.plan.planning import PlanOptions, make_plan
from applier.plan.report import Plan
from applier.plan.simulate import POLICY_NAMES, WORKERS
from tests.binlog_bytes import MAGIC, RELAY_LOG, events_of, format_event, of_file, rotate_event, take_all
from tests.plan_logs import KEYED, KEYLESS, UNKNOWN, Logged, binlog, delete, insert, rows, table_map, update
from tests.plan_model import schedule, speedup


def plan_of(log: Sequence[Logged], **options: Any) -> Plan:
    return make_plan(take_all(of_file(binlog(log))), PlanKeys(), PlanOptions(**options))


# --- against the model -----------------------------------------------------------------------------------

keys = st.integers(1, 6)
tables = st.sampled_from([KEYED, KEYED, KEYED, KEYLESS, UNKNOWN])
changes = st.one_of(
    st.builds(insert, keys, tables), st.builds(update, keys, keys, tables), st.builds(delete, keys, tables)
)
transactions = st.one_of(
    *[st.builds(Logged, st.lists(changes, min_size=1, max_size=5))] * 9,
    st.builds(Logged, statement=st.just("CREATE TABLE d.another (id INT)")),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Logged]:
    """The source's own numbers are there for the whole log or not at all; they may contradict the keys."""
    log = draw(st.lists(transactions, min_size=1, max_size=40))
    if draw(st.booleans()):
        return log
    return [
        Logged(one.changes, one.statement, draw(st.integers(max(0, number - 9), number)))
        for number, one in enumerate(log)
    ]


@settings(max_examples=300)
@given(logs())
def test_critical_path_is_the_longest_chain_of_the_model(log: list[Logged]) -> None:
    plan = plan_of(log)
    assert plan.exact
    assert plan.critical_path == max(one.depth for one in schedule(log))
    assert plan.barrier_total == sum(one.barrier for one in schedule(log))


@settings(max_examples=300)
@given(logs())
def test_speedups_are_those_of_explicit_workers(log: list[Logged]) -> None:
    plan, scheduled = plan_of(log), schedule(log)
    for policy in POLICY_NAMES:
        for workers in WORKERS:
            expected = speedup(scheduled, workers, policy)
            assert plan.speedup[policy][workers] == pytest.approx(expected), (policy, workers)


@settings(max_examples=100)
@given(logs())
def test_more_workers_and_finer_hand_over_never_slow_down(log: list[Logged]) -> None:
    speedups = plan_of(log).speedup
    for policy in POLICY_NAMES:
        factors = [speedups[policy][workers] for workers in WORKERS]
        assert factors[0] == pytest.approx(1)
        assert factors == sorted(factors)
    for workers in WORKERS:
        assert speedups["handoff"][workers] >= speedups["ours"][workers] - 1e-9


def test_long_logs_agree_with_the_model_too() -> None:
    """Longer than the rings and the reach of the bucket index's own bookkeeping."""
    log = [Logged([update(n % 7 + 1), insert(n + 100), update(n * n % 31 + 1)]) for n in range(3000)]
    plan, scheduled = plan_of(log), schedule(log)
    assert plan.critical_path == max(one.depth for one in scheduled)
    for policy in POLICY_NAMES:
        for workers in WORKERS:
            assert plan.speedup[policy][workers] == pytest.approx(speedup(scheduled, workers, policy))


# --- what a plan says -----------------------------------------------------------------------------------


def test_distinct_rows_go_as_fast_as_there_are_workers() -> None:
    plan = plan_of([Logged([update(n)]) for n in range(1, 641)])
    for workers in WORKERS:
        assert plan.speedup["ours"][workers] == pytest.approx(workers)
        assert plan.speedup["source"][workers] == pytest.approx(1), "the source said nothing"
    assert plan.critical_path == 1
    assert plan.keys == 640
    assert plan.hot_keys == ()
    assert "640 transactions" in plan.source_text


def test_one_hot_row_is_named_and_blamed() -> None:
    plan = plan_of([Logged([update(7), update(7)]) for _ in range(100)])
    assert plan.speedup["ours"][64] == pytest.approx(1)
    assert plan.critical_path == 100
    (hot,) = plan.hot_keys
    assert (hot.name.table, hot.name.index, hot.name.values) == ("d.keyed", "PRIMARY", {"id": 7})
    assert (hot.waits, hot.writes) == (99, 100)
    assert [(table.name, table.waits, table.updates) for table in plan.tables] == [("d.keyed", 99, 200)]


def test_hot_row_beside_cold_ones_costs_little_row_by_row() -> None:
    log = [Logged([*(insert(n * 10 + k) for k in range(1, 10)), update(1_000_000)]) for n in range(500)]
    plan = plan_of(log)
    assert plan.speedup["ours"][8] == pytest.approx(1)
    assert plan.speedup["handoff"][2] == pytest.approx(2, rel=0.02)
    # 11 is the cost of a transaction; the hot row, and the end of the transaction, go one after the other.
    assert plan.speedup["handoff"][64] == pytest.approx(11 / 2, rel=0.02)


def test_rows_of_tables_that_keep_their_order_wait_together() -> None:
    """The last transaction could begin at 2, with its rows of the first table, if these could go alone."""
    log = [
        Logged([update(1, table=KEYLESS)]),
        Logged([update(1, table=UNKNOWN), *(insert(key) for key in range(5))]),
        Logged([*[update(1, table=KEYLESS)] * 10, update(1, table=UNKNOWN)]),
    ]
    assert plan_of(log).speedup["handoff"][64] == pytest.approx((2 + 7 + 12) / (7 + 12))


def test_key_taken_over_by_an_update_is_hot_too() -> None:
    plan = plan_of([Logged([update(n, n + 1)]) for n in range(1, 50)])
    assert plan.critical_path == 49
    assert plan.hot_keys[0].name.values is not None


def test_barriers_are_listed_with_their_reason() -> None:
    statements = {
        "ALTER TABLE d.keyed ADD c INT": "DDL",
        "GRANT SELECT ON d.* TO someone": "account statement",
        "CREATE USER someone": "account statement",
        "INSERT INTO d.keyed VALUES (1, 1)": "statement format",
        "TRUNCATE TABLE d.keyed": "DDL",
    }
    plan = plan_of([Logged([update(1)]), *(Logged(statement=text) for text in statements)])
    assert {barrier.detail: barrier.reason for barrier in plan.barriers} == statements
    assert plan.barriers_by_reason == {"DDL": 2, "account statement": 2, "statement format": 1}
    assert [barrier.gtid.split(":")[1] for barrier in plan.barriers] == ["2", "3", "4", "5", "6"]
    assert all(barrier.file == "binlog.000001" for barrier in plan.barriers)
    assert plan.critical_path == 6
    assert plan.barrier_waits == 5


def test_list_of_barriers_is_bounded_and_the_counts_are_not() -> None:
    plan = plan_of(
        [Logged(statement=f"CREATE TABLE d.t{n} (id INT)") for n in range(50)], barriers_per_reason_max=3
    )
    assert len(plan.barriers) == 3
    assert plan.barriers_by_reason == {"DDL": 50}
    assert plan.as_dict()["barrier_total"] == 50


def test_transaction_in_parts_is_one_barrier() -> None:
    many = rows([insert(n) for n in range(1, 100_001)], end=False)
    large = Logged([insert(0)], events=[*[many] * 20, rows([insert(-1)])])
    plan = plan_of([Logged([update(1)]), large, Logged([update(2)])])
    assert plan.transactions == 3
    assert plan.rows == 2_000_004
    (barrier,) = plan.barriers
    assert barrier.reason.startswith("large transaction")
    assert barrier.rows == 2_000_002
    assert barrier.gtid.endswith(":2")
    assert plan.critical_path == 3


# --- where keys come from --------------------------------------------------------------------------------


def test_keys_of_the_log_are_called_what_they_are() -> None:
    assert plan_of([Logged([update(1)])]).keys_text.startswith("primary keys from the log only")


def test_table_of_unknown_keys_conflicts_as_a_whole() -> None:
    plan = plan_of([Logged([update(n, table=UNKNOWN)]) for n in range(20)])
    assert plan.keys_text.startswith("unknown")
    assert plan.critical_path == 20
    assert plan.hot_keys[0].name.index == "whole table"
    assert plan.as_dict()["tables_without_keys"] == ["d.unknown"]


def test_source_knows_better_where_keys_are_unknown() -> None:
    log = [Logged([update(n, table=UNKNOWN)], last_committed=0) for n in range(200)]
    plan = plan_of(log)
    assert plan.source_text == ""
    assert plan.speedup["source"][8] == pytest.approx(8)
    assert plan.speedup["ours"][8] == pytest.approx(8)


def test_inserts_share_a_table_without_keys() -> None:
    assert plan_of([Logged([insert(n, KEYLESS)]) for n in range(20)]).critical_path == 1
    assert plan_of([Logged([insert(1, KEYLESS)])] * 20 + [Logged([delete(1, KEYLESS)])]).critical_path == 2


def test_bounded_memory_of_keys_is_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    from applier.plan import chains, planning

    monkeypatch.setattr(planning, "Chains", lambda cost, distance: chains.Chains(cost, distance, 100))
    log = [Logged([insert(n * 5 + k) for k in range(5)] + [update(1_000_000)]) for n in range(300)]
    plan = plan_of(log)
    assert not plan.exact
    assert plan.critical_path == 300, "a key that is written again and again is not forgotten"
    assert plan.keys >= 1501


# --- files -----------------------------------------------------------------------------------------------

LOG = binlog([Logged([update(1), insert(n)], last_committed=n - 1) for n in range(1, 40)])


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    path = tmp_path / "binlog.000001"
    path.write_bytes(LOG)
    return path


def run_plan(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "applier", "plan", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_prints_tables_and_writes_json_and_html(log_file: Path, tmp_path: Path) -> None:
    finished = run_plan(log_file, "--json", tmp_path / "plan.json", "--html", tmp_path / "plan.html")
    assert finished.returncode == 0, finished.stderr
    assert "primary keys from the log only" in finished.stdout
    assert "d.keyed PRIMARY (id=1)" in finished.stdout
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert facts["transactions"] == 39
    assert facts["keys"] == 39
    assert facts["critical_path"] == 39
    assert set(facts["speedup"]) == {"source", "ours", "handoff"}
    assert set(facts["speedup"]["ours"]) == {"1", "2", "4", "8", "16", "32", "64"}
    assert facts["hot_keys"][0]["values"] == {"id": 1}
    assert facts["barriers"] == []
    page = (tmp_path / "plan.html").read_text()
    assert page.count("<img ") == 4
    assert 'src="http' not in page
    assert "<script" not in page


def test_json_on_stdout_stands_alone(log_file: Path) -> None:
    finished = run_plan(log_file, "--json", "-")
    assert json.loads(finished.stdout)["transactions"] == 39


def test_several_files_are_one_log(tmp_path: Path) -> None:
    """The source's numbers begin anew in each: nothing of the second file runs beside the first under `source`."""
    for number in (1, 2):
        log = [Logged([update(1000 * number + n)], last_committed=0) for n in range(64)]
        (tmp_path / f"binlog.{number:06}").write_bytes(binlog(log))
    (tmp_path / "binlog.index").write_text("./binlog.000001\n./binlog.000002\n")
    plan = make_plan(batches_of_files([tmp_path / "binlog.index"]), PlanKeys())
    assert plan.transactions == 128
    assert plan.files == ("binlog.000001", "binlog.000002")
    assert plan.speedup["source"][64] == pytest.approx(64)


def test_transactions_of_a_relay_log_may_go_on_in_the_next(tmp_path: Path) -> None:
    head, *events = events_of(LOG)
    own, described = format_event(flags=RELAY_LOG), [rotate_event("binlog.000007"), head]
    (tmp_path / "relay.000001").write_bytes(MAGIC + own + b"".join(described + events[:52]))
    (tmp_path / "relay.000002").write_bytes(MAGIC + own + b"".join(events[52:]))
    plan = make_plan(batches_of_files([tmp_path / "relay.000001", tmp_path / "relay.000002"]), PlanKeys())
    assert plan.transactions == 39
    assert plan.files == ("binlog.000007",)


def test_first_transactions_only(log_file: Path) -> None:
    plan = make_plan(first(batches_of_files([log_file]), 10), PlanKeys())
    assert plan.transactions >= 10


def damaged(at: int) -> bytes:
    return LOG[:at] + bytes([LOG[at] ^ 0x40]) + LOG[at + 1 :]


@pytest.mark.parametrize(
    ("content", "exit_code", "message"),
    [
        (LOG[:-7], 4, "damaged at the end of binlog.000001: the file is cut off: its last 24 bytes"),
        (LOG[:-31], 4, "the file is cut off: its last transaction does not end in it"),
        (damaged(len(LOG) // 2), 4, "damaged at binlog.000001:"),
        (b"\xfdbin" + bytes(600), 3, "is encrypted"),
        (b"PK\3\4" + bytes(600), 3, "not a binary log"),
        (MAGIC + format_event(), 2, "no transactions"),
        (None, 2, "No such file"),
    ],
    ids=["cut event", "cut transaction", "flipped bit", "encrypted", "no log", "empty log", "missing"],
)
def test_bad_input_ends_with_one_line(
    tmp_path: Path, content: bytes | None, exit_code: int, message: str
) -> None:
    path = tmp_path / "binlog.000001"
    if content is not None:
        path.write_bytes(content)
    finished = run_plan(path)
    assert finished.returncode == exit_code, finished.stderr
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stdout == ""


def test_file_cut_off_before_another_is_found_where_it_ends(tmp_path: Path) -> None:
    for number, content in ((1, LOG[:-7]), (2, LOG)):
        (tmp_path / f"binlog.{number:06}").write_bytes(content)
    paths = [tmp_path / "binlog.000001", tmp_path / "binlog.000002"]
    with pytest.raises(DataError, match=r"the end of binlog\.000001"):
        make_plan(batches_of_files(paths), PlanKeys())
    with pytest.raises(UsageError, match="same name"):
        batches_of_files([paths[0], tmp_path / "other" / "binlog.000001"])


@pytest.mark.parametrize("at", range(4, len(LOG), 97))
def test_every_flipped_bit_is_an_error_of_ours(at: int) -> None:
    with pytest.raises(ApplierError):
        make_plan(_of_bytes(damaged(at)), PlanKeys())


def _of_bytes(log: bytes) -> Any:
    assembler = of_file(log)
    yield from take_all(assembler)
    if assembler.finish() or assembler.in_transaction:
        raise DataError(detail="cut off")


@pytest.mark.parametrize("arguments", [(), ("--start-file", "x")], ids=["no log", "start file of a file"])
def test_contradicting_arguments_are_usage_errors(log_file: Path, arguments: Sequence[str]) -> None:
    finished = run_plan(*arguments, *([log_file] if arguments else []))
    assert finished.returncode == 2


def test_table_map_bytes_are_what_the_parser_reads() -> None:
    from applier.events.table_map import parse_table_map

    content = table_map(KEYED)[19 + 6 : -4]
    parsed = parse_table_map(content)
    assert [column.label for column in parsed.columns] == ["id", "v"]
    assert parsed.primary_key is not None
