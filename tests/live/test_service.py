"""The applier as a service: what systemd is told of a live replay, and where the passwords come from."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from applier.address import parse_url
from applier.cli import commands
from applier.deploy.notify import Liveness, notified, watchdog_seconds
from applier.errors import UsageError
from applier.pipeline import PipelineSettings
from applier.replay import Replay
from applier.sandbox import Server
from applier.settings import RunSettings
from tests.waiting import wait_until


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """All that has been sent to NOTIFY_SOCKET."""
    path = tmp_path / "notify"
    received: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(0.1)
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    received.append(listener.recv(4096).decode())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield lambda: "\n".join(received)
        ended.set()
        thread.join()


def replay_of(source: Server, target: Server) -> Replay:
    return Replay(
        RunSettings(
            parse_url(source.url, "source", prompt=False),
            parse_url(target.url, "target", prompt=False),
            PipelineSettings(workers=2),
        )
    )


def test_systemd_hears_when_it_is_ready_moves_and_stops(
    source: Server, target: Server, heard: Callable[[], str]
) -> None:
    source.execute("CREATE DATABASE d")
    replay = replay_of(source, target)
    with notified(replay):
        thread = threading.Thread(target=replay.run)
        thread.start()
        wait_until(lambda: "READY=1" in heard() and "WATCHDOG=1" in heard())
        wait_until(lambda: "STATUS=1 transactions applied, 0 behind" in heard())
        replay.drain()
        thread.join()
    wait_until(lambda: "STOPPING=1" in heard())


def test_the_watchdog_is_not_answered_for_a_replay_that_stands_still(source: Server, target: Server) -> None:
    """A lock from outside holds it up at the server, which is progress; our own threads standing still is none."""
    for server in (source, target):
        server.execute("CREATE DATABASE d")
        server.execute("CREATE TABLE d.t (id INT PRIMARY KEY)")
    target.execute("RESET BINARY LOGS AND GTIDS")
    source.execute("RESET BINARY LOGS AND GTIDS")
    replay = replay_of(source, target)
    liveness = Liveness(replay)
    thread = threading.Thread(target=replay.run)
    thread.start()
    wait_until(lambda: replay.pipeline is not None)
    assert liveness.moves()
    pipeline = replay.pipeline
    assert pipeline is not None
    wait_until(lambda: all(worker.state.activity == "idle" for worker in pipeline.workers))
    with pipeline.work._not_empty:  # nobody can take what comes
        source.execute("INSERT INTO d.t VALUES (1)")
        wait_until(lambda: replay.progress().transactions_behind > 0)
        wait_until(lambda: not liveness.moves())
    wait_until(liveness.moves)
    replay.drain()
    thread.join()


def test_nothing_is_said_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, source: Server, target: Server
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    source.execute("CREATE DATABASE d")
    replay = replay_of(source, target)
    with notified(replay):
        replay.drain()
        replay.run()


def test_only_the_process_that_systemd_names_answers_the_watchdog() -> None:
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000"}) == 3
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}) == 3
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}) == float("inf")
    assert watchdog_seconds({"WATCHDOG_USEC": "soon"}) == watchdog_seconds({}) == float("inf")


def test_a_password_comes_from_the_folder_of_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("APPLIER_SOURCE_PASSWORD", raising=False)
    (tmp_path / "source-password").write_text("of-systemd\n")
    assert parse_url("mysql://u@h", "source", prompt=False).password == "of-systemd"
    assert parse_url("mysql://u@h", "target", prompt=False).password == ""
    (tmp_path / "target-password").mkdir()
    with pytest.raises(UsageError, match="target-password cannot be read"):
        parse_url("mysql://u@h", "target", prompt=False)


def test_the_unit_is_printed_and_stops_for_an_operator() -> None:
    printed = CliRunner().invoke(commands, ["deploy", "systemd"]).output
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read_string(printed)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["RestartPreventExitStatus"].split() == ["2", "3", "4"]
    assert service["ExecStart"].endswith("run")


def test_the_dockerfile_is_printed() -> None:
    printed = CliRunner().invoke(commands, ["deploy", "docker"]).output
    assert printed.count("FROM ") == 2
    assert 'ENTRYPOINT ["applier"]' in printed
