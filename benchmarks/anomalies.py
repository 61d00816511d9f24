"""Alarms on the labelled files of the Numenta Anomaly Benchmark, beside those of its detector `windowedGaussian`.

Each file is replayed as the daemon would have served it, under weights of its own, trained on its probationary part alone (the
first 15 % of its readings, at most 750, as there); what comes later is scored as it comes. Both detectors raise alarms by
`models.alarms`. A labelled window is hit by an alarm in it, the first counts; an alarm outside of all windows is a false one.
The score is the standard profile's: Lavin and Ahmad 2015, "Evaluating Real-time Anomaly Detection Algorithms". N readings.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.data_sets import folder_with
from benchmarks.report import Measure
from config.settings import Settings, parse_time_ms
from daemon import replay, train
from daemon.codec import format_time
from models.alarms import THRESHOLD, Alarm

#: Names what is anomalous in each of the files beside it.
LABELS = "NAB/combined_windows.json"
SEED = 0
PROBATIONARY, MOST_PROBATIONARY = 0.15, 750
#: Of the windowed Gaussian: readings whose mean and deviation judge, renewed every so many.
WINDOW, STEP = 6400, 100
#: What a false alarm costs, where a window missed costs 1 (standard profile).
FALSE_ALARM = 0.11
#: Thresholds that are tried of each detector.
TRIED = np.arange(12, 121) / 20


class Window(NamedTuple):
    """A labelled anomaly: the places of its first and last reading."""

    first: int
    last: int


@dataclass(frozen=True)
class File:
    """One labelled stream."""

    name: str
    path: Path
    time_ms: np.ndarray  # int64 (N,)
    values: np.ndarray  # float64 (N,)
    windows: list[Window]  # in order

    @property
    def probationary(self) -> int:
        """How many readings come first that no alarm counts in."""
        return min(int(PROBATIONARY * len(self.values)), MOST_PROBATIONARY)

    def normal(self) -> np.ndarray:
        """Which readings count and are in no window, bool (N,)."""
        chosen = np.arange(len(self.values)) >= self.probationary
        for window in self.windows:
            chosen[window.first : window.last + 1] = False
        return chosen


class Judged(NamedTuple):
    """What alarms on one file or several were worth."""

    windows: int
    hits: int
    false_alarms: int
    points: float  # each hit up to 1, by how early it was; each miss -1; each false alarm -FALSE_ALARM, less just after a window

    @property
    def score(self) -> float:
        """0 is no alarm at all, 100 every window hit at its first reading and no false alarm."""
        return 100 * (self.points + self.windows) / (2 * self.windows)


def run(scale: float) -> list[Measure]:
    """Hits, false alarms and score of both detectors; a scale below 1 takes so many of the files."""
    folder = folder_with("anomalies", LABELS)
    if folder is None:
        return []
    files = read((folder / LABELS).parent)
    files = files[: max(2, round(scale * len(files)))]
    ours, gaussian = {}, {}
    for file in files:
        ours[file.name], gaussian[file.name] = served(file), windowed_gaussian(file.values)
    return report(files, ours, gaussian)


def report(files: Sequence[File], ours: Mapping[str, np.ndarray], gaussian: Mapping[str, np.ndarray]) -> list[Measure]:
    """Print what was found by file, and sum it up. Scores float64 (N,) by file, NaN is none."""
    usual = f"recurd at {THRESHOLD:g}"
    shown = {usual: {file.name: judge(file, alarms(ours[file.name], THRESHOLD)) for file in files}}
    measures = _measures(usual, _sum(shown[usual].values()))
    for name, scores in (("recurd", ours), ("windowed Gaussian", gaussian)):
        tried = [{file.name: judge(file, alarms(scores[file.name], one)) for file in files} for one in TRIED.tolist()]
        shown[name] = _by_the_others(files, tried)
        totals = [_sum(found.values()) for found in tried]
        best = max(range(len(totals)), key=lambda place: totals[place].score)
        measures += _measures(f"{name}, threshold by the other files", _sum(shown[name].values()))
        measures += _measures(f"{name}, best threshold {TRIED[best]:g}", totals[best])
        print(f"{name}: fewest false alarms by hits: {_curve(totals)}")
    print(f"\nhits, false alarms{'':37}" + "".join(f"{name:>20}" for name in shown) + "   scores above 1, 2, 3 to expected")
    for file in files:
        found = [one[file.name] for one in shown.values()]
        columns = "".join(f"{one.hits:>10} of {one.windows}{one.false_alarms:>6}" for one in found)
        normal = ours[file.name][file.normal()]
        to_expected = "  ".join(f"{(normal > decades).mean() * 10**decades:.2f}" for decades in (1, 2, 3))
        print(f"{file.name:55}{columns}   {to_expected}")
    return measures


def read(folder: Path) -> list[File]:
    """All labelled files that are there, by name.

    Raises:
        OSError, ValueError: One cannot be read.
    """
    labels = json.loads((folder / Path(LABELS).name).read_text())
    return [_file(folder, name, labels[name]) for name in sorted(labels) if (folder / name).is_file()]


def _file(folder: Path, name: str, labels: Sequence[Sequence[str]]) -> File:
    with (folder / name).open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    time_ms = np.array([_time_ms(row["timestamp"]) for row in rows], np.int64)
    windows = []
    for first, last in labels:
        (inside,) = np.nonzero((time_ms >= _time_ms(first)) & (time_ms <= _time_ms(last)))
        windows.append(Window(int(inside[0]), int(inside[-1])))
    return File(name, folder / name, time_ms, np.array([float(row["value"]) for row in rows]), windows)


def _time_ms(text: str) -> int:
    return parse_time_ms(text.replace(" ", "T") + "Z")


# -- detectors ----------------------------------------------------------------------------------------------------------------


def served(file: File) -> np.ndarray:
    """Anomaly scores of the forecasts that follow each reading, float64 (N,): NaN where there is none, or while warming."""
    settings = Settings()
    until = format_time(int(file.time_ms[file.probationary]))
    with tempfile.TemporaryDirectory(prefix="recurd-bench-") as name:
        weights, out = Path(name) / "weights.safetensors", Path(name) / "forecasts.jsonl"
        train.run(settings, file.path, weights, until, SEED, say=lambda _line: None)
        replay.run(settings, file.path, [weights], out)
        forecasts = [json.loads(line) for line in out.read_bytes().splitlines()]
    scores = {
        parse_time_ms(forecast["time"]): forecast["anomaly_score"]
        for forecast in forecasts
        if forecast["anomaly_score"] is not None and not forecast["warming"]
    }
    found, last_ms = np.full(len(file.values), np.nan), -1
    for place, time_ms in enumerate(file.time_ms.tolist()):
        if time_ms > last_ms:  # others are late or duplicates, and have no forecast
            found[place], last_ms = scores.get(time_ms, math.nan), time_ms
    return found


def windowed_gaussian(values: np.ndarray) -> np.ndarray:
    """-log10 of the tail of each reading under the normal distribution of the readings before it, float64 (N,).

    Those are the last 6,400, or as many as there are; once there are so many, the window moves on by 100 at a time.
    """
    found = np.full(len(values), np.nan)
    for i in range(1, len(values)):
        first = max(i - WINDOW, 0) // STEP * STEP
        before = values[first : first + min(i, WINDOW)]
        if first == 0 or (i - WINDOW) % STEP == 0:
            mean, deviation = float(before.mean()), float(before.std()) or 1e-6
        found[i] = _decades(abs(float(values[i]) - mean) / deviation)
    return found


def _decades(deviations: float) -> float:
    """-log10 of the upper tail of the normal distribution, also where that is no float any more."""
    tail = 0.5 * math.erfc(deviations / math.sqrt(2))
    if tail > 0:
        return -math.log10(tail)
    return (deviations * deviations / 2 + math.log(deviations * math.sqrt(2 * math.pi))) / math.log(10)


# -- judgement ----------------------------------------------------------------------------------------------------------------


def alarms(scores: np.ndarray, threshold: float) -> list[int]:
    """The readings that raise an alarm."""
    alarm = Alarm(threshold)
    return [place for place, score in enumerate(scores.tolist()) if alarm.raised(score)]


def judge(file: File, raised: Sequence[int]) -> Judged:
    """What alarms are worth on a file; those of its probationary part are none."""
    counted = [place for place in raised if place >= file.probationary]
    hits, points = 0, 0.0
    for window in file.windows:
        inside = [place for place in counted if window.first <= place <= window.last]
        hits += bool(inside)
        points += _early(window, inside[0]) if inside else -1.0
    outside = [place for place in counted if not any(window.first <= place <= window.last for window in file.windows)]
    points += FALSE_ALARM * sum(_after(file.windows, place) for place in outside)
    return Judged(len(file.windows), hits, len(outside), points)


def _early(window: Window, place: int) -> float:
    """1 for an alarm at a window's first reading, next to 0 at its last."""
    return _sigmoid((place - window.last - 1) / (window.last - window.first + 1)) / _sigmoid(-1.0)


