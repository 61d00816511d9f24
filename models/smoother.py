"""Bidirectional, with a fixed lag (Schuster and Paliwal 1997): the output about t comes at t + lag and uses both sides of it.

    past, carried       a_t = cell(x_t, a_{t-1})                     stands at t: it is a row's state, lag readings late
    future, from zero   b_t = cell'(x_t, b_{t+1})                    over the last lag readings of the row, backwards to t
    output about t      q_t = the neighbours' mean + s (W [a_t, b_t] + b)

The reading at t is hidden from both networks where they stand at t, since the best answer to what it is would be to repeat it:
what comes out is what the others say of it, the same for a reading that is there and for one that is missing. The carried state
then goes on with the reading shown. Neighbours are the known readings next to t; s is the stream's spread.
B rows, C channels, F inputs, H hidden, T targets, Q levels, W = lag + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from config.settings import EngineSettings
from models import scaling
from models.carried import Carried, Field
from models.descent import pinball
from models.engine import Readings, Smoothed
from models.recurrent import Full, Stack, level_bias, top
from models.sequences import Along, Sequences
from models.tiles import through
from models.training_data import TARGET_CLIP

#: In training an output is asked for at every so many readings: each costs W steps of its own.
STRIDE = 8


class Network(nn.Module):
    """Two stacks, and a head over both."""

    def __init__(self, engine: EngineSettings) -> None:
        super().__init__()
        model, width = engine.model, scaling.input_width(engine)
        self._shape = len(engine.targets), len(model.levels)
        self.past, self.future = Stack(model, width), Stack(model, width)
        self.head = Full(2 * model.hidden, level_bias(model, len(engine.targets)))

    def step(self, hidden: Tensor, shown: Tensor, backwards: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The output about one reading, and the past's state behind it.

        Args:
            hidden: The reading's inputs with its values hidden, (B, F).
            shown: The same with its values, (B, F).
            backwards: The readings after it, newest first, and itself, hidden, (B, W, F).
            state: The past's before it, (B, L, P, H).

        Returns:
            Raw quantiles (B, T, Q), in spreads from the neighbours' mean; the past's state behind the reading.
        """
        back = self.future.zero(len(hidden))
        for place in range(backwards.shape[1]):
            back = self.future(backwards[:, place].contiguous(), back)
        return self.quantiles(top(self.past(hidden, state)), top(back)), self.past(shown, state)

    def quantiles(self, past: Tensor, future: Tensor) -> Tensor:
        """Both sides' hidden at the reading, (N, H) each, to (N, T, Q)."""
        raw: Tensor = self.head(torch.cat([past, future], 1))
        return raw.view(-1, *self._shape)

    def draw(self, generator: torch.Generator) -> None:
        """First weights."""
        self.past.draw(generator)
        self.future.draw(generator)


class Sight(NamedTuple):
    """What the networks are given about some readings."""

    hidden: np.ndarray  # float32 (B, F)
    shown: np.ndarray  # float32 (B, F)
    backwards: np.ndarray  # float32 (B, W, F)
    neighbours: np.ndarray  # float64 (B, C), the mean of the known readings next to it


def sight(
    recent: np.ndarray, recent_ms: np.ndarray, behind: np.ndarray, level: np.ndarray, spread: np.ndarray, interval_ms: np.ndarray,
    width: int,
) -> Sight:  # fmt: skip
    """What is seen of the oldest of the recent readings; serving and training alike.

    Args:
        recent: float64 (B, W, C), oldest first.
        recent_ms: int64 (B, W + 1), the times of the reading before them and of them; the first is 0 where there is none.
        behind: float64 (B, C), the last known values before them; NaN where there are none.
        level: float64 (B, C), at the newest.
        spread: float64 (B, C), at the newest.
        interval_ms: int64 (B,), at the newest.
        width: F.
    """
    known = (interval_ms[:, None] > 0) & (recent_ms[:, :-1] != 0)
    gaps = np.where(known, np.diff(recent_ms, axis=1) / np.maximum(interval_ms, 1)[:, None], 1.0)  # (B, W)
    unseen = np.full_like(recent[:, 0], np.nan)
    turned = np.concatenate([recent[:, :0:-1], unseen[:, None]], axis=1)  # (B, W, C)
    turned_gaps = np.concatenate([np.ones((len(gaps), 1)), gaps[:, :0:-1]], axis=1)
    ahead = np.take_along_axis(recent[:, 1:], np.argmax(~np.isnan(recent[:, 1:]), axis=1)[:, None], axis=1)[:, 0]  # NaN: none
    one_side = np.where(np.isnan(behind), np.where(np.isnan(ahead), level, ahead), behind)
    both = ~np.isnan(behind) & ~np.isnan(ahead)
    return Sight(
        scaling.inputs(unseen, level, spread, gaps[:, 0], width),
        scaling.inputs(recent[:, 0], level, spread, gaps[:, 0], width),
        scaling.inputs(turned, level[:, None], spread[:, None], turned_gaps, width),
        np.where(both, 0.5 * (behind + ahead), one_side),
    )


