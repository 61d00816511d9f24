"""A row learns how its own stream differs from what all share; what it learned is in the weights' basis and ends with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from config.settings import EngineSettings, InputSettings, NetworkSettings
from models import adaptation, basis, kernels
from models.adaptation import DIRECTIONS, ORIGINS, RESPONSES
from models.engine import Readings
from models.forecaster import Forecaster
from models.highway import fit as fit_highway
from models.networks import Network
from models.training_data import Piece, Series, TrainingData, prepare

MINUTE_MS = 60_000
ENGINE = EngineSettings(model=NetworkSettings(hidden=8, horizon=6, context=16))


def swinging(name: str, pull: float, length: int, seed: int) -> Series:
    """A second-order recursion around zero: streams of another `pull` have other best maps."""
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(length)
    values = np.zeros(length)
    for at in range(2, length):
        values[at] = pull * values[at - 1] - 0.9 * values[at - 2] + noise[at]
    return Series(name, MINUTE_MS * (1 + np.arange(length)), values[:, None])


def network_of(series: list[Series], engine: EngineSettings = ENGINE, adapts: bool = True) -> Network:
    """The shared map alone, in closed form, with or without a basis."""
    data = prepare(series, engine)
    network, pieces = Network.of(engine), list(data.pieces())
    with torch.no_grad():
        lines = fit_highway(data, pieces, pieces).lines
        network.highway[..., : engine.model.horizon] = lines
        if adapts:
            found = basis.find(data, pieces, lines)
            network.directions[..., :DIRECTIONS], network.responses[:] = found
    return network


def served(forecaster: Forecaster, series: list[Series], rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Medians of streams that advance together (n, B, K), and the rows."""
    rows = np.zeros(len(series), forecaster.row_dtype) if rows is None else rows
    none, medians = np.zeros(len(series), np.int64), []
    for place in range(len(series[0].time_ms)):
        values = np.stack([one.values[place] for one in series])
        time_ms = np.array([one.time_ms[place] for one in series])
        output = forecaster.step(rows, Readings(values, time_ms, none, none, rows["count"] == 0))
        medians.append(output.quantiles[:, 0, :, 1])
    return np.stack(medians), rows


def error(medians: np.ndarray, series: list[Series], since: int) -> float:
    actual = np.stack([one.values[:, 0] for one in series], 1)
    horizon, length = medians.shape[2], len(actual)
    origins = np.arange(since, length - horizon)
    return float(np.mean([np.abs(actual[origins + k] - medians[origins, :, k - 1]) for k in range(1, horizon + 1)]))


def test_streams_unlike_the_mean_are_forecast_better() -> None:
    """Half the streams swing slowly and half fast: one map fits neither. Rows go part of the way to a map for their kind."""
    kinds = [[swinging("s", pull, 2500, seed) for seed in range(3)] for pull in (1.4, -0.4)]
    learned, best, without, adapted = kinds[0] + kinds[1], 0.0, 0.0, 0.0
    for kind, pull in zip(kinds, (1.4, -0.4), strict=True):
        unseen = [swinging("u", pull, 2500, seed) for seed in (51, 52)]
        versions = network_of(kind, adapts=False), network_of(learned, adapts=False), network_of(learned)
        errors = [error(served(Forecaster(ENGINE, network, "v"), unseen)[0], unseen, 1200) for network in versions]
        best, without, adapted = best + errors[0], without + errors[1], adapted + errors[2]
    assert best < 0.95 * without
    assert without - adapted > 0.3 * (without - best)


def test_streams_like_the_mean_lose_nothing() -> None:
    """Where there is nothing to learn, little is made up."""
    learned = [swinging(f"s{i}", 1.4, 2000, i) for i in range(4)]
    unseen = [swinging("u", 1.4, 3000, 90)]
    without, _ = served(Forecaster(ENGINE, network_of(learned, adapts=False), "a"), unseen)
    adapted, _ = served(Forecaster(ENGINE, network_of(learned), "b"), unseen)
    assert error(adapted, unseen, 200) < 1.01 * error(without, unseen, 200)


def test_what_a_row_learned_holds_on_under_weights_of_the_same_basis_alone() -> None:
    """A retrained version goes on in its parent's basis; in another one the numbers would mean something else."""
    learned = [swinging(f"s{i}", 1.4 if i % 2 else -0.4, 1000, i) for i in range(4)]
    network = network_of(learned)
    _, rows = served(Forecaster(ENGINE, network, "a"), learned)
    before = rows["own_map"].copy()
    assert before.any()
    more = [swinging(f"m{i}", 1.0, 1, i)._replace(time_ms=np.array([2000 * MINUTE_MS])) for i in range(4)]
    same, kept, forgotten, gone = rows.copy(), rows.copy(), rows.copy(), rows.copy()
    served(Forecaster(ENGINE, network, "a"), more, same)
    served(Forecaster(ENGINE, network, "b"), more, kept)
    assert np.array_equal(kept["own_map"], same["own_map"])
    assert np.abs(kept["own_map"] - before).max() < 0.1 * np.abs(before).max()
    with torch.no_grad():
        network.directions *= 1.5
    served(Forecaster(ENGINE, network, "c"), more, forgotten)
    served(Forecaster(ENGINE, network_of(learned, adapts=False), "d"), more, gone)
    assert not forgotten["own_map"].any()
    assert not gone["own_map"].any()
    assert not gone["origins"].any()


