"""The files of `grafana/`: complete, readable, and true to the metrics that there are."""

from __future__ import annotations

import importlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Final

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from applier.address import Role, parse_url
from applier.cli import COMMANDS
from applier.observe import catalogue
from applier.observe.collector import registry_of
from applier.observe.http import DEFAULT_PORT
from applier.observe.observer import Observer
from applier.pipeline import PipelineSettings
from applier.replay import Replay
from applier.settings import RunSettings
from tests import grafana
from tests.grafana import metrics_in
from tests.programs import prometheus

ROLES: Final[tuple[Role, ...]] = ("source", "target")
# Labels that Prometheus, a histogram, build info and the alerts add to those of the catalogue.
OTHER_LABELS: Final = {"job", "instance", "le", "channel", "version", "alertname", "alertstate", "severity"}
# The Prometheus data source reads these of an annotation; Grafana itself passes them on.
OF_THE_DATA_SOURCE: Final = re.compile(r"/annotations/list/\d+/(tagKeys|titleFormat)")
LABELS_OF_CATALOGUE: Final = grafana.labels_of_catalogue()
MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def names_of_the_collector() -> set[str]:
    """What a scrape names, of a run that has not begun; histograms without their suffixes."""
    source, target = (parse_url("mysql://u@h", role, prompt=False) for role in ROLES)
    registry = registry_of(Observer(Replay(RunSettings(source, target, PipelineSettings()))))
    suffixes = {"counter": "_total", "info": "_info"}
    return {family.name + suffixes.get(family.type, "") for family in registry.collect()}


