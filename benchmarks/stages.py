"""What each stage of the data path costs a reading, in one process: decode, batch, gather, step, scatter, encode.

poll, send and commit are the client's and the broker's: the benchmark `throughput` shows all nine from a running daemon.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.readings import pipeline, records
from benchmarks.report import Measure
from config.settings import Settings
from daemon.metrics import STAGES

BATCHES = (256, 1000)
STREAMS = 20_000
TURNS = 5
HERE = STAGES[STAGES.index("decode") : STAGES.index("encode") + 1]


def run(scale: float) -> list[Measure]:
    """Polls of 256 and of 1,000 readings of one partition with 20,000 streams."""
    streams = max(int(STREAMS * scale), 64)
    return [measure for batch in BATCHES for measure in _stages(streams, batch)]


def _stages(streams: int, batch: int) -> list[Measure]:
    used_s: Counter[str] = Counter()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started_s = time.perf_counter()
        yield
        used_s[name] += time.perf_counter() - started_s

    running = pipeline(Settings(), stage)
    offset = 0
    total_s = 0.0
    for turn in range(TURNS + 1):
        if turn == 1:  # first readings start rows, which is dearer
            used_s.clear()
            total_s = 0.0
        for first in range(0, streams, batch):
            poll = records(np.arange(first, min(first + batch, streams)), turn, offset)
            offset += len(poll)
            started_s = time.process_time()
            running.process(poll)
            total_s += time.process_time() - started_s
    readings = TURNS * streams
    names = [Measure(f"{name}, polls of {batch:,}", 1e6 * used_s[name] / readings, "us a reading") for name in HERE]
    return [*names, Measure(f"CPU of all, polls of {batch:,}", 1e6 * total_s / readings, "us a reading")]
