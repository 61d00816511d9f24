"""Training: it learns, repeats itself to the bit, never learns from the hold-out, and survives what is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from config.settings import EngineSettings, InputSettings, NetworkSettings
from models import highway, training
from models.artifacts import Manifest, dump
from models.training import NotEnoughReadings, Recipe, Report, fit, pinball
from models.training_data import Piece, Series, prepare

ENGINE = EngineSettings(model=NetworkSettings(hidden=8, horizon=6, context=16))
QUICK = Recipe(steps=60, rows=8, length=40, burn_in=8, judge_every=20, warm_up=10)
MINUTE_MS = 60_000


def wave(name: str = "wave", length: int = 400, seed: int = 0, start: int = 0) -> Series:
    """A daily kind of pattern of 12 readings with noise."""
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(length) * 0.1
    at = np.arange(start, start + length)
    return Series(name, MINUTE_MS * (at + 1), (5 + np.sin(2 * np.pi * at / 12) + noise)[:, None])


def bytes_of(report: tuple[Any, Report], engine: EngineSettings = ENGINE) -> bytes:
    return dump(report[0], Manifest.of(engine))


def test_it_learns() -> None:
    """A pattern is forecast far better than by its last value, on readings that were not learned from."""
    network, report = fit([wave()], ENGINE, seed=1, recipe=QUICK)
    assert report.mae < 0.3 * report.naive_mae
    assert report.readings == 400
    assert report.cut_ms == 341 * MINUTE_MS
    assert not network.training


def test_the_recurrent_part_learns_what_the_highway_cannot() -> None:
    """Optimizing is worth something beyond the closed form."""
    numbers = np.random.Generator(np.random.PCG64(0))
    values = np.where(np.arange(600) % 7 < 2, 1.0, 0.0) * (1 + numbers.random(600))  # its size is noise, its sign is not
    one = Series("pulse", MINUTE_MS * np.arange(1, 601), values[:, None])
    _, untrained = fit([one], ENGINE, seed=1, recipe=Recipe(steps=0))
    _, trained = fit([one], ENGINE, seed=1, recipe=QUICK)
    assert trained.pinball < 0.9 * untrained.pinball
    assert trained.best_step > 0


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    """Weights are a function of readings, settings and seed, whatever the global generator and thread count are."""
    torch.manual_seed(1)
    first = bytes_of(fit([wave()], ENGINE, seed=1, recipe=QUICK))
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    second = bytes_of(fit([wave()], ENGINE, seed=1, recipe=QUICK))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert first == second
    assert first != bytes_of(fit([wave()], ENGINE, seed=2, recipe=QUICK))


def test_streams_of_any_length_with_gaps_missing_values_and_constants() -> None:
    """What sensors do is no obstacle: the weights are finite."""
    gaps = wave("gaps", 200, seed=1)
    holes = wave("holes", 300, seed=2)
    holes.values[np.random.Generator(np.random.PCG64(5)).random(300) < 0.2] = np.nan
    holes.values[0] = 5
    streams = [
        wave("a", 300),
        Series("gaps", gaps.time_ms + (np.arange(200) > 90) * 30 * 86_400_000, gaps.values),
        holes,
        wave("one", 1),
        Series("constant", MINUTE_MS * np.arange(1, 101), np.zeros((100, 1))),
        Series("empty", np.zeros(0, np.int64), np.zeros((0, 1))),
    ]
    network, report = fit(streams, ENGINE, seed=1, recipe=QUICK)
    assert all(torch.isfinite(weight).all() for weight in network.parameters())
    assert report.skipped == 0
    assert report.mae < report.naive_mae


def test_several_channels_layers_and_targets() -> None:
    """Every shape that the settings allow can be trained."""
    engine = EngineSettings(
        input=InputSettings(values={"a": "a", "b": "b", "c": "c"}),
        model=NetworkSettings(hidden=8, layers=2, horizon=3, context=16, levels=(0.25, 0.5), targets=("c", "a")),
    )
    one = wave()
    values = np.concatenate([one.values, one.values * 0, 100 * one.values], axis=1)
    _, report = fit([Series("s", one.time_ms, values)], engine, seed=1, recipe=QUICK)
    assert report.mae < 0.5 * report.naive_mae


def test_training_readings_lie_before_the_hold_out_with_their_targets() -> None:
    """Nothing that is judged by is learned from: the last training target lies before the cut."""
    data = prepare([wave(), wave("late", 100, start=330)], ENGINE)
    train, held_out = training._split(data, ENGINE, QUICK)
    cut_ms = min(int(data.time_ms[piece.first]) for piece in held_out.pieces)
    for piece in train:
        assert int(data.time_ms[piece.last - 1]) + ENGINE.model.horizon * MINUTE_MS < cut_ms


@pytest.mark.parametrize("length", [0, 1, 10, 30])
def test_too_few_readings(length: int) -> None:
    """It is said how many are needed."""
    with pytest.raises(NotEnoughReadings, match="give at least 64"):
        fit([wave(length=length)], ENGINE, seed=1, recipe=QUICK)


def test_the_least_that_is_enough() -> None:
    """As many readings as the refusal asks for are taken."""
    fit([wave(length=64)], ENGINE, seed=1, recipe=QUICK)


def test_steps_that_are_not_finite_are_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN in the loss leaves the weights as they were."""
    calls = 0

    def sometimes_nan(targets: torch.Tensor, quantiles: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += quantiles.requires_grad
        return pinball(targets, quantiles, levels) * (torch.nan if quantiles.requires_grad and calls % 3 == 0 else 1.0)

    monkeypatch.setattr(training, "pinball", sometimes_nan)
    network, report = fit([wave()], ENGINE, seed=1, recipe=QUICK)
    assert report.skipped == report.steps // 3
    assert all(torch.isfinite(weight).all() for weight in network.parameters())


def test_gradients_are_cut_and_counted() -> None:
    """The norm is bounded, and the report says how often it had to be and how large it was."""
    _, report = fit([wave()], ENGINE, seed=1, recipe=Recipe(steps=20, rows=4, length=20, burn_in=4, gradient_norm=1e-6))
    assert report.clipped == 20
    assert report.largest_gradient > 1e-6


def test_it_stops_when_nothing_improves_any_more() -> None:
    """Early stopping keeps the best averaged weights and saves the rest of the steps."""
    recipe = Recipe(steps=500, rows=4, length=20, burn_in=4, judge_every=5, patience=2, learning_rate=1.0)
    _, report = fit([wave()], ENGINE, seed=1, recipe=recipe)
    assert report.steps == report.best_step + 10


def test_streams_shorter_than_the_burn_in_are_learned_from() -> None:
    """A sequence without a whole burn-in before it begins with its segment, from zero: short streams count too."""
    streams = [wave(f"s{i}", 40, seed=i) for i in range(20)]
    recipe = Recipe(steps=60, rows=8, length=40, burn_in=100, judge_every=20, warm_up=10)
    _, untrained = fit(streams, ENGINE, seed=1, recipe=Recipe(steps=0))
    _, trained = fit(streams, ENGINE, seed=1, recipe=recipe)
    assert trained.pinball < untrained.pinball
    assert trained.best_step > 0


def test_little_data_takes_few_steps() -> None:
    """Steps are bounded by passes over the training readings."""
    _, report = fit([wave()], ENGINE, seed=1, recipe=Recipe(passes=20, rows=4, length=50, burn_in=4, judge_every=5, patience=99))
    assert report.steps == 20 * 334 // 200


def test_progress_is_told() -> None:
    """Whoever waits learns what is going on."""
    told: list[tuple[str, float]] = []
    fit([wave()], ENGINE, seed=1, recipe=QUICK, progress=lambda what, share: told.append((what, share)))
    assert [what for what, _ in told] == ["features", "features", "highway", "training", "training", "training"]
    assert all(0 <= share <= 1 for _, share in told)


@pytest.mark.parametrize(("missing", "bound"), [(0.0, 0.03), (0.05, 0.2)])
def test_highway_finds_the_linear_law(missing: float, bound: float) -> None:
    """Where the next readings are linear in the last ones the highway alone forecasts them, missing values or not."""
    at = np.arange(500)
    values = 3 * np.sin(at / 3) + np.cos(at / 7)
    values[np.random.Generator(np.random.PCG64(1)).random(500) < missing] = np.nan
    values[0] = 1
    data = prepare([Series("s", MINUTE_MS * (at + 1), values[:, None])], ENGINE)
    found = highway.fit(data, [Piece(0, 40, 400)], [held_out := Piece(0, 400, 490)])
    assert tuple(found.lines.shape) == (1, 24, 6)  # window, season, place
    assert torch.equal(highway.refit(data, [Piece(0, 40, 400)], found.penalties).lines, found.lines)
    targets = torch.from_numpy(data.targets[400:490, 0])
    errors = targets - torch.from_numpy(data.windows(held_out)[:, 0]) @ found.lines[0]
    assert float(errors.abs().nanmedian() / targets.abs().nanmedian()) < bound


def test_pinball_is_least_at_the_quantile() -> None:
    """Over many draws no other number has a smaller loss than the empirical quantile; unknown targets count for nothing."""
    targets = torch.cat([torch.arange(1000.0), torch.full((500,), torch.nan)])
    for level in (0.1, 0.5, 0.9):

        def loss(guess: float, level: float = level) -> float:
            return float(pinball(targets, torch.full((1500, 1), guess), torch.tensor([level])))

        guesses = np.arange(0.5, 1000, 10)
        assert abs(guesses[int(np.argmin([loss(guess) for guess in guesses]))] - 1000 * level) <= 10
    assert float(pinball(torch.tensor([1.0, torch.nan]), torch.zeros(2, 1), torch.tensor([0.5]))) == 0.5
