"""Forecasts a second by recurd and by a Kafka Streams application of ours (`kafka_streams/Forecasts.java`), beside each other.

Both read the same backlog from the same topic of the same broker, exactly once, with the network of the same weights and rows of
as many bytes; both are counted by what they say they have processed, over the same span, and their CPU by what the system says.
Before anything is measured the application's network is held against recurd's. What each of its variants has counted must be
committed when it has closed, and its forecasts be whole.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from kafka import KafkaConsumer, TopicPartition

from benchmarks import java, machine
from benchmarks.readings import PARTITIONS, backlog
from benchmarks.report import Measure
from benchmarks.site import LOOK_S, PATIENCE_S, Site, site
from config.settings import EngineSettings
from daemon.brokers import dev
from models.arithmetic import seeded_network
from models.networks import Network
from tests import harness

SOURCE = Path(__file__).parent / "kafka_streams" / "Forecasts.java"
COORDINATES = (f"org.apache.kafka:kafka-streams:{dev.KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")

STREAMS, TURNS = 20_000, 200
#: From the first forecast on: the JVM compiles what it runs, and the broker's too.
WARM_S = 20.0
#: What is measured: a whole number of the longest commit interval, and of recurd's checkpoints.
SPAN_S = 20.0
#: How far the application's network may be from recurd's.
TOLERANCE = 1e-5
#: Forecasts of a partition that are read and looked at.
LOOKED_AT = 100

#: Both may batch as they like: what follows is as large as recurd's own, or larger.
CLIENTS = {
    "consumer.auto.offset.reset": "earliest",
    "max.poll.records": 10_000,
    "buffered.records.per.partition": 10_000,
    "producer.batch.size": 900 << 10,
    "producer.buffer.memory": 256 << 20,
    "producer.transaction.timeout.ms": 60_000,
}


#: All rows of all streams and their overhead: a store is touched at commits alone.
CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Variant:
    """A way to run the application."""

    threads: int
    commit_ms: int
    store: str  # memory or rocksdb
    network: bool = True
    collector: str = "G1"

    @property
    def name(self) -> str:
        """For people."""
        work = "" if self.network else ", no network"
        collector = "" if self.collector == "G1" else f", {self.collector}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"Streams, {threads}, {self.store}, {self.commit_ms / 1000:g} s{collector}{work}"

    def settings(self) -> dict[str, object]:
        """Of Kafka Streams, and of the application."""
        return {
            **CLIENTS,
            "processing.guarantee": "exactly_once_v2",
            "num.stream.threads": self.threads,
            "commit.interval.ms": self.commit_ms,
            "statestore.cache.max.bytes": CACHE_BYTES,
            "forecasts.store": self.store,
            "forecasts.network": str(self.network).lower(),
        }


#: Stores, threads, commits and collectors, one change from each to the next; at last the framework alone.
VARIANTS = (
    Variant(1, 100, "rocksdb"),
    Variant(1, 100, "memory"),
    Variant(2, 100, "memory"),
    Variant(2, 1_000, "memory"),
    Variant(1, 1_000, "memory"),
    Variant(1, 1_000, "memory", collector="Parallel"),
    Variant(1, 10_000, "memory"),
    Variant(2, 10_000, "memory"),
    Variant(1, 10_000, "rocksdb"),
    Variant(1, 10_000, "memory", network=False),
)


class Look(NamedTuple):
    """A process at a moment, and the broker."""

    at_s: float  # monotonic
    done: int  # readings processed
    cpu_s: float
    broker_cpu_s: float
    busy_s: float  # of the whole machine


class Pace(NamedTuple):
    """What was measured of a process over a span."""

    rate: float  # forecasts a second
    cpu_us: float  # a forecast
    broker_us: float
    others: float  # cores that neither of them had: who disturbed the measurement

    def measures(self, name: str) -> list[Measure]:
        """As a benchmark hands it back: forecasts a second; CPU a forecast, its own and the broker's; what others had."""
        return [
            Measure(name, self.rate, "1/s"),
            Measure(f"  CPU: {name}", self.cpu_us, "us"),
            Measure(f"  broker: {name}", self.broker_us, "us"),
            Measure(f"  others: {name}", self.others, "cores"),
        ]


