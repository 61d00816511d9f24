"""The topics recurd needs: created where missing, checked where there, grown when the input grows.

A mismatch is refused at start with the command that mends it. Knows the port's `Admin`, no client.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from config.settings import Settings
from daemon import logs
from daemon.brokers.port import Admin, Broker, TopicSpec, TopicState
from daemon.errors import StateError

#: Dead letters must hold a record of the input's maximum size and its headers.
DEAD_LETTER_ROOM = 65_536
#: Kafka's default for max.message.bytes. Every topic that recurd writes to takes at least this, so that a full
#: batch of small records always fits.
DEFAULT_MESSAGE_BYTES = 1_048_588
#: Artifacts of models and blocks of wide rows.
LARGE_MESSAGE_BYTES = 64 * 1024 * 1024

_NUMERIC = ("max.message.bytes",)  # an existing topic may have more

log = logs.get("topics")


class Topics(NamedTuple):
    """What the loop must know of the topics."""

    partitions: int  # of the input
    dead_letter_bytes: int  # largest message that the dead-letter topic takes


def ensure(settings: Settings, admin: Admin) -> Topics:
    """Create, grow or check the topics.

    Raises:
        StateError: The input is missing or compacted, or a topic cannot serve; with the remedy.
    """
    name = settings.topics.readings
    readings = admin.describe([name]).get(name)
    if readings is None:
        raise StateError(f"The input topic {name!r} does not exist: create it, or name another with topics.readings.")
    if "compact" in readings.settings.get("cleanup.policy", ""):
        raise StateError(
            f"The input topic {name!r} is compacted (cleanup.policy={readings.settings['cleanup.policy']}): recurd catches up "
            "from every record of it. Set cleanup.policy=delete on it, or name another with topics.readings."
        )
    specs = needed(settings, readings)
    found = admin.describe([spec.name for spec in specs])
    missing = [spec for spec in specs if spec.name not in found]
    if missing and not settings.kafka.create_topics:
        raise StateError(f"Topic {missing[0].name!r} does not exist: create it, or set kafka.create_topics = true.")
    if missing:
        admin.create(missing)
        log.info("topics created", topics=",".join(spec.name for spec in missing))
    for spec in specs:
        if spec.name in found:
            _check(spec, found[spec.name], admin)
    return Topics(readings.partitions, _dead_letter_bytes(readings))


def ensured(settings: Settings, broker: Broker) -> Topics:
    """`ensure` with an admin of its own."""
    with closing(broker.admin()) as admin:
        return ensure(settings, admin)


def needed(settings: Settings, readings: TopicState) -> list[TopicSpec]:
    """The topics beside the input, as they must be."""
    compact = {"cleanup.policy": "compact", "max.message.bytes": str(LARGE_MESSAGE_BYTES)}
    changelog = {**compact, "segment.bytes": str(32 * 1024 * 1024), "min.cleanable.dirty.ratio": "0.1"}
    dead = {"cleanup.policy": "delete", "max.message.bytes": str(_dead_letter_bytes(readings))}
    usual = {"max.message.bytes": str(DEFAULT_MESSAGE_BYTES)}
    return [
        TopicSpec(settings.topic("forecasts"), readings.partitions, {"cleanup.policy": "delete", **usual}),
        TopicSpec(settings.topic("state"), readings.partitions, changelog),
        TopicSpec(settings.topic("dead_letters"), 1, dead),
        TopicSpec(settings.topic("models"), 1, compact),
        TopicSpec(settings.topic("epochs"), 1, {"cleanup.policy": "compact", **usual}),
    ]


def _largest(topic: TopicState) -> int:
    return int(topic.settings.get("max.message.bytes", DEFAULT_MESSAGE_BYTES))


def _dead_letter_bytes(readings: TopicState) -> int:
    return max(_largest(readings) + DEAD_LETTER_ROOM, DEFAULT_MESSAGE_BYTES)


def _check(spec: TopicSpec, found: TopicState, admin: Admin) -> None:
    if found.partitions > spec.partitions and spec.partitions > 1:
        raise StateError(
            f"Topic {spec.name!r} has {found.partitions} partitions, the input has {spec.partitions}: they must be equal. "
            "Name another topic, or take a new kafka.group_id."
        )
    if found.partitions < spec.partitions:
        admin.grow(spec.name, spec.partitions)
        log.warning("topic grown", topic=spec.name, partitions=spec.partitions)
    for key in ("cleanup.policy", "max.message.bytes"):
        if key in spec.settings and not _fits(key, spec.settings, found.settings):
            raise StateError(
                f"Topic {spec.name!r} has {key}={found.settings.get(key)}, recurd needs {spec.settings[key]}: set it with "
                f"kafka-configs --alter --entity-type topics --entity-name {spec.name} --add-config {key}={spec.settings[key]}."
            )


def _fits(key: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> bool:
    if key in _NUMERIC:
        return int(found.get(key, DEFAULT_MESSAGE_BYTES)) >= int(wanted[key])
    return found.get(key, "delete") == wanted[key]
