"""Recurrent cells, written out so that their equations can be read. Pure functions on tensors; they know no weights' origin.

A cell takes one step: what comes in now and the state so far, the new state out. Weights stand on the right of a product
(inputs x gates), the transpose of what `torch.nn` keeps; the order of the gates is torch's. Each cell is one or two matrix
products and elementwise functions, so a row's result does not depend on the other rows (architecture 3).
B rows, F inputs, H hidden, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def lstm_cell(
    inputs: Tensor, hidden: Tensor, cell: Tensor, weight_in: Tensor, weight_hidden: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of a memory cell with input, forget and output gates (Gers et al. 2000).

    With z, z_i, z_f, z_o each an affine map of inputs and hidden:

        cell'   = f(z_f) cell + f(z_i) g(z)      f: the sigmoid, 0 (shut) to 1 (open);  g, h: tanh
        hidden' = f(z_o) h(cell')

    The cell is added to and not replaced unless the forget gate shuts: that is why its gradient does not vanish.

    Args:
        inputs: (B, F).
        hidden: (B, H), the output of the step before.
        cell: (B, H), the memory.
        weight_in: (F, 4H), columns in the order z_i, z_f, z, z_o.
        weight_hidden: (H, 4H), likewise.
        bias: (4H,).

    Returns:
        hidden' and cell', new tensors (B, H).
    """
    gates = torch.addmm(torch.addmm(bias, inputs, weight_in), hidden, weight_hidden)  # (B, 4H)
    enter, keep, candidate, leave = gates.chunk(4, dim=1)  # (B, H) each
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * _tanh(candidate)
    return torch.sigmoid(leave) * _tanh(cell), cell


def elman_cell(
    inputs: Tensor,
    hidden: Tensor,
    weight_in: Tensor,
    weight_hidden: Tensor,
    bias: Tensor,
    activation: Callable[[Tensor], Tensor] = torch.tanh,
) -> Tensor:
    """One step of the plain recurrent network (Elman 1990): a_t = g_a(W_h a_{t-1} + W_i x_t + b_a).

    The same weights multiply the state at every step, so what is early in a long sequence fades or explodes.

    Args:
        inputs: x_t, (B, F).
        hidden: a_{t-1}, (B, H).
        weight_in: W_i, (F, H).
        weight_hidden: W_h, (H, H).
        bias: b_a, (H,).
        activation: g_a, elementwise.

    Returns:
        a_t, a new tensor (B, H).
    """
    return activation(torch.addmm(torch.addmm(bias, inputs, weight_in), hidden, weight_hidden))


def output_of_current(hidden: Tensor, weight_hidden: Tensor, bias: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Elman's output, the common form: y_t = g_y(W_y a_t + b_y). It reads the state that has already seen x_t.

    Args:
        hidden: a_t, (B, H), what `elman_cell` has just returned.
        weight_hidden: W_y, (H, O).
        bias: b_y, (O,).
        activation: g_y.

    Returns:
        y_t, a new tensor (B, O).
    """
    return activation(torch.addmm(bias, hidden, weight_hidden))


def output_of_previous(
    previous_hidden: Tensor,
    inputs: Tensor,
    weight_hidden: Tensor,
    weight_in: Tensor,
    bias: Tensor,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """The output with a path of its own for the input: y_t = g_y(W_y a_{t-1} + W_o x_t + b_y).

    It reads the state from before x_t, the very one that `elman_cell` is given; x_t reaches y_t through W_o alone. Without
    W_o it is `output_of_current` one step late.

    Args:
        previous_hidden: a_{t-1}, (B, H).
        inputs: x_t, (B, F).
        weight_hidden: W_y, (H, O).
        weight_in: W_o, (F, O).
        bias: b_y, (O,).
        activation: g_y.

    Returns:
        y_t, a new tensor (B, O).
    """
    return activation(torch.addmm(torch.addmm(bias, inputs, weight_in), previous_hidden, weight_hidden))


def gru_cell(
    inputs: Tensor, hidden: Tensor, weight_in: Tensor, weight_hidden: Tensor, bias_in: Tensor, bias_hidden: Tensor
) -> Tensor:
    """One step of a gated recurrent unit (Cho et al. 2014), in the arrangement of cuDNN and `torch.nn`.

    With i an affine map of inputs and h one of hidden, each with a part for r, z and n:

        r       = f(i_r + h_r)                   f: the sigmoid;  r: how much of the old state the candidate sees
        z       = f(i_z + h_z)                   z: how much of the old state stays
        hidden' = z hidden + (1 - z) tanh(i_n + r h_n)

    Args:
        inputs: (B, F).
        hidden: (B, H).
        weight_in: (F, 3H), columns in the order r, z, n.
        weight_hidden: (H, 3H), likewise.
        bias_in: (3H,).
        bias_hidden: (3H,); apart from bias_in because r multiplies its part for n.

    Returns:
        hidden', a new tensor (B, H).
    """
    reset_in, keep_in, candidate_in = torch.addmm(bias_in, inputs, weight_in).chunk(3, dim=1)  # (B, H) each
    reset_hidden, keep_hidden, candidate_hidden = torch.addmm(bias_hidden, hidden, weight_hidden).chunk(3, dim=1)
    keep = torch.sigmoid(keep_in + keep_hidden)
    candidate = _tanh(candidate_in + torch.sigmoid(reset_in + reset_hidden) * candidate_hidden)
    return keep * hidden + (1 - keep) * candidate


def _tanh(numbers: Tensor) -> Tensor:
    """tanh within 2e-7, from the sigmoid: torch takes a third of the time for it."""
    return 2 * torch.sigmoid(2 * numbers) - 1
