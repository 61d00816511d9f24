"""The benchmark beside Kafka Streams, as far as it needs no Java: what it measures, and what it refuses."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks import java
from config.settings import EngineSettings
from models.arithmetic import seeded_network

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python loads its schemas by importlib's old read_text
    from benchmarks import streams
    from benchmarks.streams import SPAN_S, WARM_S, Look, Pace, Variant, check_forecast, compared, measured, one_step, weights


def _looks(until_s: float, rate: int = 1000) -> Iterator[Look]:
    """A process that starts after 2 s and uses half a core, looked at twice a second; the broker a quarter, others another."""
    for half in range(int(2 * until_s)):
        at_s = half / 2
        yield Look(at_s, int(rate * max(0.0, at_s - 2)), at_s / 2, at_s / 4, at_s)


def test_the_span_begins_when_the_process_is_warm() -> None:
    """What is measured are the readings between two looks that are so far apart, whatever came before."""
    found = measured(_looks(100), readings=10**6)
    assert found == Pace(1000.0, 500.0, 250.0, 0.25)


def test_a_backlog_that_ends_shortens_the_span(capsys: pytest.CaptureFixture[str]) -> None:
    """The last look that still found work to do ends it, and it is said."""
    readings = int(1000 * (WARM_S + SPAN_S / 2))
    assert measured(_looks(100), readings).rate == 1000.0
    assert "the readings lasted only 9 s" in capsys.readouterr().out


def test_a_backlog_that_ends_too_early_is_refused() -> None:
    """Nothing is told of a process that was done before it was warm."""
    with pytest.raises(AssertionError, match="too few"):
        measured(_looks(100), readings=1000)


def test_recurd_is_held_against_the_best() -> None:
    """The best of those that commit as often; what runs without the network is none."""
    paces = {
        Variant(1, 10_000, "memory"): Pace(20.0, 1.0, 1.0, 0.0),
        Variant(1, 100, "memory"): Pace(10.0, 1.0, 1.0, 0.0),
        Variant(1, 100, "rocksdb"): Pace(5.0, 1.0, 1.0, 0.0),
        Variant(1, 100, "memory", network=False): Pace(50.0, 1.0, 1.0, 0.0),
    }
    assert [measure.value for measure in compared(15.0, paces)] == [1.5, 0.75]


def test_variants_are_different() -> None:
    """Each has a name and settings of its own."""
    assert len({variant.name for variant in streams.VARIANTS}) == len(streams.VARIANTS)
    assert all(variant.settings()["processing.guarantee"] == "exactly_once_v2" for variant in streams.VARIANTS)


def test_the_application_is_given_all_it_multiplies() -> None:
    """Weights and inputs have the sizes that the Java source reads: features 16, hidden 64, 24 leads, 3 levels, 160 seen."""
    network = seeded_network(EngineSettings())
    given, expected = one_step(network)
    assert len(weights(network)) == 4 * (16 * 256 + 64 * 256 + 256 + 64 * 72 + 72 + 160 * 24)
    assert (len(given), len(expected)) == (4 * (16 + 160 + 64 + 64), 72 + 64 + 64)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [("stream", "a", True), ("stream", "b", False), ("0.9", [3.0] * 24, True), ("0.9", [1.0] * 24, False), ("0.5", [2.0], False)],
)
def test_a_forecast_must_be_whole(field: str, value: object, right: bool) -> None:
    """Another stream's, crossing or missing quantiles are refused."""
    levels: dict[str, Any] = {"0.1": [1.0] * 24, "0.5": [2.0] * 24, "0.9": [3.0] * 24}
    forecast: dict[str, Any] = {"stream": "a", "targets": {"value": levels}}
    (forecast if field == "stream" else levels)[field] = value
    given = b"a", json.dumps(forecast).encode(), {"source": b"0,7,0"}
    if right:
        check_forecast(*given)
    else:
        with pytest.raises((AssertionError, ValueError)):
            check_forecast(*given)


def test_without_a_jdk_it_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what is missing and brings no measure."""
    monkeypatch.setattr(java, "missing", lambda: ["javac"])
    assert streams.run(1.0) == []
    assert "left out, since javac" in capsys.readouterr().out
