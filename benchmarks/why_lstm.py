"""Experiments that show why recurd carries an LSTM: each a seeded function that returns its numbers.

docs/why-lstm.md tells of them. They run the cells of `models.cells`, whose weights they draw themselves; nothing here knows of
plots, printing or Kafka.
Sequences are (T, B, F): T steps, B rows, F inputs; H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from models.cells import elman_cell, lstm_cell

#: A network without its weights: sequence (T, B, F) and weights to the last hidden (B, H).
Unroll = Callable[[Tensor, list[Tensor]], Tensor]


class Start(NamedTuple):
    """A network before training: how it runs over a sequence, and its first weights."""

    unroll: Unroll
    weights: list[Tensor]


# --- networks ---------------------------------------------------------------------------------------------------------------


def run_elman(sequence: Tensor, weights: list[Tensor], activation: Callable[[Tensor], Tensor] = torch.tanh) -> Tensor:
    """The plain network's last hidden (B, H), from zero."""
    hidden = sequence.new_zeros(sequence.shape[1], weights[1].shape[0])
    for now in sequence:
        hidden = elman_cell(now, hidden, weights[0], weights[1], weights[2], activation)
    return hidden


def run_lstm(sequence: Tensor, weights: list[Tensor]) -> Tensor:
    """The LSTM's last hidden (B, H), from zero."""
    hidden = cell = sequence.new_zeros(sequence.shape[1], weights[1].shape[0])
    for now in sequence:
        hidden, cell = lstm_cell(now, hidden, cell, weights[0], weights[1], weights[2])
    return hidden


def uniform(inputs: int, hidden: int, gates: int, draw: torch.Generator) -> list[Tensor]:
    """First weights as torch.nn draws them, within +-1/sqrt(H); the bias zero."""
    bound = hidden**-0.5
    shapes = (inputs, gates * hidden), (hidden, gates * hidden)
    return [torch.empty(shape).uniform_(-bound, bound, generator=draw) for shape in shapes] + [torch.zeros(gates * hidden)]


def elman(inputs: int, hidden: int, draw: torch.Generator) -> Start:
    """A plain network with torch's first weights: on the whole, its recurrent matrix shrinks what it multiplies."""
    return Start(run_elman, uniform(inputs, hidden, 1, draw))


def elman_orthogonal(inputs: int, hidden: int, draw: torch.Generator, gain: float = 1.0) -> Start:
    """A plain network whose recurrent matrix multiplies every length by gain: 1 is the best start for a long memory."""
    weights = uniform(inputs, hidden, 1, draw)
    torch.nn.init.orthogonal_(weights[1], gain, generator=draw)
    return Start(run_elman, weights)


def lstm(inputs: int, hidden: int, draw: torch.Generator, forget_bias: float = 0.0) -> Start:
    """An LSTM with torch's first weights, whose forget gates stand at sigmoid(forget_bias) in the mean."""
    weights = uniform(inputs, hidden, 4, draw)
    weights[2][hidden : 2 * hidden] = forget_bias
    return Start(run_lstm, weights)


NETWORKS: dict[str, Callable[[int, int, torch.Generator], Start]] = {
    "RNN": elman,
    "RNN, orthogonal": elman_orthogonal,
    "RNN, orthogonal x 2": partial(elman_orthogonal, gain=2.0),
    "LSTM, forget bias 0": lstm,
    "LSTM, forget bias 1": partial(lstm, forget_bias=1.0),
    "LSTM, forget bias 5": partial(lstm, forget_bias=5.0),
}


# --- 1. the same weight a thousand times ------------------------------------------------------------------------------------


def repeated_weight(weight: float, length: int = 1000) -> tuple[float, float]:
    """One linear unit, all other weights 1, fed 1 and then zeros: its output at the end, and the gradient of that by the weight.

    Returns:
        y_length = weight^(length - 1), and (length - 1) weight^(length - 2), both from running the network (float64).
    """
    recurrent = torch.tensor([[weight]], dtype=torch.float64, requires_grad=True)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    sequence = torch.zeros(length, 1, 1, dtype=torch.float64)
    sequence[0] = 1.0
    output = run_elman(sequence, [one, recurrent, zero], activation=lambda total: total)
    (gradient,) = torch.autograd.grad(output.sum(), recurrent)
    return output.item(), gradient.item()


# --- 2. how far back a gradient reaches -------------------------------------------------------------------------------------


