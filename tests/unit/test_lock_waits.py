"""Who is to be rolled back for whom: later units only, also over units that execute and sessions of others."""

from __future__ import annotations

import pytest

from applier.target.data_locks import Wait
from applier.target.lock_waits import OUTSIDE, _reachable


@pytest.mark.parametrize(
    ("waits", "first", "guilty"),
    [
        ({5: [7]}, 5, [7]),
        ({5: [3]}, 5, []),
        ({5: [7, 9, 3]}, 5, [7, 9]),
        ({5: [7], 7: [6]}, 5, [6, 7]),
        ({5: [7], 7: [3], 3: [9]}, 5, [7]),
        ({5: [7], 7: [3], 3: [9]}, 3, [9]),
        ({5: [OUTSIDE]}, 5, []),
        ({5: [OUTSIDE], OUTSIDE: [7, 2]}, 5, [7]),
        ({5: [7], 7: [5, 6], 6: [7]}, 5, [6, 7]),
    ],
    ids=[
        "a later one",
        "an earlier one, which will commit",
        "several",
        "a later one that waits itself",
        "not what an earlier one waits for",
        "but that one in its own right",
        "somebody else",
        "a later one behind somebody else",
        "a circle",
    ],
)
def test_whoever_is_later_and_waited_for_is_guilty(
    waits: dict[int, list[int]], first: int, guilty: list[int]
) -> None:
    edges = {waiter: {one: Wait(waiter, one, "") for one in blockers} for waiter, blockers in waits.items()}
    assert _reachable(edges, first) == guilty
