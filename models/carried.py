"""The engine that the arrangements share: scale a reading, carry the network's state in the row, put something out.

An arrangement says what its row keeps besides and what it does with a scaled reading. All else is here, so that batches and
restarts are invisible for every one of them. B rows, C channels, T targets, K leads, Q levels, L layers, P parts, H hidden.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from config.settings import EngineSettings
from models import scaling
from models.engine import HEADER, QuantileForecasts, Readings, version_number
from models.features import WARMING_READINGS
from models.layout import ladder, padded
from models.recurrent import parts
from models.scaling import Scale

Field = tuple[Any, ...]


class Carried:
    """Base of the arrangements' engines. Holds no rows."""

    #: What the network has made of a stream, fields of the row: it begins from zero under another model version.
    made: ClassVar[tuple[str, ...]] = ("recurrent",)
    #: What a fresh start leaves as it is.
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, engine: EngineSettings, network: nn.Module, model_version: str) -> None:
        torch.set_num_threads(1)  # more threads split products differently, and bytes with them
        self.engine = engine
        self.row_dtype = self.layout(engine)
        self.version = np.uint64(version_number(model_version))
        self.targets = np.array([engine.channels.index(name) for name in engine.targets])  # (T,)
        self.width = scaling.input_width(engine)
        self._network: Any = network.eval()

    @classmethod
    def layout(cls, engine: EngineSettings) -> np.dtype[Any]:
        """The row under these settings: fields by falling size of their elements, so that none is unaligned."""
        model = engine.model
        recurrent = ("recurrent", "<f4", (model.layers, parts(model.cell), model.hidden))  # hidden, and an LSTM's cell
        return padded([*HEADER, *scaling.fields(engine), *cls.own_fields(engine), recurrent, *scaling.small_fields()])

    @classmethod
    def own_fields(cls, engine: EngineSettings) -> list[Field]:
        """What the row of this arrangement keeps besides; elements of eight bytes."""
        return []

    def step(self, rows: np.ndarray, readings: Readings) -> Any:
        """Advance each row by its reading, in place, and say what comes of it.

        Args:
            rows: Structured (B,), different rows of `row_dtype`.
            readings: B readings, aligned with the rows, each later than its row's last.

        Returns:
            An output of `models.engine`: new arrays.
        """
        scaling.start(rows, readings, self.kept)
        others = rows["version"] != self.version
        for name in self.made:
            rows[name][others] = 0
        rows["version"] = self.version
        with torch.inference_mode():
            return self.advance(rows, readings)

    def advance(self, rows: np.ndarray, readings: Readings) -> Any:
        """The arrangement's own part of `step`. It must `observe` and `stamp` each row once."""
        raise NotImplementedError

    def inputs(self, readings: Readings, scale: Scale) -> np.ndarray:
        """A network's inputs from these readings, float32 (B, F)."""
        return scaling.inputs(readings.values, scale.level, scale.spread, scale.gap, self.width)

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """Room for the raw quantiles of a forecast of these rows, float32 (B, T, K, Q)."""
        model = self.engine.model
        return np.empty((len(rows), len(self.targets), model.horizon, len(model.levels)), np.float32)

    def forecasts(self, rows: np.ndarray, scale: Scale, raw: np.ndarray) -> QuantileForecasts:
        """An ordinary forecast from raw quantiles (B, T, K, Q), in spreads from the newest known value; nothing is scored."""
        newest, spread = (column[:, self.targets, None, None] for column in (rows["newest"], scale.spread))
        nothing = np.full((len(rows), len(self.targets), len(ladder(self.engine.model.horizon))), np.nan)
        return QuantileForecasts(
            quantiles=newest + spread * np.sort(raw, axis=-1),
            interval_ms=rows["interval_ms"].copy(),
            anomaly_score=np.full(len(rows), np.nan),
            warming=rows["count"] < WARMING_READINGS,
            model_error=nothing,
            naive_error=nothing,
            covered=nothing,
            rebuilt=np.zeros(len(rows), bool),
        )
