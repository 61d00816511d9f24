"""A data set whose behaviour changes half-way, and what retraining makes of it: level, season and noise are others from then on.

Nothing here knows of plots; `benchmarks.change_plot` draws docs/retraining.png. N readings, S streams, K leads.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.settings import Settings, load
from daemon import replay, train

FIRST_MS = 1_767_225_600_000  # 2026-01-01
HOUR_MS = 3_600_000
DAY = 24  # readings
STREAMS = 6
NOISE = 0.5  # standard deviation, before and after
LEVEL = 15.0  # by which every other stream moves
#: The season before and after the change, in readings.
SEASONS = (24, 36)
#: What the noise keeps of itself from one reading to the next, before and after.
MEMORY = (0.0, 0.6)

GIVEN = ("model.hidden=16", "model.horizon=12", "model.context=96", "retrain.steps=150")
#: What a cycle looks back on, and the event time between two cycles.
WINDOW_DAYS, EVERY_DAYS = 28, 7


class Errors(NamedTuple):
    """Mean absolute errors of the medians over all streams and leads by day of the origin, float64 (days,), in sensor units."""

    frozen: np.ndarray
    retrained: np.ndarray
    versions: int  # in force one after another, while retraining


def values(days: int, streams: int = STREAMS, seed: int = 0) -> np.ndarray:
    """Readings of all streams, float64 (24 days, S); the change comes after the first half."""
    rng = np.random.Generator(np.random.PCG64(seed))
    half = days * DAY // 2
    parts = [_part((half, streams), SEASONS[after], MEMORY[after], rng) for after in (0, 1)]
    moved = np.where(np.arange(streams) % 2 == 0, LEVEL, 0.0)
    return np.concatenate([parts[0], parts[1] + moved])


def _part(size: tuple[int, int], season: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """One behaviour: a season with an overtone, each stream at a phase of its own, and noise."""
    count, streams = size
    phase = 2 * np.pi * (np.arange(count)[:, None] / season + np.arange(streams) / streams)
    noise = rng.standard_normal(size) * NOISE * np.sqrt(1 - memory**2)
    for at in range(1, count):
        noise[at] += memory * noise[at - 1]
    course: np.ndarray = 3 * np.sin(phase) + 1.5 * np.sin(2 * phase + 1)
    return course + noise


def write_csv(path: Path, readings: np.ndarray) -> None:
    """A time column and one column a stream."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", *(f"s{i}" for i in range(readings.shape[1]))])
        for hour, row in enumerate(readings):
            rows.writerow([(FIRST_MS + hour * HOUR_MS) // 1000, *(f"{value:.4f}" for value in row)])


def run(directory: Path, days: int, streams: int = STREAMS, given: Sequence[str] = GIVEN) -> Errors:
    """Train on the first four weeks, then serve all of it twice: with these weights to the end, and with retraining.

    Args:
        directory: For data and forecasts.
        days: Of data, an even number.
        streams: S.
        given: Settings.
    """
    settings = load(None, {}, [*given, f"retrain.window_s={WINDOW_DAYS * 86_400}"])
    data, weights = directory / "change.csv", directory / "first.safetensors"
    readings = values(days, streams)
    write_csv(data, readings)
    until = datetime.fromtimestamp(FIRST_MS / 1000 + WINDOW_DAYS * 86_400, UTC).isoformat()
    train.run(settings, data, weights, until, seed=0, say=lambda _text: None, steps=settings.retrain.steps)
    frozen, _ = _served(settings, directory, weights, None, readings)
    retrained, versions = _served(settings, directory, weights, EVERY_DAYS * 86_400.0, readings)
    return Errors(frozen, retrained, versions)


def _served(
    settings: Settings, directory: Path, weights: Path, every_s: float | None, readings: np.ndarray
) -> tuple[np.ndarray, int]:
    """Errors by day of one replay, and how many versions forecast."""
    out = directory / "forecasts.jsonl"
    replay.run(settings, directory / "change.csv", [weights], out, retrain_every_s=every_s)
    days = len(readings) // DAY
    sums, counts, versions = np.zeros(days), np.zeros(days), set()
    with out.open() as file:
        for line in file:
            forecast = json.loads(line)
            versions.add(forecast["model_version"])
            hour, stream = _place(forecast)
            medians = np.array(forecast["targets"]["value"]["0.5"])
            actual = readings[hour + 1 : hour + 1 + len(medians), stream]
            sums[hour // DAY] += np.abs(medians[: len(actual)] - actual).sum()
            counts[hour // DAY] += len(actual)
    return sums / np.maximum(counts, 1), len(versions)


def _place(forecast: dict[str, str]) -> tuple[int, int]:
    time_ms = round(datetime.fromisoformat(forecast["time"].replace("Z", "+00:00")).timestamp() * 1000)
    return (time_ms - FIRST_MS) // HOUR_MS, int(forecast["stream"].removeprefix("s"))
