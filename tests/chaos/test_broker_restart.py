"""The broker stops, is killed, freezes and comes back: the daemon waits, says so, and goes on where it was."""

from __future__ import annotations

import random
import time
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
        self._daemon = daemon
        self.restarts = 0

    def wait_works(self) -> None:
        """Wait for commits after an outage; start the daemon again where it ended with the code that asks for it."""
        life, before = self._daemon.life, len(self._daemon.life.named("committed"))
        wait_until(lambda: not life.running() or len(life.named("committed")) > before + 1, "work after the outage")
        if not life.running():
            assert life.end() == EXIT_RESTART, life.tail()
            self.restarts += 1
            self._daemon.start().wait_for("committed", count=2)


@pytest.mark.slow
@pytest.mark.broker
def test_the_broker_comes_and_goes(own_broker: DevBroker, tmp_path: Path) -> None:
    """A clean restart, a kill -9 with an outage, and a freeze: nothing lost, doubled or changed; the probes tell."""
    seed = chaos_seed()
    rng = random.Random(seed)
    topics = Topics.create(own_broker.bootstrap, "outage", PARTITIONS)
    daemon = Daemon(topics, tmp_path, "a", SETTINGS)
    outage = Outage(daemon)
    freezes = max(1, chaos_kills() // 10)
    began_s = time.monotonic()
    with running(daemon):
        daemon.start().wait_for("epoch started", count=PARTITIONS)
        reader = Reader(topics)
        feeder = Feeder(topics, Load(seed, PARTITIONS, streams=48), RECORDS_PER_S)
        outage.wait_works()
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
        feeder.stop()
        topics.wait_committed()
        assert daemon.stop() == 0, daemon.life.tail()
        found = collect(topics)
        seen = reader.stop(len(found.forecasts))
    doubts = sum(len(life.named("transaction in doubt")) for life in daemon.lives)
    took_s = time.monotonic() - began_s
    print(f"{2 + freezes} outages, {doubts} transactions in doubt, {outage.restarts} restarts by exit 75; {took_s:.0f} s")
    assert doubts > 0, "no outage left a transaction in doubt"
    assert outage.restarts == 0, "the daemon comes through by itself"
    assert_exactly_once(topics, found, seen, tmp_path)


@pytest.mark.slow
@pytest.mark.broker
def test_the_broker_stops_at_any_moment_of_a_commit(own_broker: DevBroker, tmp_path: Path) -> None:
    """Clean stops and kills under load, again and again: what was answered as committed stays committed (H10)."""
    seed = chaos_seed()
    rng = random.Random(seed)
    topics = Topics.create(own_broker.bootstrap, "stops", PARTITIONS)
    daemon = Daemon(topics, tmp_path, "a", SETTINGS)
    outage = Outage(daemon)
    stops = max(4, chaos_kills() // 2)
    with running(daemon):
        daemon.start().wait_for("epoch started", count=PARTITIONS)
        reader = Reader(topics)
        feeder = Feeder(topics, Load(seed, PARTITIONS, streams=48), RECORDS_PER_S)
        for _ in range(stops):
            outage.wait_works()
            time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.3)]))
            own_broker.restart(kill=rng.random() > CLEAN_STOPS)
        outage.wait_works()
        feeder.stop()
        topics.wait_committed()
        assert daemon.stop() == 0, daemon.life.tail()
        found = collect(topics)
        seen = reader.stop(len(found.forecasts))
    told = daemon.life.named
    doubts, lost = len(told("transaction in doubt")), len(told("transaction ended that the broker had lost"))
    replaced = len(told("producer replaced: it lost a broker between two transactions"))
    print(f"{stops} stops, {doubts} transactions in doubt, {replaced} producers replaced, {lost} transactions lost by the broker")
    assert outage.restarts == 0, "the daemon comes through by itself"
    assert doubts + replaced >= stops, "a producer outlived its broker"
    assert_exactly_once(topics, found, seen, tmp_path)
