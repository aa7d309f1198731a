"""Mixed load and random faults for a long time: memory, threads and file descriptors stay flat, the data identical.

pytest -m long tests/fault/test_soak.py --minutes 30 --fault-table faults.json
"""

from __future__ import annotations

import gc
import os
import random
import re
import statistics
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest

from applier.errors import ApplierError
from applier.observe.observer import Observer
from applier.pipeline import Pipeline
from applier.replay import Replay
from applier.sandbox import Server
from applier.workload.registry import workload_named
from tests.fault.load import GONE_SECONDS, lost_and_doubled, under_load
from tests.fault.tally import Tally
from tests.fault.test_chaos import FAULTS, progress_of
from tests.fault.test_kills import MODES, finish
from tests.proxy import FaultProxy
from tests.replaying import Running, address, command, run_all, settings
from tests.waiting import wait_until

MINUTES = 30.0
MEMORY_MIB = 256
SAMPLE_SECONDS = 5.0
LOST_LINKS = 5
FAULTS_EVERY_SECONDS = (3.0, 15.0)
QUIET_SECONDS_MAX = 180.0
OTHER_LOADS = {
    "oltp": {"scale": 0.1, "terminals": 1},
    "foreign-keys": {"scale": 0.1, "terminals": 1},
    "no-primary-key": {"scale": 0.1, "terminals": 1},
    "wide": {"scale": 0.1, "terminals": 1},
}
RATE = 15.0  # transactions a second, of each


@dataclass(frozen=True, slots=True)
class Sample:
    """Of the applier's process."""

    resident_bytes: int
    threads: int
    descriptors: int


def sample(pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return Sample(
        resident_bytes=field(status, "VmRSS") * 1024,
        threads=field(status, "Threads"),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
    )


def field(status: str, name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+)", status)
    assert found is not None
    return int(found[1])


class OtherLoads:
    """Workloads beside TPC-C, from the start to `stop`."""

    def __init__(self, source: Server) -> None:
        self._source = source
        self._stop = threading.Event()
        self._workloads = [workload_named(name, **options) for name, options in OTHER_LOADS.items()]
        for workload in self._workloads:
            workload.prepare(source.connect)
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in self._workloads]
        for thread in self._threads:
            thread.start()

    def _run(self, workload: object) -> None:
        while not self._stop.is_set():
            try:
                workload.run(self._source.connect, rate=RATE, stop=self._stop)  # type: ignore[attr-defined]
            except ApplierError:
                self._stop.wait(GONE_SECONDS)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_lost_link_leaves_no_pipeline_behind(source: Server, target: Server) -> None:
    """Each has an index of megabytes: with a link that is lost now and then nothing else may keep one."""
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)"])
    seen: list[weakref.ref[Pipeline]] = []
    with FaultProxy(target.port) as link:
        through = address(target, "target", port=link.port)
        replay = Replay(
            settings(source, target, target=through, stop_at_end=False, reconnect_attempts_max=100)
        )
        with Observer(replay):
            running = Running(replay)
            for _ in range(LOST_LINKS + 1):
                run_all(source, ["INSERT INTO d.t VALUES ()"])
                running.wait_for(source, target)
                assert replay.pipeline is not None
                seen.append(weakref.ref(replay.pipeline))
                link.cut()
            running.finish()
            gc.collect()
            left = sum(one() is not None for one in seen)
    assert len({id(one) for one in seen}) == LOST_LINKS + 1, "one of them went on"
    # The observer and its sampler may still look at one each.
    assert left <= 2, f"{left} of {len(seen)} pipelines are left"


@pytest.mark.long
@pytest.mark.timeout(14400)
def test_nothing_grows(request: pytest.FixtureRequest, source: Server, target: Server, tally: Tally) -> None:
    minutes = request.config.getoption("--minutes") or MINUTES
    chance = random.Random(7)
    samples: list[Sample] = []
    options = (*MODES["groups, GTIDs preserved"], "--memory-max", str(MEMORY_MIB), "--no-check")
    with (
        FaultProxy(source.port) as to_source,
        FaultProxy(target.port) as to_target,
        under_load(source, rate=30),
    ):
        others = OtherLoads(source)
        ends = [
            server.url.replace(str(server.port), str(proxy.port))
            for server, proxy in ((source, to_source), (target, to_target))
        ]
        try:
            # Nobody reads what it says before it ends: warnings of hundreds of lost links would fill the pipe.
            quiet = {"APPLIER_LOG_LEVEL": "error"}
            with command(*ends, *options, "--reconnect-attempts", "1000", environment=quiet) as run:
                until = time.monotonic() + minutes * 60
                while time.monotonic() < until:
                    strike(chance, (to_source, to_target), target, tally)
                    pause = time.monotonic() + chance.uniform(*FAULTS_EVERY_SECONDS)
                    while time.monotonic() < pause:
                        assert run.process.poll() is None
                        samples.append(sample(run.process.pid))
                        threading.Event().wait(min(SAMPLE_SECONDS, max(0.0, pause - time.monotonic())))
                others.stop()
                peak = Path(f"/proc/{run.process.pid}/status").read_text(encoding="utf-8")
                run.terminate()
                assert run.wait(QUIET_SECONDS_MAX) == 0, run.errors
        finally:
            others.stop()
    finish(source, target, options)
    tally.found("soak: faults on both links", *lost_and_doubled(source, target))
    report(samples, field(peak, "VmHWM") * 1024)
    assert_flat(samples)
    assert field(peak, "VmHWM") * 1024 < MEMORY_MIB << 20


def strike(chance: random.Random, links: tuple[FaultProxy, FaultProxy], target: Server, tally: Tally) -> None:
    proxy, fault = chance.choice(links), chance.choice(FAULTS)
    fault(proxy, chance, threading.Event())
    proxy.reset()
    over, before = time.monotonic(), progress_of(target)
    wait_until(lambda: progress_of(target) != before, QUIET_SECONDS_MAX, fault.__name__)
    tally.struck("soak: faults on both links", time.monotonic() - over)


def assert_flat(samples: list[Sample]) -> None:
    """The last third is as the middle one: the first is still warming up."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    grown = median(last, "resident_bytes") - median(middle, "resident_bytes")
    assert grown < 16 << 20, f"{grown >> 20} MiB more"
    assert median(last, "threads") <= median(middle, "threads") + 1
    assert median(last, "descriptors") <= median(middle, "descriptors") + 2


def median(samples: list[Sample], name: str) -> int:
    return int(statistics.median(getattr(one, name) for one in samples))


def report(samples: list[Sample], peak_bytes: int) -> None:
    """Shown with `pytest -s`, and when the test fails."""
    for name, rest in (("first", samples[: len(samples) // 3]), ("last", samples[-(len(samples) // 3) :])):
        print(
            f"{name} third: {median(rest, 'resident_bytes') >> 20} MiB, {median(rest, 'threads')} threads,"
            f" {median(rest, 'descriptors')} descriptors; peak {peak_bytes >> 20} MiB"
        )
