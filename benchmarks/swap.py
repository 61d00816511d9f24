"""New weights under load: latency and gaps in the forecasts while four partitions of 5,000 streams each begin an epoch.

The version is published before the measurement; what is measured begins when `current` names it. A forecast's latency is counted
as in `latency`. Every stream reads every two seconds, so all rows are rebuilt as soon as their turn has come.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from benchmarks.latency import ended, started
from benchmarks.readings import PARTITIONS
from benchmarks.report import Measure
from benchmarks.site import PATIENCE_S, Look, Site, site
from config.settings import Settings
from tests import examples
from tests.harness import Command, wait_until

STREAMS = 20_000
READINGS_PER_S = 10_000
#: Every stream has its window before the measurement begins; the broker's JVM has compiled.
WARM_S, BEFORE_S, AFTER_S = 40.0, 20.0, 10.0
#: A partition's streams go over within this time, the warmer's work included.
SECONDS_EACH = 16.0


def run(scale: float) -> list[Measure]:
    """One swap at scale 1; a smaller scale has fewer streams and readings."""
    rate, seconds = READINGS_PER_S * scale, WARM_S + BEFORE_S + PARTITIONS * SECONDS_EACH + AFTER_S
    with site() as here:
        here.start()
        version = _publish(here)
        reader = started("reader", here, out=here.directory / "seen.npy", count=int(seconds * rate))
        producer = started("producer", here, streams=int(STREAMS * scale), rate=rate, seconds=seconds)
        time.sleep(WARM_S + BEFORE_S)
        before, began_ms, ended_ms = here.look(), *_swap(here, version)
        behind = json.loads(ended(producer))
        ended(reader)
        times = np.load(here.directory / "seen.npy")  # (2, N), arrived and due, by arrival
        return [*_measures(times, began_ms, ended_ms), *_rebuilt(before, here.look()), _behind(behind)]


def _publish(here: Site) -> str:
    """Publish other weights, not yet in force; their version."""
    version, data = examples.seeded_weights(Settings().engine(), 0.5)
    path = Path(here.directory / "other.safetensors")
    path.write_bytes(data)
    Command(here.topics.settings)("models", "import", path)
    return version


def _swap(here: Site, version: str) -> tuple[float, float]:
    """Put a version in force and wait until every partition has rebuilt its rows; epoch ms of both."""
    life, began_ms = here.daemon.life, time.time() * 1000
    here.topics.send([(0, b"current", version.encode(), None)], topic="models")
    begun = lambda: [line for line in life.named("epoch started") if line.fields["model_version"] == version]  # noqa: E731
    wait_until(lambda: len(begun()) == PARTITIONS, "the swap", PATIENCE_S)
    return began_ms, time.time() * 1000 + SECONDS_EACH * 1000


def _measures(times: np.ndarray, began_ms: float, ended_ms: float) -> list[Measure]:
    arrived_ms, due_ms = times
    latency_ms = arrived_ms - due_ms
    before = (due_ms >= began_ms - BEFORE_S * 1000) & (due_ms < began_ms)
    during = (due_ms >= began_ms) & (due_ms < ended_ms)
    usual, swapping = (float(np.percentile(latency_ms[part], 99)) for part in (before, during))
    gaps_ms = np.diff(arrived_ms[(arrived_ms >= began_ms) & (arrived_ms < ended_ms)])
    return [
        Measure(f"the swap took, with {SECONDS_EACH:g} s for the last partition", (ended_ms - began_ms) / 1000, "s"),
        Measure("p99 before", usual, "ms"),
        Measure("p99 during", swapping, "ms"),
        Measure("p99 during to before", swapping / usual, "", at_most=3),
        Measure("longest gap before", float(np.diff(arrived_ms[before]).max()), "ms"),
        Measure("longest gap during", float(gaps_ms.max()), "ms", at_most=500),
    ]


def _rebuilt(before: Look, after: Look) -> list[Measure]:
    name = "recurd_rows_rebuilt_total{%s}"
    return [
        Measure(f"rows rebuilt by the {by}", after.metrics[name % by] - before.metrics[name % by], "")
        for by in ("loop", "warmer")
    ]


def _behind(said: dict[str, float]) -> Measure:
    return Measure("producer behind its clock, p99", said["p99_ms"], "ms")
