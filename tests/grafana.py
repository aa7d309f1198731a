"""What is in `grafana/`, for the tests: panels, queries, variables, rules."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from applier.observe import catalogue

ROOT: Final = Path(__file__).parents[1] / "grafana"
DASHBOARD: Final = ROOT / "dashboards" / "applier.json"
NOT_SHOWN: Final = ROOT / "not-shown.yaml"
README: Final = ROOT / "README.md"
PROMETHEUS: Final = ROOT / "prometheus" / "prometheus.yml"
RULES: Final = ROOT / "prometheus" / "rules.yml"
RULES_TEST: Final = ROOT / "prometheus" / "rules_test.yml"

VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
LEGEND_LABEL: Final = re.compile(r"{{(\w+)}}")
STRINGS: Final = re.compile(r'"[^"]*"')
METRIC: Final = re.compile(r"\b(?:applier|process|python)_\w+")
HISTOGRAM_PARTS: Final = re.compile(r"_(?:bucket|sum|count)$")
LABEL_VALUES: Final = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")

Panel = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """`where`: the panel, variable or annotation; `legend`: its template; `instant`: of one moment only; `share`: of
    a whole, 0 … 1."""

    where: str
    expression: str
    legend: str = ""
    instant: bool = False
    share: bool = False


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def rows() -> list[str]:
    """Titles, from the top."""
    return [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]


def panels() -> list[Panel]:
    """All but the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_queries() -> list[Query]:
    found = []
    for panel in panels():
        field = panel["fieldConfig"]["defaults"]
        share = field["unit"] == "percentunit" and field.get("max") == 1
        for target in panel["targets"]:
            where = f"{panel['title']} {target['refId']}"
            found.append(Query(where, target["expr"], target["legendFormat"], target["instant"], share))
    return found


def annotation_queries() -> dict[str, str]:
    """By name."""
    return {annotation["name"]: annotation["expr"] for annotation in dashboard()["annotations"]["list"]}


def variables() -> list[Mapping[str, Any]]:
    """Those that ask Prometheus, in their order."""
    return [variable for variable in dashboard()["templating"]["list"] if variable["type"] == "query"]


def label_values(text: str) -> tuple[str, str]:
    """(selector, label) of a variable's `label_values(selector, label)`."""
    found = LABEL_VALUES.fullmatch(text)
    assert found, f"not understood: {text}"
    return found["selector"], found["label"]


def substituted(expression: str, values: Mapping[str, str]) -> str:
    """With the dashboard's variables set. KeyError for one that is not known."""
    return VARIABLE.sub(lambda match: values[match[1] or match[2]], expression)


def metrics_in(expression: str) -> set[str]:
    """Names of metrics, as in the catalogue."""
    return {HISTOGRAM_PARTS.sub("", name) for name in METRIC.findall(STRINGS.sub('""', expression))}


def rules() -> list[dict[str, Any]]:
    """Recording rules and alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def labels_of_catalogue() -> dict[str, set[str]]:
    """Each label with the values that it has in any metric."""
    found: dict[str, set[str]] = {}
    for metric in catalogue.METRICS:
        for label, values in metric.labels.items():
            found.setdefault(label, set()).update(values)
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def not_shown() -> dict[str, str]:
    """Metrics that no panel shows, with the reason."""
    loaded: dict[str, str] = yaml.safe_load(NOT_SHOWN.read_text())
    return loaded
