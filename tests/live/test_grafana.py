"""A live applier under load, scraped by a real Prometheus: panels and rules have data, and alerts fire for the faults
that they are named after."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from applier.observe.http import HttpServer
from applier.observe.observer import Observer
from applier.replay import Replay
from applier.sandbox import Server
from applier.sandbox.ports import free_port
from applier.workload import workload_named
from tests import grafana
from tests.grafana import label_values, substituted
from tests.prometheus import Prometheus, Series
from tests.proxy import FaultProxy
from tests.replaying import Command, Running, address, command, executed, run_all, session, settings
from tests.waiting import wait_until

LABELS: Final = grafana.labels_of_catalogue()
ALL_QUEUES: Final = {"all"}  # of a recording rule
ROUNDING: Final = 1e-6


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One for all tests: it scrapes where each of them serves its applier."""
    with Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{free_port()}") as started:
        yield started


def wait_until_well(prometheus: Prometheus) -> None:
    """A running applier is scraped, and nothing is wrong with it."""
    running = 'applier_state{state="running"} == 1'
    wait_until(lambda: prometheus.now(running) and not prometheus.alerts(), what="all is well")


@contextlib.contextmanager
def process(prometheus: Prometheus, source: Server, target: Server, *options: str) -> Iterator[Command]:
    """`applier run`, scraped and well, until the block ends."""
    with command(source, target, "--http", prometheus.target, *options) as run:
        wait_until_well(prometheus)
        yield run


@contextlib.contextmanager
def watched(prometheus: Prometheus, source: Server, target: Server, /, **changes: Any) -> Iterator[None]:
    """A replay in this process, scraped and well, until the block ends."""
    replay = Replay(settings(source, target, **({"stop_at_end": False} | changes)))
    host, _, port = prometheus.target.partition(":")
    with Observer(replay) as observer, HttpServer(observer, host, int(port)):
        running = Running(replay)
        try:
            wait_until_well(prometheus)
            yield
        except BaseException:
            replay.abort()
            raise
        running.finish()


@contextlib.contextmanager
def load(source: Server) -> Iterator[None]:
    """OLTP on the source while the block runs."""
    workload = workload_named("oltp", database="load", terminals=2, scale=0.01)
    workload.prepare(source.connect)
    stop = threading.Event()
    thread = threading.Thread(target=workload.run, args=(source.connect,), kwargs={"stop": stop, "rate": 400})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def table(source: Server, target: Server, rows: int = 8) -> None:
    """d.t with rows 0 …, on both sides once the run has come so far."""
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT, b LONGBLOB)"])
    run_all(source, [f"INSERT INTO d.t VALUES ({number}, 0, NULL)" for number in range(rows)])
    wait_until(lambda: executed(source) <= executed(target))


def chosen(prometheus: Prometheus) -> dict[str, str]:
    """The dashboard's variables, filled one after the other as Grafana does."""
    values = {"__rate_interval": "1s"}
    for variable in grafana.variables():
        selector, label = label_values(variable["query"]["query"])
        found = prometheus.values_of(substituted(selector, values), label)
        assert len(found) == 1, variable["name"]
        values[variable["name"]] = f"({found[0]})"
    return values


def wrong_in(found: list[Series], wanted: set[str], *, share: bool = False) -> str:
    """What is wrong with an answer: nothing there, no number, no share of a whole, labels that are not `wanted`, values
    of them that the catalogue does not know."""
    values = [value for series in found for value in series.values]
    if not values:
        return "no series" if not found else "no finite value"
    if share and not (min(values) >= 0 and max(values) < 1 + ROUNDING):
        return f"{min(values)} … {max(values)} is no share"
    for series in found:
        if missing := wanted - series.labels.keys():
            return f"no label {missing}"
        for name, value in series.labels.items():
            if name in LABELS and value not in LABELS[name] | ALL_QUEUES:
                return f"{name} is {value}"
    return ""


