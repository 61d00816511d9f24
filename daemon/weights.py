"""The `models` topic: artifacts by version, and `current`, the version in force."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from config.settings import Settings
from daemon import logs
from daemon.brokers.port import Broker, LogReader
from daemon.errors import OperatorError, StateError
from daemon.records import Record
from models import artifacts
from models.forecaster import NAIVE

CURRENT_KEY = b"current"

log = logs.get("weights")


def read_all(reader: LogReader, topic: str, poll_timeout_ms: int = 500) -> Iterable[Record]:
    """Every committed record of a one-partition topic, from its start to the high watermark of now."""
    end = reader.high_watermark(topic, 0)
    reader.assign({(topic, 0): reader.log_start(topic, 0)})
    while reader.position(topic, 0) < end:
        for records in reader.poll(poll_timeout_ms).values():
            yield from records


def load(settings: Settings, broker: Broker) -> tuple[str, dict[str, bytes]]:
    """The version in force and all artifacts; publishes `model.weights` where the topic is empty.

    Raises:
        OperatorError: `current` names a version that is not there, or the weights file cannot be used.
    """
    topic = settings.topic("models")
    reader = broker.reader()
    try:
        found = {record.key: record.value for record in read_all(reader, topic) if record.key}
    finally:
        reader.close()
    current = found.pop(CURRENT_KEY, None)
    versions = {key.decode(): value for key, value in found.items() if value is not None}
    if settings.model.kind != "forecaster":
        return settings.model.kind, versions
    if current is None and settings.model.weights:
        return _publish(settings, broker, topic, settings.model.weights, versions)
    if current is None:
        return NAIVE, versions
    version = current.decode()
    if settings.model.weights:
        log.info("model.weights ignored", reason="the models topic has a version in force", version=version)
    if version != NAIVE and version not in versions:
        raise StateError(f"Topic {topic!r} says that {version} is in force, but does not hold it: publish it again.")
    return version, versions


def read_file(path: Path) -> bytes:
    """The bytes of a weights file, or one clear sentence."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"The weights file {str(path)!r} cannot be read ({error.strerror}): check model.weights.") from None


def _publish(
    settings: Settings, broker: Broker, topic: str, path: Path, versions: dict[str, bytes]
) -> tuple[str, dict[str, bytes]]:
    """Write the file's artifact and `current` in one transaction: the first version."""
    data = read_file(path)
    artifacts.load(data, settings.engine())  # refused here rather than by every reader
    version = artifacts.version_of(data)
    producer = broker.producer(f"{settings.kafka.group_id}-publish")
    try:
        producer.begin()
        producer.send(topic, 0, version.encode(), data)
        producer.send(topic, 0, CURRENT_KEY, version.encode())
        producer.commit({}, None)
    finally:
        producer.close()
    log.info("weights published", version=version, file=str(path))
    return version, {**versions, version: data}
