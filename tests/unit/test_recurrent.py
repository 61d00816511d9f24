"""Deep stacks of every cell: torch.nn's results, one step at a time or all at once, and one step by hand."""

from __future__ import annotations

import math

import pytest
import torch

from config.settings import NetworkSettings
from models.recurrent import Full, Stack, top
from tests.zoo import as_torch

CELLS = ("lstm", "gru", "elman")
S, B, F, H = 7, 16, 8, 16


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) * 2 - 1


def stack(cell: str, layers: int) -> Stack:
    made = Stack(NetworkSettings(kind="many_to_many", cell=cell, hidden=H, layers=layers), F)  # type: ignore[arg-type]
    made.draw(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "bias" in name:
                weight.copy_(drawn(*weight.shape) * 0.3)
    return made.eval()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_equal_torch(cell: str, layers: int) -> None:
    """The hidden of each step, and all layers' states at the end, are those of torch.nn.LSTM, GRU and RNN."""
    ours, theirs = stack(cell, layers), as_torch(stack(cell, layers))
    inputs, state, tops = drawn(S, B, F), ours.zero(B), []
    for now in inputs:
        state = ours(now, state)
        tops.append(top(state))
    expected, after = theirs(inputs)
    torch.testing.assert_close(torch.stack(tops), expected)
    for part, final in enumerate(after if cell == "lstm" else [after]):
        torch.testing.assert_close(state[:, :, part].transpose(0, 1), final)


@pytest.mark.parametrize("cell", CELLS)
def test_a_run_equals_its_steps(cell: str) -> None:
    """What training unrolls is what serving steps."""
    ours, inputs = stack(cell, 2), drawn(S, B, F)
    state = stepped = drawn(*ours.zero(B).shape)
    tops, state = ours.run(inputs, state)
    for now, expected in zip(inputs, tops, strict=True):
        stepped = ours(now, stepped)
        torch.testing.assert_close(top(stepped), expected)
    torch.testing.assert_close(stepped, state)


def test_a_deep_step_by_hand() -> None:
    """Elman, two layers of which one unit is used: tanh(ln 3) = 4/5, then tanh(5/4 ln 3 * 4/5) = 4/5, then a full connection."""
    ours = Stack(NetworkSettings(kind="many_to_many", cell="elman", hidden=8, layers=2), 8)
    with torch.no_grad():
        ours.layers[0].weight_in[0, 0] = math.log(3) / 2
        ours.layers[1].weight_in[0, 0] = math.log(3) * 5 / 4
    state = ours(torch.tensor([[2.0, *[0.0] * 7]]), ours.zero(1))
    torch.testing.assert_close(state[0, :, 0, 0], torch.tensor([0.8, 0.8]))
    head = Full(8, torch.tensor([0.5]))
    with torch.no_grad():
        head.weight[0, 0] = 10.0
    assert head(top(state)).item() == pytest.approx(8.5)


def test_a_forget_gate_begins_open() -> None:
    """Only an LSTM has one."""
    made = Stack(NetworkSettings(hidden=H), F)
    made.draw(torch.Generator())
    assert made.layers[0].bias.tolist() == [0.0] * H + [1.0] * H + [0.0] * 2 * H
