"""The topics beside the input: made as documented, not made where that is forbidden, and grown while the daemon runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from daemon.brokers.dev import DevBroker
from daemon.errors import EXIT_NO_RESTART
from tests import checker
from tests.harness import READINGS, Daemon, Topics, collect, running, sound, wait_until
from tests.load import INTERVAL_MS, T0_MS

SETTINGS = {"model.kind": "chain", "kafka.instance_id": "a", "state.checkpoint_interval_s": 1}
#: max.message.bytes of the input.
LIMIT = 2_000_000
#: docs/troubleshooting.md: topic, partitions of an input with two, and what its settings must be.
DOCUMENTED = {
    "forecasts": (2, {"cleanup.policy": "delete", "max.message.bytes": "1048588"}),
    "state": (2, {"cleanup.policy": "compact", "max.message.bytes": str(64 << 20), "segment.bytes": str(32 << 20)}),
    "dead-letters": (1, {"cleanup.policy": "delete", "max.message.bytes": str(LIMIT + 65_536)}),
    "models": (1, {"cleanup.policy": "compact", "max.message.bytes": str(64 << 20)}),
    "epochs": (1, {"cleanup.policy": "compact", "max.message.bytes": "1048588"}),
}


@pytest.fixture
def topics(broker: DevBroker, unique: Callable[[str], str]) -> Topics:
    return Topics.create(broker.bootstrap, unique("topics"), 2, max__message__bytes=str(LIMIT))


def found(topics: Topics) -> dict[str, tuple[int, dict[str, str]]]:
    """Partitions and settings of the topics that are there."""
    names = {topics.name(topic): topic for topic in DOCUMENTED}
    with topics.admin() as admin:
        there = {each["name"]: len(each["partitions"]) for each in admin.describe_topics(list(names)) if not each["error_code"]}
        if not there:
            return {}
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
        configs = admin.describe_configs(wanted, config_filter="all")["topic"]
    return {
        names[name]: (partitions, {key: configs[name][key]["value"] for key in DOCUMENTED[names[name]][1]})
        for name, partitions in there.items()
    }


@pytest.mark.broker
def test_made_only_where_allowed_and_as_documented(topics: Topics, tmp_path: Path) -> None:
    """With `create_topics = false` a missing topic is named, exit 78; otherwise all are made with the documented settings."""
    daemon = Daemon(topics, tmp_path, "a", SETTINGS)
    with running(daemon):
        daemon.start(kafka__create_topics="false")
        assert daemon.life.end(timeout_s=60) == EXIT_NO_RESTART
        (event,) = daemon.life.named("cannot serve")
        assert (
            f"Topic {topics.name('forecasts')!r} does not exist: create it, or set kafka.create_topics" in event.fields["reason"]
        )
        assert found(topics) == {}
        daemon.start(kafka__create_topics="true").wait_for("epoch started", count=2)
        assert found(topics) == DOCUMENTED
        assert daemon.stop() == 0
        daemon.start(kafka__create_topics="false").wait_for("restored", count=2)
        assert daemon.stop() == 0


def rows(first: int, last: int, partitions: int) -> Iterator[tuple[Any, ...]]:
    """Readings of thirty streams, each in the partition that a producer would send it to."""
    for number in range(first, last):
        stream, time_ms = f"pump-{number % 30}", T0_MS + number // 30 * INTERVAL_MS
        value = json.dumps({"stream": stream, "time": time_ms, "value": number / 8}).encode()
        yield number % 30 % partitions, stream.encode(), value, time_ms


@pytest.mark.slow
@pytest.mark.broker
def test_the_input_grows(topics: Topics, tmp_path: Path) -> None:
    """New partitions of the input are served by the same process within a minute, the other topics grown; nothing is lost."""
    grown = Topics(topics.bootstrap, topics.group, topics.readings, 5)
    daemon = Daemon(topics, tmp_path, "a", SETTINGS)
    with running(daemon):
        life = daemon.start()
        life.wait_for("epoch started", count=2)
        topics.send(rows(0, 300, 2))
        topics.wait_committed()
        with topics.admin() as admin:
            admin.create_partitions({topics.readings: 5})
        wait_until(lambda: found(grown)["state"][0] == 5, "the other topics grown", timeout_s=60, every_s=1.0)
        grown.send(rows(300, 900, 5))  # streams move: they start cold where they come to
        grown.wait_committed()
        assert [life.running(), len(daemon.lives)] == [True, 1]
        assert {name: partitions for name, (partitions, _) in found(grown).items()} == {
            "forecasts": 5, "state": 5, "dead-letters": 1, "models": 1, "epochs": 1,
        }  # fmt: skip
        complaints = [line for line in life.complaints() if not line.startswith("topic grown")]
        assert complaints == []
        assert daemon.stop() == 0
        after = collect(grown)
    assert {record.partition for record in after.forecasts} == {0, 1, 2, 3, 4}
    sound(checker.check_exactly_once(after.judgement, after.forecasts, after.dead_letters))
    assert after.judgement.counts == {"forecast": len(grown.read(READINGS))}
