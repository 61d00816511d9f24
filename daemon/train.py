"""`recurd train`: a recording or CSV file in, a weights file out.

Readings are decoded by the daemon's own decoder and handed to `models.training` a stream each; what cannot be decoded is
counted and left out. The file appears whole or not at all, and nothing is trained before it is known that it can be written.
"""

from __future__ import annotations

import math
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from config.settings import Settings, SettingsError
from daemon import logs, selection
from daemon.codec import Decoder, format_time
from daemon.control import is_control
from daemon.csv_log import for_csv, is_csv, read_csv
from daemon.errors import BadRecord, OperatorError
from daemon.files import written
from daemon.labels import Labels
from daemon.recording import Recording
from daemon.records import Reading, Record
from models import artifacts, kinds, training
from models.artifacts import Manifest, TrainingFacts
from models.descent import NotEnoughReadings
from models.kinds import Report
from models.training_data import Series

PROGRESS_S = 2.0

log = logs.get("train")


def run(
    settings: Settings,
    data: Path,
    out: Path,
    until: str | None,
    seed: int,
    say: Callable[[str], None] | None = None,
    steps: int | None = None,
) -> int:
    """Train first weights and write them; progress goes to the log, a summary to `say`.

    Args:
        settings: The engine the weights are for, and the field mapping.
        data: A recording or CSV file.
        out: The weights file.
        until: Only readings before this RFC 3339 time are used; None is all.
        seed: Of first weights and sampling. Equal data, settings and seed give equal bytes on one machine.
        say: Takes the summary; standard output where None.
        steps: Optimizer steps at most; None: as many as the kind's recipe says.

    Returns:
        0.

    Raises:
        SettingsError: `until` is no time, the settings are for an engine without weights, or do not say where labels are.
        OperatorError: The data cannot be read or is not enough, or the file cannot be written.
    """
    engine = settings.engine()
    if not kinds.has_weights(engine):
        raise SettingsError(f'model.kind = "{engine.model.kind}" has no weights to train: set it to "forecaster".')
    labels = Labels(settings) if engine.model.predicts != "next_mean" else None
    until_ms = selection.until_ms(until)
    with written(out) as file:
        settings = for_csv(settings) if is_csv(data) else settings
        records = read_csv(data, settings.input) if is_csv(data) else iter(Recording(data))
        log.info("reading", data=str(data))
        streams = Streams(Decoder(settings.input), len(engine.channels), labels=labels)
        streams.read(records, until_ms)
        started_s = time.perf_counter()
        try:
            network, report = kinds.of(engine).fit(streams.series(), engine, seed, steps, _progress())
        except NotEnoughReadings as error:
            raise OperatorError(f"{data}: {error}") from None
        artifact = artifacts.dump(network, Manifest.of(engine, facts(report, seed)))
        file.write(artifact)
    seconds = time.perf_counter() - started_s
    summary = [
        f"weights     {out}, version {artifacts.version_of(artifact)}, {len(artifact)} bytes",
        f"data        {report.readings} readings of {len(streams)} streams, "
        f"{format_time(report.first_time_ms)} to {format_time(report.last_time_ms)}; {streams.bad} records not decodable",
        f"training    {report.steps} steps in {seconds:.1f} s, weights of step {report.best_step} kept; "
        f"{report.skipped} steps skipped, {report.clipped} gradients cut (largest {report.largest_gradient:.2g})",
        f"hold-out    {_held_out(report)}, from {format_time(report.cut_ms)} on",
    ]
    (say or _to_stdout)("\n".join(summary))
    return 0


class Streams:
    """Collects readings by partition and stream, in log order; of the wanted streams alone."""

    def __init__(
        self,
        decoder: Decoder,
        channels: int,
        wanted: Callable[[str], bool] = lambda _stream: True,
        labels: Labels | None = None,
    ) -> None:
        self.bad = 0
        self._wanted = wanted
        self._labels = labels
        self._decoder, self._channels = decoder, channels
        self._columns: dict[tuple[int, str], tuple[array[int], array[float], array[float]]] = {}

    def __len__(self) -> int:
        return len(self._columns)

    def read(self, records: Iterable[Record], until_ms: int | None) -> None:
        """Decode all records; keep readings before `until_ms`."""
        for record in records:
            readings = self.decode(record)
            labels = self._labels.of(record) if self._labels and readings else [math.nan] * len(readings)
            kept = [i for i, one in enumerate(readings) if until_ms is None or one.time_ms < until_ms]
            self.add(record.partition, [readings[i] for i in kept], [labels[i] for i in kept])

    def decode(self, record: Record) -> Sequence[Reading]:
        """A record's readings; none, and counted, where it cannot be decoded. Control records hold none."""
        if is_control(record):
            return []
        try:
            return self._decoder.decode(record)
        except BadRecord:
            self.bad += 1
            return []

    def add(self, partition: int, readings: Sequence[Reading], labels: Sequence[float] = ()) -> None:
        """Keep readings of one record, and their labels where there are any."""
        for place, reading in enumerate(readings):
            if self._wanted(reading.stream):
                key = (partition, reading.stream)
                if key not in self._columns:
                    self._columns[key] = array("q"), array("d"), array("d")
                times, values, known = self._columns[key]
                times.append(reading.time_ms)
                values.extend(reading.values)
                if self._labels:
                    known.append(labels[place])

    def series(self) -> list[Series]:
        """What was collected, one series a stream."""
        return [
            Series(
                stream,
                np.array(times, np.int64),
                np.array(values, np.float64).reshape(-1, self._channels),
                np.array(labels, np.float64) if self._labels else None,
            )
            for (_, stream), (times, values, labels) in self._columns.items()
        ]


def _held_out(report: Report) -> str:
    """The scores in words."""
    if isinstance(report, training.Report):
        ratio = f"{report.mae / report.naive_mae - 1:+.1%}" if report.naive_mae else "-"
        errors = f"mean absolute error {report.mae:.4f}, last value {report.naive_mae:.4f} ({ratio})"
        return f"pinball {report.pinball:.4f}, {errors}, in spreads"
    return ", ".join(f"{name.replace('_', ' ')} {score:.4f}" for name, score in report.scores.items())


def facts(report: Report, seed: int) -> TrainingFacts:
    """What a manifest says of a fit."""
    return TrainingFacts(
        seed=seed,
        first_time_ms=report.first_time_ms,
        last_time_ms=report.last_time_ms,
        steps=report.best_step,
        scores={name: round(score, 6) for name, score in report.scores.items()},
    )


def _progress() -> Callable[[str, float], None]:
    """Logs what is going on, at most every `PROGRESS_S`."""
    progress = logs.Progress(PROGRESS_S)

    def told(what: str, share: float) -> None:
        if progress.is_due():
            log.info(what, done=f"{share:.0%}")

    return told


def _to_stdout(text: str) -> None:
    sys.stdout.write(text + "\n")
