"""Many to many, of unequal length: an encoder carried over all readings, a decoder unrolled for the leads (Cho et al. 2014).

    encoder, once a reading         a_t = cell(x_t, a_{t-1})
    decoder, from its state         d_0 = a_t,  m_0 = x_t;      d_k = cell'(m_{k-1}, d_{k-1}),  k = 1..K
    each lead, fed its own median   q_k = m_{k-1} + W d_k + b,  m_k = the median of q_k

Values are in spreads from the stream's level. The decoder has weights of its own; its state is gone after the last lead.
B rows, T targets, K leads, Q levels, S steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from config.settings import EngineSettings
from models import scaling
from models.carried import Carried
from models.engine import QuantileForecasts, Readings
from models.kernels import FEATURE_CLIP
from models.recurrent import Full, Stack, level_bias, padded, top
from models.sequences import Leads, Sequences
from models.tiles import through

#: In training the decoder is unrolled after every so many readings: it costs K steps of its own each time.
STRIDE = 8


class Network(nn.Module):
    """Encoder, decoder, and a head for one lead."""

    def __init__(self, engine: EngineSettings) -> None:
        super().__init__()
        model, targets = engine.model, len(engine.targets)
        self._horizon, self._shape, self._median = model.horizon, (targets, len(model.levels)), model.levels.index(0.5)
        self._width = padded(2 * targets)
        self.encoder = Stack(model, scaling.input_width(engine))
        self.decoder = Stack(model, self._width)
        self.head = Full(model.hidden, level_bias(model, targets))

    def step(self, inputs: Tensor, newest: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One reading for the encoder, all leads of the decoder.

        Args:
            inputs: (B, F).
            newest: The last known values in spreads from the level, (B, T).
            state: The encoder's, (B, L, P, H).

        Returns:
            Raw quantiles (B, T, K, Q), in spreads from the newest value; the encoder's new state.
        """
        state = self.encoder(inputs, state)
        return self.decode(newest, state), state

    def decode(self, newest: Tensor, state: Tensor) -> Tensor:
        """All leads from an encoder's state: (N, T) and (N, L, P, H) to (N, T, K, Q)."""
        fed = before = newest.clamp(-FEATURE_CLIP, FEATURE_CLIP)
        start, leads = fed, []
        for _ in range(self._horizon):
            state = self.decoder(self._inputs(fed, before), state)
            quantiles = fed[..., None] + self.head(top(state)).view(-1, *self._shape)  # (N, T, Q)
            leads.append(quantiles - start[..., None])
            before, fed = fed, quantiles[..., self._median].clamp(-FEATURE_CLIP, FEATURE_CLIP)
        return torch.stack(leads, 2)

    def _inputs(self, fed: Tensor, before: Tensor) -> Tensor:
        """What the decoder sees of a lead: the value of the one before, and its last move; (N, F)."""
        seen = torch.cat([fed, fed - before], 1)
        return torch.nn.functional.pad(seen, (0, self._width - seen.shape[1]))

    def draw(self, generator: torch.Generator) -> None:
        """First weights."""
        self.encoder.draw(generator)
        self.decoder.draw(generator)


class EncoderDecoder(Carried):
    """The engine: the row carries the encoder."""

    def advance(self, rows: np.ndarray, readings: Readings) -> QuantileForecasts:
        """A forecast from each row's new state."""
        scale = scaling.observe(rows, readings)
        scaling.stamp(rows, readings)
        newest = ((rows["newest"] - scale.level) / scale.spread)[:, self.targets].astype(np.float32)
        raw = self.raw(rows)
        before = self.inputs(readings, scale), newest, rows["recurrent"]
        through(self._network.step, before, (raw, rows["recurrent"]))
        return self.forecasts(rows, scale, raw)


class Lesson(Leads[Network]):
    """Pinball loss of all leads, the decoder fed as it will be in service; the gradient goes through what it was fed."""

    def __init__(self, engine: EngineSettings, data: Sequences) -> None:
        super().__init__(engine, data)
        newest = ((data.newest - data.level) / data.spread)[:, data.targets]
        self._newest = torch.from_numpy(newest.astype(np.float32))  # (N, T)

    def loss(self, network: Network, at: Tensor, real: Tensor, state: Tensor) -> Tensor:
        """At every `STRIDE`-th of S consecutive places of B sequences."""
        states = []
        for part in torch.split(self.inputs[at], STRIDE):
            state = network.encoder.run(part, state)[1]
            states.append(state)
        last = torch.arange(STRIDE, len(at) + STRIDE, STRIDE).clamp(max=len(at)) - 1  # the place behind which each state stands
        quantiles = network.decode(self._newest[at[last]].flatten(0, 1), torch.cat(states))
        return self.pinball(quantiles, at[last], real[last])

    def burn_in(self, network: Network, at: Tensor) -> Tensor:
        """The encoder alone."""
        return network.encoder.run(self.inputs[at], network.encoder.zero(at.shape[1]))[1]
