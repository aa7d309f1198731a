"""The proof of the proof: a scheduler broken in any of these ways is found out."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import BUGS, Bug
from tests.simulation.campaign import campaign

SCHEDULES_MAX = 4_000


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_broken_scheduler_is_found_out(bug: Bug) -> None:
    found: set[str] = set()
    with bug.patch():
        try:
            for ran in campaign(0, SCHEDULES_MAX, make_log=bug.make_log, new_scheduling=bug.scheduling):
                found |= {fault.rule for fault in ran.faults}
                if bug.found_as in found:
                    return
        except AssertionError:
            found.add("assertion")
    assert bug.found_as in found
