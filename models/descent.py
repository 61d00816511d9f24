"""The optimizer's loop that all kinds are trained by: AdamW, gradients cut, a running average of the weights, the best one kept.

It knows a loss to go down and a judgement of weights, and neither networks nor data. Equal calls give equal weights to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
Progress = Callable[[str, float], None]


class NotEnoughReadings(ValueError):
    """Too few readings to fit and to judge by; the message says how many are needed."""


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults were chosen on the validation months of ETT (weight decay and average matter most)."""

    steps: int = 720  # optimizer steps at most
    passes: int = 200  # over the training readings at most: with little data more of them only overfit
    rows: int = 32  # sequences in a minibatch
    length: int = 168  # readings of a sequence that are learned from
    burn_in: int = 48  # readings before them that only bring the state up
    learning_rate: float = 4e-3
    warm_up: int = 50  # steps of rising learning rate
    decay: float = 1.0  # AdamW's, on weights but not on biases
    dropout: float = 0.5  # of the top hidden, before the head
    undated: float = 0.5  # share of the sequences that are seen without time of day and of week, which are soon learned by heart
    average: float = 0.99  # of the weights, a step
    kept: float = (
        0.7  # share of the move beside the highway that is served: the least that loses nothing of note on validation rows
    )
    gradient_norm: float = 1.0  # larger ones are cut to it
    judge_every: int = 60
    patience: int = 4  # judgements without a better one, then stop
    held_out: float = 0.15  # share of the readings, the last by time


class Course(NamedTuple):
    """What the loop did."""

    steps: int  # optimizer steps done
    best_step: int  # the step whose averaged weights are kept
    skipped: int  # steps without effect, because loss or gradient was not finite
    clipped: int  # steps whose gradient was cut
    largest_gradient: float


class Descent:
    """One run of the optimizer over the weights of a network that ask for a gradient.

    Args:
        network: Changed in place.
        recipe: How.
        steps: Optimizer steps at most.
        loss: Of a minibatch that it draws, under the network's weights of now.
        judge: How bad weights are on what is held out; averaged ones are given.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, steps: int, loss: Callable[[], Tensor], judge: Callable[[Weights], float]
    ) -> None:
        self._network, self._recipe, self._steps = network, recipe, steps
        self._loss, self._judge = loss, judge
        self._average = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        self._skipped = self._clipped = 0
        self._largest = 0.0

    def run(self, progress: Progress) -> tuple[Weights, Course]:
        """Optimize; the best averaged weights, and what was done."""
        recipe = self._recipe
        optimizer = torch.optim.AdamW(self._groups(), lr=recipe.learning_rate)
        best, best_step, best_weights, step = self._judge(self._average), 0, self._copied(), 0
        for step in range(1, self._steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, step / recipe.warm_up)
            self._step(optimizer, step)
            if step % recipe.judge_every == 0 or step == self._steps:
                score = self._judge(self._average)
                if score < best:
                    best, best_step, best_weights = score, step, self._copied()
                elif step - best_step >= recipe.patience * recipe.judge_every:
                    break
                progress("training", step / self._steps)
        return best_weights, Course(step, best_step, self._skipped, self._clipped, self._largest)

    def _copied(self) -> Weights:
        return {name: weight.clone() for name, weight in self._average.items()}

    def _groups(self) -> list[dict[str, object]]:
        """Weights are pulled to zero, biases are not."""
        named = [(name, weight) for name, weight in self._network.named_parameters() if weight.requires_grad]
        weights = [weight for name, weight in named if "bias" not in name]
        biases = [weight for name, weight in named if "bias" in name]
        return [{"params": weights, "weight_decay": self._recipe.decay}, {"params": biases, "weight_decay": 0.0}]

    def _step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        recipe, network = self._recipe, self._network
        network.train()
        loss = self._loss()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        norm = float(torch.nn.utils.clip_grad_norm_(weights, recipe.gradient_norm))
        if not np.isfinite(norm):
            self._skipped += 1
            return
        self._largest = max(self._largest, norm)
        self._clipped += norm > recipe.gradient_norm
        optimizer.step()
        keep = min(recipe.average, step / (step + 10))  # the first weights are soon forgotten
        with torch.no_grad():
            for name, weight in network.named_parameters():
                self._average[name].lerp_(weight, 1 - keep)


@contextmanager
def one_thread() -> Iterator[None]:
    """More threads split sums differently, and the weights' last bits with them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pinball(targets: Tensor, quantiles: Tensor, levels: Tensor) -> Tensor:
    """Mean over known targets and over levels of max(q d, (q - 1) d), d = target - quantile: least at the q-quantile.

    Args:
        targets: (...,), NaN is unknown.
        quantiles: (..., Q).
        levels: (Q,).
    """
    known = ~torch.isnan(targets)
    away = torch.where(known, targets, 0.0)[..., None] - quantiles
    loss = torch.maximum(levels * away, (levels - 1) * away) * known[..., None]
    return loss.sum() / (known.sum().clamp(min=1) * len(levels))
