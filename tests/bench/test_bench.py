"""Each bench, small, and what its JSON holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from applier.bench.backlog import Backlog
from applier.cli.bench import bench
from applier.errors import DataError

SMALL = ("--workload", "oltp", "--set", "rows=100", "--set", "tables=2")


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
    facts = run_bench(kept, "replay", "--transactions", "300", "--rounds", "2", "--config", "strict-1", "--stock", "4")
    assert facts["workload"] == "oltp"
    assert facts["transactions"] == 300
    assert facts["rows"] == 1200
    assert facts["rounds"] == 2
    assert facts["best_stock"] == "stock-4"
    assert set(facts["ratios"]) == {"strict-1"}
    assert set(facts["ratios"]["strict-1"]) == {"median", "min", "max"}
    assert [run["name"] for run in facts["runs"]] == ["strict-1", "stock-4", "stock-4", "strict-1"]
    for run in facts["runs"]:
        assert run["identical"]
        assert run["kind"] == ("stock" if run["name"] == "stock-4" else "applier")
        assert run["transactions_per_second"] == pytest.approx(300 / run["seconds"], rel=0.01)
        assert run["rows_per_second"] == pytest.approx(1200 / run["seconds"], rel=0.01)
        assert run["server_cpu_seconds"] > 0
        assert run["peak_rss_bytes"] > 0
        assert (run["applier_cpu_seconds"] > 0) == (run["kind"] == "applier")
        assert {"workers", "group_transactions", "net_changes"} <= set(run)


def test_replay_fails_when_the_target_holds_other_data(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_replayed = Backlog.is_replayed

    def after_damage(backlog: Backlog, target: Any) -> bool:
        target.execute("UPDATE sbtest.sbtest1 SET c = 'another value' WHERE id = 7")
        return is_replayed(backlog, target)

    monkeypatch.setattr(Backlog, "is_replayed", after_damage)
    with pytest.raises(DataError, match="differ after strict-1") as caught:
        run_bench(kept, "replay", "--transactions", "300", "--rounds", "1", "--config", "strict-1", "--stock", "")
    assert caught.value.exit_code == 4


def test_a_backlog_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "applier", "bench", "replay", *SMALL, "--transactions", "10", "--keep", str(tmp_path),
         "--server-set", "source.innodb_page_size=17"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 3, finished.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
