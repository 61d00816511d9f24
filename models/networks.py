"""The default forecaster network, and the naive one that serves while there are no weights. One interface, carried state.

A network turns scaled features and windows into scaled quantiles. It knows no sensor units, no rows and no time; what its
inputs mean is `models.features`' affair. Quantiles come raw: they may cross until the caller, who calibrates them first, has
sorted them. B rows, T targets, W window, K leads, Q levels, F features, H hidden, L layers, S steps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn

from config.settings import EngineSettings, NetworkSettings
from models.adaptation import DIRECTIONS, RESPONSES
from models.cells import lstm_cell
from models.features import feature_count, window_width

#: Widths of products are padded to a multiple of this: others may make a row depend on the batch (architecture 3).
WIDTH_UNIT = 8
#: The naive one-step interval, in spreads, and where its growth with the lead ends: a stream's spread changes little in a day.
NAIVE_STEP = 0.25
NAIVE_REACH = 1.5


def untrained(levels: Sequence[float]) -> list[float]:
    """The quantiles of a network that has learned nothing, in spreads from the last value: -0.5, 0, 0.5 at the default levels."""
    return [(level - 0.5) * 1.25 for level in levels]


class Network(nn.Module):
    """Stacked LSTM layers with a direct head for K leads x Q levels, and a linear highway from the window to the leads.

    As constructed, the weights are those of the last value with a fixed interval: recurrent weights and highway are zero.
    `models.training` draws first weights, `models.artifacts` loads them.
    """

    #: Weights that older artifacts do not have: zero there, and no row adapts.
    later = ("directions", "responses")

    def __init__(self, shape: NetworkSettings, channels: int, targets: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.shape, self.channels, self.targets, self.features = shape, channels, targets, features
        self.period_ms = 0  # the season that rows keep a profile of
        hidden = shape.hidden
        self.outputs = len(targets) * shape.horizon * len(shape.levels)
        self.layers = nn.ModuleList(_Layer(features if i == 0 else hidden, hidden) for i in range(shape.layers))
        self.head_weight = nn.Parameter(torch.zeros(hidden, _padded(self.outputs)))  # columns target, lead, level
        self.head_bias = nn.Parameter(torch.zeros(_padded(self.outputs)))
        self.highway = nn.Parameter(torch.zeros(len(targets), window_width(shape), _padded(shape.horizon)))
        # What rows' own maps are in (`models.basis`): found, not trained. Where it is zero rows do not adapt.
        self.directions = nn.Parameter(torch.zeros(len(targets), window_width(shape), _padded(DIRECTIONS)))
        self.responses = nn.Parameter(torch.zeros(len(targets), RESPONSES, shape.horizon))
        with torch.no_grad():
            self.head_bias[: self.outputs] = torch.tensor(untrained(shape.levels)).repeat(len(targets) * shape.horizon)

    @classmethod
    def of(cls, engine: EngineSettings) -> Network:
        """The network of these settings, with the weights of a new one."""
        targets = tuple(engine.channels.index(name) for name in engine.targets)
        return cls(engine.model, len(engine.channels), targets, feature_count(engine))

    def step(self, features: Tensor, windows: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Advance each row by one reading and forecast from its new state.

        Args:
            features: float32 (B, F).
            windows: float32 (B, T, D), what the highway sees (`features.Observation`).
            hidden: float32 (B, L, H).
            cell: float32 (B, L, H).

        Returns:
            Raw quantiles as offsets from the newest reading in spreads, (B, T, K, Q); the windows' places along the directions
            (B, T, DIRECTIONS); hidden and cell (B, L, H). New tensors.
        """
        hidden, cell = self._advance(features, hidden, cell)
        return self._quantiles(hidden[:, -1], windows), self._along(windows), hidden, cell

    def warm(self, features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden and cell after S readings from zero.

        Args:
            features: float32 (S, B, F).
            valid: bool (S, B); a row's state stays as it is in the steps where this is False, which come first. None is all True,
                and is one call of torch for all steps: faster, and equal to the products of `step` but for rounding.

        Returns:
            hidden and cell, float32 (B, L, H), new tensors.
        """
        hidden = features.new_zeros(features.shape[1], self.shape.layers, self.shape.hidden)
        cell = torch.zeros_like(hidden)
        if valid is None:
            return self._through(features, hidden, cell)[1:]
        idle = int((~valid.any(1)).sum())  # rows fill their windows from the newest end: no row has a reading in the first steps
        for now, real in zip(features[idle:], valid[idle:, :, None, None], strict=True):
            moved_hidden, moved_cell = self._advance(now, hidden, cell)
            hidden, cell = torch.where(real, moved_hidden, hidden), torch.where(real, moved_cell, cell)
        return hidden, cell

    def unroll(
        self, features: Tensor, windows: Tensor | None, hidden: Tensor, cell: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """S calls of `step` at once, for training: equal to them but for rounding, and several times faster.

        Args:
            features: float32 (S, B, F).
            windows: float32 (S, B, T, D); None leaves the highway out.
            hidden: float32 (B, L, H), before the first step.
            cell: float32 (B, L, H).
            kept: float32 (S, B, H), what the top hidden is multiplied with before the head sees it (dropout); None is 1.

        Returns:
            Raw quantiles (S, B, T, K, Q); hidden and cell after the last step, (B, L, H).
        """
        output, after_hidden, after_cell = self._through(features, hidden, cell)
        top = (output if kept is None else output * kept).flatten(0, 1)
        quantiles = self._around(top) if windows is None else self._quantiles(top, windows.flatten(0, 1))
        return quantiles.view(*features.shape[:2], *quantiles.shape[1:]), after_hidden, after_cell

    def _through(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """S steps of the recurrent part at once: the top hidden of each step (S, B, H); hidden and cell after the last."""
        output, states = features, []
        for i, layer in enumerate(self.layers):
            before = hidden[None, :, i].contiguous(), cell[None, :, i].contiguous()
            output, *state = torch.lstm(output, before, layer.as_torch(), True, 1, 0.0, self.training, False, False)  # type: ignore[operator]
            states.append(state)
        after_hidden, after_cell = (torch.cat(layers).transpose(0, 1) for layers in zip(*states, strict=True))
        return output, after_hidden, after_cell

    def _advance(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The recurrent part of one step: each layer's hidden is the next one's input."""
        output, new_hidden, new_cell = features, [], []
        for i, layer in enumerate(self.layers):
            output, memory = layer(output, hidden[:, i].contiguous(), cell[:, i].contiguous())
            new_hidden.append(output)
            new_cell.append(memory)
        return _stacked(new_hidden), _stacked(new_cell)

    def ahead(self, windows: Tensor) -> Tensor:
        """The highway alone: windows (N, T, D) to the offset of each lead (N, T, K)."""
        return _each_target(windows, self.highway)[..., : self.shape.horizon]

    def _along(self, windows: Tensor) -> Tensor:
        """Where windows (N, T, D) lie along the directions (N, T, DIRECTIONS)."""
        return _each_target(windows, self.directions)[..., :DIRECTIONS]

    @property
    def basis(self) -> int:
        """Number of directions and responses, by their bytes; 0 where there are none."""
        if not self.directions.any():
            return 0
        digest = hashlib.sha256(self.directions.detach().numpy().tobytes() + self.responses.detach().numpy().tobytes()).digest()
        return int.from_bytes(digest[:8], "little") or 1

    def _quantiles(self, top: Tensor, windows: Tensor) -> Tensor:
        """Head plus highway: (N, H) and (N, T, D) to (N, T, K, Q). The highway moves all levels of a lead alike."""
        return self._around(top) + self.ahead(windows)[..., None]

    def _around(self, top: Tensor) -> Tensor:
        """The head alone: (N, H) to (N, T, K, Q)."""
        around = torch.addmm(self.head_bias, top, self.head_weight)[:, : self.outputs]  # (N, T K Q)
        return around.reshape(-1, len(self.targets), self.shape.horizon, len(self.shape.levels))


class _Layer(nn.Module):
    """The weights of one LSTM layer."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.weight_in = nn.Parameter(torch.zeros(inputs, 4 * hidden))
        self.weight_hidden = nn.Parameter(torch.zeros(hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        return lstm_cell(inputs, hidden, cell, self.weight_in, self.weight_hidden, self.bias)

    def as_torch(self) -> list[Tensor]:
        """The weights as `torch.lstm` takes them: transposed, and a second bias, which we have no use for."""
        return [self.weight_in.t(), self.weight_hidden.t(), self.bias, torch.zeros_like(self.bias)]


class NaiveNetwork(nn.Module):
    """The last value, with a symmetrical interval that grows with the root of the lead. No weights; state stays zero."""

    basis = 0

    def __init__(self, engine: EngineSettings) -> None:
        super().__init__()
        self.period_ms = 0
        shape = engine.model
        self.responses = torch.zeros(len(engine.targets), RESPONSES, shape.horizon)
        growth = [min(NAIVE_STEP * math.sqrt(lead), NAIVE_REACH) for lead in range(1, shape.horizon + 1)]
        normal = [NormalDist().inv_cdf(level) if level != 0.5 else 0.0 for level in shape.levels]
        self._state = (shape.layers, shape.hidden)
        self._offsets = torch.tensor([[z * reach for z in normal] for reach in growth])  # (K, Q)

    def step(self, features: Tensor, windows: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `Network.step`; nothing is read of the inputs but their sizes."""
        offsets = self._offsets.expand(*windows.shape[:2], -1, -1).clone()
        return offsets, windows.new_zeros(*windows.shape[:2], DIRECTIONS), torch.zeros_like(hidden), torch.zeros_like(cell)

    def warm(self, features: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `Network.warm`."""
        zero = features.new_zeros(features.shape[1], *self._state)
        return zero, zero.clone()


def _each_target(windows: Tensor, maps: Tensor) -> Tensor:
    """Windows (N, T, D) through the map of their target, (T, D, M): (N, T, M)."""
    return _stacked([windows[:, t].contiguous() @ one for t, one in enumerate(maps)])


def _stacked(parts: list[Tensor]) -> Tensor:
    """Tensors (B, ...) as one (B, N, ...); no copy of a single one."""
    return parts[0].unsqueeze(1) if len(parts) == 1 else torch.stack(parts, 1)


def _padded(width: int) -> int:
    return -(-width // WIDTH_UNIT) * WIDTH_UNIT
