"""Many schedules of many logs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.schedule_checker import Violation
from tests.simulation.execution import Outcome, Schedule, Scheduling, Script, faults
from tests.simulation.logs import SimulatedLog, random_log
from tests.simulation.runtime import virtual_time

SCHEDULES_OF_A_LOG = 20


@dataclass(frozen=True, slots=True)
class Ran:
    script: Script
    outcome: Outcome
    faults: list[Violation]


def campaign(
    first_seed: int,
    schedules: int,
    *,
    make_log: Callable[[int], SimulatedLog] = random_log,
    new_scheduling: Callable[[Script, SimulatedLog], Scheduling] = Scheduling,
) -> Iterator[Ran]:
    """In virtual time; a seed says everything about its schedule."""
    log = None
    with virtual_time() as begin:
        for seed in range(first_seed, first_seed + schedules):
            if log is None or seed % SCHEDULES_OF_A_LOG == 0:
                log = make_log(seed // SCHEDULES_OF_A_LOG)
            script = Script.random(seed, log)
            outcome = Schedule(log, script, begin(random.Random(seed)), new_scheduling).run()
            yield Ran(script, outcome, faults(log, script, outcome))
