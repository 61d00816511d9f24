"""Synthetic sensors: a daily curve with noise for each of many streams, seeded. As records for a pipeline, as bytes for a topic.

Stream n lives in partition n % partitions and is the (n // partitions)-th there, so its slot is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from config.settings import EngineSettings, Settings
from daemon.epochs import Epoch
from daemon.pipeline import Pipeline, Stage
from daemon.records import Record
from models import artifacts
from models.arithmetic import seeded_network
from models.engine import Engine
from models.forecaster import Forecaster
from models.layout import ENGINE_VERSION

T0_MS = 1_700_000_000_000
INTERVAL_MS = 3_600_000
SEASON_MS = 24 * INTERVAL_MS
PARTITIONS = 4


def values(streams: np.ndarray, turn: int) -> np.ndarray:
    """Reading number `turn` of these streams, float64, the same shape."""
    noise = np.random.Generator(np.random.PCG64(turn)).normal(0, 0.3, len(streams))
    return 20 + streams % 17 + (3 + streams % 5) * np.sin(2 * np.pi * (turn + streams % 24) / 24) + noise


def payloads(streams: np.ndarray, turn: int) -> list[bytes]:
    """JSON of one reading of each of these streams."""
    time_ms = T0_MS + turn * INTERVAL_MS
    return [
        payload(stream, time_ms, value) for stream, value in zip(streams.tolist(), values(streams, turn).tolist(), strict=True)
    ]


def payload(stream: int, time_ms: int, value: float) -> bytes:
    """JSON of one reading."""
    return b'{"stream":"sensor-%07d","time":%d,"value":%.3f}' % (stream, time_ms, value)


def backlog(streams: Sequence[int] | np.ndarray, turns: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """(partition, value) of one reading a turn of each of these streams, turn by turn."""
    numbers = np.asarray(streams, np.int64)
    partitions = (numbers % PARTITIONS).tolist()
    for turn in turns:
        yield from zip(partitions, payloads(numbers, turn), strict=True)


def records(streams: np.ndarray, turn: int, first_offset: int, partition: int = 0) -> list[Record]:
    """The same as records of one partition."""
    numbered = enumerate(payloads(streams, turn), first_offset)
    return [Record("readings", partition, offset, T0_MS + turn * INTERVAL_MS, None, value) for offset, value in numbered]


def artifact(settings: Settings) -> bytes:
    """Weights of ordinary size, so that the real network runs."""
    engine = settings.engine()
    return artifacts.dump(_network(engine), artifacts.Manifest.of(engine))


def pipeline(settings: Settings, stage: Stage = lambda _name: nullcontext()) -> Pipeline:
    """An empty pipeline at offset 0 with these weights; `stage` is called around each stage."""

    def engine_for(epoch: Epoch) -> Engine:
        return Forecaster(epoch.engine, _network(epoch.engine), epoch.model_version)

    return Pipeline(0, [Epoch(0, 0, "seeded", settings.engine(), ENGINE_VERSION, "none")], engine_for, stage=stage)


def _network(engine: EngineSettings) -> Any:
    """Seeded weights that know the readings' season, so that rows keep a profile of it."""
    network = seeded_network(engine)
    network.period_ms = SEASON_MS
    return network
