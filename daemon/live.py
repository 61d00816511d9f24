"""The live topic through the daemon's own engine, in the worker: how the version in force does, and one on trial beside it.

Reads on from where it stands whenever it is asked to, so that it does not matter how long a training took in between. Follows a
sample of the streams. Decodes, admits and steps as `daemon.pipeline` does, and encodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from zlib import crc32

import numpy as np

from config.settings import EngineSettings, Settings
from daemon import control, trials
from daemon.batch import Batcher
from daemon.brokers.port import Broker, LogReader
from daemon.codec import Decoded, Decoder
from daemon.errors import BadRecord, BrokerError
from daemon.pipeline import PART_ROWS
from daemon.records import Reading, Record
from daemon.trials import Standing, Trial, Verdict
from models.drift import Drift
from models.engine import QuantileForecasts, Readings
from models.forecaster import Forecaster
from models.lanes import Lane
from models.slots import Slots

#: Records of one look, and how long one poll waits.
LOOK_RECORDS = 20_000
POLL_MS = 200


class Sample:
    """Which streams are followed: those whose ids have the smallest hashes, so that they are the same ones for every worker."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._hashes: dict[tuple[int, str], int] = {}
        self._limit = 1 << 32

    def __len__(self) -> int:
        return len(self._hashes)

    def wants(self, partition: int, stream: str) -> bool:
        """Whether to follow a stream. When there are too many, half of them are let go."""
        key, number = (partition, stream), crc32(stream.encode())
        if number >= self._limit:
            return False
        if key not in self._hashes:
            self._hashes[key] = number
            if len(self._hashes) > self._most:
                self._limit = sorted(self._hashes.values())[self._most // 2] + 1
                self._hashes = {key: number for key, number in self._hashes.items() if number < self._limit}
        return number < self._limit


class _Partition:
    """Slots of one partition's followed streams, and their rows under one version or two."""

    def __init__(self, engine: EngineSettings, most: int, lane: Lane) -> None:
        self._slots = Slots(most)
        self._batcher = Batcher(engine, self._slots)
        self._channels = len(engine.channels)
        self.lanes = [lane]  # the version in force or the one tried against; then the one on trial
        self.drift = Drift()

    def step(self, decoded: Sequence[tuple[Record, list[Reading]]]) -> Iterator[tuple[list[str], list[QuantileForecasts]]]:
        """Advance every lane: streams and outputs, part by part."""
        batch = self._batcher.batch(Decoded.of(decoded, self._channels))
        for part in batch.parts(PART_ROWS):
            readings = Readings(*(column[part] for column in batch.readings))
            yield [batch.streams[i] for i in part.tolist()], [lane.step(batch.slots[part], readings) for lane in self.lanes]

    def forget(self, stream: str) -> None:
        """Let a stream's next reading start it afresh."""
        slot = self._slots.find(stream)
        if slot is not None:
            self._slots.forget(slot)


class Live:
    """Follows the input topic.

    Args:
        settings: All of them.
        broker: To read with.
        forecaster: Makes the engine of a version.
    """

    def __init__(self, settings: Settings, broker: Broker, forecaster: Callable[[str], Forecaster]) -> None:
        self._settings, self._broker, self._forecaster = settings, broker, forecaster
        self._topic = settings.topics.readings
        self._decoder = Decoder(settings.input)
        self._sample = Sample(settings.retrain.live_streams)
        self._partitions: dict[int, _Partition] = {}
        self._positions: dict[int, int] = {}
        self._reader: LogReader | None = None
        self._base: Forecaster | None = None
        self._base_version = ""
        self.trial: Trial | None = None
        self.standing = Standing()

    def follow(self, version: str, trial: Trial | None) -> None:
        """Run this version from now on, or the two of a trial.

        Raises:
            ArtifactError, StateError: One of them cannot be used; what ran goes on.
        """
        base = trial.against if trial else version
        if (base, trial) == (self._base_version, self.trial):
            return
        forecaster = self._forecaster(base)
        if trial:
            self._forecaster(trial.version)  # unusable weights are found now
        for partition in self._partitions.values():
            known = [lane for lane in partition.lanes if lane.forecaster.version == forecaster.version]
            partition.lanes = (known or partition.lanes)[:1]
            partition.lanes[0].forecaster = forecaster
        self._base, self._base_version = forecaster, base
        self.trial, self.standing = trial, Standing()

    def look(self, since_ms: int) -> bool:
        """Read on, up to `LOOK_RECORDS` records; whether that reached the end of now.

        Args:
            since_ms: A partition that was not read yet begins with the records of this time, or later where there are too many.

        Raises:
            BrokerError: The next look goes on where this one ended.
        """
        try:
            return self._look(since_ms)
        except BrokerError:
            self.close()
            raise

    def verdict(self) -> Verdict | None:
        """Of the trial; None while it is not over."""
        if self.trial is None:
            return None
        retrain, model = self._settings.retrain, self._settings.model
        asked = retrain.shadow_readings if self.trial.kind == "shadow" else retrain.probation_readings
        needed = trials.readings_needed(asked, model.horizon, len(self._sample))
        return self.standing.verdict(self.trial.kind, needed, retrain.min_gain, model.levels[-1] - model.levels[0])

    def drifting(self) -> list[int]:
        """Partitions where the errors of so many streams rose that it is time to train."""
        share = self._settings.retrain.drift_share
        return [number for number, partition in self._partitions.items() if share and partition.drift.alarms(share)]

    @property
    def alarmed(self) -> int:
        """Streams whose error rose lately."""
        return sum(partition.drift.alarmed for partition in self._partitions.values())

    def trained(self) -> None:
        """A cycle has been run: what alarmed until now has been acted on, and the topic may have grown partitions."""
        for partition in self._partitions.values():
            partition.drift.forget()
        self.close()

    def close(self) -> None:
        """Close the reader; the next look opens one."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _look(self, since_ms: int) -> bool:
        reader = self._opened(since_ms)
        ends = {number: reader.high_watermark(self._topic, number) for number in self._positions}
        read = 0
        while any(self._positions[number] < end for number, end in ends.items()):
            polled = reader.poll(POLL_MS)
            for (_, number), records in polled.items():
                self._take(number, records)
                read += len(records)
            self._positions = {number: reader.position(self._topic, number) for number in self._positions}
            if read >= LOOK_RECORDS:
                return False
            if not polled:
                break  # an open transaction holds the rest back
        return True

    def _opened(self, since_ms: int) -> LogReader:
        if self._reader is None:
            self._reader = self._broker.reader()
            numbers = self._reader.partitions(self._topic)
            self._positions = {number: self._start(self._reader, number, since_ms, len(numbers)) for number in numbers}
            self._reader.assign({(self._topic, number): offset for number, offset in self._positions.items()})
        return self._reader

    def _start(self, reader: LogReader, number: int, since_ms: int, partitions: int) -> int:
        start = self._positions.get(number)
        if start is None:
            newest = reader.high_watermark(self._topic, number) - self._settings.retrain.max_readings // partitions
            start = max(reader.offset_at(self._topic, number, since_ms), newest)
        return max(start, reader.log_start(self._topic, number))

    def _take(self, number: int, records: Sequence[Record]) -> None:
        """Run records of one partition; where its trial begins, its rows fork."""
        assert self._base is not None, "follow comes first"
        if number not in self._partitions:
            lane = Lane(self._base)
            self._partitions[number] = _Partition(self._settings.engine(), self._settings.retrain.live_streams, lane)
        partition = self._partitions[number]
        if self.trial and len(partition.lanes) == 1:
            since = self.trial.since.get(number, 0)
            before = [record for record in records if record.offset < since]
            self._advance(number, partition, before)
            records = records[len(before) :]
            if records:
                partition.lanes.append(partition.lanes[0].fork(self._forecaster(self.trial.version)))
        self._advance(number, partition, records)

    def _advance(self, number: int, partition: _Partition, records: Sequence[Record]) -> None:
        for readings, reset in control.cut(records):
            self._step(partition, [(record, self._wanted(number, record)) for record in readings])
            if reset is not None:
                with suppress(BadRecord):  # a dead letter to the daemon
                    partition.forget(control.stream_of(reset))

    def _step(self, partition: _Partition, decoded: Sequence[tuple[Record, list[Reading]]]) -> None:
        for streams, outputs in partition.step([each for each in decoded if each[1]]):
            first = outputs[0].model_error[:, :, 0]  # (B, T), of the next reading
            known = ~np.isnan(first)
            means = np.where(known, first, 0.0).sum(axis=1) / known.sum(axis=1).clip(min=1)
            partition.drift.add(streams, np.where(known.any(axis=1), means, np.nan).tolist())
            if len(outputs) == 2:
                self.standing.add(*outputs)

    def _wanted(self, number: int, record: Record) -> list[Reading]:
        try:
            return [reading for reading in self._decoder.decode(record) if self._sample.wants(number, reading.stream)]
        except BadRecord:
            return []
