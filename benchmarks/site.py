"""A broker, its topics and one daemon: what the end-to-end benchmarks run on. All of it in a directory that goes away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import machine
from benchmarks.readings import PARTITIONS, artifact
from config.settings import Settings
from daemon.brokers.dev import DevBroker
from tests import harness

HEAP_MIB = 1024
#: How long anything may take that must happen.
PATIENCE_S = 900.0
#: Between two looks at the daemon: a scrape takes some milliseconds of it.
LOOK_S = 0.5


class Look(NamedTuple):
    """The daemon at a moment."""

    at_s: float  # monotonic
    metrics: Mapping[str, float]  # by name, with `{label}` where there is one
    cpu_s: Mapping[int, float]  # by thread
    broker_cpu_s: float

    @property
    def forecasts(self) -> float:
        """Forecasts computed and committed or about to be."""
        return self.metrics["recurd_readings_total{forecast}"]


@dataclass
class Site:
    """A running broker with the input topic, and the daemon on it."""

    broker: DevBroker
    topics: harness.Topics
    daemon: harness.Daemon
    directory: Path

    def start(self) -> harness.Life:
        """Start the daemon and wait until it is ready."""
        life = self.daemon.start()
        self.daemon.wait_ready(PATIENCE_S)
        return life

    @property
    def pid(self) -> int:
        """Of the daemon."""
        return self.daemon.life.process.pid

    def look(self) -> Look:
        """Scrape the daemon."""
        _, text = self.daemon.ready("/metrics")
        metrics = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(sample.labels.values())
                metrics[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return Look(time.monotonic(), metrics, machine.thread_cpu_s(self.pid), machine.cpu_s(self.broker.pids[0]))

    def wait_for(self, true: Callable[[Look], bool], what: str) -> list[Look]:
        """Look at the daemon until something is true; every look, the last one first true."""
        looks = [self.look()]
        deadline_s = time.monotonic() + PATIENCE_S
        while not true(looks[-1]):
            assert time.monotonic() < deadline_s, f"{what}: not in {PATIENCE_S:g} s\n{self.daemon.life.tail()}"
            time.sleep(LOOK_S)
            looks.append(self.look())
        return looks

    def publish(self, messages: Iterable[tuple[int, bytes]], topic: str | None = None) -> int:
        """Send (partition, value) pairs to the input topic, or another, and wait for every acknowledgement; how many."""
        producer = KafkaProducer(
            bootstrap_servers=self.topics.bootstrap, linger_ms=20, batch_size=256 << 10, metrics_enabled=False
        )
        count = 0
        for partition, value in messages:
            producer.send(topic or self.topics.readings, value, partition=partition)
            count += 1
        producer.flush(timeout=PATIENCE_S)
        producer.close()
        return count


@contextmanager
def site(**settings: Any) -> Iterator[Site]:
    """A broker and topics; the daemon is made but not started. `settings` have `__` for the dot."""
    with tempfile.TemporaryDirectory(prefix="recurd-bench-") as name:
        directory = Path(name)
        weights = directory / "weights.safetensors"
        weights.write_bytes(artifact(Settings()))
        with DevBroker(directory / "broker", heap_mib=HEAP_MIB) as broker:
            topics = harness.Topics.create(broker.bootstrap, "bench", PARTITIONS)
            chosen = {key.replace("__", "."): value for key, value in settings.items()}
            daemon = harness.Daemon(topics, directory, "daemon", {**_defaults(weights), **chosen})
            with harness.running(daemon):
                yield Site(broker, topics, daemon, directory)


def _defaults(weights: Path) -> dict[str, Any]:
    """Back to the defaults where the harness sets small ones."""
    plain = Settings().input
    return {
        "model.weights": weights,
        "log.level": "info",
        "input.max_bytes": plain.max_bytes,
        "input.max_elements": plain.max_elements,
        "input.max_gap_s": plain.max_gap_s,
    }