def test_every_query_has_data_under_load_and_no_alert_fires(
    prometheus: Prometheus, source: Server, target: Server, tmp_path: Path
) -> None:
    options = ("--group-transactions", "20", "--relay-log", str(tmp_path / "relay"))
    with process(prometheus, source, target, *options), load(source):
        busy = "min_over_time(applier:transactions:rate5m[2s]) > 50"
        wait_until(lambda: prometheus.now(busy), what="it replays for some seconds")
        values = chosen(prometheus)
        wrong = {}
        for query in grafana.panel_queries():
            expression = substituted(query.expression, values)
            ask = prometheus.now if query.instant else prometheus.over
            legend = set(grafana.LEGEND_LABEL.findall(query.legend))
            wrong[query.where] = wrong_in(ask(expression), legend, share=query.share)
        for rule in grafana.rules():
            if "record" in rule:
                wrong[rule["record"]] = wrong_in(prometheus.now(rule["record"]), {"job", "instance"})
        assert {where: what for where, what in wrong.items() if what} == {}
        scraped = set(
            prometheus.values_of('{job="applier",__name__=~"(applier|process|python)_.+"}', "__name__")
        )
        assert_all_are_known(scraped)
        assert prometheus.alerts() == {}
        groups = prometheus.api("rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


def annotated(prometheus: Prometheus, name: str) -> list[Series]:
    """What the dashboard draws as an annotation."""
    return prometheus.over(substituted(grafana.annotation_queries()[name], chosen(prometheus)))


def assert_all_are_known(scraped: set[str]) -> None:
    """Every name that a scrape brings is shown or listed as not shown."""
    shown = set().union(*(grafana.metrics_in(query.expression) for query in grafana.panel_queries()))
    assert {name for one in scraped for name in grafana.metrics_in(one)} - shown == grafana.not_shown().keys()


def test_a_locked_table_is_told_as_lag_no_progress_and_full_queues(
    prometheus: Prometheus, source: Server, target: Server
) -> None:
    with watched(prometheus, source, target, memory_bytes_max=64 << 20):
        table(source, target)
        with session(target, "LOCK TABLES d.t WRITE"):
            large = "INSERT INTO d.t VALUES ({}, 0, REPEAT('x', 200000))"
            run_all(source, [large.format(number) for number in range(100, 450)])
            firing = prometheus.wait_for_alerts(
                "ApplierLagHigh", "ApplierLagGrowing", "ApplierNoProgress", "ApplierQueueFull"
            )
        assert firing.keys().isdisjoint({"ApplierDown", "ApplierStoppedOnError", "ApplierLinkDown"})
        (lag,) = firing["ApplierLagHigh"]
        assert "of the time held up by lock_wait" in lag["annotations"]["summary"]
        assert len(annotated(prometheus, "Alerts")) >= 4
        assert_readable(firing)
        wait_until_well(prometheus)


def test_retries_that_do_not_end_are_told(prometheus: Prometheus, source: Server, target: Server) -> None:
    with watched(prometheus, source, target):
        table(source, target)
        with session(target, "BEGIN", "SELECT * FROM d.t FOR UPDATE"):
            run_all(source, [f"UPDATE d.t SET v = 1 WHERE id = {number}" for number in range(8)])
            firing = prometheus.wait_for_alerts("ApplierRetryStorm")
        assert_readable(firing)
        wait_until_well(prometheus)


def test_a_link_that_is_down_is_told(prometheus: Prometheus, source: Server, target: Server) -> None:
    with FaultProxy(source.port) as proxy:
        through = dataclasses.replace(address(source, "source"), port=proxy.port)
        with watched(prometheus, source, target, source=through):
            proxy.refuse()
            proxy.cut()
            firing = prometheus.wait_for_alerts("ApplierLinkDown")
            assert [alert["labels"]["link"] for alert in firing["ApplierLinkDown"]] == ["source"]
            assert_readable(firing)
            proxy.reset()
            wait_until_well(prometheus)


def test_a_stop_on_an_error_is_told_and_still_when_the_applier_is_gone(
    prometheus: Prometheus, source: Server, target: Server
) -> None:
    with process(prometheus, source, target, "--http-linger", "60") as run:
        table(source, target)
        run_all(target, ["SET sql_log_bin = 0", "DELETE FROM d.t WHERE id = 3"])
        run_all(source, ["UPDATE d.t SET v = 1 WHERE id = 3"])
        firing = prometheus.wait_for_alerts("ApplierStoppedOnError")
        assert "ApplierDown" not in firing
        run.terminate()
        assert run.wait() == 4
    firing = prometheus.wait_for_alerts("ApplierStoppedOnError", "ApplierDown")
    assert_readable(firing)
    run_all(target, ["SET sql_log_bin = 0", "INSERT INTO d.t VALUES (3, 0, NULL)"])
    with watched(prometheus, source, target):
        assert annotated(prometheus, "Restarts")


def assert_readable(firing: dict[str, list[dict[str, Any]]]) -> None:
    """Summaries and runbooks are sentences, with nothing left of their templates."""
    for alert in itertools.chain.from_iterable(firing.values()):
        for text in alert["annotations"].values():
            assert text.endswith(".")
            assert not {"{{", "<no value>", "<error", "%!"} & set(text.split()), text
            assert "error expanding" not in text
