"""Judges model versions against each other: the engine itself over held-out readings, errors as they come due, pair by pair.

All versions run over the same readings of the same streams, so that their errors come in pairs. Time is cut into blocks, and the
difference between two versions is resampled by block, since the errors of one hour are alike. B rows, T targets, R rungs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings
from models.engine import Readings
from models.forecaster import Forecaster
from models.networks import NaiveNetwork, Network
from models.training_data import Series, segments

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
    covered: np.ndarray

    @property
    def mae(self) -> float:
        """Mean absolute error, in spreads; NaN where nothing was scored."""
        return _ratio(self.model, self.pairs)

    @property
    def naive_mae(self) -> float:
        """The last value's."""
        return _ratio(self.naive, self.pairs)

    @property
    def coverage(self) -> float:
        """The share of readings inside the outermost interval."""
        return _ratio(self.covered, self.pairs)


def judge(
    series: Sequence[Series],
    engine: EngineSettings,
    networks: Mapping[str, Network | NaiveNetwork],
    since_ms: int,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Errors]:
    """Run every version over all readings; score what comes due from `since_ms` on.

    Args:
        series: The streams, with what brings their rows up before `since_ms`.
        engine: The settings all of them serve under.
        networks: By version.
        since_ms: Where judging begins.
        progress: Told the share of the work done.

    Returns:
        Errors by version, over the same forecasts.
    """
    parts = [part for one in series for part in segments(one, engine.input.max_gap_s)]
    parts.sort(key=lambda part: -len(part.time_ms))
    last_ms = max((int(part.time_ms[-1]) for part in parts), default=since_ms)
    edges = np.linspace(since_ms, max(last_ms, since_ms + 1) + 1, BLOCKS + 1)
    found = {}
    for number, (version, network) in enumerate(networks.items()):
        found[version] = _run(parts, Forecaster(engine, network, version), edges)
        progress((number + 1) / len(networks))
    return found


def gain(candidate: Errors, incumbent: Errors, seed: int = 0) -> tuple[float, float]:
    """By which share the candidate's error is smaller, and the lower bound of that over the blocks.

    Paired block bootstrap: blocks of time are drawn with replacement, the same ones for both (Kunsch 1989).
    """
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(BLOCKS, size=(DRAWS, BLOCKS))
    better = 1 - candidate.model[drawn].sum(axis=1) / np.maximum(incumbent.model[drawn].sum(axis=1), 1e-30)
    whole = 1 - float(candidate.model.sum()) / max(float(incumbent.model.sum()), 1e-30)
    return whole, float(np.quantile(better, 1 - SURE))


def _run(parts: Sequence[Series], forecaster: Forecaster, edges: np.ndarray) -> Errors:
    """One version over all segments, a wave at a time, longest first."""
    lengths = np.array([len(part.time_ms) for part in parts], np.int64)
    rows = np.zeros(len(parts), forecaster.row_dtype)
    errors = Errors(*(np.zeros(len(edges) - 1) for _ in Errors._fields))
    for wave in range(int(lengths.max(initial=0))):
        active = int(np.searchsorted(-lengths, -wave))  # segments longer than `wave`
        time_ms = np.array([part.time_ms[wave] for part in parts[:active]], np.int64)
        values = np.stack([part.values[wave] for part in parts[:active]])
        none = np.zeros(active, np.int64)
        output = forecaster.step(rows[:active], Readings(values, time_ms, none, none, np.full(active, wave == 0)))
        block = np.searchsorted(edges, time_ms, side="right") - 1  # -1 before judging begins
        scored = ~np.isnan(output.model_error) & (block >= 0)[:, None, None]  # (B, T, R)
        of_block = np.broadcast_to(block[:, None, None], scored.shape)[scored]
        for into, what in zip(errors, (scored, output.model_error, output.naive_error, output.covered), strict=True):
            into += np.bincount(of_block, what[scored].astype(np.float64), len(into))
    return errors


def _ratio(sums: np.ndarray, pairs: np.ndarray) -> float:
    return float(sums.sum() / pairs.sum()) if pairs.sum() else float("nan")
