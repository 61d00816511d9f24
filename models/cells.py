"""Recurrent cells, written out so that their equations can be read. Pure functions on tensors; they know no weights' origin.

A cell takes one step: what comes in now and the state so far, the new state out. Weights stand on the right of a product
(inputs x gates), the transpose of what `torch.nn` keeps; the order of the gates is torch's. Each cell is one or two matrix
products and elementwise functions, so a row's result does not depend on the other rows (architecture 3).
B rows, F inputs, H hidden.
"""

from __future__ import annotations

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
    cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def elman_cell(inputs: Tensor, hidden: Tensor, weight_in: Tensor, weight_hidden: Tensor, bias: Tensor) -> Tensor:
    """One step of the plain recurrent network (Elman 1990): a_t = tanh(W_h a_{t-1} + W_i x_t + b_a).

    The same weights multiply the state at every step, so what is early in a long sequence fades or explodes.

    Args:
        inputs: x_t, (B, F).
        hidden: a_{t-1}, (B, H).
        weight_in: W_i, (F, H).
        weight_hidden: W_h, (H, H).
        bias: b_a, (H,).

    Returns:
        a_t, a new tensor (B, H).
    """
    return torch.tanh(torch.addmm(torch.addmm(bias, inputs, weight_in), hidden, weight_hidden))
