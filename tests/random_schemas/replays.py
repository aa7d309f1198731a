"""The ways to replay one log, and what must hold after each."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

import applier.pipeline
from applier.events.net_group import FoldedGroup
from applier.pipeline import PipelineSettings
from applier.replay import Replay
from applier.sandbox import Server
from applier.settings import RunSettings
from applier.target.recorded_worker import RecordedWorker
from applier.target.session import Session
from applier.target.units import Packets
from applier.verify import Selection, VerifyOptions, verify
from scheduler.grouping import GroupLimits, Unit
from tests.random_schemas.comparison import assert_same_rows
from tests.replaying import Running, address, executed
from tests.schedule_checker import check_recording

WORKERS = 8
GROUP_SIZES = (4, 50, 3, 2, 6)  # small ones are in flight side by side
END_SECONDS = 60.0
STALL_ODDS, STALL_SECONDS_MAX = 0.25, 0.012
# Another session's lock was in the way: InnoDB locks gaps between keys, and parents. No dependency was missed.
LOCK_ERRORS = frozenset({1205, 1213})


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to replay. What differs from seed to seed: how large groups may be, whether the source's bounds count."""

    name: str
    ordered: bool = True
    groups: bool = False
    net_changes: bool = False
    own_gtids: bool = False

    def settings(self, source: Server, target: Server, seed: int, recording: Path) -> RunSettings:
        pipeline = PipelineSettings(
            workers=WORKERS,
            ordered=self.ordered,
            group=GroupLimits(GROUP_SIZES[seed % len(GROUP_SIZES)] if self.groups else 1),
            net_changes=self.net_changes,
            target_gtids="own" if self.own_gtids else "preserve",
            use_source_bounds=(seed + MODES.index(self)) % 2 == 0,
            record_schedule=recording,
        )
        return RunSettings(
            address(source, "source"), address(target, "target"), pipeline, stop_at_end=True, check=False
        )


MODES = (
    Mode("strict"),
    Mode("relaxed", ordered=False),
    Mode("groups", groups=True),
    Mode("net-changes", groups=True, net_changes=True),
    Mode("net-changes-own", groups=True, net_changes=True, own_gtids=True),
)


class StallingWorker(RecordedWorker):
    """Stalls now and then before it executes, so that what should wait for it has time to go wrong."""

    seed = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._chance = Random(f"{self.seed} {self.state.number}")
        self.session = Session(
            self.session.address,
            lock_wait_seconds=1,
            variables={
                name: value for name, value in self.session.variables.items() if "lock_wait" not in name
            },
        )

    def _execute(self, unit: Unit[Any], packets: Packets) -> None:
        self._stall()
        super()._execute(unit, packets)

    def _execute_ready(self, unit: Unit[Any], group: FoldedGroup) -> bool:
        self._stall()
        return super()._execute_ready(unit, group)

    def _stall(self) -> None:
        if self._chance.random() < STALL_ODDS:
            time.sleep(self._chance.uniform(0, STALL_SECONDS_MAX))


class Retries(logging.Handler):
    """Counts the errors that made workers run a unit again."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.codes: Counter[int] = Counter()
        self.details: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "retry":
            self.codes[record.error_code] += 1  # type: ignore[attr-defined]
            self.details.append(f"{record.sequence_number}: {record.error_code}")  # type: ignore[attr-defined]

    @property
    def not_for_locks(self) -> list[str]:
        """Units that failed beside others and went well alone: a conflict was missed."""
        return [detail for detail in self.details if int(detail.split()[1]) not in LOCK_ERRORS]


@contextlib.contextmanager
def counted_retries() -> Iterator[Retries]:
    logger, retries = logging.getLogger("applier.target.worker"), Retries()
    level = logger.level
    logger.addHandler(retries)
    logger.setLevel(logging.DEBUG)
    try:
        yield retries
    finally:
        logger.removeHandler(retries)
        logger.setLevel(level)


def replay_and_check(
    source: Server, target: Server, mode: Mode, seed: int, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> Retries:
    """Replays the source into an empty target. AssertionError, or what the replay raised, when it is not right."""
    monkeypatch.setattr(applier.pipeline, "RecordedWorker", StallingWorker)
    monkeypatch.setattr(StallingWorker, "seed", seed)
    settings = mode.settings(source, target, seed, recording)
    with counted_retries() as retries:
        running = Running(Replay(settings))
        try:
            progress = running.end()
        finally:
            running.replay.abort()
    assert retries.codes.total() == progress.retries, "not every retry was seen"
    assert retries.not_for_locks == [], f"failed beside others, went well alone: {retries.not_for_locks}"
    check_recording(recording)
    if not mode.own_gtids:
        assert executed(target) == executed(source)
    assert_same_rows(source, target)
    report = verify(
        address(source, "source"),
        address(target, "target"),
        VerifyOptions(assume_quiesced=mode.own_gtids, selection=Selection()),
    )
    assert report.differences == (), report.differences
    return retries
