"""The real Prometheus scrapes a live daemon, with our rules: every expression finds its metrics, and every alert fires once.

Rules are those of deploy/prometheus with durations divided, so that an hour takes seconds; thresholds are as they are. What a
live daemon can be brought to in seconds fires there; all of them fire from metrics that are told what a sick loop would tell.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import Gauge

from config.settings import HttpSettings
from daemon.brokers.dev import DevBroker
from daemon.errors import Doubt, Fenced
from daemon.http import Health, HttpServer
from daemon.metrics import Metrics
from daemon.pipeline import Outcome, Scores
from daemon.records import DeadLetter, Message, Record
from tests import rules
from tests.harness import Daemon, Feeder, Topics, probe, running, wait_until
from tests.load import Load

SMALL = {"model.hidden": 16, "model.horizon": 8, "model.context": 32, "state.max_streams_per_partition": 30}
#: Scrapes and evaluations, and how many seconds of a rule are one here.
EVERY = "250ms"
FASTER = 300
DAY_S = 86_400
#: What a live daemon is brought to here; the rest is told.
LIVE = {"RecurdDeadLetters", "RecurdStreamsEvicted", "RecurdModelRefused", "RecurdDown"}


class Prometheus:
    """The server, on loopback, with our rules made faster."""

    def __init__(self, directory: Path, targets: dict[str, int]) -> None:
        """`targets` are ports by instance."""
        (directory / "rules").mkdir(parents=True)
        for name in ("alerts.yaml", "recording.yaml"):
            (directory / "rules" / name).write_text(faster((rules.PROMETHEUS / name).read_text("utf-8")))
        config = yaml.safe_load((rules.PROMETHEUS / "prometheus.yml").read_text("utf-8"))
        config["global"] = {"scrape_interval": EVERY, "evaluation_interval": EVERY, "scrape_timeout": EVERY}
        config["rule_files"] = ["rules/*.yaml"]
        config["scrape_configs"][0]["static_configs"] = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in targets.items()
        ]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        prometheus = rules.tool("prometheus")  # skips or fails where there is none: before a file is open
        self._log = (directory / "log").open("w")
        self.port = 0
        self.fired: set[str] = set()
        command = [
            prometheus, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
            "--web.listen-address=127.0.0.1:0",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stderr=self._log, stdout=self._log)
        self._directory = directory
        wait_until(self._listens, "Prometheus listens", timeout_s=30)

    def _listens(self) -> bool:
        found = re.search(r"Listening on\S* .*address=127\.0\.0\.1:(\d+)", (self._directory / "log").read_text())
        self.port = int(found[1]) if found else 0
        return self.port > 0 and probe(self.port, "/-/ready")[0] == 200

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        status, text = probe(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        assert status == 200, text
        return json.loads(text)["data"]

    def wait_for(self, names: Set[str], timeout_s: float = 90) -> None:
        """Return when each of these alerts has fired, at one time or another."""
        deadline_s = time.monotonic() + timeout_s
        while missing := names - self.fired:
            assert time.monotonic() < deadline_s, (
                f"{sorted(missing)} did not fire within {timeout_s:g} s, {sorted(self.fired)} did"
            )
            alerts = self.ask("alerts")["alerts"]
            self.fired |= {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
            time.sleep(0.25)


def faster(text: str) -> str:
    """Rules whose ranges and waits take a 300th of their time."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, int(found[2]) * seconds[found[3]] // FASTER)}s"

    return re.sub(r"(\[|for: |interval: )(\d+)([smhd])", shorter, text)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    started: list[Prometheus] = []

    def start(**targets: int) -> Prometheus:
        started.append(Prometheus(tmp_path / f"prometheus-{len(started)}", targets))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.mark.broker
@pytest.mark.slow
def test_a_live_daemon(
    broker: DevBroker, unique: Callable[[str], str], tmp_path: Path, prometheus: Callable[..., Prometheus]
) -> None:
    """Prometheus scrapes it, every rule evaluates, every metric of every expression is there, and what ails it fires."""
    topics = Topics.create(broker.bootstrap, unique("scraped"), 2)
    daemon = Daemon(topics, tmp_path, "a", {**SMALL, "state.checkpoint_interval_s": 0.5})
    with running(daemon):
        daemon.start()
        daemon.wait_ready()
        server = prometheus(live=daemon.life.wait_for("http listening").fields["port"])
        feeder = Feeder(topics, Load(31, 2, streams=48), records_per_s=300)
        wait_until(lambda: server.ask("query", query="recurd_models_refused_total")["result"], "a scrape", timeout_s=30)
        topics.send([(0, b"current", b"0123456789abcdef", None)], topic="models")
        server.wait_for(LIVE - {"RecurdDown"})
        assert_expressions_find_something(server)
        feeder.stop()
        daemon.stop()
        server.wait_for({"RecurdDown"})


