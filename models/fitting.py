"""Fits the arrangements: what one is trained on is its own affair (its lesson), how is the same for all (`models.descent`).

Equal readings, settings and seed give equal weights to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from config.settings import EngineSettings
from models.descent import Descent, NotEnoughReadings, Progress, Recipe, Weights, one_thread
from models.sequences import Sequences, prepare
from models.training_data import Series, tail_ms

#: Small networks and plain data: less decay than the default's, shorter sequences, no dropout.
RECIPE = Recipe(steps=600, length=64, burn_in=32, learning_rate=0.01, decay=0.01, dropout=0.0, average=0.98)
#: Examples of the hold-out that weights are judged by, evenly spread over it.
JUDGED = 128
#: Fewer examples are nothing to learn from, or to judge by.
FEWEST = 8


def recipe(steps: int | None) -> Recipe:
    """The recipe, with so many optimizer steps at most."""
    return RECIPE if steps is None else replace(RECIPE, steps=steps)


class Lesson(Protocol):
    """What an arrangement learns from."""

    def examples(self, since_ms: int, until_ms: int) -> np.ndarray:
        """All there are between two times, (M, ...)."""
        ...

    def judged_loss(self, network: Any, chosen: np.ndarray, recipe: Recipe) -> Tensor:
        """The mean loss of some examples."""
        ...


class Report(NamedTuple):
    """What a fit did."""

    steps: int
    best_step: int
    skipped: int
    clipped: int
    largest_gradient: float
    readings: int
    first_time_ms: int
    last_time_ms: int
    cut_ms: int  # the hold-out begins here
    scores: dict[str, float]  # of the hold-out: the loss, and that of the first weights


def fit(
    network: nn.Module,
    lesson_of: Callable[[EngineSettings, Sequences], Lesson],
    series: Sequence[Series],
    engine: EngineSettings,
    seed: int,
    recipe: Recipe = RECIPE,
    progress: Progress = lambda what, share: None,
) -> Report:
    """Fit a network in place.

    Args:
        network: As constructed; it draws its own first weights.
        lesson_of: Makes the lesson.
        series: The readings, a stream each.
        engine: Under which the network will serve.
        seed: Of first weights and minibatches.
        recipe: How.
        progress: Told what is going on, and which share of it is done.

    Raises:
        NotEnoughReadings: Nothing can be learned or judged.
    """
    with one_thread():
        data = prepare(series, engine, progress)
        if not len(data):
            raise NotEnoughReadings("there is no reading with a value for every channel to begin with.")
        lesson = lesson_of(engine, data)
        cut_ms = tail_ms(data.time_ms, recipe.held_out)
        end_ms = int(data.time_ms.max()) + 1
        train, held_out = lesson.examples(int(data.time_ms.min()), cut_ms), lesson.examples(cut_ms, end_ms)
        if min(len(train), len(held_out)) < FEWEST:
            raise NotEnoughReadings(
                f'{len(data)} readings give {len(train)} examples to train model.kind = "{engine.model.kind}" on and '
                f"{len(held_out)} to judge by, {FEWEST} of each are needed: give more, or make windows, horizon or lag shorter."
            )
        judged = held_out[np.linspace(0, len(held_out) - 1, min(JUDGED, len(held_out))).astype(np.int64)]
        generator = torch.Generator().manual_seed(seed)
        network.draw(generator)  # type: ignore[operator]

        def loss() -> Tensor:
            drawn = torch.randint(len(train), (recipe.rows,), generator=generator).numpy()
            return lesson.judged_loss(network, train[drawn], recipe)

        @torch.no_grad()
        def judge(weights: Weights) -> float:
            before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
            network.load_state_dict(weights)
            score = float(lesson.judged_loss(network, judged, recipe))
            network.load_state_dict(before)
            return score

        first = judge({name: weight.detach() for name, weight in network.named_parameters()})
        best, course = Descent(network, recipe, recipe.steps, loss, judge).run(progress)
        network.load_state_dict(best)
        scores = {"loss": judge(best), "untrained_loss": first}
    network.eval()
    return Report(*course, len(data), int(data.time_ms.min()), int(data.time_ms.max()), cut_ms, scores)
