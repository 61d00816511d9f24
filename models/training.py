"""Fits the default forecaster to readings: the highway in closed form, the LSTM to what it leaves over, the highway once more.

Truncated back-propagation through time over minibatches of sequences with a burn-in; pinball loss; AdamW with strong decay; a
running average of the weights, of which the best on the hold-out (the last readings by time) is kept. Equal readings, settings
and seed give equal weights to the bit. S steps, B rows, T targets, K leads, Q levels, F features, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from config.settings import EngineSettings
from models import basis, highway
from models.adaptation import DIRECTIONS
from models.descent import Descent, NotEnoughReadings, Recipe, Weights, one_thread, pinball
from models.networks import Network
from models.training_data import Piece, Series, TrainingData, cut, prepare, tail_ms

#: The most streams and readings of each by which the hold-out judges.
_JUDGED_STREAMS = 64
_JUDGED_READINGS = 4096


class Report(NamedTuple):
    """What a fit did. Scores are means over the hold-out's targets and leads, in spreads.

    They are of the weights before their move was cut and the highway was fitted to the hold-out too.
    """

    steps: int  # optimizer steps done
    best_step: int  # the step whose averaged weights were kept
    skipped: int  # steps without effect, because loss or gradient was not finite
    clipped: int  # steps whose gradient was cut
    largest_gradient: float
    readings: int
    first_time_ms: int
    last_time_ms: int
    cut_ms: int  # the hold-out begins here
    pinball: float
    mae: float
    naive_mae: float  # of the last value

    @property
    def scores(self) -> dict[str, float]:
        """Those of the hold-out, by name."""
        return {"pinball": self.pinball, "mae": self.mae, "naive_mae": self.naive_mae}


def fit(
    series: Sequence[Series],
    engine: EngineSettings,
    seed: int,
    recipe: Recipe | None = None,
    progress: Callable[[str, float], None] = lambda what, share: None,
    start: Network | None = None,
) -> tuple[Network, Report]:
    """A network fitted to these readings.

    Args:
        series: The readings, a stream each.
        engine: Under which the network will serve.
        seed: Of first weights, minibatches, dropout and flips.
        recipe: How; the defaults where None.
        progress: Told what is going on, and which share of it is done.
        start: Whose weights to begin with, but for the highway; new ones where None.

    Raises:
        NotEnoughReadings: Nothing can be learned or judged.
    """
    recipe = recipe or Recipe()
    with one_thread():
        data = prepare(series, engine, lambda share: progress("features", share))
        train, held_out = _split(data, engine, recipe)
        network = Network.of(engine)
        network.period_ms = data.period_ms
        progress("highway", 0.0)
        found = highway.fit(data, list(cut(iter(train))), held_out.pieces)
        _set_highway(network, found)
        network, report = _Fit(network, data, train, held_out, recipe, seed, start).run(progress)
        _move_less(network, recipe.kept)
        # Costs a second and is worth up to .0015 of MAE on ETT: what is linear is learned from the newest readings too.
        _set_highway(network, highway.refit(data, list(cut(data.pieces())), found.penalties))
        _set_basis(network, data, start)
        return network, report


@torch.no_grad()
def _set_highway(network: Network, found: highway.Highway) -> None:
    network.highway[..., : network.shape.horizon] = found.lines


@torch.no_grad()
def _move_less(network: Network, share: float) -> None:
    """Let the head move the median by this share of what it does; the other levels keep their distance from it."""
    for weights in (network.head_weight, network.head_bias):
        levels = weights[..., : network.outputs].view(*weights.shape[:-1], -1, len(network.shape.levels))
        median = levels[..., network.shape.levels.index(0.5)].clone()
        levels -= (1 - share) * median[..., None]


@torch.no_grad()
def _set_basis(network: Network, data: TrainingData, start: Network | None) -> None:
    """That of the weights begun with, so that what rows have learned holds on; a new one where there is none."""
    if start is not None and start.basis:
        network.directions.copy_(start.directions)
        network.responses.copy_(start.responses)
        return
    found = basis.find(data, list(data.pieces()), network.highway[..., : network.shape.horizon])
    network.directions[..., :DIRECTIONS] = found.directions
    network.responses.copy_(found.responses)


class _HeldOut(NamedTuple):
    pieces: list[Piece]  # readings that are judged
    lead_in: int  # readings before them that bring the state up


def _split(data: TrainingData, engine: EngineSettings, recipe: Recipe) -> tuple[list[Piece], _HeldOut]:
    """Training readings, whose targets all lie before the cut, and the hold-out from the cut on."""
    needed = engine.model.horizon + 2
    if len(data) >= 4 * needed:
        cut_ms = tail_ms(data.time_ms, recipe.held_out)
        train = [Piece(g, first, last - engine.model.horizon) for g, first, last in data.pieces(until_ms=cut_ms)]
        train = [piece for piece in train if piece.first < piece.last and _has_targets(data, piece)]
        held_out = sorted(data.pieces(since_ms=cut_ms), key=lambda piece: piece.first - piece.last)  # the longest first
        judged = [Piece(g, first, min(last, first + _JUDGED_READINGS)) for g, first, last in held_out[:_JUDGED_STREAMS]]
        judged = [piece for piece in judged if _has_targets(data, piece)]
        if train and judged:
            return train, _HeldOut(judged, 2 * recipe.burn_in)
    raise NotEnoughReadings(
        f"{len(data)} readings are not enough to train for a horizon of {engine.model.horizon} and to judge by: give at least "
        f"{8 * needed} of one stream, without gaps over input.max_gap_s, or set a smaller model.horizon."
    )


def _has_targets(data: TrainingData, piece: Piece) -> bool:
    return not bool(np.isnan(data.targets[piece.first : piece.last]).all())


class _Fit:
    """One run of the optimizer."""

    def __init__(
        self,
        network: Network,
        data: TrainingData,
        train: list[Piece],
        held_out: _HeldOut,
        recipe: Recipe,
        seed: int,
        start: Network | None,
    ) -> None:
        self._network, self._data, self._recipe = network, data, recipe
        self._generator = torch.Generator().manual_seed(seed)
        self._levels = torch.tensor(network.shape.levels)
        self._residuals = torch.from_numpy(data.targets.copy())  # (N, T, K)
        self._features = torch.from_numpy(data.features)  # (N, F)
        self._leave_out_highway(train + held_out.pieces)
        self._train = np.array(train, np.int64)  # (pieces, 3)
        self._odds = np.cumsum(self._train[:, 2] - self._train[:, 1])
        self._held_out = held_out.pieces
        self._judged = self._batch_of(held_out)
        if start is None:
            _draw(network, self._generator)
        else:
            _take_over(network, start)
            _move_less(network, 1 / recipe.kept)

    def run(self, progress: Callable[[str, float], None]) -> tuple[Network, Report]:
        """Optimize, and leave the network with the best averaged weights."""
        network = self._network
        network.highway.requires_grad_(False)
        descent = Descent(network, self._recipe, self._most_steps(), self._loss, lambda weights: self._judge(weights)[0])
        best, course = descent.run(progress)
        scores = self._judge(best)
        network.load_state_dict(best)
        network.highway.requires_grad_(True)
        times = self._data.time_ms
        report = Report(
            *course,
            len(self._data),
            int(times.min()),
            int(times.max()),
            int(times[[piece.first for piece in self._held_out]].min()),
            *scores,
        )
        return network.eval(), report

    def _most_steps(self) -> int:
        recipe = self._recipe
        by_passes = int(recipe.passes * self._odds[-1]) // (recipe.rows * recipe.length)
        return min(recipe.steps, max(by_passes, 2 * recipe.judge_every))

    @torch.no_grad()
    def _leave_out_highway(self, pieces: Sequence[Piece]) -> None:
        """Turn targets into what the highway leaves over of them."""
        for piece in cut(iter(pieces)):
            windows = torch.from_numpy(self._data.windows(piece))
            self._residuals[piece.first : piece.last] -= self._network.ahead(windows)

    def _loss(self) -> Tensor:
        recipe, network = self._recipe, self._network
        features, residuals, begun = self._minibatch()
        hidden, cell = _zero_state(network, recipe.rows)
        with torch.no_grad():
            _, hidden, cell = network.unroll(features[: recipe.burn_in], None, hidden, cell)
            hidden, cell = hidden * begun, cell * begun
        drawn = torch.rand(recipe.length, recipe.rows, network.shape.hidden, generator=self._generator)
        kept = (drawn >= recipe.dropout) / (1 - recipe.dropout)
        quantiles, _, _ = network.unroll(features[recipe.burn_in :], None, hidden, cell, kept)
        return pinball(residuals[recipe.burn_in :], quantiles, self._levels)

    def _minibatch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences with a burn-in before each, drawn evenly over the training readings.

        Half of them have their sign turned, some have no dates.

        Returns:
            features (S, B, F); residuals (S, B, T, K), NaN after a sequence's last reading; and (B, 1, 1), 0 where a segment has
            no whole burn-in before the reading drawn: there the sequence begins with the segment, from zero, as it was served.
        """
        recipe = self._recipe
        drawn = torch.randint(int(self._odds[-1]), (recipe.rows,), generator=self._generator).numpy()
        piece = np.searchsorted(self._odds, drawn, side="right")
        _, first, last = self._train[piece].T
        begin = last - (self._odds[piece] - drawn) - recipe.burn_in  # (B,)
        begun = torch.from_numpy(begin >= first).float()[:, None, None]
        at = np.maximum(begin, first - recipe.burn_in) + np.arange(recipe.burn_in + recipe.length)[:, None]  # (S, B)
        real = torch.from_numpy(at < last)
        index = torch.from_numpy(at.clip(first, last - 1))
        features = self._features[index]
        residuals = torch.where(real[..., None, None], self._residuals[index], torch.nan)
        turned = torch.rand(recipe.rows, generator=self._generator) < 0.5
        sign = torch.where(turned, -1.0, 1.0)[None, :, None]
        features[..., : self._data.signed] *= sign
        dated = torch.rand(recipe.rows, generator=self._generator) >= recipe.undated
        features[..., self._data.calendar] *= dated[None, :, None]
        return features, residuals * sign[..., None], begun

    def _batch_of(self, held_out: _HeldOut) -> tuple[Tensor, Tensor, Tensor]:
        """The hold-out as one unroll: features (S, B, F), residuals and targets (S, B, T, K), NaN where not judged."""
        starts = self._data.starts
        begin = np.array([max(first - held_out.lead_in, starts[g]) for g, first, _ in held_out.pieces])
        first, last = np.array([piece[1:] for piece in held_out.pieces]).T
        at = begin + np.arange(int((last - begin).max()))[:, None]  # (S, B)
        judged = torch.from_numpy((at >= first) & (at < last))[..., None, None]
        index = torch.from_numpy(np.minimum(at, last - 1))
        residuals = torch.where(judged, self._residuals[index], torch.nan)
        return self._features[index], residuals, torch.where(judged, torch.from_numpy(self._data.targets)[index], torch.nan)

    @torch.no_grad()
    def _judge(self, weights: Weights) -> tuple[float, float, float]:
        """Pinball and mean absolute error of these weights on the hold-out, and the last value's error."""
        features, residuals, targets = self._judged
        network = Network(self._network.shape, self._network.channels, self._network.targets, self._network.features)
        network.load_state_dict(weights)
        quantiles, _, _ = network.eval().unroll(features, None, *_zero_state(network, features.shape[1]))
        quantiles = quantiles.sort(dim=-1).values
        median = quantiles[..., network.shape.levels.index(0.5)]
        errors = (residuals - median).abs().nanmean(), targets.abs().nanmean()
        return float(pinball(residuals, quantiles, self._levels)), float(errors[0]), float(errors[1])


def _draw(network: Network, generator: torch.Generator) -> None:
    """First weights: recurrent ones small and even, the forget gate open; the head stays zero, and gives its bias alone."""
    hidden = network.shape.hidden
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(("weight_in", "weight_hidden")):
                weight.uniform_(-(hidden**-0.5), hidden**-0.5, generator=generator)
            elif name.endswith(".bias"):
                weight[hidden : 2 * hidden] = 1.0


@torch.no_grad()
def _take_over(network: Network, start: Network) -> None:
    """The weights of another network of the same shape; the highway is this one's own."""
    theirs = dict(start.named_parameters())
    for name, weight in network.named_parameters():
        if name != "highway":
            weight.copy_(theirs[name])


def _zero_state(network: Network, rows: int) -> tuple[Tensor, Tensor]:
    zero = torch.zeros(rows, network.shape.layers, network.shape.hidden)
    return zero, zero.clone()
