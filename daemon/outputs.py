"""Outputs to record values, for every kind: forecasts by `daemon.codec`, and here the records of the other kinds.

    many_to_one   stream, time, model_version, window {from, to, readings}, classes or quantiles
    one_to_many   stream, time, interval_ms, model_version, scenarios
    smoother      stream, time, lag, model_version, readings, quantiles
    chain         stream, time, model_version, digest

One line of JSON each, numbers to six significant digits, null for what is not finite. A row's bytes depend on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from config.settings import EngineSettings
from daemon import codec
from daemon.codec import format_times, six_digits
from models.engine import Answers, ChainDigests, Scenarios, Smoothed

#: What many_to_one's quantiles of a label are called.
LABEL = "label"

Document = dict[str, Any]


def encode(output: Any, streams: Sequence[str], time_ms: np.ndarray, engine: EngineSettings, model_version: str) -> list[bytes]:
    """One record value for each of the B rows of an engine's output, in their order.

    Args:
        output: Of any engine.
        streams: B stream ids.
        time_ms: Times of the readings that the rows follow, int64 (B,).
        engine: The settings it was made under.
        model_version: What made it.
    """
    documents = _DOCUMENTS.get(type(output))
    if documents is None:
        return codec.encode(output, streams, time_ms, engine.targets, engine.model.levels, model_version)
    written = documents(output, time_ms, engine, model_version)
    return [orjson.dumps({"stream": stream, **document}) for stream, document in zip(streams, written, strict=True)]


def _answers(output: Answers, time_ms: np.ndarray, engine: EngineSettings, model_version: str) -> Iterator[Document]:
    is_class = engine.model.predicts == "class"
    names = engine.targets if engine.model.predicts == "next_mean" else (LABEL,)
    columns = format_times(time_ms), format_times(output.first_ms), format_times(output.last_ms), output.readings.tolist()
    for time, first, last, readings, answer in zip(*columns, six_digits(output.answers).tolist(), strict=True):
        yield {
            "time": time,
            "model_version": model_version,
            "window": {"from": first, "to": last, "readings": readings},
            **(
                {"classes": dict(zip(engine.model.labels, answer[0], strict=True))}
                if is_class
                else _quantiles(names, answer, engine)
            ),
        }


def _scenarios(output: Scenarios, time_ms: np.ndarray, engine: EngineSettings, model_version: str) -> Iterator[Document]:
    columns = format_times(time_ms), output.interval_ms.tolist(), six_digits(output.paths).tolist()
    for time, interval_ms, paths in zip(*columns, strict=True):
        yield {
            "time": time,
            "interval_ms": interval_ms or None,
            "model_version": model_version,
            "scenarios": dict(zip(engine.targets, paths, strict=True)),
        }


def _smoothed(output: Smoothed, _time_ms: np.ndarray, engine: EngineSettings, model_version: str) -> Iterator[Document]:
    columns = format_times(output.time_ms), six_digits(output.readings).tolist(), six_digits(output.quantiles).tolist()
    for time, readings, quantiles in zip(*columns, strict=True):
        yield {
            "time": time,
            "lag": engine.model.lag,
            "model_version": model_version,
            "readings": dict(zip(engine.targets, readings, strict=True)),
            **_quantiles(engine.targets, quantiles, engine),
        }


def _digests(output: ChainDigests, time_ms: np.ndarray, _engine: EngineSettings, model_version: str) -> Iterator[Document]:
    for time, digest in zip(format_times(time_ms), output.digests, strict=True):
        yield {"time": time, "model_version": model_version, "digest": digest.tobytes().hex()}


def _quantiles(names: Iterable[str], numbers: Sequence[Sequence[float]], engine: EngineSettings) -> Document:
    levels = [repr(float(level)) for level in engine.model.levels]
    return {"quantiles": {name: dict(zip(levels, each, strict=True)) for name, each in zip(names, numbers, strict=True)}}


_DOCUMENTS: dict[type, Callable[[Any, np.ndarray, EngineSettings, str], Iterator[Document]]] = {
    Answers: _answers,
    ChainDigests: _digests,
    Scenarios: _scenarios,
    Smoothed: _smoothed,
}
