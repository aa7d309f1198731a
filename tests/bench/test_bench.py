"""Each bench, small, and what its JSON holds."""

from __future__ import annotations

import html
import json
import random
import re
import subprocess
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from applier.bench.backlog import Backlog
from applier.bench.configurations import built, named
from applier.bench.replay import in_turn
from applier.bench.statistics import best, ratios
from applier.bench.study import StudyIndex
from applier.cli.bench import bench
from applier.errors import DataError, UsageError

TABLES = {"rows": 100, "tables": 2}
SERVERS = {"innodb_redo_log_capacity": "32M", "innodb_buffer_pool_size": "64M"}
SMALL = (
    "--workload",
    "oltp",
    *(word for name, value in TABLES.items() for word in ("--set", f"{name}={value}")),
    *(word for name, value in SERVERS.items() for word in ("--server-set", f"all.{name}={value}")),
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the backlogs of these tests are kept: made once, used by all of them."""
    return tmp_path_factory.mktemp("backlogs")


def run_bench(kept: Path, name: str, *options: str, workload: Sequence[str] = SMALL) -> dict[str, Any]:
    """The JSON of `applier bench NAME`; errors are raised here."""
    place = kept / f"{name}.json"
    arguments = [name, *workload, *options, "--keep", str(kept), "--json", str(place)]
    try:
        bench.main(arguments, standalone_mode=False)
    finally:
        assert not list(kept.glob("*/target")), "a target was left behind"
    return json.loads(place.read_text())


def test_replay_races_the_applier_against_the_stock_replica_and_compares_the_data(kept: Path) -> None:
    facts = run_bench(
        kept, "replay", "--transactions", "300", "--rounds", "1", "--config", "strict-1", "--stock", "4"
    )
    assert facts["workload"] == "oltp"
    assert facts["transactions"] == 300
    assert facts["rows"] == 1200
    assert facts["rounds"] == 1
    assert facts["best_stock"] == "stock-4"
    assert set(facts["ratios"]) == {"strict-1"}
    assert set(facts["ratios"]["strict-1"]) == {"median", "min", "max"}
    assert 0.9 < sum(facts["why"]["strict-1"]["worker_time"].values()) < 1.1
    assert [run["name"] for run in facts["runs"]] == ["strict-1", "stock-4"]
    for run in facts["runs"]:
        assert run["identical"]
        assert run["kind"] == ("stock" if run["name"] == "stock-4" else "applier")
        assert run["transactions_per_second"] == pytest.approx(300 / run["seconds"], rel=0.01)
        assert run["rows_per_second"] == pytest.approx(1200 / run["seconds"], rel=0.01)
        assert run["server_cpu_seconds"] > 0
        assert run["peak_rss_bytes"] > 0
        assert (run["applier_cpu_seconds"] > 0) == (run["kind"] == "applier")
        assert {"workers", "group_transactions", "net_changes"} <= set(run)


def test_each_round_begins_with_another_configuration() -> None:
    chosen = [named(name) for name in ("strict-1", "net-100@3", "stock-4")]
    orders = [[one.name for one in in_turn(chosen, number)] for number in (1, 2, 4)]
    assert orders[0] == ["strict-1", "net-100@3", "stock-4"]
    assert orders[1] == ["net-100@3", "stock-4", "strict-1"]
    assert orders[2] == orders[0]


def test_ratios_are_taken_round_by_round() -> None:
    rates = {"net-100": [200.0, 60.0, 90.0], "stock-4": [100.0, 20.0, 90.0], "stock-8": [50.0, 50.0, 50.0]}
    assert best({name: rates[name] for name in ("stock-4", "stock-8")}) == "stock-4"
    assert ratios(rates, "stock-4")["net-100"] == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_a_configuration_is_named_after_what_it_differs_in() -> None:
    assert built().name == "strict-1"
    assert built(group_transactions=1000, net_changes=True, target_gtids="own") == named("net-1000-own")
    assert built(workers=4, commit_order="relaxed").name == "relaxed-1@4"
    assert named("net-100@3").workers == 3
    for unknown in ("net-7", "stock-0", "net-100@", "stock-"):
        with pytest.raises(UsageError, match="no configuration"):
            named(unknown)


def test_replay_fails_when_the_target_holds_other_data(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_replayed = Backlog.is_replayed

    def after_damage(backlog: Backlog, target: Any) -> bool:
        target.execute("UPDATE sbtest.sbtest1 SET c = 'another value' WHERE id = 7")
        return is_replayed(backlog, target)

    monkeypatch.setattr(Backlog, "is_replayed", after_damage)
    with pytest.raises(DataError, match="differ after strict-1") as caught:
        run_bench(
            kept, "replay", "--transactions", "300", "--rounds", "1", "--config", "strict-1", "--stock", ""
        )
    assert caught.value.exit_code == 4


def test_balanced_finds_a_rate_for_the_applier_and_for_the_stock_replica(kept: Path) -> None:
    facts = run_bench(
        kept, "balanced", "--transactions", "300", "--config", "strict-1", "--stock", "4", "--trial-seconds", "1",
        "--start-rate", "1000", "--resolution", "1", "--confirmations", "0", "--rounds", "2",
    )  # fmt: skip
    for side in ("applier", "stock"):
        one = facts[side]
        assert one["transactions_per_second"] > 0
        assert one["tpmc"] == 0  # there are no new orders
        assert one["trials"][0]["rate"] == 1000
        assert one["saturated"]["stage"]
        for shown in one["lag"]:
            assert {"seconds", "transactions", "lag_seconds"} == set(shown["samples"][0])
        assert one["cpu_microseconds_per_transaction"]["source"] > 0
    assert set(facts["applier"]["cpu_microseconds_per_transaction"]) == {
        "source",
        "target",
        "applier",
        "load",
    }
    assert [one["ratio"] > 0 for one in facts["rounds"]] == [True, True]
    assert facts["ratio"] == facts["ratios"]["min"] <= facts["ratios"]["max"]  # the lower one of two


def test_pipeline_measures_the_flow_with_and_without_compression(kept: Path) -> None:
    facts = run_bench(kept, "pipeline", "--transactions", "300", "--rounds", "1", "--decoders", "1,2")
    ways = ("decoders", "group_transactions", "net_changes", "compressed")
    assert {tuple(run[way] for way in ways) for run in facts["runs"]} == {
        (decoders, group, net, compressed)
        for decoders in (1, 2)
        for group, net in ((1, False), (100, False), (100, True))
        for compressed in (False, True)
    }
    for run in (facts, *facts["runs"]):
        assert run["transactions_per_second"] > 0
        assert run["rows_per_second"] == pytest.approx(4 * run["transactions_per_second"], rel=0.01)
        assert run["bytes_per_second"] > 0
        assert run["python_microseconds_per_transaction"] >= 0
        assert set(run["stages"]) == {"reader", "decoder", "scheduler", "worker"}
    assert set(facts["kernel_nanoseconds_per_transaction"]) == {"assemble", "decode", "schedule", "encode"}


def test_results_are_written_as_a_page_that_needs_nothing_else_and_as_a_plot(
    kept: Path, tmp_path: Path
) -> None:
    page, plot = tmp_path / "index.html", tmp_path / "index.png"
    facts = run_bench(
        kept, "index", "--transactions", "300", "--rounds", "1", "--html", str(page), "--plot", str(plot)
    )
    text = page.read_text()
    assert text.count("<svg") == 1
    assert "ns a key" in text
    assert not re.search(r"""(src|href)=["']https?:""", text)
    assert json.loads(html.unescape(text.partition('<pre id="facts">')[2].partition("</pre>")[0])) == facts
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_an_unknown_kind_is_refused_before_anything_is_measured(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.svg, \.png"):
        run_bench(kept, "index", "--transactions", "300", "--plot", str(tmp_path / "index.gif"))


def test_decode_finds_the_same_rows_as_the_library_faster(kept: Path) -> None:
    facts = run_bench(kept, "decode", "--transactions", "300", "--rounds", "1")
    assert facts["rows"] == 1200
    assert facts["rows_per_second"] > facts["mysql_replication_rows_per_second"] > 0
    assert facts["ratio_to_mysql_replication"] > 1


def test_index_is_compared_with_the_study_and_with_a_dict(kept: Path) -> None:
    facts = run_bench(kept, "index", "--transactions", "300", "--rounds", "1")
    for keys in (facts, facts["random"]):
        assert keys["keys"] >= 1200
        assert keys["ns_per_key"] > 0
        assert keys["study_layout_ns_per_key"] > 0
        assert keys["dict_ns_per_key"] > 0
        assert 0 < keys["bytes"] <= 256 << 20
        assert keys["checkpoint_microseconds"] < keys["study_layout_checkpoint_microseconds"]


def test_the_study_layout_gives_the_last_writer_of_every_key() -> None:
    hashes = [random.Random(number % 40).getrandbits(64) for number in range(3000)]
    ends = array("I", range(3, 3001, 3))
    found = array("Q", bytes(8 * len(ends)))
    StudyIndex().assign_batch(array("Q", hashes), ends, 1, found)
    last: dict[int, int] = {}
    for number, end in enumerate(ends, start=1):
        keys = hashes[end - 3 : end]
        assert found[number - 1] == max(last.get(key, 0) for key in keys)
        last |= dict.fromkeys(keys, number)


def test_a_backlog_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "applier", "bench", "replay", *SMALL, "--transactions", "10", "--keep", str(tmp_path),
         "--server-set", "source.no_such_option=1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 3, finished.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
