"""`applier migrate cutover` and `rollback`, killed: gone on with or gone back from, and nobody's write is lost."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator

import pytest

from applier.migrate.state import Phase
from applier.sandbox import Server
from tests.clients import assert_nothing_lost, wait_for_move, writing
from tests.migrating import left_writable
from tests.replaying import Command
from tests.switching import Migrating, killed_after


@pytest.fixture
def migrating(source: Server, target: Server) -> Iterator[Migrating]:
    with left_writable(source, target):
        yield Migrating(source, target)


STEPS = (
    *(
        "take over",
        "catch up",
        "prepare",
        "stop events",
        "stop writes",
        "drain",
        "compare",
        "AUTO_INCREMENT",
        "open",
    ),
    *("end the replay", "enable events", "keep", "note"),
)


def killed_after_seconds(migrating: Migrating, command: str, seconds: float) -> None:
    """`applier migrate` killed that long after it began with the first step, which takes longer to come to."""
    urls = ["--source", migrating.source.url, "--target", migrating.target.url]
    with Command("migrate", command, *urls, "--ignore", "verified", "--compare-seconds", "0.1") as process:
        assert process.process.stderr is not None
        for line in process.process.stderr:
            if not line.startswith("warning"):
                break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.process.wait(seconds)
        process.process.kill()


def steps(*in_ci: str) -> list[object]:
    """All of them, most only in a long run."""
    return [pytest.param(step, marks=[] if step in in_ci else pytest.mark.long) for step in STEPS]


@pytest.mark.parametrize("step", steps("AUTO_INCREMENT"))
def test_a_cutover_killed_at_any_step_is_gone_on_with(migrating: Migrating, step: str) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        killed_after(migrating, "cutover", step)
        if step != STEPS[-1]:
            migrating.cut_over()
        migrating.assert_writable(target)
        wait_for_move(clients, target)
    assert_nothing_lost(target, clients)
    migrating.roll_back()
    assert_nothing_lost(source, clients)
    migrating.assert_identical()


@pytest.mark.parametrize("step", steps("stop writes"))
def test_a_cutover_killed_at_any_step_is_gone_back_from(migrating: Migrating, step: str) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        killed_after(migrating, "cutover", step)
        migrating.roll_back()
        migrating.assert_writable(source)
        migrating.assert_phase(Phase.CATCH_UP)
        wait_for_move(clients, source)
    assert_nothing_lost(source, clients)
    migrating.follow()
    migrating.assert_identical()


@pytest.mark.parametrize("step", steps("stop writes"))
def test_a_rollback_killed_at_any_step_is_gone_on_with(migrating: Migrating, step: str) -> None:
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        migrating.cut_over()
        wait_for_move(clients, target)
        killed_after(migrating, "rollback", step)
        if step != STEPS[-1]:
            migrating.roll_back()
        migrating.assert_writable(source)
        wait_for_move(clients, source)
    assert_nothing_lost(source, clients)
    migrating.follow()
    migrating.assert_identical()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50))
def test_killed_at_any_moment_it_is_gone_on_with_or_back_from(migrating: Migrating, seed: int) -> None:
    """There and back, each killed once at a random moment, then finished or undone, whichever chance says."""
    chance = random.Random(seed)
    source, target = migrating.source, migrating.target
    with writing(source, target) as clients:
        killed_after_seconds(migrating, "cutover", chance.uniform(0.0, 1.0))
        if chance.random() < 0.5:
            migrating.mend(migrating.roll_back, Phase.CATCH_UP)
        migrating.mend(migrating.cut_over, Phase.CUT_OVER)
        wait_for_move(clients, target)
        killed_after_seconds(migrating, "rollback", chance.uniform(0.0, 1.0))
        migrating.mend(migrating.roll_back, Phase.CATCH_UP)
        wait_for_move(clients, source)
    assert_nothing_lost(source, clients)
    migrating.follow()
    migrating.assert_identical()
