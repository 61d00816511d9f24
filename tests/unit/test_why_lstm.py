"""The claims of docs/why-lstm.md: what a plain network cannot do and an LSTM can, and the controls that keep them honest."""

from __future__ import annotations

import math
from statistics import mean

import pytest
import torch

from benchmarks.why_lstm import clip, gradient_norms, half_distance, learn_level, recall, repeated_weight

ALWAYS_HALF = 1 / 12  # the mean squared error of whoever answers 1/2 to a level between 0 and 1


pytestmark = pytest.mark.usefixtures("one_thread")  # small products gain nothing from more, a loaded machine loses much


@pytest.mark.parametrize(("weight", "output"), [(0.99, 4.36073e-5), (1.0, 1.0), (1.01, 20751.6)])
def test_a_thousand_steps_multiply_a_weight_999_times(weight: float, output: float) -> None:
    """y_1000 = w^999 and its gradient 999 w^998, by running the network: one percent decides over nine orders of magnitude."""
    assert repeated_weight(weight) == pytest.approx((output, 999 * output / weight), rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_of_a_plain_network_falls_geometrically(seed: int) -> None:
    """Each 25 steps back divide it by about the same, and 100 steps leave less than a 10^12th."""
    norms = gradient_norms("RNN", steps=120, seed=seed)
    falls = [math.log10(norms[d] / norms[d + 25]) for d in (10, 35, 60, 85)]
    assert sum(falls) > 12
    assert max(falls) < 1.5 * min(falls)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_open_forget_gate_carries_the_gradient(seed: int) -> None:
    """The further open, the further back; at bias 5 what is 100 steps back counts as much as what is 10 steps back."""
    plain, shut, ajar, wide = (
        gradient_norms(name, steps=120, seed=seed)
        for name in ("RNN", "LSTM, forget bias 0", "LSTM, forget bias 1", "LSTM, forget bias 5")
    )
    assert half_distance(ajar) > 1.5 * max(half_distance(plain), half_distance(shut))
    assert 0.1 < wide[100] / wide[10] < 1000


def test_an_lstm_with_half_shut_gates_forgets_like_a_plain_network() -> None:
    """The cell alone is not what helps: at forget bias 0 the gradient halves within two steps, as the plain network's does."""
    assert half_distance(gradient_norms("LSTM, forget bias 0", steps=120)) < 2
    assert half_distance(gradient_norms("RNN", steps=120)) < 2


def test_the_gradient_of_large_recurrent_weights_explodes() -> None:
    """Twice an orthogonal matrix: 100 steps multiply the gradient by more than a thousand."""
    norms = gradient_norms("RNN, orthogonal x 2", steps=120)
    assert norms[110] > 1000 * norms[10]


@pytest.mark.parametrize("seed", [0, 1])
def test_without_clipping_the_loss_jumps_and_the_parameters_are_lost(seed: int) -> None:
    """One step along the first gradient multiplies the loss by more than a million; the network never recovers."""
    steps = learn_level(math.inf, seed=seed)
    assert not steps[1].loss < 1e6 * steps[0].loss
    assert not mean(step.loss for step in steps[-50:]) < ALWAYS_HALF


@pytest.mark.parametrize("seed", [0, 1])
def test_with_clipping_the_same_network_learns(seed: int) -> None:
    """The same weights, data and rate: gradients of the same size at the start, shortened to 1."""
    steps = learn_level(1.0, seed=seed)
    assert steps[0] == learn_level(math.inf, updates=1, seed=seed)[0]
    assert steps[0].gradient > 50
    assert mean(step.loss for step in steps[-50:]) < ALWAYS_HALF / 3


def test_clipping_keeps_the_direction() -> None:
    """Gradients longer than the limit together are scaled alike, shorter ones stay; the norm from before is told."""
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    assert clip(gradients, 10.0) == 5.0
    assert [gradient.tolist() for gradient in gradients] == [[3.0], [[0.0, 4.0]]]
    assert clip(gradients, 1.0) == 5.0
    torch.testing.assert_close(gradients, [torch.tensor([0.6]), torch.tensor([[0.0, 0.8]])])


def test_a_plain_network_recalls_over_five_steps() -> None:
    """The control: task, training and network are sound, only the distance is short."""
    assert mean(recall("RNN", steps=5, updates=100)[-20:]) > 0.95


def test_a_plain_network_does_not_recall_over_a_hundred_steps() -> None:
    """640 answers at chance, 0.5: six standard deviations are 0.12."""
    assert abs(mean(recall("RNN", steps=100)[-20:]) - 0.5) < 0.12


def test_an_lstm_recalls_over_a_hundred_steps() -> None:
    """The same task, updates, size and optimiser, with the forget gates open at the start."""
    assert mean(recall("LSTM, forget bias 5", steps=100)[-20:]) > 0.95
