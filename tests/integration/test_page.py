"""The live page in a real browser, before a live daemon: what people see, with mouse, keys, a phone's width, dark and light.

RECURD_SCREENSHOTS=docs/page keeps the pictures that the documentation shows.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from daemon.brokers.dev import DevBroker
from tests import rules
from tests.harness import Command, Daemon, Topics, running, wait_until

NETWORK = {"model.hidden": 16, "model.horizon": 12, "model.context": 96, "input.max_gap_s": 604_800}
STREAMS = [f"{kind}-{number:02d}" for kind in ("pump", "boiler", "wind") for number in range(20)]
INTERVAL_MS = 60_000
HISTORY = 150

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


class Sensors:
    """Readings of all streams, a minute apart in event time, as fast as they are wanted."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._rng = random.Random(5)
        self._start_ms = round(time.time() * 1000) - (2 * HISTORY + 60) * INTERVAL_MS
        self._turn = 0

    def send(self, turns: int) -> None:
        self._topics.send((place % 2, None, json.dumps(reading).encode(), None) for place, reading in self._read(turns))

    def history(self, file: Path) -> Path:
        """A CSV file of what came before."""
        lines = [",".join(map(str, reading.values())) for _, reading in self._read(HISTORY)]
        file.write_text("\n".join(["stream,time,value", *lines]))
        return file

    def _read(self, turns: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for turn in range(self._turn, self._turn + turns):
            for place, stream in enumerate(STREAMS):
                value = 20 + place + 3 * math.sin(turn / 9 + place) + self._rng.gauss(0, 0.4)
                yield place, {"stream": stream, "time": self._start_ms + turn * INTERVAL_MS, "value": round(value, 2)}
        self._turn += turns


@pytest.fixture
def daemon(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Daemon]:
    topics = Topics.create(broker.bootstrap, unique("page"), 2)
    made = Daemon(topics, tmp_path, "a", NETWORK)
    with running(made):
        made.start()
        yield made


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = rules.tool("chromium")
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/chromium",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(rules.tool("chromedriver")))
    driver.set_window_size(1280, 1000)
    yield driver
    driver.quit()


class Screen:
    """What stands on the page."""

    def __init__(self, browser: webdriver.Chrome, port: int) -> None:
        self.browser = browser
        browser.get(f"http://127.0.0.1:{port}/")

    def text(self, selector: str) -> str:
        return str(self.browser.execute_script("return document.querySelector(arguments[0]).textContent", selector))

    def count(self, selector: str) -> int:
        return int(self.browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector))

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def wait(self, true: Callable[[], object], what: str) -> None:
        wait_until(true, what, timeout_s=60, every_s=0.2)

    def press(self, *keys: str) -> None:
        self.browser.switch_to.active_element.send_keys(*keys)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, width: int, height: int, mobile: bool) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def keep(self, name: str) -> None:
        if folder := os.environ.get("RECURD_SCREENSHOTS"):
            time.sleep(0.5)
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(f"{folder}/{name}.png")


def test_what_people_see(daemon: Daemon, browser: webdriver.Chrome, tmp_path: Path) -> None:
    """One daemon's life before the page: health, streams, search, keys, a detail that fills up, a phone, dark, and the end."""
    screen = Screen(browser, daemon.life.wait_for("http listening").fields["port"])
    screen.wait(lambda: screen.text("#verdict") not in ("connecting", "no connection"), "a first word")
    daemon.wait_ready()
    sensors, recurd = Sensors(daemon.topics), Command({**daemon.topics.settings, **NETWORK})
    recurd("train", sensors.history(tmp_path / "history.csv"), "--out", tmp_path / "weights.safetensors", "--steps", "100")
    sensors.send(HISTORY)
    daemon.topics.send([(0, b"pump-00", b"no reading", None)])
    daemon.topics.wait_committed()
    screen.wait(lambda: screen.text("#verdict") == "serving", "serving")
    screen.wait(lambda: screen.count("#streams li") == 24, "a page of streams")
    screen.wait(lambda: "60" in screen.text("#matching") and "page 1 of 3" in screen.text("#matching"), "all streams counted")
    assert screen.count("#streams path.line") == 24
    screen.wait(lambda: screen.text("#letters").startswith("reasonsince the startsyntax1"), "the dead letter and its reason")
    assert screen.count("#partitions tr") == 3
    assert "naive" in screen.text("#model")
    version = recurd("models", "import", tmp_path / "weights.safetensors", "--promote").split()[0]
    screen.wait(lambda: version in screen.text("#model"), "the swap")
    assert screen.count("#model tr") == 3

    screen.press(Keys.ARROW_RIGHT)
    screen.wait(lambda: "page 2 of 3" in screen.text("#matching"), "the second page by key")
    screen.press("/")
    screen.press("wind-0")
    screen.wait(lambda: screen.count("#streams li") == 10, "what was searched for")
    screen.press(Keys.ESCAPE)
    browser.find_element(By.CSS_SELECTOR, "#streams button").click()
    screen.wait(lambda: not screen.run("return document.getElementById('detail').hidden"), "the detail")
    for _ in range(14):
        sensors.send(1)
        time.sleep(0.3)
    screen.wait(lambda: screen.count("#detail-chart path.oldline") == 1, "earlier forecasts over the readings")
    screen.wait(lambda: screen.count("#streams path.median") == 10, "fans")
    assert screen.count("#detail-chart path.line, #detail-chart path.median, #detail-chart path.band") == 3
    assert [screen.run(f"return document.querySelectorAll('#lead option')[{n}].value") for n in range(3)] == ["1", "3", "12"]
    screen.prefer("light")
    screen.keep("light")
    light = screen.run("return getComputedStyle(document.body).backgroundColor")
    screen.prefer("dark")
    assert screen.run("return getComputedStyle(document.body).backgroundColor") != light
    screen.keep("dark")
    screen.size(390, 844, mobile=True)
    assert screen.run("return document.documentElement.scrollWidth <= innerWidth"), "a phone does not scroll sideways"
    screen.keep("phone")
    screen.press(Keys.ESCAPE)
    screen.wait(lambda: screen.run("return document.getElementById('detail').hidden"), "the detail closed by key")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    daemon.life.kill()
    screen.wait(lambda: screen.text("#verdict") == "no connection", "the end of the daemon seen")
