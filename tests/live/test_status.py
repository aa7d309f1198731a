"""Status, metrics and health of a run, asked as operators and Prometheus ask; and what is left when it has died."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from applier.cli.status import Asked, find
from applier.observe import catalogue
from applier.observe.http import CONNECTIONS_MAX, HttpServer
from applier.observe.observer import Observer
from applier.replay import Replay
from applier.sandbox import Server
from tests.replaying import Command, Running, address, command, executed, run_all, settings
from tests.waiting import wait_until

ROWS = 300


def fill(source: Server) -> None:
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"])
    run_all(source, [f"INSERT INTO d.t VALUES ({number})" for number in range(ROWS)])


def status_of(source: Server, target: Server) -> dict[str, Any]:
    """What `applier status` finds out."""
    asked = Asked(None, address(target, "target"), address(source, "source"), "applier")
    return find(asked).as_dict()


def printed_status(source: Server, target: Server) -> dict[str, Any]:
    """`applier status --json`."""
    with Command("status", "--json", "--target", target.url, "--source", source.url) as asked:
        assert asked.wait() == 0, asked.errors
    found: dict[str, Any] = json.loads(asked.output)
    return found


def get(place: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """(status, body, headers)."""
    connection = http.client.HTTPConnection(place, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "options",
    [pytest.param((), marks=pytest.mark.long), ("--group-transactions", "50")],
    ids=["one by one", "groups"],
)
def test_status_from_another_terminal_and_after_a_crash(
    source: Server, target: Server, options: tuple[str, ...]
) -> None:
    fill(source)
    with command(source, target, "--http", "127.0.0.1:0", *options) as run:
        wait_until(lambda: executed(source) <= executed(target))
        alive = wait_until(lambda: (found := status_of(source, target))["status"] and found)
        assert printed_status(source, target).keys() == alive.keys()
        columns = set(names_of_show_replica_status(target))
        assert set(alive["replica_status"]) <= columns
        assert alive["replica_status"]["Replica_SQL_Running"] == "Yes"
        assert alive["replica_status"]["Source_Port"] == source.port
        assert alive["status"]["totals"]["rows"] == ROWS
        assert alive["lag"]["transactions"] == 0
        assert {row["SERVICE_STATE"] for row in alive["workers"]} == {"ON"}
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
    dead = wait_until(lambda: not (found := status_of(source, target))["running"] and found)
    assert dead["lag"] == {"transactions": 0}
    assert set(dead["replica_status"]) <= columns
    assert dead["replica_status"]["Replica_SQL_Running"] == "No"
    assert dead["replica_status"]["Executed_Gtid_Set"] == str(executed(source)).replace("\n", "")
    run_all(source, ["INSERT INTO d.t VALUES (-1), (-2)", "DELETE FROM d.t WHERE id = -1"])
    assert status_of(source, target)["lag"] == {"transactions": 2}


def names_of_show_replica_status(server: Server) -> list[str]:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW REPLICA STATUS")
        return [column[0] for column in cursor.description]


def test_metrics_are_those_of_the_catalogue_and_tell_what_was_done(source: Server, target: Server) -> None:
    fill(source)
    replay = Replay(settings(source, target, stop_at_end=False))
    with Observer(replay) as observer, HttpServer(observer, "127.0.0.1", 0) as server:
        running = Running(replay)
        running.wait_for(source, target)
        wait_until(lambda: observer.lag() == (0.0, 0))
        status, text, headers = get(server.address, "/metrics")
        running.finish()
    assert status == 200
    assert "text/plain" in headers["Content-Type"]
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in catalogue.METRICS:
        family = (
            families[metric.name.removesuffix("_total").removesuffix("_info")]
            if (metric.kind == "counter")
            else families[metric.name]
        )
        for sample in family.samples:
            for label, values in metric.labels.items():
                assert sample.labels[label] in values
    ours = {name for name in families if name.startswith("applier_")}
    assert len(ours) == len(catalogue.METRICS)
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["applier_rows_total",] == ROWS
    assert values["applier_rows_decoded_total", "insert"] == ROWS
    assert values["applier_transactions_total",] == ROWS + 2
    assert values["applier_barriers_total", "ddl"] == 2
    assert values["applier_stage_seconds_count", "execute"] >= ROWS
    assert values["applier_stage_seconds_count", "commit"] >= ROWS
    assert values["applier_state", "running"] == 1
    assert values["applier_link_up", "source"] == values["applier_link_up", "target"] == 1
    assert values["process_resident_memory_bytes",] > 1 << 20


def test_ready_follows_the_lag_and_health_the_run(source: Server, target: Server) -> None:
    fill(source)
    replay = Replay(settings(source, target, stop_at_end=False))
    with Observer(replay) as observer, HttpServer(observer, "127.0.0.1", 0, lag_seconds_max=0.5) as server:
        assert get(server.address, "/readyz")[:2] == (503, "starting\n")
        running = Running(replay)
        running.wait_for(source, target)
        wait_until(lambda: get(server.address, "/readyz")[0] == 200)
        with target.connect() as blocker, blocker.cursor() as cursor:
            cursor.execute("LOCK TABLES d.t WRITE")
            run_all(source, ["INSERT INTO d.t VALUES (-1)"])
            wait_until(lambda: get(server.address, "/readyz")[0] == 503)
            assert "(1 transactions) behind, 0.5 s are allowed" in get(server.address, "/readyz")[1]
            assert get(server.address, "/healthz")[:2] == (200, "ok\n")
        wait_until(lambda: get(server.address, "/readyz")[0] == 200)
        running.finish()
        observer.note_end()
        assert get(server.address, "/readyz")[:2] == (503, "stopped\n")


def test_slow_and_hostile_clients_stay_outside(source: Server, target: Server) -> None:
    replay = Replay(settings(source, target, stop_at_end=False))
    with Observer(replay) as observer, HttpServer(observer, "127.0.0.1", 0) as server:
        host, _, port = server.address.rpartition(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS_MAX - 1)]
        try:
            for one in slow:
                one.send(b"GET / HT")  # and never the rest
            assert get(server.address, "/healthz")[0] == 200
        finally:
            for one in slow:
                one.close()
        wait_until(lambda: get(server.address, "/status")[0] == 200)
        assert get(server.address, "/status", Host="attacker.example")[0] == 403
        assert get(server.address, "/status", Host="localhost:1")[0] == 200
        assert get(server.address, "/../settings.py")[0] == 404
        assert get(server.address, "/status", Padding="x" * 20_000)[0] == 431
        headers = get(server.address, "/status")[2]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        connection = http.client.HTTPConnection(server.address, timeout=10)
        connection.request("POST", "/status", body=b"{}")
        assert connection.getresponse().status == 501
        connection.close()
