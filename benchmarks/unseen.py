"""Streams that training never saw, from their first readings on: errors by how many readings they have brought.

Weights are trained on the first year of one file of electricity transformers; replayed are the streams of another file and of
two buildings' meters, each cut into pieces of 13 days, so that they begin on all days of the week, as new streams. Everything is
hourly. Errors are of the medians over leads 1 to 24, beside those of the last value, in standard deviations of each whole stream.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.data_sets import folder_with
from benchmarks.report import Measure
from config.settings import Settings, parse_time_ms
from daemon import replay, train

TRAINED, UNTIL = "ETT/ETTh1.csv", "2017-06-26"
UNSEEN = ("ETT/ETTh2.csv", "bdg2_hourly/bdg2_hourly_sample.csv")
SEED = 0
HORIZON = 24
#: Readings of a piece, which are its origins; their targets follow.
PIECE = 312
#: Ages at which errors are told, in readings that the stream has brought.
AGES = ((1, 24), (25, 48), (49, 96), (97, PIECE))


def run(scale: float) -> list[Measure]:
    """Errors by age, and theirs to the last value's; a scale below 1 takes so many of the pieces."""
    folder = folder_with("unseen", TRAINED, *UNSEEN)
    if folder is None:
        return []
    settings, measures = Settings(), []
    with tempfile.TemporaryDirectory(prefix="recurd-bench-") as name:
        weights = Path(name) / "weights.safetensors"
        train.run(settings, folder / TRAINED, weights, UNTIL, SEED, say=lambda _line: None)
        for data in UNSEEN:
            errors = _errors(settings, folder / data, weights, Path(name), scale)
            for (first, last), (model, naive) in zip(AGES, errors, strict=True):
                which = f"{Path(data).stem.split('_')[0]}, readings {first} to {last}"
                bound = 1.0 if first > 48 else None
                measures += [
                    Measure(f"{which}: error", model, "deviations"),
                    Measure(f"{which}: to the last value", model / naive, "", at_most=bound),
                ]
    return measures


def _errors(settings: Settings, data: Path, weights: Path, work: Path, scale: float) -> list[tuple[float, float]]:
    """By age the mean absolute error of medians and of the last value over all leads and origins, streams weighing alike."""
    columns = _columns(data)
    count = len(next(iter(columns.values()))[1]) // PIECE - 1
    begins = [PIECE * number for number in range(count)][: max(1, round(scale * count))]
    pieces, out = work / "pieces.csv", work / "forecasts.jsonl"
    with pieces.open("w") as file:
        file.write("stream,time,value\n")
        file.writelines(_rows(columns, begins))
    replay.run(settings, pieces, [weights], out)
    sums = np.zeros((len(AGES), 2, 2))  # age; medians, last value; sum, count
    with out.open() as lines:
        for line in lines:
            forecast = json.loads(line)
            stream, begin = forecast["stream"].rsplit("@", 1)
            times, values = columns[stream]
            place = int(np.searchsorted(times, parse_time_ms(forecast["time"])))
            median = forecast["targets"]["value"]["0.5"]
            coming, age = values[place + 1 : place + 1 + HORIZON], place - int(begin) + 1
            at = next(number for number, (_, last) in enumerate(AGES) if age <= last)
            errors = np.abs(np.array(median, np.float64) - coming), np.abs(values[place] - coming)
            for which, error in enumerate(errors):
                sums[at, which] += error.mean() / values.std(), 1
    return [(float(model[0] / model[1]), float(naive[0] / naive[1])) for model, naive in sums]


def _columns(data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Times, int64, and values of each stream of a wide file without gaps."""
    with data.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    times = np.array([parse_time_ms(row[0]) for row in rows], np.int64)
    return {name: (times, np.array([float(row[i]) for row in rows])) for i, name in enumerate(header) if i > 0}


def _rows(columns: dict[str, tuple[np.ndarray, np.ndarray]], begins: list[int]) -> Iterator[str]:
    """Readings of all pieces of all streams, as if they ran beside each other."""
    for age in range(PIECE):
        for name, (times, values) in columns.items():
            for begin in begins:
                yield f"{name}@{begin},{times[begin + age]},{float(values[begin + age])!r}\n"
