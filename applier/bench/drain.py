"""A process of its own that replays a backlog and says on stdout what it took: `python -m applier.bench.drain`.

Its own, so that processor time and memory are the applier's and nobody else's. It reads a `DrainRequest` as JSON on
stdin and writes a `DrainResult` as JSON. The time runs from the call of `Replay.run` (connections to both servers,
dump, decoding, applying) to its return, after the last commit; not counted are the start of Python and imports.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

from applier.address import parse_url
from applier.bench.configurations import Configuration
from applier.bench.machine import peak_rss_bytes
from applier.errors import ApplierError, DataError, UnexpectedFailure
from applier.observe.hot_keys import HotKeys
from applier.observe.probes import TargetProbe
from applier.observe.sampling import Attribution, Sampler
from applier.replay import Replay
from applier.settings import RunSettings


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """URLs of servers without passwords, and the GTID set to end at."""

    source: str
    target: str
    until_gtid_set: str
    configuration: Configuration


@dataclass(frozen=True, slots=True)
class DrainResult:
    """Counts are the applier's own."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    transactions: int = 0
    rows: int = 0
    bytes_read: int = 0
    retries: int = 0
    rolled_back_for_others: int = 0
    attribution: Attribution = Attribution()

    @classmethod
    def from_json(cls, text: str) -> DrainResult:
        facts = json.loads(text)
        return cls(**facts | {"attribution": Attribution(**facts["attribution"])})


def drain(request: DrainRequest) -> DrainResult:
    """Replays in this process. Raises ApplierError."""
    settings = RunSettings(
        source=parse_url(request.source, "source", prompt=False),
        target=parse_url(request.target, "target", prompt=False),
        pipeline=request.configuration.pipeline_settings(),
        until_gtid_set=request.until_gtid_set,
        reconnect_attempts_max=0,
        check=False,
    )
    replay = Replay(settings)
    cpu, started = _cpu_seconds(), time.perf_counter()
    with (
        TargetProbe(lambda: settings.target) as probe,
        Sampler(lambda: replay.pipeline, target=probe, hot_keys=HotKeys(probe.column_names)) as sampler,
    ):
        progress = replay.run()
    seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    return DrainResult(
        seconds=seconds,
        cpu_seconds=cpu,
        peak_rss_bytes=peak_rss_bytes(),
        transactions=progress.transactions,
        rows=progress.rows,
        bytes_read=progress.bytes_read,
        retries=progress.retries,
        rolled_back_for_others=sampler.rolled_back_for_others,
        attribution=sampler.attribution(),
    )


def drain_apart(request: DrainRequest) -> DrainResult:
    """Replays in a process of its own, which ends with this call. Raises DataError when it stops on the data,
    UnexpectedFailure otherwise."""
    process = subprocess.Popen(
        [sys.executable, "-m", "applier.bench.drain"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        answer, said = process.communicate(json.dumps(dataclasses.asdict(request)))
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode == 0:
        return DrainResult.from_json(answer)
    detail = f"{request.configuration.name}: {(said.strip().splitlines() or ['no message'])[-1]}"
    raise (
        DataError(detail=detail)
        if process.returncode == DataError.exit_code
        else UnexpectedFailure(detail=detail)
    )


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    facts = json.load(sys.stdin)
    request = DrainRequest(**facts | {"configuration": Configuration(**facts["configuration"])})
    try:
        result = drain(request)
    except ApplierError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    json.dump(dataclasses.asdict(result), sys.stdout)


if __name__ == "__main__":
    main()
