"""`recurd replay`: forecasts of a recording or CSV file, by the daemon's own pipeline and without a broker.

A recording that carries epochs is replayed under them, so the output is what the daemon has sent; otherwise, and where asked,
under the settings and the weights given (`daemon.replay_epochs`). How records are cut into polls changes no byte.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO

from config.settings import Settings
from daemon import logs, selection
from daemon.chunks import by_partition
from daemon.engines import Engines
from daemon.epochs import Epoch
from daemon.errors import EXIT_FAILED, OperatorError, RecordingError
from daemon.files import written
from daemon.pipeline import Outcome, Pipeline, ScoreKey, Scores
from daemon.records import Message, Record
from daemon.replay_epochs import Every, OwnEpochs, RecordedEpochs, Retraining
from daemon.report import write as write_report
from daemon.scoring import Scorer
from daemon.seasonal import Seasonal, SeasonalScores
from daemon.selection import Selected
from daemon.weights import longest_season_ms, read_file
from models import arithmetic, artifacts, kinds

_value_of = itemgetter(Message._fields.index("value"))

log = logs.get("replay")

#: Is told of every poll of a partition: its number, records, what became of them, its epochs.
Watch = Callable[[int, Sequence[Record], Outcome, Sequence[Epoch]], None]


@dataclass
class Summary:
    """What a replay did."""

    records: int = 0
    earlier: int = 0  # records before their partition's first epoch, which the daemon never took
    forecasts: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)  # by reason
    drops: Counter[str] = field(default_factory=Counter)
    stepped: int = 0
    seconds: float = 0.0
    scores: dict[ScoreKey, Scores] = field(default_factory=dict)
    seasonal: dict[ScoreKey, SeasonalScores] = field(default_factory=dict)  # on those of the same pairs where it is known

    def add(self, outcome: Outcome) -> None:
        """Count what became of one poll's records of one partition."""
        self.forecasts += len(outcome.forecasts)
        self.dead_letters.update(letter.reason for letter in outcome.dead_letters)
        self.drops.update(outcome.drops)
        self.stepped += outcome.stepped
        for key, scores in outcome.scores.items():
            self.scores[key] = self.scores[key] + scores if key in self.scores else scores

    def text(self) -> str:
        """Some lines."""
        rate = self.stepped / self.seconds if self.seconds else 0.0
        return "\n".join(
            [
                f"{self.records} records, {self.stepped} readings applied in {self.seconds:.1f} s ({rate:,.0f}/s)",
                f"forecasts      {self.forecasts}",
                *_counts("dropped", self.drops),
                *_counts("dead letters", self.dead_letters),
                *([f"before epochs  {self.earlier} records"] if self.earlier else []),
                *(line for key, scores in self.scores.items() for line in _scores(key, scores, self.seasonal.get(key))),
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
        as_recorded: Use the recording's epochs where it carries some.
        with_source: Write `{"source":"<partition>,<offset>,<index>","forecast":<value>}` instead of the bare value.
        poll_records: Records processed together.
        retrain_every_s: Run a cycle of `recurd retrain` on what was read so far whenever so much event time has passed.
        retrain_from_ms: The event time of the first cycle; `retrain_every_s` after the first reading where None.
        until: Each partition ends before its first record with this RFC 3339 timestamp or a later one.
        streams: Patterns such as `pump-*`: records without any such stream are left out; none is all.
        report: A page of HTML to write, of what was found.
        season_s: The season whose value is scored beside the last value; that of the weights where None. Where it is given, or
            a report is, all leads of all forecasts are scored too, which takes longer than the replay itself.
        say: Takes the summary.

    Returns:
        0, or 1 where a part of the data could not be read; what stands before it is replayed.

    Raises:
        SettingsError: `until` is no time.
        OperatorError: Nothing can be replayed: a file is absent, weights are missing or unusable, or arithmetic is unstable.
    """
    scorer, said = None, list[str]()
    try:
        known = {artifacts.version_of(artifact): artifact for artifact in map(read_file, weights)}
        selected = Selected(settings, data, as_recorded, selection.until_ms(until), streams)
        every = None if retrain_every_s is None else Every(retrain_every_s, retrain_from_ms)
        epochs_for, polls = _planned(selected, known, every, poll_records)
        season_ms = longest_season_ms(known.values()) if season_s is None else int(season_s * 1000)
        if report is not None or season_s is not None:
            scorer = Scorer(season_ms)
        with nullcontext() if out is None else written(out) as file:
            watch = None if scorer is None else scorer.watch
            replay = _Replay(epochs_for, Engines(known.get), selected.wanted, watch, file, with_source, season_ms)
            failure = replay.through(polls)
    except (artifacts.ArtifactError, arithmetic.UnstableArithmetic) as error:
        raise OperatorError(str(error)) from None
    said.append(replay.done.text())
    if failure is not None:
        said.append(f"{failure} What stands before that line was replayed.")
    if scorer is not None:
        said += scorer.lines()
    for line in said:
        say(line)
    if report is not None and scorer is not None:
        write_report(report, f"Replay of {data.name}", said, scorer)
    return EXIT_FAILED if failure is not None else 0


def _planned(
    selected: Selected, known: dict[str, bytes], every: Every | None, poll_records: int
) -> tuple[RecordedEpochs | OwnEpochs, Iterable[Sequence[Record]]]:
    """Which epochs hold, and the records in polls; they are cut where weights are made on the way, which `known` gains."""
    settings, polls = selected.settings, selected.polls(poll_records)
    if every is not None and selected.epochs:
        raise OperatorError("This recording carries epochs, which say what was in force when: add --ignore-epochs to retrain.")
    if every is not None and not kinds.replaceable(settings.model.kind):
        raise OperatorError(f'model.kind = "{settings.model.kind}" is not retrained: only "forecaster" is.')
    if selected.epochs:
        return RecordedEpochs(selected.epochs, known), polls
    own = OwnEpochs(settings, known)
    return own, polls if every is None else Retraining(settings, own, known, every).cut(polls)


class _Replay:
    """Records through one pipeline a partition.

    Args:
        epochs_for: The epochs of a partition.
        engine_for: Makes the engine of an epoch.
        wanted: Which streams' forecasts are counted and written; all are computed.
        watch: Is told of every poll of a partition.
        file: Where forecasts go, a line each; None: nowhere.
        with_source: A line tells its forecast's place too.
        season_ms: How far back the value of a season before is; None: it is not scored.
    """

    def __init__(
        self,
        epochs_for: RecordedEpochs | OwnEpochs,
        engine_for: Engines,
        wanted: Callable[[str], bool],
        watch: Watch | None,
        file: IO[bytes] | None,
        with_source: bool,
        season_ms: int | None,
    ) -> None:
        self.done = Summary()
        self._season_ms = season_ms
        self._epochs_for, self._engine_for = epochs_for, engine_for
        self._wanted, self._watch, self._file, self._with_source = wanted, watch, file, with_source
        self._pipelines: dict[int, Pipeline] = {}
        needs_keys = watch is not None or not selection.is_all(wanted)
        self._encodes = file is not None or needs_keys
        self._bare = not with_source and not needs_keys

    def through(self, polls: Iterable[Sequence[Record]]) -> RecordingError | None:
        """Run all records; where a line cannot be read, those before it, and its error is returned."""
        started_s, progress = time.perf_counter(), logs.Progress()
        try:
            for poll in polls:
                self.done.records += len(poll)
                for partition, records in by_partition(poll):
                    self._process(partition, records)
                self.done.seconds = time.perf_counter() - started_s
                if progress.is_due():
                    readings_per_s = round(self.done.stepped / self.done.seconds)
                    log.info("replaying", records=self.done.records, readings_per_s=readings_per_s)
        except RecordingError as error:
            return error
        return None

    def _process(self, partition: int, records: Sequence[Record]) -> None:
        """One poll of a partition; what comes before its first epoch is passed over."""
        if partition not in self._pipelines:
            self._pipelines[partition] = Pipeline(partition, self._epochs_for(records[0]), self._engine_for)
            if self._season_ms is not None:
                self._pipelines[partition].seasonal = Seasonal(self._season_ms, self.done.seasonal)
        here = self._pipelines[partition]
        self._epochs_for.follow(here, records[0])
        earlier = bisect_left(records, here.epochs[0].first_offset, key=lambda record: record.offset)
        outcome = here.process(records[earlier:], self._encodes, self._bare)
        if not selection.is_all(self._wanted):
            outcome.forecasts = [one for one in outcome.forecasts if self._wanted((one.key or b"").decode())]
        if self._file is not None:
            self._file.write(b"\n".join(_lines(outcome.forecasts, self._with_source)))
        if self._watch is not None:
            self._watch(partition, records[earlier:], outcome, here.epochs)
        self.done.earlier += earlier
        self.done.add(outcome)


def _lines(forecasts: Sequence[Message], with_source: bool) -> Iterable[bytes]:
    """Forecasts as lines without their newlines, and an empty one at the end."""
    if not with_source:
        return [*map(_value_of, forecasts), b""]
    placed = (b'{"source":"%b","forecast":%b}' % (dict(message.headers)["source"], message.value or b"") for message in forecasts)
    return [*placed, b""]


def _counts(title: str, counts: Counter[str]) -> Iterator[str]:
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)
    yield f"{title:<14} {counts.total()}{f' ({shown})' if shown else ''}"


def _scores(key: ScoreKey, scores: Scores, seasonal: SeasonalScores | None) -> Iterator[str]:
    """A line for each target and lead: mean errors in units of the stream's spread, and how often the interval held."""
    targets, rungs = key
    if not scores.pairs.any():
        return  # nothing has come due, or the kind is not scored as it goes
    yield f"{'target':<12} {'lead':>5} {'forecasts':>10} {'error':>8} {'naive':>8} {'seasonal':>9} {'to naive':>9} {'covered':>8}"
    for target, name in enumerate(targets):
        for rung, lead in enumerate(rungs):
            pairs = int(scores.pairs[target, rung])
            if pairs:
                error, naive, covered = (float(s[target, rung]) / pairs for s in (scores.model, scores.naive, scores.covered))
                ratio = f"{error / naive - 1:+.1%}" if naive else "-"
                known = seasonal is not None and seasonal.pairs[target, rung]
                before = f"{seasonal.errors[target, rung] / known:.4f}" if seasonal is not None and known else "-"
                yield f"{name:<12} {lead:>5} {pairs:>10} {error:>8.4f} {naive:>8.4f} {before:>9} {ratio:>9} {covered:>8.1%}"
