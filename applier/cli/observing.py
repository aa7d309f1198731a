"""Options of a run that let it be watched, and what watches it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from applier.cli.options import environment_option
from applier.observe.http import DEFAULT_HOST, DEFAULT_PORT, HttpServer, parse_listen
from applier.observe.observer import Observer
from applier.observe.status import Cause
from applier.replay import Replay

Command = TypeVar("Command", bound=Callable[..., Any])

LINGER_POLL_SECONDS: Final = 0.1
SHARE_SHOWN_MIN: Final = 0.01


@dataclass(frozen=True, slots=True)
class Watching:
    """How a run is to be watched. `http`: host and port, None: not over HTTP."""

    http: tuple[str, int] | None = None
    lag_seconds_max: float | None = None


def watching_options(command: Command) -> Command:
    """`--http`, `--ready-lag-max`, `--http-linger`, as arguments `http`, `ready_lag_max`, `http_linger`."""
    for option in (
        environment_option(
            "--http-linger",
            type=click.FloatRange(0, 3600),
            default=0.0,
            metavar="SECONDS",
            help="After a failure go on answering HTTP for so long before ending, so that it is seen and scraped.",
        ),
        environment_option(
            "--ready-lag-max",
            type=click.FloatRange(0),
            metavar="SECONDS",
            help="/readyz says no when the target is further behind.",
        ),
        environment_option(
            "--http",
            metavar="HOST:PORT",
            callback=lambda context, parameter, value: None if value is None else parse_listen(value),
            help="Serve /metrics, /status, /healthz, /readyz and a live page there; "
            f"'{DEFAULT_PORT}' means {DEFAULT_HOST}:{DEFAULT_PORT}. Off unless given.",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def watched(replay: Replay, watching: Watching) -> Iterator[Observer]:
    """The run is watched, and served over HTTP, while the block runs. Raises UsageError."""
    with Observer(replay) as observer:
        if watching.http is None:
            yield observer
            return
        host, port = watching.http
        with HttpServer(observer, host, port, lag_seconds_max=watching.lag_seconds_max):
            yield observer


@contextmanager
def lingering(observer: Observer, seconds: float) -> Iterator[None]:
    """When the block fails, waits before the failure goes on, or until a stop is asked for."""
    try:
        yield
    except BaseException as error:
        observer.note_end(error)
        pause = threading.Event()
        for _ in range(round(seconds / LINGER_POLL_SECONDS)):
            if observer.replay.stopping or observer.http is None:
                break
            pause.wait(LINGER_POLL_SECONDS)
        raise


def causes_text(observer: Observer) -> str:
    """What the run was held up by: "72% fsync (a commit takes the target 1.2 ms); 20% network (…)"."""
    parts = [
        f"{share.share:.0%} {share.cause}" + (f" ({share.detail})" if share.detail else "")
        for share in observer.causes(whole_run=True)
        if share.share >= SHARE_SHOWN_MIN and share.cause is not Cause.IDLE
    ]
    return "; ".join(parts)
