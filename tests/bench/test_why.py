"""Where the time went: how shares are told apart, and how they are put."""

from __future__ import annotations

import pytest

from applier.bench import why
from applier.bench.stock_states import limiting_stage
from applier.bench.why import ServerSeconds
from applier.observe.sampling import Attribution

DEPENDENCY = "waiting for a dependency"
IDLE = "Waiting for an event from Coordinator"


def test_executing_is_told_apart_into_server_and_network() -> None:
    seen = Attribution(100, {"executing": 0.5, "waiting for its commit turn": 0.4, "idle": 0.1})
    found = why.shares(seen, ServerSeconds(executing=3.0, committing=1.0), workers=2, seconds=5.0)
    assert found == {
        "server executing": pytest.approx(0.3),
        "commit turn": pytest.approx(0.3),
        "network": pytest.approx(0.2),
        "server committing": pytest.approx(0.1),
        "idle": pytest.approx(0.1),
    }


def test_the_server_never_takes_more_than_was_seen() -> None:
    seen = Attribution(100, {"executing": 0.5, "idle": 0.5})
    found = why.shares(seen, ServerSeconds(executing=9.0, committing=9.0), workers=1, seconds=5.0)
    assert found == {"server executing": 0.5, "idle": 0.5}


def test_the_text_names_the_rows_that_were_waited_for() -> None:
    text = why.as_text(
        {"commit turn": 0.62, DEPENDENCY: 0.21, "idle": 0.004}, {"warehouse(w_id=3)": 0.8, "x": 0.001}
    )
    assert text == "62% commit turn; 21% waiting for a dependency (warehouse(w_id=3) 80%)"


@pytest.mark.parametrize(
    ("coordinator", "workers", "stage"),
    [
        ("Waiting for dependent transaction to commit", [IDLE, "waiting for handler commit"],
         "coordinator, waiting for a dependency"),
        ("Waiting for replica workers to process their queues", ["executing", "executing"], "workers"),
        ("Replica has read all relay log; waiting for more updates", [IDLE, IDLE], "source"),
        ("Replica has read all relay log; waiting for more updates", [IDLE, "executing"], "workers"),
        ("Reading event from the relay log", [IDLE, "executing"], "coordinator"),
        ("Reading event from the relay log", ["executing", "executing"], "workers"),
    ],
)  # fmt: skip
def test_the_stage_that_limits_a_stock_replica(coordinator: str, workers: list[str], stage: str) -> None:
    assert limiting_stage(coordinator, workers) == stage
