"""Each arrangement learns something that its baseline cannot: small networks, a few seconds each, seeded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from config.settings import EngineSettings
from models import artifacts, fitting, kinds
from models.engine import Readings
from models.training_data import Series
from tests import examples
from tests.examples import MINUTE_MS, T0_MS

STEPS = 150


def trained(engine: EngineSettings, series: list[Series], steps: int = STEPS) -> Any:
    """The kind's engine with weights fitted to these series."""
    network, _ = kinds.of(engine).fit(series, engine, 1, steps, lambda what, share: None)
    return kinds.of(engine).engine(engine, network, "v")


def series(values: np.ndarray, labels: np.ndarray | None = None, name: str = "s") -> Series:
    return Series(name, T0_MS + np.arange(len(values)) * MINUTE_MS, np.asarray(values, np.float64)[:, None], labels)


def served(made: Any, values: np.ndarray) -> list[Any]:
    """What the engine says of each reading, several streams at once: values (n, B)."""
    rows, count = np.zeros(values.shape[1], made.row_dtype), values.shape[1]
    if hasattr(made, "named"):
        rows = made.named(rows, [str(i) for i in range(count)])
    none = np.zeros(count, np.int64)
    return [
        made.step(rows, Readings(now[:, None], np.full(count, T0_MS + place * MINUTE_MS), none, none, np.full(count, place == 0)))
        for place, now in enumerate(values)
    ]


def sine(length: int, seed: int, noise: float = 0.0) -> np.ndarray:
    numbers = np.random.Generator(np.random.PCG64(seed))
    phase = numbers.random() * 2 * math.pi
    wave: np.ndarray = 20 + 3 * np.sin(2 * math.pi * np.arange(length) / 16 + phase) + noise * numbers.standard_normal(length)
    return wave


def lead_errors(made: Any, values: np.ndarray, horizon: int) -> tuple[float, float]:
    """Mean absolute error of medians and of the last value over all leads, from reading 60 on."""
    outputs, model, naive = served(made, values), [], []
    for place in range(60, len(values) - horizon):
        coming = values[place + 1 : place + 1 + horizon].T  # (B, K)
        model.append(np.abs(outputs[place].quantiles[:, 0, :, 1] - coming).mean())
        naive.append(np.abs(values[place][:, None] - coming).mean())
    return float(np.mean(model)), float(np.mean(naive))


@pytest.mark.parametrize(("kind", "cell"), [("many_to_many", "elman"), ("encoder_decoder", "lstm")])
def test_leads_of_a_noisy_sine(kind: str, cell: str) -> None:
    """Less than half of the last value's error, over eight leads."""
    engine = examples.settings(kind=kind, cell=cell, hidden=16, horizon=8)
    made = trained(engine, [series(sine(600, seed, 0.5)) for seed in range(4)])
    values = np.stack([sine(120, seed, 0.5) for seed in range(20, 36)], axis=1)
    model, naive = lead_errors(made, values, 8)
    assert model < 0.5 * naive, (model, naive)


def test_scenarios_follow_a_sine() -> None:
    """Their mean over eight steps is nearer than half of the last value's error, and they do not all say the same."""
    engine = examples.settings(kind="one_to_many", hidden=16, horizon=8, scenarios=16)
    made = trained(engine, [series(sine(600, seed, 0.2)) for seed in range(4)])
    values = np.stack([sine(120, seed, 0.2) for seed in range(20, 36)], axis=1)
    outputs, errors, naive, spreads = served(made, values), [], [], []
    for place in range(60, 112):
        coming = values[place + 1 : place + 9].T
        paths = outputs[place].paths[:, 0]  # (B, S, K)
        errors.append(np.abs(paths.mean(axis=1) - coming).mean())
        spreads.append(paths.std(axis=1).mean(axis=0))
        naive.append(np.abs(values[place][:, None] - coming).mean())
    assert np.mean(errors) < 0.5 * np.mean(naive), (np.mean(errors), np.mean(naive))
    first, last = np.mean(spreads, axis=0)[[0, -1]]
    assert 0.1 < first < last < 2.0, "about the noise at first, and more further on"


def wave_of(kind: int, length: int, seed: int) -> np.ndarray:
    numbers = np.random.Generator(np.random.PCG64(seed))
    angle = 2 * math.pi * (np.arange(length) / numbers.uniform(8, 14) + numbers.random())
    shape = np.sin(angle) if kind == 0 else np.sign(np.sin(angle))
    wave: np.ndarray = numbers.uniform(1, 9) * (shape + 0.15 * numbers.standard_normal(length)) + numbers.uniform(-50, 50)
    return wave


def test_windows_are_told_apart() -> None:
    """A sine from a square wave, of any period, level and height: more than 95 of 100 windows."""
    engine = examples.settings(kind="many_to_one", hidden=16, window_readings=24, predicts="class", labels=("sine", "square"))
    data = [series(wave_of(i % 2, 96, i), np.full(96, float(i % 2)), f"s{i}") for i in range(300)]
    made = trained(engine, data, 350)
    kinds_of = np.arange(60) % 2
    outputs = served(made, np.stack([wave_of(int(kind), 120, 1000 + i) for i, kind in enumerate(kinds_of)], axis=1))
    ended = [output for output in outputs[24:] if output.emits.all()]
    assert len(ended) == 4
    right = [(output.answers[:, 0].argmax(axis=1) == kinds_of).mean() for output in ended]
    assert np.mean(right) > 0.95, right


