"""From readings to what the arrangements are trained on: the scale of each reading as serving has it, and places to learn from.

Streams advance together through `scaling.observe`, a wave at a time.
N readings in all, G segments, C channels, T targets, K leads, F inputs, S steps, B sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from config.settings import EngineSettings
from models import scaling
from models.descent import Progress, Recipe, pinball
from models.engine import HEADER
from models.layout import padded
from models.training_data import Series, end_to_end, lead_targets, segments, waves

_PROGRESS_WAVES = 256

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class Sequences:
    """All readings in segments; a segment is what one stream brings between two fresh starts of its row."""

    engine: EngineSettings
    starts: np.ndarray  # int64 (G + 1,), segment g is starts[g]..starts[g + 1] - 1
    time_ms: np.ndarray  # int64 (N,)
    values: np.ndarray  # float64 (N, C), NaN is missing
    newest: np.ndarray  # float64 (N, C), the last known values
    level: np.ndarray  # float64 (N, C)
    spread: np.ndarray  # float64 (N, C)
    gap: np.ndarray  # float64 (N,), before the reading, in intervals
    interval_ms: np.ndarray  # int64 (N,)
    labels: np.ndarray  # float64 (N,), NaN is none

    def __len__(self) -> int:
        return len(self.time_ms)

    @property
    def targets(self) -> np.ndarray:
        """The channels that are forecast, int64 (T,)."""
        return np.array([self.engine.channels.index(name) for name in self.engine.targets])

    def inputs(self) -> np.ndarray:
        """What the network saw of each reading, float32 (N, F)."""
        return scaling.inputs(self.values, self.level, self.spread, self.gap, scaling.input_width(self.engine))

    def leads(self) -> np.ndarray:
        """What each lead would have been scored by, in spreads from the newest value, float32 (N, T, K); NaN is unknown."""
        columns = self.time_ms, self.interval_ms, *(each[:, self.targets] for each in (self.newest, self.spread, self.values))
        horizon = self.engine.model.horizon
        parts = [lead_targets(horizon, *(column[i:j] for column in columns)) for i, j in pairwise(self.starts)]
        return np.concatenate([np.zeros((0, len(self.targets), horizon), np.float32), *parts])


def prepare(series: Sequence[Series], engine: EngineSettings, progress: Progress = lambda what, share: None) -> Sequences:
    """Run all readings through the scale."""
    parts = segments(series, engine.input.max_gap_s)
    starts, time_ms, values = end_to_end(parts, len(engine.channels))
    table = np.zeros(len(parts), padded([*HEADER, *scaling.fields(engine), *scaling.small_fields()]))
    newest, level, spread = (np.zeros_like(values) for _ in range(3))
    gap, interval_ms = np.zeros(len(time_ms)), np.zeros(len(time_ms), np.int64)
    for wave, (at, readings) in enumerate(waves(starts, time_ms, values)):
        rows = table[: len(at)]
        scaling.start(rows, readings)
        scale = scaling.observe(rows, readings)
        scaling.stamp(rows, readings)
        now = rows["newest"], scale.level, scale.spread, scale.gap, rows["interval_ms"]
        for column, each in zip((newest, level, spread, gap, interval_ms), now, strict=True):
            column[at] = each
        if wave % _PROGRESS_WAVES == 0:
            progress("scale", wave / max(int(np.diff(starts).max(initial=1)), 1))
    given = [np.full(len(part.time_ms), np.nan) if part.labels is None else part.labels for part in parts]
    labels = np.concatenate([np.zeros(0), *given])
    return Sequences(engine, starts, time_ms, values, newest, level, spread, gap, interval_ms, labels)


class Along(Generic[NetworkT]):
    """A lesson of consecutive readings: a burn-in that only brings the state up, then readings to learn from.

    The gradient goes back to the end of the burn-in (truncated back-propagation through time).
    """

    reach = 0  # readings after its own that an output is judged by; `__init__` may set it

    def __init__(self, engine: EngineSettings, data: Sequences) -> None:
        self.data = data
        self.inputs = torch.from_numpy(data.inputs())  # (N, F)

    def examples(self, since_ms: int, until_ms: int) -> np.ndarray:
        """Places to begin at, int64 (M, 3): the place, its segment's first, and the end of what may be learned from."""
        found = [np.zeros((0, 3), np.int64)]
        for first, last in pairwise(self.data.starts.tolist()):
            times = self.data.time_ms[first:last]
            begin, end = first + np.searchsorted(times, since_ms), first + np.searchsorted(times, until_ms) - self.reach
            places = np.arange(begin, max(begin, end))
            found.append(np.stack([places, np.full_like(places, first), np.full_like(places, end)], 1))
        return np.concatenate(found)

    def judged_loss(self, network: NetworkT, chosen: np.ndarray, recipe: Recipe) -> Tensor:
        """The loss of sequences that begin at these examples, (B, 3)."""
        place, first, last = chosen.T
        begin = place - recipe.burn_in
        begun = torch.from_numpy(begin >= first)[:, None, None, None]  # else the sequence begins with the segment, from zero
        at = np.maximum(begin, first - recipe.burn_in) + np.arange(recipe.burn_in + recipe.length)[:, None]  # (S, B)
        real = torch.from_numpy(at < last)[recipe.burn_in :]
        places = torch.from_numpy(at.clip(first, last - 1))
        with torch.no_grad():
            state = self.burn_in(network, places[: recipe.burn_in])
        return self.loss(network, places[recipe.burn_in :], real, state * begun)

    def burn_in(self, network: NetworkT, at: Tensor) -> Tensor:
        """The state that the readings at S places leave behind, from zero, (B, L, P, H)."""
        raise NotImplementedError

    def loss(self, network: NetworkT, at: Tensor, real: Tensor, state: Tensor) -> Tensor:
        """Over the readings at these places.

        Args:
            network: Under its weights of now.
            at: int64 (S, B).
            real: bool (S, B), whether a reading is to be learned from; the others come after the last.
            state: Before the first of them.
        """
        raise NotImplementedError


class Leads(Along[NetworkT]):
    """A lesson of forecasts: pinball loss of all leads."""

    def __init__(self, engine: EngineSettings, data: Sequences) -> None:
        super().__init__(engine, data)
        self._levels = torch.tensor(engine.model.levels)
        self._targets = torch.from_numpy(data.leads())  # (N, T, K)

    def pinball(self, quantiles: Tensor, at: Tensor, real: Tensor) -> Tensor:
        """Of raw quantiles (S B, T, K, Q) at these places, (S, B) each; those that are not real do not count."""
        targets = torch.where(real[..., None, None], self._targets[at], torch.nan).flatten(0, 1)
        return pinball(targets, quantiles, self._levels)
