"""Cells: the equations give what torch.nn gives."""

from __future__ import annotations

import pytest
import torch

from models.cells import elman_cell, lstm_cell

F, H = 16, 24


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) * 2 - 1


@pytest.mark.parametrize("rows", [1, 16, 256])
def test_lstm_cell_equals_torch(rows: int) -> None:
    """The same weights, transposed, give hidden and cell of torch.nn.LSTMCell."""
    theirs = torch.nn.LSTMCell(F, H)
    inputs, hidden, cell = drawn(rows, F), drawn(rows, H), drawn(rows, H) * 2
    ours = lstm_cell(inputs, hidden, cell, theirs.weight_ih.t(), theirs.weight_hh.t(), theirs.bias_ih + theirs.bias_hh)
    torch.testing.assert_close(ours, theirs(inputs, (hidden, cell)))


def test_lstm_gates_at_their_ends() -> None:
    """A shut forget gate clears the memory, a shut input gate lets nothing in, a shut output gate gives nothing out."""
    inputs, hidden, cell = torch.zeros(1, 1), torch.zeros(1, 1), torch.full((1, 1), 3.0)
    zero, shut, opened = torch.zeros(1, 4), -100.0, 100.0

    def run(enter: float, keep: float, candidate: float, leave: float) -> tuple[float, float]:
        bias = torch.tensor([enter, keep, candidate, leave])
        after_hidden, after_cell = lstm_cell(inputs, hidden, cell, zero, zero, bias)
        return after_hidden.item(), after_cell.item()

    assert run(shut, opened, opened, shut) == (0.0, 3.0)
    assert run(opened, shut, opened, opened) == pytest.approx((0.7615942, 1.0))
    assert run(opened, opened, opened, opened)[1] == 4.0


@pytest.mark.parametrize("rows", [1, 16])
def test_elman_cell_equals_torch(rows: int) -> None:
    """The same weights, transposed, give hidden of torch.nn.RNNCell."""
    theirs = torch.nn.RNNCell(F, H)
    inputs, hidden = drawn(rows, F), drawn(rows, H)
    ours = elman_cell(inputs, hidden, theirs.weight_ih.t(), theirs.weight_hh.t(), theirs.bias_ih + theirs.bias_hh)
    torch.testing.assert_close(ours, theirs(inputs, hidden))


def test_cells_leave_their_arguments_alone() -> None:
    """A cell is a pure function: the caller's state may be stepped again."""
    inputs, hidden, cell = drawn(4, F), drawn(4, H), drawn(4, H)
    weights = drawn(F, 4 * H), drawn(H, 4 * H), drawn(4 * H)
    kept = [tensor.clone() for tensor in (inputs, hidden, cell, *weights)]
    first = lstm_cell(inputs, hidden, cell, *weights)
    again = lstm_cell(inputs, hidden, cell, *weights)
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, kept, (inputs, hidden, cell, *weights)))
