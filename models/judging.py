"""Judges model versions against each other: the engine itself over held-out readings, errors as they come due, pair by pair.

All versions run over the same readings of the same streams, so that their errors come in pairs. Time is cut into blocks, and the
difference between two versions is resampled by block, since the errors of one hour are alike.
B rows, T targets, R rungs, S streams.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings
from models.engine import Readings
from models.forecaster import Forecaster
from models.networks import NaiveNetwork, Network
from models.tiles import TILE_ROWS
from models.training_data import Series, end_to_end, segments, waves

#: Blocks of time, and how often they are drawn anew for the lower bound.
BLOCKS = 20
DRAWS = 2000
#: The bound holds for this share of the draws.
SURE = 0.95
#: A stream's own loss counts from so many scored forecasts on; so large a share of the streams must not lose much.
LEAST_PAIRS = 16
WORST_STREAMS = 0.9
#: Errors of this many spreads are alike: a stream that stands still has none to compare.
NO_ERROR = 0.01
_TINY = 1e-9  # two versions without any error are alike
#: Steps of which the cost of a version is the median.
COST_STEPS = 48


class Errors(NamedTuple):
    """Sums over the scored forecasts of one version, by block of time or by stream, float64 (N,) each; errors in spreads."""

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


class Judged(NamedTuple):
    """What a version's forecasts came to: the same sums twice."""

    by_block: Errors  # (BLOCKS,)
    by_stream: Errors  # (S,), in the order of their ids


def judge(
    series: Sequence[Series],
    engine: EngineSettings,
    networks: Mapping[str, Network | NaiveNetwork],
    since_ms: int,
) -> dict[str, Judged]:
    """Run every version over all readings; score what comes due from `since_ms` on.

    Args:
        series: The streams, with what brings their rows up before `since_ms`.
        engine: The settings all of them serve under.
        networks: By version.
        since_ms: Where judging begins.

    Returns:
        Errors by version, over the same forecasts.
    """
    parts = segments(series, engine.input.max_gap_s)
    data = end_to_end(parts, len(engine.channels))
    streams = np.unique([part.stream for part in parts], return_inverse=True)[1]  # by segment
    last_ms = int(data[1].max(initial=since_ms + 1))
    edges = np.linspace(since_ms, last_ms + 1, BLOCKS + 1)
    return {version: _run(data, streams, Forecaster(engine, network, version), edges) for version, network in networks.items()}


def gain(candidate: Errors, incumbent: Errors, seed: int = 0) -> tuple[float, float]:
    """By which share the candidate's error is smaller, and the lower bound of that over the blocks.

    Paired block bootstrap: blocks of time are drawn with replacement, the same ones for both (Kunsch 1989).
    """
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(BLOCKS, size=(DRAWS, BLOCKS))
    better = 1 - (candidate.model[drawn].sum(axis=1) + _TINY) / (incumbent.model[drawn].sum(axis=1) + _TINY)
    whole = 1 - (float(candidate.model.sum()) + _TINY) / (float(incumbent.model.sum()) + _TINY)
    return whole, float(np.quantile(better, 1 - SURE))


def refusal(candidate: Errors, incumbent: Errors, min_gain: float) -> str:
    """Why a candidate's errors are not clearly smaller; empty where they are."""
    if not incumbent.pairs.sum():
        return "nothing could be scored"
    if (candidate.pairs != incumbent.pairs).any():
        return "some of its forecasts are not numbers"
    if not candidate.mae < candidate.naive_mae:
        return f"its error, {candidate.mae:.4f}, is not below the last value's, {candidate.naive_mae:.4f}"
    better, bound = gain(candidate, incumbent)
    if better < min_gain:
        return f"it is {better:.1%} better, retrain.min_gain asks for {min_gain:.1%}"
    if bound <= 0:
        return f"it is {better:.1%} better, which may be chance (lower bound {bound:.1%})"
    return ""


def regression(candidate: Errors, incumbent: Errors) -> float:
    """How many times the incumbent's error the candidate's is on the streams it serves worst: the 90 % quantile over streams.

    1 where no stream was scored often enough to say.
    """
    known = incumbent.pairs >= LEAST_PAIRS
    least = NO_ERROR * incumbent.pairs[known]
    ratios = (candidate.model[known] + least) / (incumbent.model[known] + least)
    return float(np.quantile(ratios, WORST_STREAMS)) if known.any() else 1.0


def cost(engine: EngineSettings, networks: Mapping[str, Network], clock: Callable[[], float]) -> dict[str, float]:
    """Time of one step of a full tile of rows by version, the median of many taken in turn, so that the ratio of two is fair.

    The season is left out: following one costs the same with any weights. What is left to differ is the numbers themselves (a
    processor is many times slower on subnormal ones).
    """
    forecasters = {version: Forecaster(engine, _seasonless(network), version) for version, network in networks.items()}
    rows = {version: np.zeros(TILE_ROWS, forecaster.row_dtype) for version, forecaster in forecasters.items()}
    walk = np.random.Generator(np.random.PCG64(0)).standard_normal((COST_STEPS, TILE_ROWS, len(engine.channels))).cumsum(axis=0)
    none = np.zeros(TILE_ROWS, np.int64)
    took: dict[str, list[float]] = {version: [] for version in networks}
    for step, values in enumerate(walk):
        readings = Readings(values, none + (step + 1) * 60_000, none, none, none == step)
        for version, forecaster in forecasters.items():
            started = clock()
            forecaster.step(rows[version], readings)
            took[version].append(clock() - started)
    return {version: float(np.median(seconds)) for version, seconds in took.items()}


def _seasonless(network: Network) -> Network:
    twin = copy.deepcopy(network)
    twin.period_ms = 0
    return twin


def _run(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], streams: np.ndarray, forecaster: Forecaster, edges: np.ndarray
) -> Judged:
    """One version over all segments, from new rows, wave by wave."""
    rows = np.zeros(len(data[0]) - 1, forecaster.row_dtype)
    sizes = len(edges) - 1, int(streams.max(initial=-1)) + 1
    judged = Judged(*(Errors(*(np.zeros(size) for _ in Errors._fields)) for size in sizes))
    for at, readings in waves(*data):
        output = forecaster.step(rows[: len(at)], readings)
        block = np.searchsorted(edges, readings.time_ms, side="right") - 1  # -1 before judging begins
        scored = ~np.isnan(output.model_error) & (block >= 0)[:, None, None]  # (B, T, R)
        for errors, group in zip(judged, (block, streams[: len(at)]), strict=True):
            groups = np.broadcast_to(group[:, None, None], scored.shape)[scored]
            for into, what in zip(errors, (scored, output.model_error, output.naive_error), strict=True):
                into += np.bincount(groups, what[scored].astype(np.float64), len(into))
    return judged


def _ratio(sums: np.ndarray, pairs: np.ndarray) -> float:
    return float(sums.sum() / pairs.sum()) if pairs.sum() else float("nan")