def assert_expressions_find_something(server: Prometheus) -> None:
    """Every rule is sound, and every metric of a rule or of the dashboard has samples."""
    groups = server.ask("rules")["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == rules.rules("alert").keys() | rules.rules(
        "record"
    ).keys()
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    expressions = [rule["expr"] for kind in ("alert", "record") for rule in rules.rules(kind).values()]
    named = set().union(*map(rules.metrics_in, [*expressions, *rules.dashboard_expressions()]))
    wait_until(lambda: named <= set(server.ask("label/__name__/values")), "metrics of all expressions", timeout_s=30)
    for expression in rules.dashboard_expressions():
        server.ask("query", query=expression)


class Sick:
    """Metrics of a process, told what a loop with every illness would say, several times a second."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._now_s = 1000.0
        self.health = Health(30.0, clock=lambda: self._now_s)
        self._offset = 0
        self._started = Gauge("process_start_time_seconds", "As that of a process that is restarted.", registry=None)
        self._process = next(
            each for each in self.metrics.registry._collector_to_names if type(each).__name__ == "ProcessCollector"
        )
        self._begin()

    def _begin(self) -> None:
        metrics, past_s = self.metrics, time.time() - 2000
        metrics.registry.unregister(self._process)
        metrics.registry.register(self._started)
        metrics.watch(self.health)
        metrics.nominal_coverage.set(0.8)
        metrics.model("old", "forecaster", {"last_time_ms": round((time.time() - 50 * DAY_S) * 1000)})
        metrics.last_commit_timestamp.set(past_s)
        metrics.checkpoint(0, 1, 100, 0.01)
        metrics.checkpoint_timestamp.labels("0").set(past_s)
        self._now_s += 300  # the loop has not moved since

    def ail(self) -> None:
        """Once more everything that goes wrong."""
        metrics = self.metrics
        self._offset += 1
        self._started.set(self._offset)
        old = Record("readings", 0, self._offset, round((time.time() - 90) * 1000) if self._offset == 1 else -1, None, b"")
        if self._offset == 1:
            metrics.polled({0: [old]})
        metrics.records_consumed.labels("0").inc()
        metrics.outcome(self._outcome(old))
        for doubt in (Fenced("x"), Doubt("x")):
            metrics.aborted(doubt)
        metrics.hanging_transactions.inc()
        metrics.partition_stalls.inc()
        metrics.rebalances.labels("assigned").inc()
        metrics.worker_ends.inc()
        metrics.worker.take("trial", kind="probation", passed=False)
        metrics.models_refused.labels("corrupt").inc()
        table = type("Table", (), {"__len__": lambda _self: 5, "nbytes": 100})()
        held = SimpleNamespace(serving=True, pipeline=SimpleNamespace(table=table))
        metrics.turn({0: held}, {1}, {0: 7})  # type: ignore[dict-item]

    def _outcome(self, record: Record) -> Outcome:
        """Forecasts twice as bad as the last value, covering half; a tenth dead letters; an eviction."""
        pairs = np.full((1, 1), 1000)
        scores = Scores(pairs, pairs * 2.0, pairs * 1.0, pairs * 0.5)
        letters = [DeadLetter(record, 0, "syntax", "")]
        return Outcome([Message(None, b"")] * 9, letters, Counter(), evicted=1, scores={(("value",), (1,)): scores})


@pytest.mark.slow
def test_every_alert_fires(prometheus: Callable[..., Prometheus]) -> None:
    """All of them, by the real Prometheus from a real scrape, and none from a process that is well."""
    sick, well = Sick(), Metrics()
    well_health = Health(30.0)
    well.watch(well_health)
    for name in ("joined", "restored", "model", "kafka"):
        well_health.set(name, True)
    servers = [
        HttpServer(HttpSettings(port=0), each.registry, health)
        for each, health in ((sick.metrics, sick.health), (well, well_health))
    ]
    for each in servers:
        each.start()
    server = prometheus(sick=servers[0].port, well=servers[1].port)
    ended = threading.Event()
    thread = threading.Thread(target=lambda: [sick.ail() or well_health.beat() for _ in iter(lambda: ended.wait(0.2), True)])
    thread.start()
    try:
        server.wait_for(rules.rules("alert").keys() - {"RecurdDown"})
        assert {alert["labels"].get("instance") for alert in server.ask("alerts")["alerts"]} <= {"sick", None}
        servers[0].stop()
        server.wait_for({"RecurdDown"})
    finally:
        ended.set()
        thread.join()
        servers[1].stop()
