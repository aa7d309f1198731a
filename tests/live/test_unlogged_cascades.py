"""Cascades that are not in the log: the target makes them, and nothing that they may change runs beside them."""

from __future__ import annotations

from applier.sandbox import Server
from tests.replaying import MODES, assert_identical, replay, run_all
from tests.servers import GlobalVariables, ServerFactory, reset
from tests.unlogged_cascades import CASCADES_IN_INNODB, history


def test_cascades_of_an_older_source_come_to_the_same_rows(
    server_factory: ServerFactory, target: Server, baselines: dict[str, GlobalVariables]
) -> None:
    source = server_factory(CASCADES_IN_INNODB)
    run_all(source, history(), autocommit=True)
    for mode in MODES.values():
        reset(target, baselines["target"])
        replay(source, target, **mode)
        assert_identical(source, target)