def gradient_norms(name: str, steps: int = 200, rows: int = 32, inputs: int = 4, hidden: int = 32, seed: int = 0) -> list[float]:
    """How much the last hidden depends on the input d steps before the end, before any training.

    Inputs are normal noise. The gradient is that of the last hidden along a random direction of length 1.

    Returns:
        For d = 0 .. steps - 1 the mean over rows of the norm of the gradient by that input (float64).
    """
    draw = torch.Generator().manual_seed(seed)
    start = NETWORKS[name](inputs, hidden, draw)
    sequence = torch.randn(steps, rows, inputs, generator=draw).double().requires_grad_()
    direction = torch.nn.functional.normalize(torch.randn(rows, hidden, generator=draw).double(), dim=1)
    last = start.unroll(sequence, [weight.double() for weight in start.weights])
    (gradient,) = torch.autograd.grad((last * direction).sum(), sequence)
    norms: list[float] = gradient.norm(dim=2).mean(dim=1).flip(0).tolist()
    return norms


def half_distance(norms: list[float], first: int = 10, last: int = 110) -> float:
    """Over how many steps a gradient halves, from its fall between two distances; infinite where it does not fall."""
    halvings = math.log2(norms[first] / norms[last])
    return (last - first) / halvings if halvings > 0 else math.inf


# --- training, as the next two need it --------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One step of training: the loss and the gradient's norm before it was clipped."""

    loss: float
    gradient: float


def clip(gradients: list[Tensor], longest: float) -> float:
    """Shorten the gradients in place so that together they are no longer than this.

    Returns:
        Their norm before.
    """
    norm = math.hypot(*(gradient.norm().item() for gradient in gradients))
    if norm > longest:
        for gradient in gradients:
            gradient.mul_(longest / norm)
    return norm


# --- 3. exploding gradients -------------------------------------------------------------------------------------------------


def learn_level(
    longest: float, rate: float = 0.01, updates: int = 200, steps: int = 100, rows: int = 16, hidden: int = 16, seed: int = 0
) -> list[Step]:
    """Train a plain network with relu, from the identity, by plain gradient descent to tell the level of a noisy sequence.

    A sequence's level is uniform in 0..1 and each of its inputs uniform between 0 and twice the level: the mean tells the level.
    Whoever always answers 1/2 has a mean squared error of 1/12.

    Args:
        longest: Gradients are clipped to this norm; infinity leaves them as they are.
        rate: The learning rate.

    Returns:
        One step for each update, the loss being the mean squared error; the list ends where that is no longer a number.
    """
    draw = torch.Generator().manual_seed(seed)
    weight_in, _, bias = uniform(1, hidden, 1, draw)
    readout = torch.empty(hidden, 1).uniform_(-(hidden**-0.5), hidden**-0.5, generator=draw)
    weights = [weight.requires_grad_() for weight in (weight_in, torch.eye(hidden), bias, readout)]
    done: list[Step] = []
    for _ in range(updates):
        levels = torch.rand(rows, 1, generator=draw)
        sequence = torch.rand(steps, rows, 1, generator=draw) * 2 * levels
        loss = (run_elman(sequence, weights, torch.relu) @ weights[3] - levels).square().mean()
        gradients = list(torch.autograd.grad(loss, weights))
        done.append(Step(loss.item(), clip(gradients, longest)))
        if not math.isfinite(done[-1].loss):
            break
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= rate * gradient
    return done


# --- 4. a long memory -------------------------------------------------------------------------------------------------------


def recall(name: str, steps: int, updates: int = 150, rows: int = 32, hidden: int = 16, seed: int = 0) -> list[float]:
    """Train a network to tell at the end the sign that it saw first, through noise, by Adam with clipping.

    Each sequence opens with +1 or -1 on its first input; afterwards that input is zero and the second one normal noise. Every
    minibatch is new, so there is nothing to learn by heart.

    Returns:
        The share of right answers in each update's minibatch, before the update. Chance is 0.5.
    """
    draw = torch.Generator().manual_seed(seed)
    start = NETWORKS[name](2, hidden, draw)
    readout = torch.empty(hidden).uniform_(-(hidden**-0.5), hidden**-0.5, generator=draw)
    weights = [weight.requires_grad_() for weight in (*start.weights, readout)]
    adam = torch.optim.Adam(weights, lr=0.01)
    shares: list[float] = []
    for _ in range(updates):
        first = torch.randint(0, 2, (rows,), generator=draw).float()
        sequence = torch.zeros(steps, rows, 2)
        sequence[0, :, 0] = first * 2 - 1
        sequence[:, :, 1] = torch.randn(steps, rows, generator=draw)
        score = start.unroll(sequence, weights) @ readout
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score, first)
        gradients = list(torch.autograd.grad(loss, weights))
        clip(gradients, 1.0)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        adam.step()
        shares.append(((score > 0) == (first > 0)).float().mean().item())
    return shares
