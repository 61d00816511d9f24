"""Networks: one interface with carried state; a row's result is its own affair; training computes what serving does."""

from __future__ import annotations

import pytest
import torch

from config.settings import EngineSettings, InputSettings, NetworkSettings
from models.arithmetic import seeded_network
from models.features import window_width
from models.networks import NaiveNetwork, Network

SHAPES = {
    "default": EngineSettings(),
    "deep, two of three channels, odd widths": EngineSettings(
        input=InputSettings(values={"a": "a", "b": "b", "c": "c"}),
        model=NetworkSettings(hidden=24, layers=3, horizon=7, levels=(0.05, 0.25, 0.5, 0.9), context=40, targets=("c", "a")),
    ),
}


pytestmark = pytest.mark.usefixtures("one_thread")  # as the daemon computes


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def engine(request: pytest.FixtureRequest) -> EngineSettings:
    return request.param


class Inputs:
    """Random inputs of S steps for B rows."""

    def __init__(self, network: Network, steps: int, rows: int) -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator) * 2 - 1

        shape = network.shape
        self.features = draw(steps, rows, network.features)
        self.windows = draw(steps, rows, len(network.targets), window_width(shape))
        self.hidden = draw(rows, shape.layers, shape.hidden)
        self.cell = draw(rows, shape.layers, shape.hidden)


