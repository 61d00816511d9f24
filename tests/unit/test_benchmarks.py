"""Benchmarks: each that needs no broker runs, and what they bring is summed up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import linear, replay, stages
from benchmarks.readings import payload, payloads, values
from benchmarks.report import Measure, Summary, summed_up, write_json


@pytest.mark.parametrize("run", [linear.run, replay.run, stages.run])
def test_a_tiny_run_brings_positive_numbers(run: Callable[[float], list[Measure]]) -> None:
    """Every measure of a run is a number above zero, under a name of its own."""
    measures = run(0.001)
    assert len({measure.name for measure in measures}) == len(measures)
    assert all(measure.value > 0 for measure in measures)


def test_a_summary_is_the_median() -> None:
    """Repetitions of one measure become their median, and all values stay."""
    (summary,) = summed_up("b", [[Measure("m", value, "us")] for value in (3.0, 1.0, 2.0)])
    assert summary == Summary("b", Measure("m", 2.0, "us"), [3.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("measure", "met"),
    [
        (Measure("m", 5, "us"), None),
        (Measure("m", 5, "us", at_least=5), True),
        (Measure("m", 4.9, "us", at_least=5), False),
        (Measure("m", 5, "us", at_most=5), True),
        (Measure("m", 5.1, "us", at_most=5), False),
    ],
)
def test_a_target_includes_its_bound(measure: Measure, met: bool | None) -> None:
    """A number on its bound keeps the target; without a target there is nothing to keep."""
    assert Summary("b", measure, [measure.value]).met is met


def test_results_are_written_for_machines(tmp_path: Path) -> None:
    """The file holds machine, conditions and every summary."""
    write_json(tmp_path / "out.json", {"cores": 2}, {"scale": 1.0}, [Summary("b", Measure("m", 2.0, "us"), [2.0])])
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["machine"], written["scale"]) == ({"cores": 2}, 1.0)
    assert written["results"][0].items() >= {"benchmark": "b", "name": "m", "median": 2.0, "met": None}.items()


def test_readings_are_seeded() -> None:
    """The same streams and turn give the same bytes."""
    streams = np.arange(5)
    assert payloads(streams, 3) == payloads(streams, 3)
    assert not np.array_equal(values(streams, 3), values(streams, 4))
    assert json.loads(payload(7, 1000, 1.5)) == {"stream": "sensor-0000007", "time": 1000, "value": 1.5}
