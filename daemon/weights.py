"""The `models` topic: artifacts by version, and `current`, the version in force."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from config.settings import Settings
from daemon import logs
from daemon.brokers.port import Broker, LogReader
from daemon.errors import BrokerError, OperatorError, StateError
from daemon.records import Record
from models import artifacts
from models.forecaster import NAIVE

CURRENT_KEY = b"current"
#: How long one poll of the topic waits.
POLL_MS = 500

log = logs.get("weights")


def read_all(reader: LogReader, topic: str) -> Iterable[Record]:
    """Every committed record of a one-partition topic, from its start to the high watermark of now."""
    reader.assign({(topic, 0): reader.log_start(topic, 0)})
    yield from read_on(reader, topic)


def read_on(reader: LogReader, topic: str) -> Iterable[Record]:
    """Every committed record of a one-partition topic, from where the reader stands to the high watermark of now."""
    end = reader.high_watermark(topic, 0)
    while reader.position(topic, 0) < end:
        for records in reader.poll(POLL_MS).values():
            yield from records


class ModelStore:
    """What the `models` topic holds, read on from where it was read to. May be used from several threads."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self._topic = settings.topic("models")
        self._broker = broker
        self._lock = threading.Lock()
        self._reader: LogReader | None = None
        self._position: int | None = None  # None: not read yet
        self.versions: dict[str, bytes] = {}  # artifacts; those deleted meanwhile stay, epochs may need them
        self.current: str | None = None  # the version that is to be in force

    def refresh(self) -> None:
        """Read what was committed since.

        Raises:
            BrokerError: The broker does not answer; the next call reads on.
        """
        with self._lock:
            try:
                self._read_on()
            except BrokerError:
                self._close()
                raise

    def artifact(self, version: str) -> bytes | None:
        """The bytes of a version, looked for once more where they are not known; None where the topic does not hold them."""
        if version not in self.versions:
            self.refresh()
        return self.versions.get(version)

    def in_force(self) -> str:
        """The version that is to be in force, as read last; `naive` where none is named.

        Raises:
            StateError: The topic does not hold it.
        """
        version = self.current or NAIVE
        if version != NAIVE and version not in self.versions:
            raise StateError(f"Topic {self._topic!r} says that {version} is in force, but does not hold it: publish it again.")
        return version

    def trained_until_ms(self, version: str) -> int | None:
        """Time of the last reading that a version was trained on; None where that is not known."""
        data = self.versions.get(version)
        return artifacts.manifest(data).training.last_time_ms if data is not None else None

    def close(self) -> None:
        """Close the reader; a next call would open one."""
        with self._lock:
            self._close()

    def _read_on(self) -> None:
        if self._reader is None:
            self._reader = self._broker.reader()
            self._position = self._reader.log_start(self._topic, 0) if self._position is None else self._position
            self._reader.assign({(self._topic, 0): self._position})
        for record in read_on(self._reader, self._topic):
            self._take(record)
        self._position = self._reader.position(self._topic, 0)

    def _take(self, record: Record) -> None:
        if record.key == CURRENT_KEY:
            self.current = record.value.decode(errors="replace") if record.value is not None else None
        elif record.key is not None and record.value is not None:
            self.versions[record.key.decode(errors="replace")] = record.value

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def first_version(settings: Settings, broker: Broker, store: ModelStore) -> str:
    """The version in force at start; publishes `model.weights` where none is.

    Raises:
        OperatorError: `current` names a version that is not there, or the weights file cannot be used.
    """
    store.refresh()
    if settings.model.kind != "forecaster":
        return settings.model.kind
    if store.current is None and settings.model.weights:
        data = read_file(settings.model.weights)
        artifacts.load(data, settings.engine())  # refused here rather than by every reader
        version = publish(settings, broker, data)
        log.info("weights published", version=version, file=str(settings.model.weights))
        store.refresh()
        return version
    if settings.model.weights:
        log.info("model.weights ignored", reason="the models topic has a version in force", version=store.current)
    return store.in_force()


def read_file(path: Path) -> bytes:
    """The bytes of a weights file, or one clear sentence."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"The weights file {str(path)!r} cannot be read ({error.strerror}): check model.weights.") from None


def publish(settings: Settings, broker: Broker, data: bytes | None, current: str | None = None, identity: str = "publish") -> str:
    """Write an artifact, and the version that is to be in force, in one transaction; return that version.

    Args:
        data: The artifact; None writes only which version is in force.
        current: That version; None is the artifact's own.
        identity: Ends the transactional id: a newer publisher of the same one fences the older.
    """
    topic = settings.topic("models")
    published = None if data is None else artifacts.version_of(data)
    version = current or published
    assert version is not None, "something is published"
    producer = broker.producer(f"{settings.kafka.group_id}-{identity}")
    try:
        producer.begin()
        if published is not None:
            producer.send(topic, 0, published.encode(), data)
        producer.send(topic, 0, CURRENT_KEY, version.encode())
        producer.commit({}, None)
    finally:
        producer.close()
    return version
