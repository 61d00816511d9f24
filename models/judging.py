"""Judges model versions against each other: the engine itself over held-out readings, errors as they come due, pair by pair.

All versions run over the same readings of the same streams, so that their errors come in pairs. Time is cut into blocks, and the
difference between two versions is resampled by block, since the errors of one hour are alike. B rows, T targets, R rungs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings
from models.forecaster import Forecaster
from models.networks import NaiveNetwork, Network
from models.training_data import Series, end_to_end, segments, waves

#: Blocks of time, and how often they are drawn anew for the lower bound.
BLOCKS = 20
DRAWS = 2000
#: The bound holds for this share of the draws.
SURE = 0.95


class Errors(NamedTuple):
    """Sums over the scored forecasts of one version by block of time, float64 (BLOCKS,) each; errors in spreads."""

    pairs: np.ndarray
    model: np.ndarray  # |reading - served median|
    naive: np.ndarray  # |reading - last value|

    @property
    def mae(self) -> float:
        """Mean absolute error, in spreads; NaN where nothing was scored."""
        return _ratio(self.model, self.pairs)

    @property
    def naive_mae(self) -> float:
        """The last value's."""
        return _ratio(self.naive, self.pairs)


def judge(
    series: Sequence[Series],
    engine: EngineSettings,
    networks: Mapping[str, Network | NaiveNetwork],
    since_ms: int,
) -> dict[str, Errors]:
    """Run every version over all readings; score what comes due from `since_ms` on.

    Args:
        series: The streams, with what brings their rows up before `since_ms`.
        engine: The settings all of them serve under.
        networks: By version.
        since_ms: Where judging begins.

    Returns:
        Errors by version, over the same forecasts.
    """
    data = end_to_end(segments(series, engine.input.max_gap_s), len(engine.channels))
    last_ms = int(data[1].max(initial=since_ms + 1))
    edges = np.linspace(since_ms, last_ms + 1, BLOCKS + 1)
    return {version: _run(data, Forecaster(engine, network, version), edges) for version, network in networks.items()}


def gain(candidate: Errors, incumbent: Errors, seed: int = 0) -> tuple[float, float]:
    """By which share the candidate's error is smaller, and the lower bound of that over the blocks.

    Paired block bootstrap: blocks of time are drawn with replacement, the same ones for both (Kunsch 1989).
    """
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(BLOCKS, size=(DRAWS, BLOCKS))
    better = 1 - candidate.model[drawn].sum(axis=1) / np.maximum(incumbent.model[drawn].sum(axis=1), 1e-30)
    whole = 1 - float(candidate.model.sum()) / max(float(incumbent.model.sum()), 1e-30)
    return whole, float(np.quantile(better, 1 - SURE))


def _run(data: tuple[np.ndarray, np.ndarray, np.ndarray], forecaster: Forecaster, edges: np.ndarray) -> Errors:
    """One version over all segments, from new rows, wave by wave."""
    rows = np.zeros(len(data[0]) - 1, forecaster.row_dtype)
    errors = Errors(*(np.zeros(len(edges) - 1) for _ in Errors._fields))
    for at, readings in waves(*data):
        output = forecaster.step(rows[: len(at)], readings)
        block = np.searchsorted(edges, readings.time_ms, side="right") - 1  # -1 before judging begins
        scored = ~np.isnan(output.model_error) & (block >= 0)[:, None, None]  # (B, T, R)
        of_block = np.broadcast_to(block[:, None, None], scored.shape)[scored]
        for into, what in zip(errors, (scored, output.model_error, output.naive_error), strict=True):
            into += np.bincount(of_block, what[scored].astype(np.float64), len(into))
    return errors


def _ratio(sums: np.ndarray, pairs: np.ndarray) -> float:
    return float(sums.sum() / pairs.sum()) if pairs.sum() else float("nan")
