"""`recurd audit`: was what was sent what a replay gives?

Reads readings, epochs, models and forecasts, each from its topic or from a recording of it, derives every forecast again by the
daemon's own pipeline and compares (`daemon.comparison`). A partition at a time, so that memory stays flat. Topics are read up to
the ends that they had at the start; what was committed by then must have its forecasts, what came later may have.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from config.settings import Settings
from daemon import epochs as epoch_log
from daemon import fingerprints, logs
from daemon.brokers import connect
from daemon.brokers.port import Broker, LogReader
from daemon.comparison import TOLERANCE, Comparison, Found, source_of
from daemon.engines import Engines
from daemon.epochs import Epoch
from daemon.errors import EXIT_FAILED, OperatorError, RecordingError
from daemon.pipeline import Pipeline
from daemon.record import read_log, read_whole
from daemon.recording import Readable, Recording
from daemon.records import Record
from daemon.replay import Watch
from daemon.report import write as write_report
from daemon.scoring import Scorer
from daemon.weights import artifact_of, longest_season_ms, read_file
from models import arithmetic, artifacts, kinds
from models.forecaster import NAIVE

POLL_RECORDS = 5000

log = logs.get("audit")


class Sources(NamedTuple):
    """Recordings to read instead of topics; None is the topic."""

    readings: Path | None = None  # with its epochs
    forecasts: Path | None = None
    models: Path | None = None
    weights: Sequence[Path] = ()  # weights files, besides


class Log(Protocol):
    """The records of a topic, wherever they are kept: a recording, or the topic itself."""

    def partitions(self) -> list[int]:
        """The partitions that may hold records."""

    def partition(self, number: int) -> Iterator[Record]:
        """The records of one partition in order, from its start."""


class TopicLog:
    """A topic from its start to the end that it has now."""

    def __init__(self, reader: LogReader, topic: str) -> None:
        self._reader, self._topic = reader, topic
        numbers = reader.partitions(topic)
        if not numbers:
            raise OperatorError(f"Topic {topic!r} does not exist: check the name, or give a recording of it.")
        self._ends = {number: reader.high_watermark(topic, number) for number in numbers}
        self.starts = {number: reader.log_start(topic, number) for number in numbers}

    def partitions(self) -> list[int]:
        return list(self._ends)

    def partition(self, number: int) -> Iterator[Record]:
        return read_log(self._reader, self._topic, {number: self.starts[number]}, {number: self._ends[number]})


@dataclass
class Audit:
    """What is compared with what, and what came of it."""

    topic: str  # name of the input, for messages
    readings: Log
    forecasts: Log
    epochs: Mapping[int, Sequence[Epoch]]
    engine_for: Engines
    committed: Mapping[int, int] | None = None  # up to here forecasts are due; None: everywhere
    starts: Mapping[int, int] = field(default_factory=dict)  # where the kept readings begin
    forecast_starts: Mapping[int, int] = field(default_factory=dict)  # the same of the forecasts
    repeats: bool = False  # identical repetitions are allowed, as delivery at least once makes them
    part: bool = False  # what lies before or after the forecasts that are there is not missed
    watch: Watch | None = None  # is told of every poll
    found: Found = field(default_factory=Found)
    damage: list[str] = field(default_factory=list)  # lines that cannot be read; several partitions may meet the same
    records: int = 0
    audited: int = 0  # partitions
    _progress: logs.Progress = field(default_factory=logs.Progress)

    def run(self) -> None:
        """Audit every partition."""
        for number in sorted({*self.readings.partitions(), *self.forecasts.partitions()}):
            self._partition(number)
            self.audited += 1

    def _partition(self, number: int) -> None:
        """Audit one. What lies behind a line that cannot be read is neither called extra nor missing."""
        readings, sent = Readable(self.readings.partition(number)), Readable(self.forecasts.partition(number))
        every = list(self.epochs.get(number, ()))
        known = derivable(self.topic, every, self.starts.get(number, 0))
        comparison = Comparison(
            self.topic,
            iter(sent),
            self.found,
            repeats=self.repeats,
            since=known[0].first_offset if len(known) < len(every) else 0,
            open_start=self.part or self.forecast_starts.get(number, 0) > 0,
            open_end=self.part,
        )
        if known:
            self._derive(number, known, readings, sent, comparison)
        if readings.failure is None:
            comparison.finish()
        damage = [str(one.failure) for one in (readings, sent) if one.failure is not None]
        self.damage += [line for line in damage if line not in self.damage]

    def _derive(
        self, number: int, known: list[Epoch], readings: Iterable[Record], sent: Readable, comparison: Comparison
    ) -> None:
        """Derive a partition's forecasts from its readings and compare each."""
        here = Pipeline(number, known, self.engine_for)
        exact = Exactness(known)
        due_end = self.committed.get(number, 0) if self.committed is not None else math.inf
        for poll in _polls(iter(readings)):
            taken = [record for record in poll if record.offset >= known[0].first_offset]
            outcome = here.process(taken)
            self.records += len(taken)
            for message in outcome.forecasts:
                source = source_of(dict(message.headers)["source"])
                due = source.offset < due_end and sent.failure is None
                comparison.take(source, message, exact=exact.at(source.offset), due=due)
            if self.watch is not None:
                self.watch(number, taken, outcome, known)
            if self._progress.is_due():
                log.info("auditing", partition=number, records=self.records, forecasts=self.found.equal + self.found.close)


