"""`recurd serve` as its users run it: a process, a real broker, signals, probes and exit codes."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.brokers.dev import DevBroker
from daemon.errors import EXIT_NO_RESTART, EXIT_USAGE
from tests import checker
from tests.harness import (
    STOP_S,
    Daemon,
    Feeder,
    Reader,
    Topics,
    assert_exactly_once,
    collect,
    recurd,
    replay,
    running,
    sound,
    wait_until,
)
from tests.load import Load

SMALL = {"model.hidden": 16, "model.horizon": 8, "model.context": 32, "state.max_streams_per_partition": 40}
PARTITIONS = 2
T0_S = 1_790_000_000
OUTCOMES = ("forecast", "dead_letter", "late", "duplicate", "incomplete_start")


@pytest.fixture
def topics(broker: DevBroker, unique: Callable[[str], str]) -> Topics:
    return Topics.create(broker.bootstrap, unique("e2e"), PARTITIONS)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[DevBroker]:
    with DevBroker(tmp_path / "broker") as running:
        yield running


def feed(topics: Topics, load: Load, records: int) -> None:
    """Send some records and wait until they are committed."""
    Feeder(topics, load, records_per_s=2000, most=records).join()
    topics.wait_committed()


def counted(daemon: Daemon) -> dict[str, int]:
    """`recurd_readings_total` by outcome."""
    text = daemon.ready("/metrics")[1]
    return {name: int(float(value)) for name, value in re.findall(r'recurd_readings_total\{outcome="(\w+)"\} (\S+)', text)}


def senml(minute: int) -> bytes:
    """A pack of two readings of two sensors, with a base name and base time."""
    pack: list[dict[str, object]] = [{"bn": "urn:dev:pump-", "bt": T0_S + 60 * minute, "n": "a", "v": minute % 7 + 0.5}]
    return json.dumps([*pack, {"n": "b", "v": -1.0 * (minute % 5)}]).encode()


def influx(minute: int) -> bytes:
    """Two lines of one measurement."""
    at_ns = (T0_S + 60 * minute) * 10**9
    return f"pump,unit=a value={minute % 7 + 0.5} {at_ns}\npump,unit=b value=-{minute % 5}i {at_ns}\n".encode()


@pytest.mark.broker
@pytest.mark.parametrize("encode", [senml, influx])
def test_other_formats_are_served(topics: Topics, tmp_path: Path, encode: Callable[[int], bytes]) -> None:
    """SenML packs and Influx lines from the topic: a forecast for every reading, equal to a replay; what is neither is dead."""
    daemon = Daemon(topics, tmp_path, "a", {**SMALL, "input.format": encode.__name__})
    with running(daemon):
        daemon.start()
        daemon.wait_ready()
        topics.send([(minute % PARTITIONS, None, encode(minute // PARTITIONS), None) for minute in range(60)])
        topics.send([(0, None, b"{broken", None)])
        topics.wait_committed()
        assert daemon.stop() == 0, daemon.life.tail()
    sent = topics.read("forecasts")
    assert len(sent) == 120
    assert len({each.key for each in sent}) == 2
    assert len(topics.read("dead-letters")) == 1
    sound(checker.check_replay(replay(topics, tmp_path), sent))


@pytest.mark.broker
def test_readings_in_forecasts_out(topics: Topics, tmp_path: Path) -> None:
    """Forecasts, dead letters and counters are what the policy says; a stop is clean; a restart goes on without catch-up."""
    daemon = Daemon(topics, tmp_path, "a", {**SMALL, "kafka.instance_id": "a"})
    load = Load(11, PARTITIONS, streams=48)
    with running(daemon):
        reader = Reader(topics)
        daemon.start()
        daemon.wait_ready()
        feed(topics, load, 1500)
        wait_until(lambda: sum(counted(daemon).values()) >= 1500, "counters")
        judged = collect(topics).judgement
        assert {name: count for name, count in counted(daemon).items() if count} == {
            name: judged.counts[name] for name in OUTCOMES if judged.counts[name]
        }
        began_s = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began_s < STOP_S
        daemon.start()
        daemon.wait_ready()
        feed(topics, load, 500)
        assert daemon.life.catch_up() == 0, "a clean stop leaves nothing to catch up"
        assert daemon.stop() == 0
        found = collect(topics)
        seen = reader.stop(len(found.forecasts))
    assert [name for name in OUTCOMES if not found.judgement.counts[name]] == []
    assert_exactly_once(topics, found, seen, tmp_path)


@pytest.mark.broker
def test_a_broker_that_is_not_there_yet(own_broker: DevBroker, tmp_path: Path) -> None:
    """Retried with growing pauses, seen in the log and in /readyz, and served as soon as it is there: the same process."""
    topics = Topics.create(own_broker.bootstrap, "patience", PARTITIONS)
    own_broker.stop()
    daemon = Daemon(topics, tmp_path, "a", SMALL)
    with running(daemon):
        daemon.start()
        third = daemon.life.wait_for("broker unreachable", count=3)
        pauses = [event.fields["retry_in_s"] for event in daemon.life.named("broker unreachable")]
        assert pauses == sorted(pauses)
        assert pauses[0] < third.fields["retry_in_s"]
        status, text = daemon.ready()
        assert (status, "[-]kafka unreachable" in text) == (503, True), text
        assert daemon.ready("/livez")[0] == 200
        own_broker.start()
        daemon.wait_ready()
        feed(topics, Load(12, PARTITIONS, streams=48), 300)
        assert daemon.stop() == 0
        found = collect(topics)
    sound(checker.check_exactly_once(found.judgement, found.forecasts, found.dead_letters))


@pytest.mark.broker
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_stop_while_the_broker_is_away(own_broker: DevBroker, tmp_path: Path, how: str) -> None:
    """SIGTERM ends the process within ten seconds and with 0 although nothing can be committed; nothing is lost by it."""
    topics = Topics.create(own_broker.bootstrap, "away", PARTITIONS)
    daemon = Daemon(topics, tmp_path, "a", {**SMALL, "kafka.instance_id": "a", "state.checkpoint_interval_s": 60})
    with running(daemon):
        daemon.start()
        daemon.wait_ready()
        feed(topics, Load(13, PARTITIONS, streams=48), 300)
        own_broker.kill() if how == "killed" else own_broker.pause()
        began_s = time.monotonic()
        daemon.life.signal(signal.SIGTERM)
        assert daemon.life.end(timeout_s=3 * STOP_S) == 0
        assert time.monotonic() - began_s < STOP_S
        own_broker.start() if how == "killed" else own_broker.resume()
        daemon.start()
        daemon.wait_ready()
        topics.wait_committed()
        assert daemon.stop() == 0
        found = collect(topics)
    sound(checker.check_exactly_once(found.judgement, found.forecasts, found.dead_letters))


@pytest.mark.broker
def test_an_input_that_does_not_exist(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """No restart helps: exit 78, and the log says what to do."""
    topics = Topics(broker.bootstrap, unique("nothing"), "no-such-topic", PARTITIONS)
    daemon = Daemon(topics, tmp_path, "a", SMALL)
    with running(daemon):
        assert daemon.start().end(timeout_s=60) == EXIT_NO_RESTART
        (event,) = daemon.life.named("cannot serve")
    assert "'no-such-topic' does not exist: create it" in event.fields["reason"]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.hidden=63", ["model.hidden", "63", "multiple of 8"]),
        ("kafka.delivery=sometimes", ["kafka.delivery", "sometimes", "exactly_once"]),
        ("kafka.grup_id=plant", ["kafka.grup_id", "did you mean kafka.group_id"]),
        ("kafka.bootstrap_servers=nowhere", ["kafka.bootstrap_servers", "nowhere", "host:port"]),
    ],
)
def test_a_settings_mistake(setting: str, told: list[str]) -> None:
    """Exit 2 and one sentence with key, value and remedy, before anything is started."""
    done = recurd("serve", "--set", setting)
    assert done.returncode == EXIT_USAGE
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in told), done.stderr