def test_a_number_of_a_session() -> None:
    """How many peaks a session had: its label, learned from sessions of unequal length."""

    def sessions(seed: int) -> Series:
        numbers = np.random.Generator(np.random.PCG64(seed))
        values, labels, times, time_ms = [], [], [], T0_MS
        for _ in range(60):
            length = int(numbers.integers(6, 16))
            peaks = (numbers.random(length) < 0.3) * 1.0
            values += (peaks + 0.05 * numbers.standard_normal(length)).tolist()
            labels += [math.nan] * (length - 1) + [float(peaks.sum())]
            times += (time_ms + np.arange(length) * MINUTE_MS).tolist()
            time_ms = times[-1] + 20 * MINUTE_MS
        return Series(f"s{seed}", np.array(times), np.array(values)[:, None], np.array(labels))

    engine = examples.settings(kind="many_to_one", cell="gru", hidden=16, session_gap_s=600, predicts="label")
    made = trained(engine, [sessions(seed) for seed in range(8)])
    test, rows, none, errors, naive = sessions(99), np.zeros(1, made.row_dtype), np.zeros(1, np.int64), [], []
    assert test.labels is not None
    for place, (time_ms, value) in enumerate(zip(test.time_ms.tolist(), test.values, strict=True)):
        output = made.step(rows, Readings(value[None], np.array([time_ms]), none, none, np.array([place == 0])))
        if output.emits[0] and place > 100:
            errors.append(abs(output.answers[0, 0, 1] - test.labels[place - 1]))
            naive.append(abs(np.nanmedian(test.labels) - test.labels[place - 1]))
    assert len(errors) > 40
    assert np.mean(errors) < 0.5 * np.mean(naive), (np.mean(errors), np.mean(naive))


def test_the_mean_of_the_next_window() -> None:
    """Windows of a quarter period: the next one's mean is nearer than this one's."""
    engine = examples.settings(kind="many_to_one", hidden=16, window_readings=4)
    made = trained(engine, [series(sine(600, seed, 0.3)) for seed in range(4)])
    values = np.stack([sine(124, seed, 0.3) for seed in range(20, 36)], axis=1)
    outputs, errors, naive = served(made, values), [], []
    for place in range(63, 119, 4):
        assert outputs[place].emits.all()
        coming = values[place + 1 : place + 5].mean(axis=0)
        errors.append(np.abs(outputs[place].answers[:, 0, 1] - coming).mean())
        naive.append(np.abs(values[place - 3 : place + 1].mean(axis=0) - coming).mean())
    assert np.mean(errors) < 0.5 * np.mean(naive), (np.mean(errors), np.mean(naive))


def test_gaps_are_filled_from_both_sides() -> None:
    """A third of the readings of a sine whose phase wanders is missing: filled far better than by the last value or the past."""

    def masked(seed: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.random.Generator(np.random.PCG64(seed))
        phase = (2 * math.pi / 11 + 0.35 * numbers.standard_normal(length)).cumsum() + 6 * numbers.random()
        whole = 20 + 3 * np.sin(phase) + 0.1 * numbers.standard_normal(length)
        seen = np.where(numbers.random(length) < 0.33, np.nan, whole)
        seen[0] = whole[0]
        return whole, seen

    data = [series(masked(seed, 600)[1]) for seed in range(4)]
    both = trained(examples.settings(kind="smoother", hidden=16, lag=4), data, 220)
    past = trained(examples.settings(kind="many_to_many", hidden=16, horizon=1), data, 220)
    pairs = [masked(seed, 120) for seed in range(20, 36)]
    whole, seen = (np.stack(columns, axis=1) for columns in zip(*pairs, strict=True))
    smoothed, ahead = served(both, seen), served(past, seen)
    errors: dict[str, list[float]] = {"both": [], "past": [], "last": []}
    for place in range(50, 110):
        for stream in np.flatnonzero(np.isnan(seen[place])).tolist():
            last = seen[:place, stream][~np.isnan(seen[:place, stream])][-1]
            assert math.isnan(smoothed[place + 4].readings[stream, 0])
            answers = {"both": smoothed[place + 4].quantiles[stream, 0, 1], "past": ahead[place - 1].quantiles[stream, 0, 0, 1]}
            for name, answer in {**answers, "last": last}.items():
                errors[name].append(abs(answer - whole[place, stream]))
    mean = {name: float(np.mean(each)) for name, each in errors.items()}
    assert mean["both"] < 0.55 * mean["last"], mean
    assert mean["both"] < 0.85 * mean["past"], mean


@pytest.mark.parametrize("kind", sorted(set(kinds.KINDS) - {"forecaster"}))
def test_equal_fits_give_equal_weights(kind: str) -> None:
    """To the bit, and another seed others."""
    shorter = {"window_readings": 5} if kind == "many_to_one" else {}
    engine = examples.settings(kind=kind, hidden=8, horizon=3, **shorter)
    found = []
    for seed in (1, 1, 2):
        network, report = kinds.of(engine).fit([series(sine(200, 3, 0.2))], engine, seed, 12, lambda what, share: None)
        assert isinstance(report, fitting.Report)
        assert report.scores["loss"] <= report.scores["untrained_loss"]
        found.append(artifacts.dump(network, artifacts.Manifest.of(engine)))
    assert found[0] == found[1] != found[2]