class Exactness:
    """From which offsets on bytes are compared, and from which on numbers.

    State is carried from epoch to epoch, so that after one of other arithmetic all that follows may differ, until a cold start.
    """

    def __init__(self, known: Sequence[Epoch]) -> None:
        self._offsets = [epoch.first_offset for epoch in known]
        self._exact: list[bool] = []
        for epoch in known:
            before = epoch.cold or not self._exact or self._exact[-1]
            self._exact.append(before and fingerprints.reproducible(epoch))

    def at(self, offset: int) -> bool:
        """Whether the forecasts of a record must be equal to the byte."""
        return self._exact[bisect_right(self._offsets, offset) - 1]


def run(
    settings: Settings,
    sources: Sources = Sources(),  # noqa: B008 - immutable
    *,
    part: bool = False,
    most: int = 10,
    report: Path | None = None,
    season_s: float | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> int:
    """Audit, and say what was found.

    Args:
        settings: How to reach Kafka, which topics are ours, and `kafka.delivery`: at least once allows identical repetitions.
        sources: Recordings to read instead of topics.
        part: The recording of the forecasts holds a part of them: what lies before or after it is not missed.
        most: Differences said in full; all are counted.
        report: A page of HTML to write, of what was found.
        season_s: The season whose value is scored too; that of the versions where None, if there is a report.
        say: Takes the lines of the result.

    Returns:
        0 where all are equal; 1 where something differs, or a part of a recording could not be read.

    Raises:
        OperatorError: Nothing can be audited: a topic, file or version is absent, or records are gone.
        BrokerError: The broker failed.
    """
    started_s = time.perf_counter()
    season_ms = None if season_s is None else int(season_s * 1000)
    scorer = Scorer(season_ms) if report is not None or season_s is not None else None
    try:
        with ExitStack() as stack:
            audit = _prepared(settings, sources, stack, part, most, scorer)
            audit.run()
    except (artifacts.ArtifactError, arithmetic.UnstableArithmetic) as error:
        raise OperatorError(str(error)) from None
    said = [] if scorer is None else list(scorer.lines())
    said += summary(audit, time.perf_counter() - started_s)
    for line in said:
        say(line)
    if report is not None and scorer is not None:
        write_report(report, f"Audit of {audit.topic}", said, scorer)
    return EXIT_FAILED if audit.found.kinds or audit.damage else 0


def summary(audit: Audit, seconds: float) -> Iterator[str]:
    """The result, a line each: differences, damage, arithmetic, the verdict."""
    found = audit.found
    for one in found.differences:
        yield f"{one.kind}: {one}"
    for damage in audit.damage:
        yield f"{damage} What stands before that line was audited."
    for epoch in {one.essence(): one for part in audit.epochs.values() for one in part}.values():
        if not fingerprints.reproducible(epoch):
            here = fingerprints.here(epoch.engine)
            yield (
                f"other arithmetic: version {epoch.model_version} was served by engine version {epoch.engine_version} with "
                f"fingerprint {epoch.fingerprint}, here it is {here}; its forecasts are compared to {TOLERANCE:g}"
            )
    if found.repeated:
        yield f"{found.repeated} forecasts were repeated, identically, as delivery at least once allows"
    if found.not_due:
        yield f"{found.not_due} forecasts are not compared: not committed yet, or outside of what is kept or can be read"
    yield f"{audit.records} records of {audit.audited} partitions in {seconds:.1f} s"
    compared = f"{found.equal + found.close} forecasts of {len(found.streams)} streams"
    how = f", {found.close} of them to {TOLERANCE:g} under other arithmetic" if found.close else ", byte for byte"
    if found.kinds:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(found.kinds.items()))
        yield f"{found.kinds.total()} DIFFERENCES ({counted}); {compared} are equal{how}"
    elif audit.damage:
        yield f"{compared} are equal{how}, as far as the recordings can be read"
    else:
        yield f"{compared} are equal{how}"


