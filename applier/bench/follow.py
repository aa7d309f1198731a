"""A process of its own that follows a live source until told to stop: `python -m applier.bench.follow`.

stdin: a `FollowRequest` as one line of JSON; then an empty line asks for the attribution since the last one, which is
answered with a line of JSON; the end of stdin drains. What went wrong is a line on stderr and an exit code.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from applier.address import parse_url
from applier.bench.configurations import Configuration
from applier.errors import ApplierError, UnexpectedFailure
from applier.observe.sampling import Attribution, Sampler
from applier.replay import Replay
from applier.settings import RunSettings

END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class FollowRequest:
    """URLs of servers without passwords."""

    source: str
    target: str
    configuration: Configuration


class Follower:
    """The other end of the process."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def attribution(self) -> Attribution:
        """Since the last call. Raises UnexpectedFailure when the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise self._failure()
        return Attribution(**json.loads(line))

    def require_running(self) -> None:
        """Raises UnexpectedFailure."""
        if self._process.poll() is not None:
            raise self._failure()

    def _failure(self) -> UnexpectedFailure:
        self._process.wait(END_SECONDS)
        assert self._process.stderr is not None
        said = self._process.stderr.read().strip().splitlines() or ["no message"]
        return UnexpectedFailure(detail=f"{self._name} has ended: {said[-1]}")


@contextmanager
def following(request: FollowRequest) -> Iterator[Follower]:
    """The applier follows the source while the block runs; then it drains, or is killed if the block fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", "applier.bench.follow"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(dataclasses.asdict(request)) + "\n")
            process.stdin.flush()
            yield Follower(process, request.configuration.name)
            process.stdin.close()
            process.wait(END_SECONDS)
        except BaseException:
            process.kill()
            raise


def follow(request: FollowRequest, commands: IO[str], answers: IO[str]) -> None:
    """In this process, until `commands` ends. Raises ApplierError."""
    replay = Replay(
        RunSettings(
            source=parse_url(request.source, "source", prompt=False),
            target=parse_url(request.target, "target", prompt=False),
            pipeline=request.configuration.pipeline_settings(),
            reconnect_attempts_max=0,
            check=False,
        )
    )
    with Sampler(lambda: replay.pipeline) as sampler:
        threading.Thread(target=_answer, args=(replay, sampler, commands, answers), daemon=True).start()
        replay.run()


def _answer(replay: Replay, sampler: Sampler, commands: IO[str], answers: IO[str]) -> None:
    for _ in commands:
        print(json.dumps(dataclasses.asdict(sampler.attribution())), file=answers, flush=True)
        sampler.restart()
    replay.drain()


def main() -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    facts = json.loads(sys.stdin.readline())
    try:
        follow(
            FollowRequest(**facts | {"configuration": Configuration(**facts["configuration"])}),
            sys.stdin,
            sys.stdout,
        )
    except ApplierError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
