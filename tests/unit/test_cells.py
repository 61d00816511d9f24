"""Cells: the equations give what torch.nn gives, and what a hand calculates.

The hand uses ln 3, because sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4 and tanh(ln 3) = 4/5.
"""

from __future__ import annotations

import math

import pytest
import torch

from models.cells import elman_cell, gru_cell, lstm_cell, output_of_current, output_of_previous

F, H = 16, 24
LN3 = math.log(3)


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


@pytest.mark.parametrize("rows", [1, 16])
def test_elman_cell_with_another_activation_equals_torch(rows: int) -> None:
    """g_a is the caller's choice: relu gives torch.nn.RNNCell with relu."""
    theirs = torch.nn.RNNCell(F, H, nonlinearity="relu")
    inputs, hidden = drawn(rows, F), drawn(rows, H)
    bias = theirs.bias_ih + theirs.bias_hh
    ours = elman_cell(inputs, hidden, theirs.weight_ih.t(), theirs.weight_hh.t(), bias, torch.relu)
    torch.testing.assert_close(ours, theirs(inputs, hidden))


@pytest.mark.parametrize("rows", [1, 16])
def test_gru_cell_equals_torch(rows: int) -> None:
    """The same weights, transposed, give hidden of torch.nn.GRUCell."""
    theirs = torch.nn.GRUCell(F, H)
    inputs, hidden = drawn(rows, F), drawn(rows, H)
    ours = gru_cell(inputs, hidden, theirs.weight_ih.t(), theirs.weight_hh.t(), theirs.bias_ih, theirs.bias_hh)
    torch.testing.assert_close(ours, theirs(inputs, hidden))


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_elman_step_by_hand() -> None:
    """Two units. Before tanh: 1 * 2 - 0.4 * 3 - 0.8 + ln 3 = ln 3, and 0.5 * 2 + 0.2 * 3 - 1.6 - ln 3 = -ln 3."""
    weight_hidden = torch.tensor([[-0.4, 0.2], [0.0, 0.0]], dtype=torch.float64)  # from a unit (row) to a unit (column)
    bias = torch.tensor([-0.8 + LN3, -1.6 - LN3], dtype=torch.float64)
    after = elman_cell(row(2), row(3, 7), row(1, 0.5), weight_hidden, bias)
    torch.testing.assert_close(after, row(0.8, -0.8))


def test_lstm_step_by_hand() -> None:
    """c' = 1/4 * 2 + 3/4 * 4/5 = 1.1, and 3/4 tanh(1.1) = 3/4 * 0.8004990 = 0.6003743: each gate map adds up to +-ln 3."""
    weight_in, weight_hidden = row(1, -1, 2, 0), row(0, 1, -1, 2)  # z_i, z_f, z, z_o
    bias = torch.tensor([LN3 - 1, -LN3 + 1 - 5, LN3 - 2 + 5, LN3 - 10], dtype=torch.float64)
    hidden, cell = lstm_cell(row(1), row(5), row(2), weight_in, weight_hidden, bias)
    torch.testing.assert_close(cell, row(1.1))
    assert hidden.item() == pytest.approx(0.6003743, abs=5e-8)


def test_gru_step_by_hand() -> None:
    """r = 3/4, z = 1/4, n = tanh(0.5 ln 3 + 3/4 * (2/3) ln 3) = 4/5; hidden' = 1/4 * 2 + 3/4 * 4/5 = 1.1."""
    weight_in, weight_hidden = row(LN3 - 1, 0, 0), row(0, -LN3 / 2, LN3 / 3)  # r, z, n
    bias_in, bias_hidden = torch.tensor([[1, 0, LN3 / 2], [0, 0, 0]], dtype=torch.float64)
    hidden = gru_cell(row(1), row(2), weight_in, weight_hidden, bias_in, bias_hidden)
    torch.testing.assert_close(hidden, row(1.1))


def test_output_of_current_by_hand() -> None:
    """y_t = g_y(W_y a_t + b_y): 2 * 0.5 - 3 * 1 + 0.25 = -1.75, and g_y is applied to that."""
    weight, bias = torch.tensor([[2.0], [-3.0]], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)
    assert output_of_current(row(0.5, 1), weight, bias, torch.negative).item() == 1.75


def test_output_of_previous_by_hand() -> None:
    """y_t = g_y(W_y a_{t-1} + W_o x_t + b_y): 2 * 0.5 - 3 * 1 + 10 * 0.2 + 0.25 = 0.25."""
    weight, bias = torch.tensor([[2.0], [-3.0]], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)
    assert output_of_previous(row(0.5, 1), row(0.2), weight, row(10), bias, torch.negative).item() == -0.25


def test_output_forms_differ_by_one_step() -> None:
    """Along a sequence the previous form without W_o says at t what the current form, torch's, said at t - 1."""
    theirs, readout = torch.nn.RNN(F, H), torch.nn.Linear(H, 3)
    inputs, hidden = drawn(6, 2, F), torch.zeros(2, H)
    expected = torch.sigmoid(readout(theirs(inputs)[0]))  # (T, B, 3)
    weight_in, weight_hidden = theirs.weight_ih_l0.t(), theirs.weight_hh_l0.t()
    current, previous = [], []
    for now in inputs:
        shut = torch.zeros(F, 3)
        previous.append(output_of_previous(hidden, now, readout.weight.t(), shut, readout.bias, torch.sigmoid))
        hidden = elman_cell(now, hidden, weight_in, weight_hidden, theirs.bias_ih_l0 + theirs.bias_hh_l0)
        current.append(output_of_current(hidden, readout.weight.t(), readout.bias, torch.sigmoid))
    torch.testing.assert_close(torch.stack(current), expected)
    torch.testing.assert_close(torch.stack(previous[1:]), expected[:-1])
    assert not torch.allclose(previous[1], current[1], atol=1e-3)


def test_cells_leave_their_arguments_alone() -> None:
    """A cell is a pure function: the caller's state may be stepped again."""
    inputs, hidden, cell = drawn(4, F), drawn(4, H), drawn(4, H)
    weights = drawn(F, 4 * H), drawn(H, 4 * H), drawn(4 * H)
    kept = [tensor.clone() for tensor in (inputs, hidden, cell, *weights)]
    first = lstm_cell(inputs, hidden, cell, *weights)
    again = lstm_cell(inputs, hidden, cell, *weights)
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, kept, (inputs, hidden, cell, *weights)))
