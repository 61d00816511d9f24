"""The command line: choose benchmarks, run them one after the other, print and write what they say."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import (
    accuracy,
    anomalies,
    latency,
    linear,
    machine,
    memory,
    replay,
    report,
    restore,
    retraining,
    stages,
    streams,
    swap,
    throughput,
    unseen,
)
from daemon import garbage


class Benchmark(NamedTuple):
    """A way to run once, and how often by default."""

    run: Callable[[float], list[report.Measure]]
    repetitions: int


BENCHMARKS = {
    "throughput": Benchmark(throughput.run, 3),
    "latency": Benchmark(latency.run, 1),
    "swap": Benchmark(swap.run, 1),
    "retraining": Benchmark(retraining.run, 1),
    "memory": Benchmark(memory.run, 1),
    "restore": Benchmark(restore.run, 1),
    "linear": Benchmark(linear.run, 3),
    "streams": Benchmark(streams.run, 1),
    "stages": Benchmark(stages.run, 3),
    "replay": Benchmark(replay.run, 3),
    "accuracy": Benchmark(accuracy.run, 1),
    "anomalies": Benchmark(anomalies.run, 1),
    "unseen": Benchmark(unseen.run, 1),
}


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the sizes (default 1: those of the targets)")
    parser.add_argument("--repeat", type=int, help="repetitions of each; by default 3 of the short ones, 1 of the long ones")
    parser.add_argument("--out", type=Path, help="write everything as JSON to this file")
    options = parser.parse_args()
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    garbage.settle()  # as every command of recurd does
    here = machine.facts()
    print("\n".join(f"{key:<13} {value}" for key, value in here.items()))
    summaries = []
    for name in options.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        started_s = time.monotonic()
        repetitions = [benchmark.run(options.scale) for _ in range(options.repeat or benchmark.repetitions)]
        found = report.summed_up(name, repetitions)
        print(f"\n{name}: median of {len(repetitions)}, scale {options.scale:g}, {time.monotonic() - started_s:.0f} s")
        print("\n".join(summary.line() for summary in found), flush=True)
        summaries += found
        if options.out:
            report.write_json(options.out, here, {"scale": options.scale}, summaries)


if __name__ == "__main__":
    main()
