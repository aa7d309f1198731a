"""`--record-schedule` on real servers: complete, and proof of what the run did."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from applier.pipeline import PipelineSettings
from applier.replay import Replay
from applier.sandbox import Server
from applier.workload import workload_named
from scheduler.grouping import GroupLimits
from scheduler.recording import read_recording
from tests.replaying import assert_identical, executed, outcome, run_all, settings
from tests.schedule_checker import check_recording

WAYS = {
    "strict": {},
    "relaxed": {"ordered": False},
    "own bounds only": {"use_source_bounds": False},
    "groups": {"group": GroupLimits(50)},
    "groups of net changes": {"group": GroupLimits(50), "net_changes": True},
    "small groups of net changes, own bounds only": {
        "group": GroupLimits(5),
        "net_changes": True,
        "use_source_bounds": False,
    },
}


def loaded(source: Server) -> int:
    """TPC-C with foreign keys and hot rows, after the schema; how many transactions there are in all."""
    workload = workload_named("tpcc", warehouses=1, scale=0.01, terminals=4, seed=3)
    workload.prepare(source.connect)
    workload.run(source.connect, transactions=1_000)
    no_keys = workload_named("no-primary-key", rows=200, terminals=4, seed=3)
    no_keys.prepare(source.connect)
    no_keys.run(source.connect, transactions=200)
    return executed(source).count


@pytest.mark.parametrize("way", WAYS)
def test_the_recording_of_a_replay_holds_every_transaction_and_no_violation(
    source: Server, target: Server, tmp_path: Path, way: str
) -> None:
    total = loaded(source)
    path = tmp_path / "recording"
    wanted: dict[str, Any] = WAYS[way]
    run = settings(source, target)
    pipeline = PipelineSettings(workers=6, record_schedule=path, **wanted)
    progress = Replay(dataclasses.replace(run, pipeline=pipeline)).run()
    assert progress.transactions == total
    summary = check_recording(path, transactions=total)
    print(f"\n{way}: {summary}")
    if way != "groups":  # whole groups of one warehouse wait for each other: only the hand-off of rows helps
        assert summary.overlapping > 5
    assert_identical_data(source, target, way)
    if "net_changes" in wanted:
        units = [unit for section in read_recording(path) for unit in section.units]
        assert any(unit.run.held_started for unit in units), "nothing was handed off"
        assert max(unit.last - unit.first for unit in units) > 2


def assert_identical_data(source: Server, target: Server, way: str) -> None:
    if "groups" not in way:
        assert_identical(source, target)
        return
    for schema, tables in (("tpcc", ("district", "order_line", "stock")), ("no_primary_key", ())):
        for table in tables:
            checksum = f"CHECKSUM TABLE {schema}.{table}"
            assert source.execute(checksum) == target.execute(checksum)


def test_no_value_of_a_row_is_in_the_recording(source: Server, target: Server, tmp_path: Path) -> None:
    run_all(
        source,
        [
            "CREATE DATABASE d",
            "CREATE TABLE d.secrets (name VARCHAR(50) PRIMARY KEY, v INT)",
            "INSERT INTO d.secrets VALUES ('Rumpelstiltskin', 1)",
            "UPDATE d.secrets SET v = 2",
        ],
    )
    path = tmp_path / "recording"
    run = outcome(source, target, "--stop-at-end", "--record-schedule", str(path))
    assert run.process.returncode == 0, run.errors
    check_recording(path, transactions=4)
    recorded = path.read_bytes().lower()
    assert not [word for word in (b"rumpelstiltskin", b"secrets", b"root") if word in recorded]


def test_a_recording_that_cannot_be_written_is_refused_at_the_start(
    source: Server, target: Server, tmp_path: Path
) -> None:
    run_all(source, ["CREATE DATABASE d"])
    path = tmp_path / "no such folder" / "recording"
    run = outcome(source, target, "--stop-at-end", "--record-schedule", str(path))
    assert run.process.returncode == 2
    assert run.error_lines == [f"applier: --record-schedule {path}: No such file or directory"]
    assert "d" not in {schema for (schema,) in target.execute("SHOW DATABASES")}