def run(scale: float) -> list[Measure]:
    """recurd before, between and after the variants of the application, on one backlog.

    A scale below 1 shortens backlog, warming up and spans: to try it, since the JVM is cold then.
    """
    absent = java.missing()
    if absent:
        print(f"streams: left out, since {' and '.join(absent)} of a JDK, 17 or later, is not on the PATH")
        return []
    with site() as here, _application(here) as application:
        print(f"streams: {java.version()}, Kafka Streams {dev.KAFKA_VERSION}")
        here.publish(backlog(range(STREAMS), range(max(1, round(TURNS * scale)))))
        half = len(VARIANTS) // 2
        recurd = {"recurd, first": _recurd(here, "first", scale)}
        paces = {variant: application.pace(variant, scale) for variant in VARIANTS[:half]}
        recurd["recurd, between"] = _recurd(here, "between", scale)
        paces |= {variant: application.pace(variant, scale) for variant in VARIANTS[half:]}
        recurd["recurd, last"] = _recurd(here, "last", scale)
    named = recurd | {variant.name: pace for variant, pace in paces.items()}
    measures = [measure for name, pace in named.items() for measure in pace.measures(name)]
    return [*measures, *compared(statistics.median(pace.rate for pace in recurd.values()), paces)]


def compared(recurd: float, paces: Mapping[Variant, Pace]) -> list[Measure]:
    """recurd's rate to that of the best variant with the network, by how often it commits: sooner is when forecasts are seen."""
    best: dict[int, float] = {}
    for variant, pace in paces.items():
        if variant.network:
            best[variant.commit_ms] = max(pace.rate, best.get(variant.commit_ms, 0.0))
    return [
        Measure(f"recurd to the best with commits of {commit_ms / 1000:g} s", recurd / rate, "", at_least=1.0)
        for commit_ms, rate in sorted(best.items())
    ]


def _recurd(here: Site, group: str, scale: float) -> Pace:
    """The daemon, as a new group on the same topic."""
    topics = here.topics.of_group(f"recurd-{group}")
    daemon = harness.Daemon(topics, here.directory, "daemon", here.daemon.settings)
    now = replace(here, topics=topics, daemon=daemon)
    with harness.running(daemon):
        now.start()
        looks = _looks(here, now.pid, lambda: int(now.look().forecasts))
        pace = measured(looks, sum(topics.ends().values()), scale)
        assert daemon.stop() == 0, daemon.life.tail()
    _delete(topics)
    return pace


def _looks(here: Site, pid: int, done: Callable[[], int]) -> Iterator[Look]:
    """Looks at a process and the broker, twice a second, as long as anyone may wait."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        yield Look(time.monotonic(), done(), machine.cpu_s(pid), machine.cpu_s(here.broker.pids[0]), machine.busy_s())
        time.sleep(LOOK_S)
    raise AssertionError(f"nothing was to be measured in {PATIENCE_S:g} s")


def measured(looks: Iterator[Look], readings: int, scale: float = 1.0) -> Pace:
    """The pace over a span that begins when the process is warm, or over what of it the backlog lasts."""
    begun = next(look for look in looks if look.done)
    first = last = next(look for look in looks if look.at_s >= begun.at_s + WARM_S * scale)
    for look in looks:
        if look.done >= readings:
            print(f"streams: the readings lasted only {last.at_s - first.at_s:.0f} s of the span that follows")
            break
        last = look
        if look.at_s >= first.at_s + SPAN_S * scale:
            break
    assert last.done > first.done, f"{readings} readings are too few: they were done before the process was warm"
    return _pace(first, last)


def _pace(first: Look, last: Look) -> Pace:
    seconds, done, cpu_s, broker_cpu_s, busy_s = (after - before for before, after in zip(first, last, strict=True))
    return Pace(done / seconds, 1e6 * cpu_s / done, 1e6 * broker_cpu_s / done, (busy_s - cpu_s - broker_cpu_s) / seconds)


# The application


@dataclass(frozen=True)
class Application:
    """The compiled application and the site that it runs on."""

    program: java.Program
    here: Site
    directory: Path

    def pace(self, variant: Variant, scale: float) -> Pace:
        """Run a variant as a new group on the site's topic, and look at what it wrote."""
        topics = self.here.topics.of_group(f"streams-{VARIANTS.index(variant)}")
        output = topics.name("forecasts")
        with topics.admin() as admin:
            admin.create_topics({output: {"num_partitions": PARTITIONS, "replication_factor": -1}})
        command = self.program.command(self._settings(variant, topics), f"-XX:+Use{variant.collector}GC")
        running = java.Running(command, self.directory / f"{topics.group}.log")
        try:
            looks = _looks(self.here, running.pid, lambda: running.ask().done)
            pace = measured(looks, sum(topics.ends().values()), scale)
            closed = running.close()
        finally:
            running.kill()
        committed = sum(topics.committed().values())
        assert committed == closed.done, f"{variant.name}: {closed.done} processed, {committed} committed\n{running.tail()}"
        _check_forecasts(topics, output)
        _delete(topics)
        return pace

    def _settings(self, variant: Variant, topics: harness.Topics) -> Path:
        mine = {
            "bootstrap.servers": topics.bootstrap,
            "application.id": topics.group,
            "state.dir": self.directory / "state",
            "forecasts.input": topics.readings,
            "forecasts.output": topics.name("forecasts"),
            "forecasts.weights": self.directory / "weights",
        }
        return java.write_properties(self.directory / "application.properties", {**variant.settings(), **mine})

    def check_network(self, network: Network) -> None:
        """Refuse to measure an application whose network is another."""
        settings = {
            "forecasts.weights": self.directory / "weights",
            "forecasts.check": self.directory / "given",
            "forecasts.output": self.directory / "found",
        }
        given, expected = one_step(network)
        (self.directory / "given").write_bytes(given)
        java.run(self.program.command(java.write_properties(self.directory / "check.properties", settings)))
        found = np.frombuffer((self.directory / "found").read_bytes(), "<f4")
        off = float(np.abs(found - expected).max())
        assert off < TOLERANCE, f"the application's network is up to {off:.2g} off recurd's: it does other work"


