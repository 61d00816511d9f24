"""What a benchmark hands back, and how it is shown: medians over repetitions, beside their targets. Knows no benchmark."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """One number. A target is a bound that the number should keep: `at_least` or `at_most`."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Summary:
    """One number over all repetitions of a benchmark."""

    benchmark: str
    measure: Measure  # with the median as its value
    values: Sequence[float]  # of the repetitions, in order

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the target; None without one."""
        _, value, _, at_least, at_most = self.measure
        if at_least is None and at_most is None:
            return None
        return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)

    def line(self) -> str:
        """For people: name, median, range, target."""
        name, value, unit, at_least, at_most = self.measure
        spread = f"{number(min(self.values))} .. {number(max(self.values))}" if len(self.values) > 1 else ""
        bound = f">= {number(at_least)}" if at_least is not None else f"<= {number(at_most)}" if at_most is not None else ""
        kept = {None: "", True: "met", False: "NOT MET"}[self.met]
        return f"  {name:<46} {number(value):>12} {unit:<13} {spread:<22} {bound:<11} {kept}".rstrip()

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        name, value, unit, at_least, at_most = self.measure
        return {
            "benchmark": self.benchmark,
            "name": name,
            "median": value,
            "unit": unit,
            "values": list(self.values),
            "at_least": at_least,
            "at_most": at_most,
            "met": self.met,
        }


def summed_up(benchmark: str, repetitions: Sequence[Iterable[Measure]]) -> list[Summary]:
    """Medians over repetitions that brought the same measures."""
    summaries = []
    for same in zip(*repetitions, strict=True):
        values = [measure.value for measure in same]
        summaries.append(Summary(benchmark, same[0]._replace(value=statistics.median(values)), values))
    return summaries


def write_json(path: Path, machine: Mapping[str, Any], conditions: Mapping[str, Any], summaries: Sequence[Summary]) -> None:
    """Everything in one JSON file."""
    document = {"machine": machine, **conditions, "results": [summary.as_json() for summary in summaries]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def number(value: float | None) -> str:
    """Four significant digits at least, no exponent."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
