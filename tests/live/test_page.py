"""The live page in a real browser, beside a live run. `--screenshots DIR` keeps what it looks like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from applier.observe.http import HttpServer
from applier.observe.observer import Observer
from applier.pipeline import PipelineSettings
from applier.replay import Replay
from applier.sandbox import Server
from applier.workload import workload_named
from scheduler.grouping import GroupLimits
from tests.programs import chromium
from tests.replaying import Running, address, run_all, settings
from tests.waiting import wait_until

HEADLESS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,1400",
)
CONTRAST_MIN = 4.5  # WCAG 2.2, level AA, of text
# Contrast of each text that is shown to the ground that it stands on, as the browser computes their colours.
WORST_CONTRAST = """
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
let worst = [99, ""];
for (const element of document.body.querySelectorAll("*")) {
  const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!text || !element.checkVisibility() || element instanceof SVGElement) continue;
  const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 200)];
}
return worst;
"""


class Browser(webdriver.Chrome):
    """Headless; everything that the page logs is kept."""

    def __init__(self) -> None:
        browser, driver = chromium()
        options = webdriver.ChromeOptions()
        options.binary_location = str(browser.path)
        for argument in HEADLESS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        super().__init__(options=options, service=Service(str(driver.path), env=driver.environment))

    def text(self, name: str) -> str:
        found: str = self.execute_script("return document.getElementById(arguments[0]).textContent", name)
        return found

    def number(self, name: str) -> float:
        return float(self.text(name).replace(",", "").replace("–", "0"))

    def evaluated(self, text: str) -> Any:
        return self.execute_script(text)

    def be(self, *, dark: bool = False, calm: bool = False) -> None:
        """What the user prefers."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser()
    yield opened
    opened.quit()


@pytest.fixture
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    folder = request.config.getoption("--screenshots")
    return Path(folder) if folder else None


def test_the_page_shows_a_live_run(
    source: Server, target: Server, browser: Browser, screenshots: Path | None
) -> None:
    source_address = address(source, "source")
    workload = workload_named("tpcc", warehouses=1, scale=0.02, terminals=2, seed=1)
    workload.prepare(source.connect)
    flow = PipelineSettings(workers=3, group=GroupLimits(100), net_changes=True)
    replay = Replay(settings(source, target, stop_at_end=False, pipeline=flow))
    with Observer(replay) as observer, HttpServer(observer, "127.0.0.1", 0) as server:
        running = Running(replay)
        browser.be()
        browser.size(1280, 1400)
        browser.get(f"http://{server.address}/")
        workload.run(source.connect, transactions=1500)
        wait_until(lambda: browser.text("state") == "running")
        wait_until(lambda: browser.number("rate") > 0)
        wait_until(lambda: browser.number("source-rate") > 0)
        running.wait_for(source, target)
        wait_until(lambda: browser.text("behind") == "0")
        assert source_address.place in browser.text("route")
        assert len(browser.find_elements(By.CSS_SELECTOR, "#workers tbody tr")) == 3
        wait_until(lambda: "tpcc" in browser.text("keys"))
        wait_until(
            lambda: browser.evaluated("return document.querySelectorAll('#rate-chart polyline').length") == 1
        )
        assert "Transactions a second: now" in browser.text("rate-chart-text")
        for dark in (False, True):
            browser.be(dark=dark)
            contrast, element = browser.evaluated(WORST_CONTRAST)
            assert contrast >= CONTRAST_MIN, element
            keep(browser, screenshots, "dark" if dark else "light")
        browser.size(390, 2600)
        assert browser.evaluated("return document.documentElement.scrollWidth") == 390
        keep(browser, screenshots, "phone")
        running.finish()
    wait_until(lambda: browser.text("state") == "no answer")
    complaints = [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert all("net::ERR_CONNECTION_" in message for message in complaints), complaints  # after its end


def test_it_moves_unless_the_user_wants_calm(source: Server, target: Server, browser: Browser) -> None:
    place = "return document.querySelector('#flow .drop').getAttribute('cx')"
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)"])
    replay = Replay(settings(source, target, stop_at_end=False))
    with Observer(replay) as observer, HttpServer(observer, "127.0.0.1", 0) as server:
        running = Running(replay)
        browser.be(calm=True)
        browser.get(f"http://{server.address}/")

        def applies() -> bool:
            run_all(source, ["INSERT INTO d.t VALUES ()"])
            return browser.number("rate") > 0

        wait_until(applies)
        still = browser.evaluated(place)
        wait_until(applies)
        assert browser.evaluated(place) == still
        browser.be(calm=False)
        wait_until(lambda: applies() and browser.evaluated(place) != still)
        running.finish()


def test_names_of_the_servers_are_text_not_markup(source: Server, target: Server, browser: Browser) -> None:
    name = "<img src=x onerror=document.title=1>"
    create = ["CREATE DATABASE d", f"CREATE TABLE d.`{name}` (id INT PRIMARY KEY, n INT)"]
    run_all(source, [*create, f"INSERT INTO d.`{name}` VALUES (1, 0)"])
    replay = Replay(settings(source, target, stop_at_end=False))
    with Observer(replay) as observer, HttpServer(observer, "127.0.0.1", 0) as server:
        running = Running(replay)
        running.wait_for(source, target)
        browser.be()
        browser.get(f"http://{server.address}/")
        run_all(target, [f"DELETE FROM d.`{name}`"])
        run_all(source, [f"UPDATE d.`{name}` SET n = 1"])
        wait_until(lambda: running.failure is not None)
        observer.note_end(running.failure)
        wait_until(lambda: name in browser.text("error"))
        assert browser.text("state") == "failed"
        assert browser.find_elements(By.TAG_NAME, "img") == []
        assert browser.title.startswith("failed")


def test_everything_can_be_reached_by_keyboard(source: Server, target: Server, browser: Browser) -> None:
    replay = Replay(settings(source, target))
    with Observer(replay) as observer, HttpServer(observer, "127.0.0.1", 0) as server:
        browser.size(1280, 1400)
        browser.get(f"http://{server.address}/")
        reached = []
        for _ in range(4):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            reached.append(browser.switch_to.active_element.get_attribute("aria-labelledby") or "")
        assert browser.switch_to.active_element.tag_name == "summary"
        assert reached[1:3] == ["flow-title", "workers-title"]
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        assert browser.find_element(By.ID, "facts").is_displayed()


def keep(browser: Browser, folder: Path | None, name: str) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(folder / f"page-{name}.png"))
