"""Many to many, of equal length: every reading in, a forecast out, straight from the carried state by a full connection.

    a_t = cell(x_t, a_{t-1})        q_{t,k} = x_t + s_t (W a_t + b)_k        k = 1..K;  s: the stream's spread

The plain form of what the default forecaster does, of any cell and depth. B rows, T targets, K leads, Q levels, S steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from config.settings import EngineSettings
from models import scaling
from models.carried import Carried
from models.engine import QuantileForecasts, Readings
from models.recurrent import Full, Stack, level_bias, top
from models.sequences import Leads
from models.tiles import through


class Network(nn.Module):
    """A stack, and a head for all targets, leads and levels."""

    def __init__(self, engine: EngineSettings) -> None:
        super().__init__()
        model = engine.model
        self._shape = len(engine.targets), model.horizon, len(model.levels)
        self.stack = Stack(model, scaling.input_width(engine))
        self.head = Full(model.hidden, level_bias(model, len(engine.targets) * model.horizon))

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, F) and state (B, L, P, H) to raw quantiles (B, T, K, Q), in spreads from the newest value, and the state."""
        state = self.stack(inputs, state)
        return self.quantiles(top(state)), state

    def quantiles(self, hidden: Tensor) -> Tensor:
        """(N, H) to (N, T, K, Q)."""
        raw: Tensor = self.head(hidden)
        return raw.view(-1, *self._shape)

    def draw(self, generator: torch.Generator) -> None:
        """First weights."""
        self.stack.draw(generator)


class ManyToMany(Carried):
    """The engine."""

    def advance(self, rows: np.ndarray, readings: Readings) -> QuantileForecasts:
        """A forecast from each row's new state."""
        scale = scaling.observe(rows, readings)
        scaling.stamp(rows, readings)
        raw = self.raw(rows)
        through(self._network.step, (self.inputs(readings, scale), rows["recurrent"]), (raw, rows["recurrent"]))
        return self.forecasts(rows, scale, raw)


class Lesson(Leads[Network]):
    """Pinball loss of all leads at every reading."""

    def loss(self, network: Network, at: Tensor, real: Tensor, state: Tensor) -> Tensor:
        """At S consecutive places of B sequences."""
        hidden, _ = network.stack.run(self.inputs[at], state)  # (S, B, H)
        quantiles = network.quantiles(hidden.flatten(0, 1))
        return self.pinball(quantiles, at, real)

    def burn_in(self, network: Network, at: Tensor) -> Tensor:
        """The stack alone."""
        return network.stack.run(self.inputs[at], network.stack.zero(at.shape[1]))[1]
