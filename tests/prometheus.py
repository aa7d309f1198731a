"""A real Prometheus that scrapes five times a second and evaluates our rules as often."""

from __future__ import annotations

import http.client
import json
import math
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from applier.sandbox.ports import free_port
from tests.grafana import RULES
from tests.programs import prometheus
from tests.waiting import wait_until

CONFIGURATION: Final = """
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: applier
    static_configs: [{{targets: ["{target}"]}}]
"""
QUICKER: Final = 200  # five minutes become 1.5 s
SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3600}
# What is measured in seconds of the applier's own clock cannot be scaled with the windows.
THRESHOLDS: Final = {
    "applier_lag_seconds > 60": "applier_lag_seconds > 1",
    "applier_lag_seconds > 10": "applier_lag_seconds > 0.5",
    "last_progress_timestamp_seconds > 120": "last_progress_timestamp_seconds > 3",
}


def quick_rules() -> str:
    """The rules with windows and waits of seconds instead of minutes."""

    def quicker(match: re.Match[str]) -> str:
        return f"{match[1]}{1000 * int(match[2]) * SECONDS_OF[match[3]] // QUICKER}ms{match[4]}"

    text = re.sub(r"(\[|for: )(\d+)([smh])(\]|)", quicker, RULES.read_text())
    for slow, quick in THRESHOLDS.items():
        assert slow in text
        text = text.replace(slow, quick)
    return text


@dataclass(frozen=True, slots=True)
class Series:
    """`values`: finite ones, in the order of time."""

    labels: Mapping[str, str]
    values: tuple[float, ...]


class Prometheus:
    """Runs while the block does. `target`: HOST:PORT of the applier that is scraped."""

    def __init__(self, folder: Path, target: str) -> None:
        self.target = target
        self.url = f"http://127.0.0.1:{free_port()}"
        rules, configuration = folder / "rules.yml", folder / "prometheus.yml"
        rules.write_text(quick_rules())
        configuration.write_text(CONFIGURATION.format(rules=rules.name, target=target))
        program = prometheus()
        command = [
            str(program.path),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--log.level=warn",
        ]
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            command, env=program.environment, stdout=self._log, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> Self:
        wait_until(self._ready, what="Prometheus answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _ready(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def api(self, path: str, **parameters: str | float) -> Any:
        """`data` of an answer. AssertionError with what Prometheus says of a bad query."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def now(self, expression: str) -> list[Series]:
        """An instant query."""
        found = self.api("query", query=expression)
        assert found["resultType"] == "vector", expression
        return [Series(one["metric"], _finite([one["value"]])) for one in found["result"]]

    def over(self, expression: str, seconds: float = 3.0) -> list[Series]:
        """A range query of the last `seconds`."""
        end = time.time()
        found = self.api("query_range", query=expression, start=end - seconds, end=end, step=0.2)
        return [Series(one["metric"], _finite(one["values"])) for one in found["result"]]

    def values_of(self, selector: str, label: str) -> list[str]:
        """As Grafana asks for `label_values(selector, label)`."""
        found: list[str] = self.api(f"label/{label}/values", **{"match[]": selector})
        return found

    def alerts(self) -> dict[str, list[dict[str, Any]]]:
        """Firing ones by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self.api("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def wait_for_alerts(self, *names: str, seconds: float = 30.0) -> dict[str, list[dict[str, Any]]]:
        """Until all of these fire; gives those that fire, whichever they are."""

        def fire() -> dict[str, list[dict[str, Any]]]:
            firing = self.alerts()
            return firing if firing.keys() >= set(names) else {}

        return wait_until(fire, seconds, f"{', '.join(names)} fires")


def _finite(points: list[tuple[float, str]]) -> tuple[float, ...]:
    return tuple(value for _, text in points if math.isfinite(value := float(text)))
