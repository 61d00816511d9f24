"""The broker stops, is killed, freezes and comes back: the daemon waits, says so, and goes on where it was."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.brokers.dev import DevBroker
from daemon.errors import EXIT_RESTART
from tests.harness import (
    Daemon,
    Feeder,
    Reader,
    Topics,
    assert_exactly_once,
    chaos_kills,
    chaos_seed,
    collect,
    running,
    wait_until,
)
from tests.load import Load

PARTITIONS = 2
RECORDS_PER_S = 200
#: Of the stops that come again and again, this share is clean: then the broker's last answers are the dangerous ones.
CLEAN_STOPS = 0.7
#: Longer than a transaction may last: the broker comes back with one to abort, while its partitions have no leader (H10).
LONG_OUTAGE_S = 11.0
REPLACED = "producer replaced: it lost a broker between two transactions"
SETTINGS = {
    "model.kind": "chain",
    "kafka.instance_id": "a",
    "kafka.session_timeout_ms": 6000,
    "state.checkpoint_interval_s": 1,
    "state.max_streams_per_partition": 40,
}


class Outage:
    """Counts how the daemon came through: by itself, or through exit 75 and a restart."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.restarts = 0

    def told(self, event: str) -> int:
        """How often the daemon logged an event, in all its lives."""
        return sum(len(life.named(event)) for life in self.daemon.lives)

    def wait_works(self) -> None:
        """Wait for commits after an outage; start the daemon again where it ended with the code that asks for it."""
        life, before = self.daemon.life, len(self.daemon.life.named("committed"))
        wait_until(lambda: not life.running() or len(life.named("committed")) > before + 1, "work after the outage")
        if not life.running():
            assert life.end() == EXIT_RESTART, life.tail()
            self.restarts += 1
            self.daemon.start().wait_for("committed", count=2)


@contextmanager
def under_load(broker: DevBroker, name: str, directory: Path, seed: int) -> Iterator[Outage]:
    """A daemon and its load while the broker comes and goes; afterwards nothing is lost, doubled or changed."""
    topics = Topics.create(broker.bootstrap, name, PARTITIONS)
    daemon = Daemon(topics, directory, "a", SETTINGS)
    outage = Outage(daemon)
    with running(daemon):
        daemon.start().wait_for("epoch started", count=PARTITIONS)
        reader = Reader(topics)
        feeder = Feeder(topics, Load(seed, PARTITIONS, streams=48), RECORDS_PER_S)
        outage.wait_works()
        yield outage
        feeder.stop()
        topics.wait_committed()
        assert daemon.stop() == 0, daemon.life.tail()
        found = collect(topics)
        seen = reader.stop(len(found.forecasts))
    print(f"{outage.told('transaction in doubt')} transactions in doubt, {outage.restarts} restarts by exit 75")
    assert outage.restarts == 0, "the daemon comes through by itself"
    assert_exactly_once(topics, found, seen, directory)


@pytest.mark.slow
@pytest.mark.broker
def test_the_broker_comes_and_goes(own_broker: DevBroker, tmp_path: Path) -> None:
    """A clean restart, a kill -9 with an outage, and a freeze: nothing lost, doubled or changed; the probes tell."""
    seed = chaos_seed()
    rng = random.Random(seed)
    freezes = max(1, chaos_kills() // 10)
    began_s = time.monotonic()
    with under_load(own_broker, "outage", tmp_path, seed) as outage:
        daemon = outage.daemon
        own_broker.restart()
        outage.wait_works()
        time.sleep(rng.uniform(0.0, 1.0))
        own_broker.kill()
        killed_s = time.monotonic()
        wait_until(lambda: "[-]kafka unreachable" in daemon.ready()[1], "the probe says that the broker is away", timeout_s=40)
        assert daemon.ready("/livez")[0] == 200
        time.sleep(max(0.0, killed_s + LONG_OUTAGE_S - time.monotonic()))
        own_broker.start()
        outage.wait_works()
        daemon.wait_ready()
        for _ in range(freezes):
            time.sleep(rng.uniform(0.0, 1.0))
            own_broker.pause()
            time.sleep(rng.uniform(5.0, 8.0))  # a request waits for four seconds
            own_broker.resume()
            outage.wait_works()
    print(f"{2 + freezes} outages; {time.monotonic() - began_s:.0f} s")
    assert outage.told("transaction in doubt") > 0, "no outage left a transaction in doubt"


@pytest.mark.slow
@pytest.mark.broker
def test_the_broker_stops_at_any_moment_of_a_commit(own_broker: DevBroker, tmp_path: Path) -> None:
    """Clean stops and kills under load, again and again: what was answered as committed stays committed (H10)."""
    seed = chaos_seed()
    rng = random.Random(seed)
    stops = max(4, chaos_kills() // 2)
    with under_load(own_broker, "stops", tmp_path, seed) as outage:
        for _ in range(stops):
            time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.3)]))
            own_broker.restart(kill=rng.random() > CLEAN_STOPS)
            outage.wait_works()
    replaced, lost = map(outage.told, (REPLACED, "transaction ended that the broker had lost"))
    print(f"{stops} stops, {replaced} producers replaced, {lost} transactions lost by the broker")
    assert outage.told("transaction in doubt") + replaced >= stops, "a producer outlived its broker"
