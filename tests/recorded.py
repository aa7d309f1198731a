"""Every replay of a live test is recorded and its schedule checked when the test ends."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from applier import pipeline
from applier.events.batch import Batch
from applier.pipeline import PipelineSettings
from scheduler.recording import ScheduleRecorder
from tests.schedule_checker import check_recording

SERVERS = {"source", "target", "sandbox"}


@pytest.fixture(autouse=True)
def schedules_are_checked(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """For tests with servers: pipelines of this process, and the last command that was run."""
    if not SERVERS & set(request.fixturenames):
        yield
        return
    folder = tmp_path / "schedules"
    folder.mkdir()
    numbers = itertools.count(1)
    recorder = pipeline._recorder

    def record(settings: PipelineSettings) -> ScheduleRecorder[Batch] | None:
        if settings.record_schedule is None:
            path = folder / f"pipeline-{next(numbers)}"
            settings = dataclasses.replace(settings, record_schedule=path)
        return recorder(settings)

    monkeypatch.setattr(pipeline, "_recorder", record)
    monkeypatch.setenv("APPLIER_RECORD_SCHEDULE", str(folder / "command"))
    yield
    for path in sorted(folder.iterdir()):
        if path.stat().st_size:  # else it never began
            check_recording(path, complete=False)
