"""`recurd replay`: forecasts of a recording or CSV file, by the daemon's own pipeline and without a broker.

A recording that carries epochs is replayed under them, so the output is what the daemon has sent. Otherwise, and where asked,
one epoch a partition is made from the settings and the weights given. How records are cut into polls changes no byte.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO, NamedTuple

from config.settings import Settings
from daemon import fingerprints, logs, retrain, selection
from daemon.chunks import by_partition
from daemon.codec import Decoder
from daemon.csv_log import for_csv, is_csv, read_csv
from daemon.engines import Engines
from daemon.epochs import Epoch
from daemon.errors import EXIT_FAILED, OperatorError, RecordingError
from daemon.files import written
from daemon.pipeline import Outcome, Pipeline, ScoreKey, Scores
from daemon.recording import Recording
from daemon.records import Message, Reading, Record
from daemon.report import write as write_report
from daemon.scoring import Scorer
from daemon.train import Streams
from daemon.weights import read_file
from models import arithmetic, artifacts, kinds
from models.forecaster import NAIVE
from models.layout import ENGINE_VERSION

PROGRESS_S = 5.0

_value_of = itemgetter(Message._fields.index("value"))

log = logs.get("replay")

#: Is told of every poll of a partition: its number, records, what became of them, its epochs.
Watch = Callable[[int, Sequence[Record], Outcome, Sequence[Epoch]], None]


@dataclass
class Report:
    """What a replay did."""

    records: int = 0
    earlier: int = 0  # records before their partition's first epoch, which the daemon never took
    forecasts: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)  # by reason
    drops: Counter[str] = field(default_factory=Counter)
    stepped: int = 0
    seconds: float = 0.0
    scores: dict[ScoreKey, Scores] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count what became of one poll's records of one partition."""
        self.forecasts += len(outcome.forecasts)
        self.dead_letters.update(letter.reason for letter in outcome.dead_letters)
        self.drops.update(outcome.drops)
        self.stepped += outcome.stepped
        for key, scores in outcome.scores.items():
            self.scores[key] = self.scores[key] + scores if key in self.scores else scores

    def text(self) -> str:
        """The summary, some lines."""
        rate = self.stepped / self.seconds if self.seconds else 0.0
        return "\n".join(
            [
                f"{self.records} records, {self.stepped} readings applied in {self.seconds:.1f} s ({rate:,.0f}/s)",
                f"forecasts      {self.forecasts}",
                *_counts("dropped", self.drops),
                *_counts("dead letters", self.dead_letters),
                *([f"before epochs  {self.earlier} records"] if self.earlier else []),
                *(line for (targets, rungs), scores in self.scores.items() for line in _scores(targets, rungs, scores)),
            ]
        )