def lost(written: Any, read: Any, path: str = "") -> Iterator[str]:
    """Where `written` has what `read` has not."""
    if isinstance(written, dict):
        for name, value in written.items():
            yield from lost(value, read.get(name) if isinstance(read, dict) else None, f"{path}/{name}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from lost(one, other, f"{path}/{number}")
    elif written != read:
        yield path


def found_at(value: Any, name: str) -> Iterator[Any]:
    """All that is called `name`, however deep."""
    if isinstance(value, dict):
        yield from (inner for key, inner in value.items() if key == name)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from found_at(inner, name)


def test_the_dashboard_reads_well_in_a_diff() -> None:
    ordered = json.dumps(grafana.dashboard(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert grafana.DASHBOARD.read_text() == ordered


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    """Read and written again by Grafana's own types, nothing is missing."""
    register_default_plugins()
    written = grafana.dashboard()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    assert [path for path in lost(written, read) if not OF_THE_DATA_SOURCE.fullmatch(path)] == []
    assert list(lost({"panels": [{"tilte": ""}]}, read)), "a misspelt field is seen"
    assert written["schemaVersion"] >= Dashboard().schema_version


def test_the_data_source_is_chosen_by_its_variable() -> None:
    dashboard = grafana.dashboard()
    assert dashboard["templating"]["list"][0]["name"] == "datasource"
    sources = list(found_at(dashboard, "datasource"))
    assert len(sources) > 2 * len(grafana.panels())
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_panels_have_title_description_and_unit() -> None:
    for panel in grafana.panels():
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_panels_have_places_and_numbers_of_their_own() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in grafana.dashboard()["panels"]]
    for (title, a), (other, b) in itertools.combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart or above, f"{title} overlaps {other}"
    assert all(place["x"] + place["w"] <= 24 for _, place in places)
    numbers = [panel["id"] for panel in grafana.dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_every_metric_is_shown_or_left_out_for_a_reason() -> None:
    names = names_of_the_collector()
    assert {metric.name for metric in catalogue.METRICS} <= names
    shown = set().union(*(metrics_in(query.expression) for query in grafana.panel_queries()))
    left_out = grafana.not_shown()
    assert names - shown - left_out.keys() == set(), "neither shown nor listed in not-shown.yaml"
    assert left_out.keys() - names == set(), "listed, but there is no such metric"
    assert left_out.keys() & shown == set(), "listed, but shown"
    assert all(len(reason) > 20 for reason in left_out.values())


def expressions() -> dict[str, str]:
    """Of the dashboard and the rules, by where they are."""
    found = {query.where: query.expression for query in grafana.panel_queries()}
    found |= grafana.annotation_queries()
    found |= {f"${variable['name']}": variable["query"]["query"] for variable in grafana.variables()}
    for number, rule in enumerate(grafana.rules()):
        found[f"rule {number}: {rule.get('alert') or rule['record']}"] = rule["expr"]
    return found


def test_queries_name_metrics_and_labels_that_exist() -> None:
    """And none of the labels has values that data decide: those of the catalogue are bounded."""
    names = names_of_the_collector()
    for where, expression in expressions().items():
        assert metrics_in(expression) <= names, where
        for label, operator, value in MATCHER.findall(expression):
            assert label in LABELS_OF_CATALOGUE.keys() | OTHER_LABELS, where
            if label in LABELS_OF_CATALOGUE and operator in {"=", "!="}:
                assert value in LABELS_OF_CATALOGUE[label], where
        for labels in GROUPING.findall(expression):
            named = {label.strip() for label in labels.split(",")} - {""}
            assert named <= LABELS_OF_CATALOGUE.keys() | OTHER_LABELS, where


def test_legends_name_labels_that_the_query_keeps() -> None:
    for query in grafana.panel_queries():
        kept = {label.strip() for labels in GROUPING.findall(query.expression) for label in labels.split(",")}
        assert query.legend, query.where
        assert set(grafana.LEGEND_LABEL.findall(query.legend)) <= kept, query.where


def test_panels_ask_for_the_chosen_appliers_and_fit_the_shown_time() -> None:
    for query in grafana.panel_queries():
        for selector in re.findall(r"\b(?:applier|process)_\w+(\{[^}]*\})", query.expression):
            assert 'job=~"$job"' in selector, query.where
            assert 'instance=~"$instance"' in selector, query.where
        assert set(re.findall(r"\[(.*?)\]", query.expression)) <= {"$__rate_interval"}, query.where


def test_promtool_finds_nothing_and_every_alert_is_tested_with_time() -> None:
    promtool = prometheus("promtool")
    try:
        promtool.output("check", "config", str(grafana.PROMETHEUS))
        promtool.output("test", "rules", str(grafana.RULES_TEST))
    except CalledProcessError as error:
        pytest.fail(error.stdout)
    tested = grafana.RULES_TEST.read_text()
    assert [rule["alert"] for rule in grafana.alerts() if rule["alert"] not in tested] == []


def test_alerts_say_what_is_wrong_and_what_to_do() -> None:
    options = {
        option
        for name in COMMANDS
        for one in getattr(importlib.import_module(f"applier.cli.{name}"), name).params
        for option in one.opts
    }
    for rule in grafana.alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "runbook"}
        assert "$labels.instance" in rule["annotations"]["summary"]
        assert all(text.endswith(".") for text in rule["annotations"].values())
        assert set(re.findall(r"--[\w-]+", rule["annotations"]["runbook"])) <= options


def test_the_example_scrapes_where_an_applier_listens_under_the_name_that_the_alert_knows() -> None:
    (job,) = yaml.safe_load(grafana.PROMETHEUS.read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"localhost:{DEFAULT_PORT}"]}]
    down = next(rule for rule in grafana.alerts() if rule["alert"] == "ApplierDown")
    assert f'up{{job="{job["job_name"]}"}}' in down["expr"]


def test_provisioning_names_no_secret_and_leaves_the_uid_to_grafana() -> None:
    provisioning = grafana.ROOT / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source.keys() <= {"name", "type", "access", "url", "isDefault", "jsonData"}
    (provider,) = yaml.safe_load((provisioning / "dashboards/applier.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]).is_absolute()
    assert provider["options"]["path"] in grafana.README.read_text()


def test_the_readme_tells_of_every_row_alert_and_cause() -> None:
    text = grafana.README.read_text()
    wanted = [
        *(title.partition(":")[0] for title in grafana.rows()),
        *(rule["alert"] for rule in grafana.alerts()),
        *(f"`{cause}`" for cause in catalogue.CAUSES),
    ]
    assert [name for name in wanted if name not in text] == []