def test_freaks_move_a_map_little() -> None:
    """A thousand spreads for a while, then silence: forecasts stay finite, and come back."""
    learned = [swinging(f"s{i}", 1.4 if i % 2 else -0.4, 1000, i) for i in range(4)]
    odd = swinging("odd", 1.4, 1200, 77)
    values = odd.values.copy()
    values[300:340] = 1e12
    values[500:520] = np.nan
    medians, rows = served(Forecaster(ENGINE, network_of(learned), "a"), [odd._replace(values=values)])
    assert np.isfinite(medians).all()
    assert np.abs(rows["own_map"]).max() < 10


@pytest.mark.parametrize("skipped", [(), (49, 50), (51,), (53,)])
def test_leads_are_known_as_forecasts_are_scored(skipped: tuple[int, ...]) -> None:
    """Readings that never came leave the value before them at their leads, and count as unknown."""
    places = [place for place in range(61) if place not in skipped]
    rows = np.zeros(2, Forecaster(ENGINE, Network.of(ENGINE), "a").row_dtype)
    line = Series("s", np.array([MINUTE_MS * (1 + place) for place in places]), np.array([[float(place)] for place in places]))
    served(Forecaster(ENGINE, Network.of(ENGINE), "a"), [line] * 2, rows)
    away, age = np.empty(6), len([place for place in places if place > 47])
    share = adaptation._known_leads(adaptation.Adapting.of(rows), 0, 0, age, 1.0, away)
    came = [lead for lead in range(1, 7) if 47 + lead not in skipped]
    assert share == len(came) / 6
    assert away.tolist() == [float(max([lead for lead in came if lead <= k], default=0)) for k in range(1, 7)]


def test_a_window_too_short_for_the_horizon_teaches_nothing() -> None:
    short = EngineSettings(model=NetworkSettings(hidden=8, horizon=24, context=16), input=InputSettings())
    learned = [swinging(f"s{i}", 1.4 if i % 2 else -0.4, 1000, i) for i in range(4)]
    _, rows = served(Forecaster(short, network_of(learned, short), "a"), learned)
    assert not rows["own_map"].any()


def test_constants_that_are_stated_twice_agree() -> None:
    assert adaptation.UNIT == kernels.GAP_UNIT


def test_the_basis_is_orthonormal_and_white() -> None:
    """Responses are orthonormal; places of training windows along directions have a mean square of about one."""
    learned = [swinging(f"s{i}", 1.4 if i % 2 else -0.4, 2000, i) for i in range(6)]
    data = prepare(learned, ENGINE)
    network = network_of(learned)
    product = network.responses[0] @ network.responses[0].T
    torch.testing.assert_close(product, torch.eye(RESPONSES), atol=1e-5, rtol=0)
    windows = torch.cat([torch.from_numpy(data.windows(piece)[:, 0]) for piece in data.pieces()])
    along = (windows @ network.directions[0].detach())[:, :DIRECTIONS]
    assert 0.2 < float(along.square().mean()) < 5
    assert ORIGINS * adaptation.stride(ENGINE.model.horizon) >= ENGINE.model.horizon


def test_readings_that_say_nothing_give_no_basis() -> None:
    """Of streams that never move no direction is known: a later training finds one, which it would not beside another."""
    still = [Series(f"s{i}", 60_000 * np.arange(1, 401), np.full((400, 1), float(i))) for i in range(4)]
    assert network_of(still).basis == 0


def test_long_windows_take_no_more_memory_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments grow with the square of the window: where they would be too large, fewer streams are looked at, the longest."""
    looked, moments = list[Piece](), basis._moments

    def counted(data: TrainingData, part: Piece, *more: Any) -> Any:
        looked.append(part)
        return moments(data, part, *more)

    monkeypatch.setattr(basis, "_moments", counted)
    learned = [swinging(f"s{i}", 1.4 if i % 2 else -0.4, 200, i) for i in range(12)]
    network_of(learned)
    monkeypatch.setattr(basis, "MOST_BYTES", 6 * 8 * 24**2)
    network_of(learned)
    monkeypatch.setattr(basis, "MOST_BYTES", 0)
    network_of(learned)
    assert len(looked) == 12 + 6 + basis.LEAST_PARTS
