"""The kinds of `model.kind`, in one table: what each one's network, row and training are. Whoever must choose, asks here.

The chain engine alone is not in it: it has neither weights nor arithmetic, and it hashes its epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from config.settings import EngineSettings
from models import (
    encoder_decoder,
    features,
    fitting,
    forecaster,
    layout,
    many_to_many,
    many_to_one,
    networks,
    one_to_many,
    scaling,
    smoother,
    training,
)
from models.carried import Carried
from models.chain import Chain
from models.descent import Progress, Recipe
from models.engine import Engine
from models.fitting import Lesson
from models.migration import Older, older_layouts
from models.sequences import Sequences
from models.training_data import Series

CHAIN = "chain"

Report = training.Report | fitting.Report
Fit = Callable[[Sequence[Series], EngineSettings, int, int | None, Progress], tuple[Any, Report]]


@dataclass(frozen=True)
class Kind:
    """What there is of a kind with weights."""

    network: Callable[[EngineSettings], Any]  # as constructed, for weights to be loaded into
    engine: Callable[[EngineSettings, Any, str], Engine]  # settings, network, model version
    row_dtype: Callable[[EngineSettings], np.dtype[Any]]
    fit: Fit  # readings, settings, seed, optimizer steps at most (None: as the recipe says), progress
    inputs: Callable[[EngineSettings], int]  # width of what the network sees of a reading
    input_version: int  # of what it means
    naive: Callable[[EngineSettings], Any] | None = None  # the network that serves while there are no weights
    replaceable: bool = False  # retrained, and swapped while it runs
    older: Callable[[EngineSettings], list[Older]] = lambda _engine: []  # layouts of earlier versions whose rows are taken over


def _fit_default(
    series: Sequence[Series], engine: EngineSettings, seed: int, steps: int | None, progress: Progress
) -> tuple[networks.Network, training.Report]:
    return training.fit(series, engine, seed, None if steps is None else Recipe(steps=steps), progress)


def _arrangement(
    network: Callable[[EngineSettings], nn.Module],
    engine: type[Carried],
    lesson: Callable[[EngineSettings, Sequences], Lesson],
) -> Kind:
    """An arrangement of `models.carried`."""

    def fit(
        series: Sequence[Series], settings: EngineSettings, seed: int, steps: int | None, progress: Progress
    ) -> tuple[nn.Module, fitting.Report]:
        fitted = network(settings)
        return fitted, fitting.fit(fitted, lesson, series, settings, seed, fitting.recipe(steps), progress)

    return Kind(network, engine, engine.layout, fit, scaling.input_width, scaling.INPUT_VERSION)


KINDS: dict[str, Kind] = {
    "forecaster": Kind(
        networks.Network.of,
        forecaster.Forecaster,
        layout.row_dtype,
        _fit_default,
        features.feature_count,
        features.FEATURE_VERSION,
        naive=networks.NaiveNetwork,
        replaceable=True,
        older=older_layouts,
    ),
    "many_to_many": _arrangement(many_to_many.Network, many_to_many.ManyToMany, many_to_many.Lesson),
    "encoder_decoder": _arrangement(encoder_decoder.Network, encoder_decoder.EncoderDecoder, encoder_decoder.Lesson),
    "many_to_one": _arrangement(many_to_one.Network, many_to_one.ManyToOne, many_to_one.Lesson),
    "one_to_many": _arrangement(one_to_many.Network, one_to_many.OneToMany, one_to_many.Lesson),
    "smoother": _arrangement(smoother.Network, smoother.Smoother, smoother.Lesson),
}


def of(engine: EngineSettings) -> Kind:
    """The kind of these settings, which is not the chain."""
    return KINDS[engine.model.kind]


def row_dtype(engine: EngineSettings) -> np.dtype[Any]:
    """The row of any kind."""
    return Chain.row_dtype if engine.model.kind == CHAIN else of(engine).row_dtype(engine)


def layouts_before(engine: EngineSettings) -> list[Older]:
    """Earlier layouts of a kind whose rows are taken over at a restore."""
    return [] if engine.model.kind == CHAIN else of(engine).older(engine)


def has_weights(engine: EngineSettings) -> bool:
    """Whether the kind is computed by a network."""
    return engine.model.kind != CHAIN


def replaceable(kind: str) -> bool:
    """Whether a kind is retrained and swapped."""
    return kind in KINDS and KINDS[kind].replaceable
