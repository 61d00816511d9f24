"""The `models` topic: artifacts by version, `current`, the version in force, and the worker's notes: `trial`, `blocked:...`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from config.settings import Settings
from daemon import logs
from daemon.brokers.port import Broker, LogReader
from daemon.errors import BrokerError, OperatorError, StateError
from daemon.records import Record
from models import artifacts, kinds
from models.forecaster import NAIVE

CURRENT_KEY = b"current"
#: The trial under way, and why a version is not put in force again by the worker.
TRIAL_KEY = b"trial"
BLOCKED_PREFIX = b"blocked:"
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


def artifact_of(record: Record) -> tuple[str, bytes] | None:
    """The version and the artifact that a record holds; None for `current`, for notes, and for what is deleted."""
    key, value = record.key, record.value
    if key is None or value is None or key in (CURRENT_KEY, TRIAL_KEY) or key.startswith(BLOCKED_PREFIX):
        return None
    return key.decode(errors="replace"), value


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
        self.trial: bytes | None = None
        self.blocked: set[str] = set()  # versions

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

    def training(self, version: str) -> dict[str, Any]:
        """What a version says of its training; empty where that is not known."""
        data = self.versions.get(version)
        return artifacts.manifest(data).training.model_dump(mode="json") if data is not None else {}

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
        elif record.key == TRIAL_KEY:
            self.trial = record.value
        elif record.key is not None and record.key.startswith(BLOCKED_PREFIX):
            version = record.key.removeprefix(BLOCKED_PREFIX).decode(errors="replace")
            (self.blocked.discard if record.value is None else self.blocked.add)(version)
        elif (artifact := artifact_of(record)) is not None:
            self.versions.update([artifact])

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def first_version(settings: Settings, broker: Broker, store: ModelStore) -> str:
    """The version in force at start; publishes `model.weights` where none is.

    Raises:
        OperatorError: `current` names a version that is not there, or the weights file cannot be used; or there are no weights of
            a kind that cannot serve without.
    """
    store.refresh()
    if not kinds.has_weights(settings.engine()):
        return settings.model.kind
    serves_naive = kinds.of(settings.engine()).naive is not None
    if settings.model.weights and (store.current is None or (store.current == NAIVE and not serves_naive)):
        data = read_file(settings.model.weights)
        artifacts.load(data, settings.engine())  # refused here rather than by every reader
        version = artifacts.version_of(data)
        publish(settings, broker, data, current=version)
        log.info("weights published", version=version, file=str(settings.model.weights))
        store.refresh()
        return version
    if settings.model.weights:
        log.info("model.weights ignored", reason="the models topic has a version in force", version=store.current)
    version = store.in_force()
    if version == NAIVE and not serves_naive:
        raise OperatorError(
            f'model.kind = "{settings.model.kind}" cannot serve without weights: make them with `recurd train`, and name '
            "the file in model.weights."
        )
    return version


def read_file(path: Path) -> bytes:
    """The bytes of a weights file, or one clear sentence."""
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"The weights file {str(path)!r} cannot be read ({error.strerror})"
        raise OperatorError(f"{what}: check model.weights or --weights.") from None


def longest_season_ms(versions: Iterable[bytes]) -> int | None:
    """The longest season that artifacts name, of those that can be used; None where none does."""
    longest = 0
    for data in versions:
        with suppress(artifacts.ArtifactError):  # it is raised again where that version is in force
            longest = max(longest, artifacts.manifest(data).period_ms)
    return longest or None


def publish(
    settings: Settings,
    broker: Broker,
    data: bytes | None = None,
    current: str | None = None,
    identity: str = "publish",
    notes: Mapping[bytes, bytes | None] = MappingProxyType({}),
    still: Callable[[], bool] = lambda: True,
) -> bool:
    """Write an artifact, the version that is to be in force, and notes, in one transaction; what is None is left out.

    Args:
        settings: The topic and the group.
        broker: To write with.
        data: The artifact.
        current: The version that is to be in force.
        identity: Ends the transactional id: a newer publisher of the same one fences the older.
        notes: Values by key; a value of None deletes.
        still: Asked once no other publisher of this identity can write: whether this should still be done.

    Returns:
        What `still` said.

    Raises:
        BrokerError: Nothing was written, or the fate of the transaction is unknown.
    """
    topic = settings.topic("models")
    producer = broker.producer(f"{settings.kafka.group_id}-{identity}")
    try:
        if not still():
            return False
        producer.begin()
        if data is not None:
            producer.send(topic, 0, artifacts.version_of(data).encode(), data)
        for key, value in notes.items():
            producer.send(topic, 0, key, value)
        if current is not None:
            producer.send(topic, 0, CURRENT_KEY, current.encode())
        producer.commit({}, None)
        return True
    finally:
        producer.close()