def stepped(network: Network, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    hidden, cell, quantiles = inputs.hidden, inputs.cell, []
    for features, windows in zip(inputs.features, inputs.windows, strict=True):
        now, _, hidden, cell = network.step(features, windows, hidden, cell)
        quantiles.append(now)
    return torch.stack(quantiles), hidden, cell


def test_training_equals_serving(engine: EngineSettings) -> None:
    """An unrolled training forward is the daemon's step after step, but for rounding."""
    network = seeded_network(engine)
    inputs = Inputs(network, steps=20, rows=5)
    unrolled = network.unroll(inputs.features, inputs.windows, inputs.hidden, inputs.cell)
    torch.testing.assert_close(unrolled, stepped(network, inputs), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_row_is_the_same_in_either_tile_and_anywhere_in_it(engine: EngineSettings) -> None:
    """Bytes of a row depend neither on the tile's shape nor on its place nor on its neighbours."""
    network = seeded_network(engine)
    inputs = Inputs(network, steps=1, rows=256)
    columns = inputs.features[0], inputs.windows[0], inputs.hidden, inputs.cell
    whole = network.step(*columns)
    for shift in (0, 5, 200):
        order = torch.arange(256).roll(shift)
        for size in (16, 256):
            for first in range(0, 256, size):
                part = order[first : first + size]
                for all_rows, some in zip(whole, network.step(*(column[part] for column in columns)), strict=True):
                    assert torch.equal(all_rows[part], some)


@torch.inference_mode()
def test_warm_is_the_recurrent_part_of_step(engine: EngineSettings) -> None:
    """Rebuilding hidden and cell from a window gives, to the bit, what stepping through it gives."""
    network = seeded_network(engine)
    inputs = Inputs(network, steps=12, rows=16)
    inputs.hidden.zero_()
    inputs.cell.zero_()
    warmed = network.warm(inputs.features, torch.ones(12, 16, dtype=torch.bool))
    assert all(map(torch.equal, warmed, stepped(network, inputs)[1:]))


@torch.inference_mode()
def test_warm_at_once_is_warm_step_by_step(engine: EngineSettings) -> None:
    """One call for all steps gives the same but for rounding, and each row's bytes wherever it stands in the tile."""
    network = seeded_network(engine)
    features = Inputs(network, steps=12, rows=16).features
    at_once = network.warm(features, None)
    for one, other in zip(at_once, network.warm(features, torch.ones(12, 16, dtype=torch.bool)), strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=2e-6)
    order = torch.arange(16).roll(5)
    assert all(torch.equal(one[order], other) for one, other in zip(at_once, network.warm(features[:, order], None), strict=True))


@torch.inference_mode()
def test_warm_of_a_young_row_starts_with_its_first_reading(engine: EngineSettings) -> None:
    """Steps before a row's first reading leave its state at zero."""
    network = seeded_network(engine)
    features = Inputs(network, steps=12, rows=16).features
    valid = torch.ones(12, 16, dtype=torch.bool)
    valid[:5] = False
    late = network.warm(features, valid)
    assert all(map(torch.equal, late, network.warm(features[5:], valid[5:])))


def test_a_new_network_says_last_value_with_an_interval(engine: EngineSettings) -> None:
    """Before training the median is the newest reading and quantiles rise with their level."""
    network = Network.of(engine)
    inputs = Inputs(network, steps=1, rows=2)
    quantiles, *_ = network.step(inputs.features[0], inputs.windows[0], inputs.hidden, inputs.cell)
    shape = engine.model
    assert quantiles.shape == (2, len(engine.targets), shape.horizon, len(shape.levels))
    assert torch.equal(quantiles[..., shape.levels.index(0.5)], torch.zeros(quantiles.shape[:-1]))
    assert (quantiles.diff(dim=-1) > 0).all()


def test_the_highway_moves_all_levels_of_its_target_and_lead_alike() -> None:
    """The linear part is per target and lead, and shared by the levels."""
    network = Network.of(SHAPES["deep, two of three channels, odd widths"])
    inputs = Inputs(network, steps=1, rows=3)
    columns = inputs.features[0], inputs.windows[0], inputs.hidden, inputs.cell
    before, *_ = network.step(*columns)
    with torch.no_grad():
        network.highway[1, 39, 4] = 2.0  # second target, newest reading, lead 5
    moved = network.step(*columns)[0] - before
    expected = torch.zeros_like(moved)
    expected[:, 1, 4] = 2 * inputs.windows[0, :, 1, 39, None]
    torch.testing.assert_close(moved, expected)


def test_unroll_without_windows_leaves_the_highway_out() -> None:
    """Head and highway add up."""
    network = seeded_network(SHAPES["default"])
    inputs = Inputs(network, steps=3, rows=4)
    whole, _, _ = network.unroll(inputs.features, inputs.windows, inputs.hidden, inputs.cell)
    head, _, _ = network.unroll(inputs.features, None, inputs.hidden, inputs.cell)
    ahead = network.ahead(inputs.windows.flatten(0, 1)).view(head.shape[:-1])
    torch.testing.assert_close(whole, head + ahead[..., None])


def test_dropout_hides_top_hidden_values_from_the_head() -> None:
    """With nothing kept, only the head's bias is left."""
    network = seeded_network(SHAPES["default"])
    inputs = Inputs(network, steps=3, rows=4)
    nothing = torch.zeros(3, 4, network.shape.hidden)
    hidden_away, _, _ = network.unroll(inputs.features, None, inputs.hidden, inputs.cell, nothing)
    torch.testing.assert_close(hidden_away, network.head_bias.view(1, 1, 1, 24, 3).expand(3, 4, 1, 24, 3))


def test_naive_network_is_the_last_value_with_a_growing_symmetrical_interval(engine: EngineSettings) -> None:
    """Same interface, no recurrent work: the state stays zero whatever comes in."""
    naive, shapes = NaiveNetwork(engine), Network.of(engine)
    inputs = Inputs(shapes, steps=2, rows=5)
    quantiles, _, hidden, cell = naive.step(inputs.features[0], inputs.windows[0], inputs.hidden, inputs.cell)
    levels = engine.model.levels
    assert quantiles.shape == (5, len(engine.targets), engine.model.horizon, len(levels))
    assert not quantiles[..., levels.index(0.5)].any()
    width = quantiles[0, 0, :, -1] - quantiles[0, 0, :, 0]
    assert (width.diff() >= 0).all()
    assert width[0] > 0
    assert not hidden.any()
    assert not cell.any()
    assert [tuple(state.shape) for state in naive.warm(inputs.features, torch.ones(2, 5, dtype=torch.bool))] == [
        tuple(hidden.shape)
    ] * 2