def run(
    settings: Settings,
    data: Path,
    weights: Sequence[Path],
    out: Path | None,
    *,
    as_recorded: bool = True,
    with_source: bool = False,
    poll_records: int = 20_000,
    retrain_every_s: float | None = None,
    retrain_from_ms: int | None = None,
    until: str | None = None,
    streams: Sequence[str] = (),
    report: Path | None = None,
    season_s: float | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> int:
    """Replay a file; write forecasts as JSON Lines, in log order within a partition, and say what was done.

    Args:
        settings: For data without epochs, and the field mapping of CSV files.
        data: A recording or CSV file.
        weights: Weights files. Epochs choose among them by version; without epochs at most one, `naive` without any.
        out: Where forecasts go; compressed where the name ends in `.zst`. None: nowhere, which is faster; they are scored alone.
        retrain_every_s: Run a cycle of `recurd retrain` on what was read so far whenever so much event time has passed.
        retrain_from_ms: The event time of the first cycle; `retrain_every_s` after the first reading where None.
        as_recorded: Use the recording's epochs where it carries some.
        with_source: Write `{"source":"<partition>,<offset>,<index>","forecast":<value>}` instead of the bare value.
        poll_records: Records processed together.
        until: Each partition ends before its first record with this RFC 3339 timestamp or a later one.
        streams: Patterns such as `pump-*`: records without any such stream are left out; none is all.
        report: A page of HTML to write, of what was found.
        season_s: Score the value of a season before too, in a report that of the weights where None; either takes longer
            than the replay itself.
        say: Takes the summary.

    Returns:
        0, or 1 where a part of the data could not be read; what stands before it is replayed.

    Raises:
        SettingsError: `until` is no time.
        OperatorError: Nothing can be replayed: a file is absent, weights are missing or unusable, or arithmetic is unstable.
    """
    try:
        known = {artifacts.version_of(artifact): artifact for artifact in map(read_file, weights)}
        selected = Selected(settings, data, as_recorded, selection.until_ms(until), streams)
        scorer = Scorer(season_s or _season_s(known)) if report is not None or season_s is not None else None
        said: list[str] = []
        watch = None if scorer is None else scorer.watch
        every = None if retrain_every_s is None else Every(retrain_every_s, retrain_from_ms)
        code = _run(selected, known, out, with_source, poll_records, every, watch, said.append)
    except (artifacts.ArtifactError, arithmetic.UnstableArithmetic) as error:
        raise OperatorError(str(error)) from None
    said += [] if scorer is None else scorer.lines()
    for line in said:
        say(line)
    if report is not None and scorer is not None:
        write_report(report, f"Replay of {data.name}", said, scorer)
    return code


def _season_s(known: Mapping[str, bytes]) -> float | None:
    """The longest season that weights name, seconds."""
    periods_ms = [artifacts.manifest(data).period_ms for data in known.values()]
    return max(periods_ms, default=0) / 1000 or None


class Selected:
    """The records of a file that are replayed, with the epochs that it carries and the settings for those without."""

    def __init__(
        self, settings: Settings, data: Path, as_recorded: bool = True, until_ms: int | None = None, streams: Sequence[str] = ()
    ) -> None:
        self.settings = for_csv(settings) if is_csv(data) else settings
        recording = None if is_csv(data) else Recording(data)
        self._all = read_csv(data, settings.input) if recording is None else iter(recording)
        self.epochs = recording.epochs if recording is not None and as_recorded else {}
        self.wanted = selection.matcher(streams)
        self._recording = recording
        self._filters = until_ms, bool(streams)

    def select(self, records: Iterable[Record]) -> Iterator[Record]:
        """Those that are meant."""
        until_ms, by_stream = self._filters
        if until_ms is not None:
            records = selection.until(records, until_ms)
        if by_stream:
            records = selection.of_streams(records, self.wanted, self.settings.input, self.epochs)
        return iter(records)

    def records(self) -> Iterator[Record]:
        """All that are meant, once."""
        return self.select(self._all)

    def polls(self, size: int) -> Iterator[Sequence[Record]]:
        """All that are meant, once, at most `size` together; those before an unreadable line come before its error."""
        if self._recording is None or self._filters != (None, False):
            yield from _polls(self.records(), size)
        else:
            for chunk in self._recording.chunks():
                for first in range(0, len(chunk), size):
                    yield chunk[first : first + size]


def _run(
    selected: Selected,
    known: dict[str, bytes],
    out: Path | None,
    with_source: bool,
    poll_records: int,
    every: Every | None,
    watch: Watch | None,
    say: Callable[[str], None],
) -> int:
    settings, epochs = selected.settings, selected.epochs
    if every is not None and epochs:
        raise OperatorError("This recording carries epochs, which say what was in force when: add --ignore-epochs to retrain.")
    if every is not None and not kinds.replaceable(settings.model.kind):
        raise OperatorError(f'model.kind = "{settings.model.kind}" is not retrained: only "forecaster" is.')
    choose = _Recorded(epochs, known) if epochs else _Own(settings, known)
    polls: Iterable[Sequence[Record]] = selected.polls(poll_records)
    if isinstance(choose, _Own) and every is not None:
        polls = Retraining(settings, choose, known, every).cut(polls)
    report = Report()
    lines = _with_source if with_source else _bare
    with nullcontext() if out is None else written(out) as file:
        failure = _replay(polls, choose, Engines(known.get), report, file, lines, selected.wanted, watch)
    say(report.text())
    if failure:
        say(f"{failure} What stands before that line was replayed.")
    return EXIT_FAILED if failure else 0


def _replay(
    polls: Iterable[Sequence[Record]],
    epochs_for: Callable[[Record], list[Epoch]],
    engine_for: Engines,
    report: Report,
    file: IO[bytes] | None,
    lines: Callable[[Sequence[Message]], Iterable[bytes]],
    wanted: Callable[[str], bool],
    watch: Watch | None,
) -> RecordingError | None:
    """Run polls through one pipeline a partition."""
    pipelines: dict[int, Pipeline] = {}
    keys = watch is not None or not selection.is_all(wanted)
    encodes, bare = file is not None or keys, lines is _bare and not keys
    started_s = said_s = time.perf_counter()
    try:
        for poll in polls:
            report.records += len(poll)
            for partition, records in by_partition(poll):
                if partition not in pipelines:
                    epochs = epochs_for(records[0])
                    pipelines[partition] = Pipeline(partition, epochs, engine_for)
                here = pipelines[partition]
                _follow(here, epochs_for, records[0])
                taken = records[bisect_left(records, here.epochs[0].first_offset, key=lambda record: record.offset) :]
                report.earlier += len(records) - len(taken)
                outcome = here.process(taken, encodes, bare)
                if not selection.is_all(wanted):
                    outcome.forecasts = [one for one in outcome.forecasts if wanted((one.key or b"").decode())]
                if file is not None:
                    file.write(b"\n".join(lines(outcome.forecasts)))
                if watch is not None:
                    watch(partition, taken, outcome, here.epochs)
                report.add(outcome)
            report.seconds = time.perf_counter() - started_s
            if report.seconds + started_s - said_s > PROGRESS_S:
                said_s = report.seconds + started_s
                log.info("replaying", records=report.records, readings_per_s=round(report.stepped / report.seconds))
    except RecordingError as error:
        return error
    return None


def _follow(here: Pipeline, epochs_for: Callable[[Record], list[Epoch]], record: Record) -> None:
    """Begin the epoch that is wanted from this record on, where versions change on the way."""
    if isinstance(epochs_for, _Own) and here.epochs[-1].model_version != epochs_for.version:
        here.epochs.append(epochs_for(record)[0])


class _Recorded:
    """The epochs that a recording carries."""

    def __init__(self, epochs: Mapping[int, list[Epoch]], weights: Mapping[str, bytes]) -> None:
        self._epochs = epochs
        used = {epoch.model_version for part in epochs.values() for epoch in part}
        for version in weights.keys() - used:
            log.warning("weights not used: no epoch of the recording has them", version=version)
        _compare({epoch.essence(): epoch for part in epochs.values() for epoch in part}.values())

    def __call__(self, record: Record) -> list[Epoch]:
        if record.partition not in self._epochs:
            raise OperatorError(
                f"The recording carries epochs, but none of partition {record.partition}: record the topic again, "
                "or replay under the settings instead of the epochs."
            )
        return self._epochs[record.partition]


class _Own:
    """One epoch a partition, from the settings and the weights given."""

    def __init__(self, settings: Settings, weights: Mapping[str, bytes]) -> None:
        if len(weights) > 1:
            raise OperatorError(f"{len(weights)} weights files are given for data without epochs: give one.")
        self._engine = settings.engine()
        self.version = self._version(weights)
        self._fingerprint = fingerprints.here(self._engine)

    def _version(self, weights: Mapping[str, bytes]) -> str:
        kind = self._engine.model.kind
        if not kinds.has_weights(self._engine):
            return kind
        if not weights and kinds.of(self._engine).naive is None:
            raise OperatorError(f'model.kind = "{kind}" forecasts nothing without weights: give --weights FILE.')
        return next(iter(weights), NAIVE)

    def __call__(self, record: Record) -> list[Epoch]:
        return [Epoch(record.partition, record.offset, self.version, self._engine, ENGINE_VERSION, self._fingerprint)]


class Every(NamedTuple):
    """When cycles run, in event time: the first one so long after the first reading where no time is given."""

    seconds: float
    from_ms: int | None = None


class Retraining:
    """Cycles of `recurd retrain` in event time: at the first record, in the order of the file, that is so much later."""

    def __init__(self, settings: Settings, in_force: _Own, known: dict[str, bytes], every: Every) -> None:
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


def _compare(epochs: Iterable[Epoch]) -> None:
    """Warn of epochs whose bytes this machine and version cannot reproduce."""
    for epoch in epochs:
        if not fingerprints.reproducible(epoch):
            log.warning(
                "forecasts may differ from those sent: other arithmetic",
                partition=epoch.partition,
                first_offset=epoch.first_offset,
                engine_version=epoch.engine_version,
                fingerprint=epoch.fingerprint,
                here=fingerprints.here(epoch.engine),
            )


def _polls(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """Lists of `size` records; those before an unreadable line come before its error."""
    poll: list[Record] = []
    try:
        for record in records:
            poll.append(record)
            if len(poll) == size:
                yield poll
                poll = []
    except RecordingError:
        yield poll
        raise
    yield poll


def _bare(forecasts: Sequence[Message]) -> Iterable[bytes]:
    """Lines, and an empty one at the end."""
    return [*map(_value_of, forecasts), b""]


def _with_source(forecasts: Sequence[Message]) -> Iterable[bytes]:
    """Lines, and an empty one at the end."""
    for message in forecasts:
        source = dict(message.headers)["source"]
        yield b'{"source":"' + source + b'","forecast":' + (message.value or b"") + b"}"
    yield b""


def _counts(title: str, counts: Counter[str]) -> Iterator[str]:
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)
    yield f"{title:<14} {counts.total()}{f' ({shown})' if shown else ''}"


def _scores(targets: Sequence[str], rungs: Sequence[int], scores: Scores) -> Iterator[str]:
    """A line for each target and lead: mean errors in units of the stream's spread, and how often the interval held."""
    if not scores.pairs.any():
        return  # nothing has come due, or the kind is not scored as it goes
    yield f"{'target':<12} {'lead':>5} {'forecasts':>10} {'error':>8} {'naive':>8} {'to naive':>9} {'covered':>8}"
    for target, name in enumerate(targets):
        for rung, lead in enumerate(rungs):
            pairs = int(scores.pairs[target, rung])
            if pairs:
                error, naive, covered = (float(s[target, rung]) / pairs for s in (scores.model, scores.naive, scores.covered))
                ratio = f"{error / naive - 1:+.1%}" if naive else "-"
                yield f"{name:<12} {lead:>5} {pairs:>10} {error:>8.4f} {naive:>8.4f} {ratio:>9} {covered:>8.1%}"
