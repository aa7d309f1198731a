"""Random tables, random concurrent transactions with DDL among them, replayed in every way: the same data in the end.

    pytest tests/live/test_random_schemas.py --seeds 100                    seeds 0 to 99, every mode
    pytest tests/live/test_random_schemas.py --seeds 17-20 --mode relaxed
    pytest tests/live/test_random_schemas.py --seeds 17 --keep DIR          keeps the source of a seed that fails …
    pytest tests/live/test_random_schemas.py --seeds 17 --kept DIR          … and replays that, to the byte

A seed gives the same statements in the same order, unless the server lets two sessions go on at once and they race:
then only the kept source is the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from applier.sandbox import Server
from tests.random_schemas.history import History
from tests.random_schemas.replays import GROUP_SIZES, MODES, replay_and_check
from tests.random_schemas.stock import stock_failure
from tests.servers import GlobalVariables, ServerFactory, reset

CI_SEEDS = 6


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", _numbers(metafunc.config.getoption("--seeds")))


def _numbers(text: str | None) -> list[int]:
    """`8` is the first eight, `17-20` are four."""
    first, dash, last = (text or str(CI_SEEDS)).partition("-")
    return list(range(int(first), int(last) + 1)) if dash else list(range(int(first)))


@pytest.fixture
def past(request: pytest.FixtureRequest, source: Server, server_factory: ServerFactory, seed: int) -> Server:
    """A source with the history of the seed."""
    kept: str | None = request.config.getoption("--kept")
    if kept is not None:
        return server_factory(snapshot=Path(kept) / f"seed-{seed}")
    History(source, seed).write()
    return source


def test_replay_gives_the_same_data(
    past: Server,
    target: Server,
    baselines: dict[str, GlobalVariables],
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    wanted, keep = request.config.getoption("--mode"), request.config.getoption("--keep")
    failed = {}
    for mode in MODES:
        if wanted in (None, mode.name):
            reset(target, baselines["target"])
            try:
                replay_and_check(past, target, mode, seed, tmp_path / mode.name, monkeypatch)
            except Exception as error:  # noqa: BLE001 - the other modes tell more
                failed[mode.name] = f"{type(error).__name__}: {error}"
    if not failed:
        return
    if keep is not None:
        past.snapshot(Path(keep) / f"seed-{seed}")
    reset(target, baselines["target"])
    stock = stock_failure(past, target)
    if stock is not None and all(stock.explains(error, max(GROUP_SIZES)) for error in failed.values()):
        pytest.skip(f"void: {stock.message}")
    repeat = f"pytest tests/live/test_random_schemas.py --seeds {seed}-{seed}"
    pytest.fail("\n".join([f"seed {seed}; repeat with: {repeat}", *map(": ".join, failed.items())]))
