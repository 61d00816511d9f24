"""Versions are judged by the engine itself, on equal pairs, and a gain by chance is told from a real one."""

from __future__ import annotations

import numpy as np

from daemon.retrain import gate
from models import judging
from models.arithmetic import seeded_network
from models.judging import BLOCKS, Errors
from models.networks import NaiveNetwork
from models.training_data import Series
from tests import examples

ENGINE = examples.settings(hidden=8, horizon=4, context=16)


def errors(by_block: np.ndarray, naive: float = 1.0) -> Errors:
    pairs = np.full(BLOCKS, 100.0)
    return Errors(pairs, by_block * pairs, np.full(BLOCKS, naive) * pairs)


def noise(seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(BLOCKS)


def test_a_real_gain_has_a_bound_above_zero() -> None:
    """Five per cent in every block, with noise that both share, is sure."""
    incumbent = errors(0.6 + 0.1 * np.abs(noise(1)))
    candidate = errors(incumbent.model / incumbent.pairs * 0.95)
    better, bound = judging.gain(candidate, incumbent)
    assert abs(better - 0.05) < 1e-9
    assert 0.049 < bound <= better
    assert gate(candidate, incumbent, 0.02) == ""


def test_a_gain_in_a_few_blocks_may_be_chance() -> None:
    """The same gain on average, from noise of one version alone, is refused as chance."""
    incumbent = errors(0.6 + 0.3 * np.abs(noise(2)))
    candidate = errors((0.6 + 0.3 * np.abs(noise(3))) * 0.99)
    scaled = errors(candidate.model / candidate.pairs * (incumbent.mae * 0.95 / candidate.mae))
    better, bound = judging.gain(scaled, incumbent)
    assert abs(better - 0.05) < 1e-9
    assert bound < 0
    assert "chance" in gate(scaled, incumbent, 0.02)


def test_the_gate_names_what_is_missing() -> None:
    """Too small a gain, worse than the last value, and nothing scored are three different reasons."""
    incumbent = errors(np.full(BLOCKS, 0.6))
    assert "min_gain" in gate(errors(np.full(BLOCKS, 0.595)), incumbent, 0.02)
    assert "last value" in gate(errors(np.full(BLOCKS, 1.1)), errors(np.full(BLOCKS, 2.0)), 0.02)
    nothing = Errors(*(np.zeros(BLOCKS) for _ in Errors._fields))
    assert "scored" in gate(nothing, nothing, 0.02)


def test_all_versions_are_scored_on_the_same_forecasts() -> None:
    """Naive's own error is the last value's, pairs are equal, and nothing before the cut counts."""
    times = 1_700_000_000_000 + 60_000 * np.arange(120)
    series = [Series(f"s{i}", times, np.cumsum(noise(i).repeat(6))[:120, None]) for i in range(3)]
    cut_ms = int(times[60])
    networks = {"naive": NaiveNetwork(ENGINE), "seeded": seeded_network(ENGINE)}
    found = judging.judge(series, ENGINE, networks, cut_ms)
    assert found["naive"].mae == found["naive"].naive_mae
    assert (found["naive"].pairs == found["seeded"].pairs).all()
    assert found["naive"].pairs.sum() > 0
    whole = judging.judge(series, ENGINE, {"naive": networks["naive"]}, 0)
    assert whole["naive"].pairs.sum() > 1.5 * found["naive"].pairs.sum()
