"""Which epochs a replay runs under: those that a recording carries, or one a partition made from settings and weights.

The latter's version may change on the way, by cycles of `recurd retrain` in event time. What an epoch does is the pipeline's
affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from config.settings import Settings
from daemon import fingerprints, logs, retrain
from daemon.codec import Decoder
from daemon.epochs import Epoch
from daemon.errors import OperatorError
from daemon.pipeline import Pipeline
from daemon.records import Reading, Record
from daemon.train import Streams
from models import artifacts, kinds
from models.forecaster import NAIVE
from models.layout import ENGINE_VERSION

log = logs.get("replay")

#: The epochs of a partition, told by its first record.
EpochsFor = Callable[[Record], list[Epoch]]


class RecordedEpochs:
    """The epochs that a recording carries, by partition.

    What cannot be reproduced here, and weights that none of them names, are said in the log.
    """

    def __init__(self, epochs: Mapping[int, list[Epoch]], weights: Mapping[str, bytes]) -> None:
        self._epochs = epochs
        every = [epoch for part in epochs.values() for epoch in part]
        for version in weights.keys() - {epoch.model_version for epoch in every}:
            log.warning("weights not used: no epoch of the recording has them", version=version)
        for epoch in {epoch.essence(): epoch for epoch in every}.values():
            if not fingerprints.reproducible(epoch):
                log.warning(
                    "forecasts may differ from those sent: other arithmetic",
                    partition=epoch.partition,
                    first_offset=epoch.first_offset,
                    engine_version=epoch.engine_version,
                    fingerprint=epoch.fingerprint,
                    here=fingerprints.here(epoch.engine),
                )

    def __call__(self, record: Record) -> list[Epoch]:
        """The epochs of the record's partition.

        Raises:
            OperatorError: There are none.
        """
        if record.partition not in self._epochs:
            raise OperatorError(
                f"The recording carries epochs, but none of partition {record.partition}: record the topic again, "
                "or replay under the settings instead of the epochs."
            )
        return self._epochs[record.partition]

    def follow(self, pipeline: Pipeline, record: Record) -> None:
        """A pipeline knows all of its epochs from the start."""


class OwnEpochs:
    """One epoch a partition, from settings and at most one weights file; another begins where `version` has changed.

    Raises:
        OperatorError: Several weights are given, or none where the kind needs some.
    """

    def __init__(self, settings: Settings, weights: Mapping[str, bytes]) -> None:
        if len(weights) > 1:
            raise OperatorError(f"{len(weights)} weights files are given for data without epochs: give one.")
        self._engine = settings.engine()
        self.version = self._first_version(weights)
        self._fingerprint = fingerprints.here(self._engine)

    def _first_version(self, weights: Mapping[str, bytes]) -> str:
        kind = self._engine.model.kind
        if not kinds.has_weights(self._engine):
            return kind
        if not weights and kinds.of(self._engine).naive is None:
            raise OperatorError(f'model.kind = "{kind}" forecasts nothing without weights: give --weights FILE.')
        return next(iter(weights), NAIVE)

    def __call__(self, record: Record) -> list[Epoch]:
        """The epoch that begins with a record."""
        return [Epoch(record.partition, record.offset, self.version, self._engine, ENGINE_VERSION, self._fingerprint)]

    def follow(self, pipeline: Pipeline, record: Record) -> None:
        """Let a pipeline go on under the version now in force, from its next record on."""
        if pipeline.epochs[-1].model_version != self.version:
            pipeline.epochs += self(record)


class Every(NamedTuple):
    """When cycles run, in event time: the first one so long after the first reading where no time is given."""

    seconds: float
    from_ms: int | None = None


class Retraining:
    """Cycles of `recurd retrain` in event time: at the first record, in the order of the file, that is so much later.

    Args:
        settings: Of the cycles.
        in_force: Is given the version that a cycle has made.
        known: Weights by version; a cycle adds its own.
        every: When.
    """

    def __init__(self, settings: Settings, in_force: OwnEpochs, known: dict[str, bytes], every: Every) -> None:
        self._settings = settings
        self._in_force = in_force
        self._known = known
        self._every_ms = int(every.seconds * 1000)
        self._streams = Streams(Decoder(settings.input), len(settings.engine().channels))
        self._next_ms = every.from_ms

    def cut(self, polls: Iterable[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        """The same records, cut where a cycle ran; what it puts in force holds from the next record on."""
        for poll in polls:
            first = 0
            for at, record in enumerate(poll):
                readings = self._streams.decode(record)
                if self._is_due(readings):
                    yield poll[first:at]
                    first = at
                    self._run()
                self._streams.add(record.partition, readings)
            yield poll[first:]

    def _is_due(self, readings: Sequence[Reading]) -> bool:
        if not readings:
            return False
        newest_ms = max(reading.time_ms for reading in readings)
        if self._next_ms is None:
            self._next_ms = newest_ms + self._every_ms
        due = newest_ms >= self._next_ms
        while newest_ms >= self._next_ms:
            self._next_ms += self._every_ms
        return due

    def _run(self) -> None:
        assert self._next_ms is not None
        since_ms = self._next_ms - self._every_ms - int(self._settings.retrain.window_s * 1000)
        series = [one.since(since_ms) for one in self._streams.series()]
        tried = retrain.attempt(self._settings, series, self._in_force.version, self._known)
        if tried.artifact is not None:
            self._in_force.version = artifacts.version_of(tried.artifact)
            self._known[self._in_force.version] = tried.artifact
        log.info("cycle", outcome=tried.outcome, reason=tried.reason, in_force=self._in_force.version)
