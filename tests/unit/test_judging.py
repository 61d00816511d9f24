"""Versions are judged by the engine itself, on equal pairs, and a gain by chance is told from a real one."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.retrain import gate, too_dear
from models import judging
from models.arithmetic import seeded_network
from models.judging import BLOCKS, Errors, Judged
from models.networks import NaiveNetwork
from models.training_data import Series
from tests import examples

ENGINE = examples.settings(hidden=8, horizon=4, context=16)


def errors(by_block: np.ndarray, naive: float = 1.0) -> Errors:
    pairs = np.full(BLOCKS, 100.0)
    return Errors(pairs, by_block * pairs, np.full(BLOCKS, naive) * pairs)


def judged(by_block: Errors, by_stream: np.ndarray | None = None) -> Judged:
    """With ten streams' mean errors, all alike where not given."""
    by_stream = np.full(10, by_block.mae) if by_stream is None else by_stream
    pairs = np.full(len(by_stream), 100.0)
    return Judged(by_block, Errors(pairs, by_stream * pairs, pairs))


def noise(seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(BLOCKS)


def test_a_real_gain_has_a_bound_above_zero() -> None:
    """Five per cent in every block, with noise that both share, is sure."""
    incumbent = errors(0.6 + 0.1 * np.abs(noise(1)))
    candidate = errors(incumbent.model / incumbent.pairs * 0.95)
    better, bound = judging.gain(candidate, incumbent)
    assert abs(better - 0.05) < 1e-9
    assert 0.049 < bound <= better
    assert gate(judged(candidate), judged(incumbent), 0.02) == ""


def test_a_gain_in_a_few_blocks_may_be_chance() -> None:
    """The same gain on average, from noise of one version alone, is refused as chance."""
    incumbent = errors(0.6 + 0.3 * np.abs(noise(2)))
    candidate = errors((0.6 + 0.3 * np.abs(noise(3))) * 0.99)
    scaled = errors(candidate.model / candidate.pairs * (incumbent.mae * 0.95 / candidate.mae))
    better, bound = judging.gain(scaled, incumbent)
    assert abs(better - 0.05) < 1e-9
    assert bound < 0
    assert "chance" in gate(judged(scaled), judged(incumbent), 0.02)


def test_the_gate_names_what_is_missing() -> None:
    """Too small a gain, worse than the last value, nothing scored, and no numbers are different reasons."""
    incumbent = judged(errors(np.full(BLOCKS, 0.6)))
    assert "min_gain" in gate(judged(errors(np.full(BLOCKS, 0.595))), incumbent, 0.02)
    assert "last value" in gate(judged(errors(np.full(BLOCKS, 1.1))), judged(errors(np.full(BLOCKS, 2.0))), 0.02)
    nothing = judged(Errors(*(np.zeros(BLOCKS) for _ in Errors._fields)))
    assert "scored" in gate(nothing, nothing, 0.02)
    assert "not numbers" in gate(nothing, incumbent, 0.02)


def test_a_gain_that_a_tenth_of_the_streams_pay_for_is_refused() -> None:
    """Better on the whole, but two of ten streams have half as much error again; one of twenty is borne."""
    incumbent = errors(np.full(BLOCKS, 0.6))
    candidate = errors(np.full(BLOCKS, 0.5))
    two_worse = np.where(np.arange(10) < 2, 0.9, 0.4)
    assert "a tenth of the streams" in gate(judged(candidate, two_worse), judged(incumbent, np.full(10, 0.6)), 0.02)
    one_worse = np.where(np.arange(20) < 1, 0.9, 0.4)
    assert gate(judged(candidate, one_worse), judged(incumbent, np.full(20, 0.6)), 0.02) == ""


def test_streams_that_stand_still_or_were_hardly_scored_do_not_count() -> None:
    """A tiny error instead of none is no regression, and neither is a bad one over fifteen forecasts."""
    pairs = np.array([100.0, 15.0])
    still = Errors(pairs, np.array([0.0, 1.0]), pairs)
    assert judging.regression(still._replace(model=np.array([0.05, 90.0])), still) == pytest.approx(1.05)
    assert judging.regression(still._replace(model=np.array([0.5, 1.0])), still) == pytest.approx(1.5)


def test_the_cost_of_a_step_is_compared() -> None:
    """By a clock of its own: half as long again is refused, a tenth is not."""
    ticks = iter([tick for _ in range(judging.COST_STEPS) for tick in (0.0, 0.001, 0.001, 0.0025)])
    networks = {"incumbent": seeded_network(ENGINE), "candidate": seeded_network(ENGINE)}
    seconds = judging.cost(ENGINE, networks, ticks.__next__)
    assert seconds == {"incumbent": pytest.approx(0.001), "candidate": pytest.approx(0.0015)}
    assert "1.50 times as long" in too_dear(seconds)
    assert too_dear({"incumbent": 0.001, "candidate": 0.0011}) == ""


def test_all_versions_are_scored_on_the_same_forecasts() -> None:
    """Naive's own error is the last value's, pairs are equal, and nothing before the cut counts."""
    times = 1_700_000_000_000 + 60_000 * np.arange(120)
    series = [Series(f"s{i}", times, np.cumsum(noise(i).repeat(6))[:120, None]) for i in range(3)]
    cut_ms = int(times[60])
    networks = {"naive": NaiveNetwork(ENGINE), "seeded": seeded_network(ENGINE)}
    found = judging.judge(series, ENGINE, networks, cut_ms)
    naive, seeded = found["naive"], found["seeded"]
    assert naive.by_block.mae == naive.by_block.naive_mae
    for one, other in zip(naive, seeded, strict=True):
        assert (one.pairs == other.pairs).all()
    assert naive.by_block.pairs.sum() > 0
    assert len(naive.by_stream.pairs) == 3
    assert naive.by_stream.model.sum() == pytest.approx(naive.by_block.model.sum())
    whole = judging.judge(series, ENGINE, {"naive": networks["naive"]}, 0)
    assert whole["naive"].by_block.pairs.sum() > 1.5 * naive.by_block.pairs.sum()