def _after(windows: Sequence[Window], place: int) -> float:
    """-1 for a false alarm, next to 0 just after a window."""
    before = [window for window in windows if window.last < place]
    if not before:
        return -1.0
    windows_past = (place - before[-1].last) / (before[-1].last - before[-1].first)
    return _sigmoid(windows_past) if windows_past < 3 else -1.0


def _sigmoid(place: float) -> float:
    """From 1 far before to -1 far after 0."""
    return 2 / (1 + math.exp(5 * place)) - 1


def _sum(judged: Iterable[Judged]) -> Judged:
    windows, hits, false_alarms, points = zip(*judged, strict=True)
    return Judged(sum(windows), sum(hits), sum(false_alarms), sum(points))


def _by_the_others(files: Sequence[File], tried: Sequence[Mapping[str, Judged]]) -> dict[str, Judged]:
    """Each file at the threshold that is best for the others; `tried` has by threshold what each file brings."""
    chosen = {}
    for file in files:
        points = [_sum(one for name, one in found.items() if name != file.name).points for found in tried]
        chosen[file.name] = tried[points.index(max(points))][file.name]
    return chosen


def _curve(totals: Sequence[Judged]) -> str:
    """The fewest false alarms with at least so many hits."""
    fewest = {hits: min(one.false_alarms for one in totals if one.hits >= hits) for hits in {one.hits for one in totals}}
    return ", ".join(f"{hits}: {count}" for hits, count in sorted(fewest.items()))


def _measures(name: str, judged: Judged) -> list[Measure]:
    return [
        Measure(f"{name}: hits", judged.hits, f"of {judged.windows}"),
        Measure(f"{name}: false alarms", judged.false_alarms, ""),
        Measure(f"{name}: score", judged.score, "of 100"),
    ]