class Smoother(Carried):
    """The engine: the row carries the past's state as of lag readings ago, and the readings since."""

    @classmethod
    def own_fields(cls, engine: EngineSettings) -> list[Field]:
        """The readings that are waiting for their output, oldest first, and what came before them."""
        channels, waiting = len(engine.channels), engine.model.lag + 1
        return [
            ("behind", "<f8", (channels,)),
            ("recent", "<f8", (waiting, channels)),
            ("recent_ms", "<i8", (waiting + 1,)),
        ]

    def advance(self, rows: np.ndarray, readings: Readings) -> Smoothed:
        """The output about the reading that is lag old."""
        lag = self.engine.model.lag
        scale = scaling.observe(rows, readings)
        for name, newest in (("recent", readings.values), ("recent_ms", readings.time_ms)):
            rows[name] = np.concatenate([rows[name][:, 1:], newest[:, None]], axis=1)
        scaling.stamp(rows, readings)
        due = rows["count"] > lag
        oldest = rows["recent"][:, 0].copy()
        behind = np.where((rows["count"] == lag + 1)[:, None], np.nan, rows["behind"])
        seen = sight(rows["recent"], rows["recent_ms"], behind, *scale[:2], rows["interval_ms"], self.width)
        raw = np.empty((len(rows), len(self.targets), len(self.engine.model.levels)), np.float32)
        through(self._network.step, (*seen[:3], rows["recurrent"]), (raw, rows["recurrent"]))
        rows["recurrent"][~due] = 0
        rows["behind"] = np.where(due[:, None], np.where(np.isnan(oldest), behind, oldest), 0.0)
        start, spread = (column[:, self.targets, None] for column in (seen.neighbours, scale.spread))
        quantiles = start + spread * np.sort(raw, axis=-1)
        return Smoothed(quantiles, oldest[:, self.targets], rows["recent_ms"][:, 1].copy(), due)


class Lesson(Along[Network]):
    """Pinball loss of the hidden reading."""

    def __init__(self, engine: EngineSettings, data: Sequences) -> None:
        super().__init__(engine, data)
        self.reach = engine.model.lag
        self._levels = torch.tensor(engine.model.levels)
        self._width = scaling.input_width(engine)
        self._first = np.repeat(data.starts[:-1], np.diff(data.starts))  # of each reading's segment
        self._shown = torch.from_numpy(self._sight(np.arange(len(data)), False).shown)

    def _sight(self, at: np.ndarray, whole: bool = True) -> Sight:
        """What is seen of the readings at these places, at the scale of lag readings later; only `shown` where not whole."""
        data, last = self.data, len(self.data) - 1
        newest = (at + self.reach).clip(max=last)
        started = at > self._first[at]  # a reading comes before it
        before = np.maximum(at - 1, 0)
        behind = np.where(started[:, None], data.newest[before], np.nan)
        places = at[:, None] + np.arange(self.reach + 1 if whole else 2)
        recent_ms = np.concatenate([np.where(started, data.time_ms[before], 0)[:, None], data.time_ms[places.clip(max=last)]], 1)
        recent = data.values[places.clip(max=last)]
        return sight(
            recent, recent_ms, behind, data.level[newest], data.spread[newest], data.interval_ms[newest], self._width
        )  # fmt: skip

    def loss(self, network: Network, at: Tensor, real: Tensor, state: Tensor) -> Tensor:
        """At every `STRIDE`-th of S consecutive places of B sequences."""
        states = []
        for part in torch.split(self._shown[at], STRIDE):
            states.append(state)
            state = network.past.run(part, state)[1]
        asked = at[::STRIDE].flatten().numpy()
        seen, data = self._sight(asked), self.data
        past = top(network.past(torch.from_numpy(seen.hidden), torch.cat(states)))
        backwards = torch.from_numpy(seen.backwards).transpose(0, 1)
        future = network.future.run(backwards, network.future.zero(len(asked)))[0][-1]
        spread = data.spread[(asked + self.reach).clip(max=len(data) - 1)]
        away = ((data.values[asked] - seen.neighbours) / spread)[:, data.targets].clip(-TARGET_CLIP, TARGET_CLIP)
        targets = torch.from_numpy(np.where(real[::STRIDE].flatten().numpy()[:, None], away, np.nan).astype(np.float32))
        return pinball(targets, network.quantiles(past, future), self._levels)

    def burn_in(self, network: Network, at: Tensor) -> Tensor:
        """The past alone."""
        return network.past.run(self._shown[at], network.past.zero(at.shape[1]))[1]
