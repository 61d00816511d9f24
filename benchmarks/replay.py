"""Readings a second through `recurd replay` of a JSON recording, on one core: with scores alone, and writing forecasts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.readings import PARTITIONS, artifact, records
from benchmarks.report import Measure
from config.settings import Settings
from daemon import garbage, replay
from daemon.recording import Writer

STREAMS = 20_000
TURNS = 60


def run(scale: float) -> list[Measure]:
    """A recording of sixty readings of each of 20,000 streams, uncompressed: most are of rows whose maps have learned."""
    settings = Settings()
    streams = max(int(STREAMS * scale), 64)
    with tempfile.TemporaryDirectory(prefix="recurd-bench-") as name:
        directory = Path(name)
        data, weights, out = directory / "log.jsonl", directory / "weights.safetensors", directory / "out.jsonl"
        weights.write_bytes(artifact(settings))
        count = _write(data, streams)
        garbage.settle()  # as the command does
        scored = _measures("scored", count, lambda: replay.run(settings, data, [weights], None), at_least=120_000)
        sent = _measures("written", count, lambda: replay.run(settings, data, [weights], out), at_least=70_000)
        with out.open("rb") as lines:
            assert sum(1 for _ in lines) == count
    return [*scored, *sent]


def _measures(what: str, count: int, run: Callable[[], int], at_least: float) -> list[Measure]:
    started_s, used_s = time.perf_counter(), time.process_time()
    assert run() == 0
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - used_s
    return [
        Measure(f"readings a second, {what}", count / wall_s, "1/s", at_least=at_least),
        Measure(f"CPU a reading, {what}", 1e6 * cpu_s / count, "us"),
    ]


def _write(path: Path, streams: int) -> int:
    numbers = np.arange(streams)
    offsets = [0] * PARTITIONS
    with Writer(path) as writer:
        for turn in range(TURNS):
            for partition in range(PARTITIONS):
                part = records(numbers[numbers % PARTITIONS == partition], turn, offsets[partition], partition)
                offsets[partition] += len(part)
                for record in part:
                    writer.write(record)
    return TURNS * streams