def derivable(topic: str, known: list[Epoch], start: int) -> list[Epoch]:
    """The epochs that can be derived from a log that begins at `start`: all, or those from a cold one on.

    Raises:
        OperatorError: Records are gone on which all epochs depend.
    """
    if not known or start <= known[0].first_offset:
        return known
    cold = next((i for i, epoch in enumerate(known) if epoch.cold and epoch.first_offset >= start), None)
    if cold is None:
        raise OperatorError(
            f"Records of {topic}[{known[0].partition}] before offset {start} are gone, but forecasts depend on them from "
            f"{known[0].first_offset} on: audit recordings that were made while they were there (recurd record)."
        )
    log.warning("audit begins at a cold start: earlier records are gone", partition=known[0].partition, start=start)
    return known[cold:]


def _prepared(settings: Settings, sources: Sources, stack: ExitStack, part: bool, most: int, scorer: Scorer | None) -> Audit:
    """Everything that is needed, in the order that makes ends fit: what was committed, forecasts, readings, epochs.

    A scorer without a season is given that of the versions.
    """
    broker = cache(lambda: connect(settings))

    def topic(name: str) -> TopicLog:
        return TopicLog(stack.enter_context(closing(broker().reader())), settings.topic(name))

    committed = None if sources.forecasts else _committed(settings, broker())
    forecasts: Log = Recording(sources.forecasts) if sources.forecasts else topic("forecasts")
    readings: Log = Recording(sources.readings) if sources.readings else topic("readings")
    epochs = _carried(sources.readings) if sources.readings else _epochs(settings, broker())
    versions = _versions(settings, sources, broker, with_weights(epochs))
    if scorer is not None:
        scorer.season_ms = scorer.season_ms or longest_season_ms(versions.values())
    return Audit(
        topic=_topic_of(sources.readings) if sources.readings else settings.topics.readings,
        readings=readings,
        forecasts=forecasts,
        epochs=epochs,
        engine_for=Engines(versions.get),
        committed=committed,
        starts=readings.starts if isinstance(readings, TopicLog) else {},
        forecast_starts=forecasts.starts if isinstance(forecasts, TopicLog) else {},
        repeats=settings.kafka.delivery == "at_least_once",
        part=part,
        found=Found(most),
        watch=None if scorer is None else scorer.watch,
    )


def with_weights(epochs: Mapping[int, Sequence[Epoch]]) -> set[str]:
    """The versions among epochs that have weights."""
    every = [epoch for part in epochs.values() for epoch in part]
    return {epoch.model_version for epoch in every if kinds.has_weights(epoch.engine)} - {NAIVE}


def _topic_of(recording: Path) -> str:
    """The topic that a recording was made of, as its first record says; its own name where that says nothing."""
    with suppress(RecordingError):  # it is met again
        for record in Recording(recording):
            return record.topic
    return recording.name


def _committed(settings: Settings, broker: Broker) -> dict[int, int]:
    with closing(broker.admin()) as admin:
        return admin.committed(settings.topics.readings)


def _carried(recording: Path) -> dict[int, list[Epoch]]:
    carried = Recording(recording).epochs
    if not carried:
        raise OperatorError(f"{recording} carries no epochs, so nothing says what its forecasts depended on: record the input.")
    return carried


def _epochs(settings: Settings, broker: Broker) -> dict[int, list[Epoch]]:
    with closing(broker.reader()) as reader:
        return epoch_log.by_partition(read_whole(reader, settings.topic("epochs")))


def _versions(settings: Settings, sources: Sources, broker: Callable[[], Broker], wanted: set[str]) -> dict[str, bytes]:
    """Artifacts by version: of files, and of the models topic or its recording; the topic is asked only where some are wanted."""
    known = {artifacts.version_of(data): data for data in map(read_file, sources.weights)}
    if sources.models is not None:
        known |= versions_of(Recording(sources.models))
    elif wanted - known.keys():
        with closing(broker().reader()) as reader:
            known |= versions_of(read_whole(reader, settings.topic("models")))
    return known


def versions_of(records: Iterable[Record]) -> dict[str, bytes]:
    """The artifacts among records of the models topic, by version."""
    return dict(filter(None, map(artifact_of, records)))


def _polls(records: Iterator[Record]) -> Iterator[list[Record]]:
    while poll := list(islice(records, POLL_RECORDS)):
        yield poll
