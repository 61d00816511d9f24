"""Deep recurrent networks of any cell, and the full connection after: what the arrangements are built of.

A `Stack` is L layers of one cell of `models.cells`, each fed by the hidden of the one below. Its state is one tensor, so that a
row keeps it in one field: hidden, and for an LSTM the cell.
B rows, F inputs, H hidden, L layers, P parts of the state (2 for an LSTM, else 1), S steps, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from config.settings import NetworkSettings
from models.cells import elman_cell, gru_cell, lstm_cell

#: Widths of products are padded to a multiple of this: others may make a row depend on the batch (architecture 3).
WIDTH_UNIT = 8
#: Affine maps of a cell, by its name.
GATES = {"lstm": 4, "gru": 3, "elman": 1}

_FUSED: dict[str, Callable[..., tuple[Tensor, ...]]] = {"lstm": torch.lstm, "gru": torch.gru, "elman": torch.rnn_tanh}


def padded(width: int) -> int:
    """The next width that products may have."""
    return -(-width // WIDTH_UNIT) * WIDTH_UNIT


def parts(cell: str) -> int:
    """P: how many tensors a cell carries."""
    return 2 if cell == "lstm" else 1


class Layer(nn.Module):
    """The weights of one cell, all zero until they are drawn or loaded."""

    def __init__(self, cell: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell, self.hidden = cell, hidden
        self.weight_in = nn.Parameter(torch.zeros(inputs, GATES[cell] * hidden))
        self.weight_hidden = nn.Parameter(torch.zeros(hidden, GATES[cell] * hidden))
        self.bias = nn.Parameter(torch.zeros(GATES[cell] * hidden))
        if cell == "gru":
            self.bias_hidden = nn.Parameter(torch.zeros(GATES[cell] * hidden))

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """One step: inputs (B, F) and state (B, P, H) to the new state (B, P, H)."""
        hidden = state[:, 0].contiguous()
        weights = self.weight_in, self.weight_hidden, self.bias
        if self.cell == "lstm":
            return torch.stack(lstm_cell(inputs, hidden, state[:, 1].contiguous(), *weights), 1)
        if self.cell == "gru":
            return gru_cell(inputs, hidden, *weights, self.bias_hidden)[:, None]
        return elman_cell(inputs, hidden, *weights)[:, None]

    def run(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """S steps in one call of torch: inputs (S, B, F) to the hidden of each (S, B, H) and the state after the last."""
        second = self.bias_hidden if self.cell == "gru" else torch.zeros_like(self.bias)
        weights = [self.weight_in.t(), self.weight_hidden.t(), self.bias, second]
        before = [state[None, :, part].contiguous() for part in range(state.shape[1])]  # (1, B, H) each
        start = before if self.cell == "lstm" else before[0]
        output, *after = _FUSED[self.cell](inputs, start, weights, True, 1, 0.0, self.training, False, False)
        return output, torch.stack([part[0] for part in after], 1)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """First weights: small and even; an LSTM's forget gate is open."""
        for weight in (self.weight_in, self.weight_hidden):
            weight.uniform_(-(self.hidden**-0.5), self.hidden**-0.5, generator=generator)
        if self.cell == "lstm":
            self.bias[self.hidden : 2 * self.hidden] = 1.0


class Stack(nn.Module):
    """L layers of one cell."""

    def __init__(self, shape: NetworkSettings, inputs: int) -> None:
        super().__init__()
        self._state = shape.layers, parts(shape.cell), shape.hidden
        widths = [inputs, *[shape.hidden] * (shape.layers - 1)]
        self.layers = nn.ModuleList(Layer(shape.cell, width, shape.hidden) for width in widths)

    def zero(self, rows: int) -> Tensor:
        """The state before the first step, (B, L, P, H)."""
        return torch.zeros(rows, *self._state)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """One step: inputs (B, F) and state (B, L, P, H) to the new state, a new tensor."""
        states = []
        for i, layer in enumerate(self.layers):
            states.append(layer(inputs, state[:, i]))
            inputs = states[-1][:, 0]  # the hidden of the layer below
        return torch.stack(states, 1)

    def run(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """S calls of `forward` at once, for training: equal to them but for rounding.

        Args:
            inputs: (S, B, F).
            state: (B, L, P, H), before the first step.

        Returns:
            The top layer's hidden after each step, (S, B, H); the state after the last.
        """
        states = []
        for i, layer in enumerate(self.layers):
            inputs, after = cast(Layer, layer).run(inputs, state[:, i])
            states.append(after)
        return inputs, torch.stack(states, 1)

    def draw(self, generator: torch.Generator) -> None:
        """First weights of all layers."""
        for layer in self.layers:
            cast(Layer, layer).draw(generator)


def top(state: Tensor) -> Tensor:
    """The hidden of the top layer: state (B, L, P, H) to (B, H)."""
    return state[:, -1, 0].contiguous()


class Full(nn.Module):
    """A full connection, (N, H) to (N, O). As constructed its weights are zero and its bias is the one given."""

    def __init__(self, hidden: int, bias: Tensor) -> None:
        super().__init__()
        self._outputs = len(bias)
        self.weight = nn.Parameter(torch.zeros(hidden, padded(len(bias))))
        self.bias = nn.Parameter(torch.zeros(padded(len(bias))))
        with torch.no_grad():
            self.bias[: len(bias)] = bias

    def forward(self, hidden: Tensor) -> Tensor:
        """An affine map of hidden; a new tensor, contiguous."""
        return torch.addmm(self.bias, hidden, self.weight)[:, : self._outputs].contiguous()


def level_bias(shape: NetworkSettings, times: int) -> Tensor:
    """The bias of a head of quantiles before training: about half a spread to each side at the default levels; (times Q,)."""
    return torch.tensor([(level - 0.5) * 1.25 for level in shape.levels]).repeat(times)
