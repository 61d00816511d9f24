"""Small inputs that many tests need: settings, epochs, records and whole partitions run through a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from config.settings import EngineSettings, InputSettings, NetworkSettings
from daemon.engines import Engines
from daemon.epochs import Epoch
from daemon.pipeline import Outcome, Pipeline
from daemon.records import Record
from models import artifacts
from models.arithmetic import seeded_network
from models.layout import ENGINE_VERSION

T0_MS = 1_700_000_000_000
MINUTE_MS = 60_000


def settings(**changes: Any) -> EngineSettings:
    """Engine settings; keys of `input` and `model` may be given flat."""
    of_input = {key: changes.pop(key) for key in list(changes) if key in InputSettings.model_fields}
    of_model = {key: changes.pop(key) for key in list(changes) if key in NetworkSettings.model_fields}
    return EngineSettings(input=InputSettings(**of_input), model=NetworkSettings(**of_model), **changes)


def epoch(
    engine: EngineSettings, first_offset: int = 0, version: str = "naive", partition: int = 0, handover_offsets: int = 0
) -> Epoch:
    return Epoch(partition, first_offset, version, engine, ENGINE_VERSION, "test", handover_offsets=handover_offsets)


def seeded_weights(engine: EngineSettings, scale: float = 1.0) -> tuple[str, bytes]:
    """Fixed weights whose head is scaled, and below a half the basis of rows' own maps, too: version and artifact."""
    network = seeded_network(engine)
    if scale != 1.0:
        with torch.no_grad():
            network.head_weight *= scale
            if scale < 0.5 and hasattr(network, "directions"):
                network.directions *= scale
    data = artifacts.dump(network, artifacts.Manifest.of(engine))
    return artifacts.version_of(data), data


def seeded_engines(*engines: EngineSettings) -> tuple[str, Engines]:
    """Engines that know one network with fixed weights, and its version."""
    version, data = seeded_weights(engines[0])
    return version, Engines({version: data}.get)


def pipeline(engine: EngineSettings) -> Pipeline:
    """An empty partition under fixed weights."""
    version, engines = seeded_engines(engine)
    return Pipeline(0, [epoch(engine, version=version)], engines)


def record(offset: int, *readings: tuple[str, int, float | None], timestamp_ms: int | None = None) -> Record:
    """A record of one reading, or of an array of several: (stream, time, value)."""
    objects = [{"stream": stream, "time": time_ms, "value": value} for stream, time_ms, value in readings]
    value = json.dumps(objects[0] if len(objects) == 1 else objects).encode()
    timestamp_ms = max((time_ms for _, time_ms, _ in readings), default=T0_MS) if timestamp_ms is None else timestamp_ms
    return Record("readings", 0, offset, timestamp_ms, None, value)


def run(pipeline: Pipeline, records: Sequence[Record], cuts: Callable[[int], int] | int) -> Outcome:
    """Process records in polls of `cuts` records, or of cuts(k) for the k-th poll; one outcome over all."""
    total, first, k = Outcome(), 0, 0
    while first < len(records):
        size = cuts(k) if callable(cuts) else cuts
        part = pipeline.process(records[first : first + size])
        total.forecasts += part.forecasts
        total.dead_letters += part.dead_letters
        total.drops += part.drops
        total.stepped += part.stepped
        total.evicted += part.evicted
        first, k = first + size, k + 1
    return total