@contextmanager
def _application(here: Site) -> Iterator[Application]:
    """The application, compiled and its network found to be recurd's; its files go away."""
    network = seeded_network(EngineSettings())
    with tempfile.TemporaryDirectory(prefix="recurd-bench-") as name:
        directory = Path(name)
        (directory / "weights").write_bytes(weights(network))
        program = java.compiled(SOURCE, dev.jars("class-path-streams", COORDINATES), directory / "classes")
        application = Application(program, here, directory)
        application.check_network(network)
        yield application


def weights(network: Network) -> bytes:
    """What the application reads of a network: the layer, the head, the highway, float32, one after the other."""
    layer: Any = network.layers[0]
    parts = (layer.weight_in, layer.weight_hidden, layer.bias, network.head_weight, network.head_bias, network.highway)
    return b"".join(part.detach().numpy().astype("<f4").tobytes() for part in parts)


def one_step(network: Network) -> tuple[bytes, np.ndarray]:
    """Features, window, hidden and cell as the application reads them; quantiles, hidden and cell after a step of recurd's."""
    numbers = np.random.Generator(np.random.PCG64(1))
    widths = network.features, network.highway.shape[1], network.shape.hidden, network.shape.hidden
    given = [numbers.standard_normal(width).astype("<f4") for width in widths]
    features, window, hidden, cell = (torch.from_numpy(part)[None] for part in given)
    with torch.inference_mode():
        quantiles, _, hidden, cell = network.step(features, window[:, None], hidden[:, None], cell[:, None])
    found = [part.ravel().numpy() for part in (quantiles, hidden, cell)]
    return b"".join(part.tobytes() for part in given), np.concatenate(found)


def _check_forecasts(topics: harness.Topics, output: str) -> None:
    """The first forecasts of a partition are whole, and bear the places of readings."""
    consumer = KafkaConsumer(bootstrap_servers=topics.bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    place = TopicPartition(output, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    records: list[Any] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while len(records) < LOOKED_AT:
        assert time.monotonic() < deadline_s, f"{len(records)} forecasts in {output}"
        records += consumer.poll(timeout_ms=500).get(place, [])
    consumer.close(autocommit=False)
    for record in records[:LOOKED_AT]:
        check_forecast(record.key, record.value, dict(record.headers))


def check_forecast(key: bytes, value: bytes, headers: dict[str, bytes]) -> None:
    """A forecast has its stream's id, three levels of 24 numbers in order, and the place of its reading."""
    forecast = json.loads(value)
    levels = forecast["targets"]["value"]
    low, middle, high = (np.array(levels[level]) for level in ("0.1", "0.5", "0.9"))
    assert forecast["stream"] == key.decode(), forecast
    assert np.isfinite([low, middle, high]).all(), forecast
    assert len(middle) == EngineSettings().model.horizon, forecast
    assert (low <= middle).all(), forecast
    assert (middle <= high).all(), forecast
    assert len(headers["source"].split(b",")) == 3, headers


def _delete(topics: harness.Topics) -> None:
    """Remove a group's own topics: the next one has the disk to itself."""
    with topics.admin() as admin:
        admin.delete_topics([name for name in admin.list_topics() if name.startswith(topics.group)])
