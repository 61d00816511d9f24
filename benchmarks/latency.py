"""From produce to read-committed visibility, at 5,000 readings a second: a producer and a reader in processes of their own.

The producer is paced by a monotonic clock; a reading's own time is when it was **due**, so that a producer that falls behind
does not flatter the daemon (no coordinated omission). The forecast carries that time, and the reader compares it with its clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.readings import PARTITIONS
from benchmarks.report import Measure
from benchmarks.site import PATIENCE_S, Look, Site, site
from benchmarks.throughput import Beside, alone
from tests import harness

STREAMS = 20_000
READINGS_PER_S = 5000
#: So long that each partition checkpoints six times at the default interval of 10 s.
SECONDS = 70
#: Before that: every stream must have started, and a broker that has just been started compiles its code for half a minute.
WARM_S = 40
CHECKPOINTS = 6 * PARTITIONS


def run(scale: float, beside: Beside = alone) -> list[Measure]:
    """70 s of load at scale 1; a smaller scale shortens it."""
    seconds = max(SECONDS * scale, 4.0)
    with site() as here, beside(here):
        here.start()
        before = here.look()
        reader = started("reader", here, out=here.directory / "seen.npy", count=int((WARM_S + seconds) * READINGS_PER_S))
        producer = started("producer", here, streams=STREAMS, rate=READINGS_PER_S, seconds=WARM_S + seconds)
        behind = json.loads(ended(producer))
        ended(reader)
        return _measures(here.directory / "seen.npy", behind, before, here.look())


def _measures(seen: Path, behind: dict[str, float], before: Look, after: Look) -> list[Measure]:
    arrived_ms, due_ms = np.load(seen)  # (2, N), by arrival
    counted = due_ms >= due_ms.min() + WARM_S * 1000
    latency_ms = (arrived_ms - due_ms)[counted]
    checkpoints = after.metrics["recurd_checkpoint_seconds_count"] - before.metrics["recurd_checkpoint_seconds_count"]
    transactions = "recurd_transactions_total{committed}"
    return [
        Measure("forecasts seen", float(counted.sum()), ""),
        Measure("p50", float(np.percentile(latency_ms, 50)), "ms"),
        Measure("p99", float(np.percentile(latency_ms, 99)), "ms", at_most=250),
        Measure("p99.9", float(np.percentile(latency_ms, 99.9)), "ms"),
        Measure("largest", float(latency_ms.max()), "ms"),
        Measure("producer behind its clock, p99", behind["p99_ms"], "ms"),
        Measure("checkpoints, of all partitions", checkpoints, "", at_least=CHECKPOINTS),
        Measure("transactions", after.metrics[transactions] - before.metrics[transactions], ""),
        Measure("CPU of the daemon", sum(after.cpu_s.values()) - sum(before.cpu_s.values()), "s"),
    ]


def started(name: str, here: Site, **options: Any) -> subprocess.Popen[str]:
    """Start `benchmarks.producer` or `benchmarks.reader` and wait until it is connected."""
    topic = here.topics.name("forecasts" if name == "reader" else "readings")
    command = [sys.executable, "-m", f"benchmarks.{name}", "--bootstrap", here.topics.bootstrap, "--topic", topic]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=harness.environment())
    assert process.stdout is not None
    assert process.stdout.readline() == "connected\n"
    return process


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for a process to end well; the rest of what it said."""
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0
    return said
