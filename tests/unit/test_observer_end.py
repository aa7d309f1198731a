"""What an observer tells of a run that has ended."""

from __future__ import annotations

import pytest

from applier.address import parse_url
from applier.errors import ApplierError, DataError
from applier.observe.health import unwell
from applier.observe.observer import Observer
from applier.observe.status import State
from applier.replay import Replay
from applier.settings import RunSettings


@pytest.fixture
def observer() -> Observer:
    nobody = "mysql://nobody@127.0.0.1:1"
    return Observer(
        Replay(
            RunSettings(parse_url(nobody, "source", prompt=False), parse_url(nobody, "target", prompt=False))
        )
    )


def test_a_run_that_ended_as_wanted_has_stopped(observer: Observer) -> None:
    observer.note_end()
    assert (observer.state, unwell(observer)) == (State.STOPPED, "")


@pytest.mark.parametrize("error", [DataError(detail="a row"), RuntimeError("a row")], ids=type)
def test_any_error_is_a_failure(observer: Observer, error: Exception) -> None:
    """Also one that nobody thought of: its end is not taken for a stop."""
    observer.note_end(error)
    assert observer.state is State.FAILED
    assert isinstance(observer.failure, ApplierError)
    assert "a row" in unwell(observer)
