"""The memory of replay and audit does not grow with the length of a recording."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import fingerprints
from daemon.epochs import Epoch
from daemon.recording import Writer
from daemon.records import Record
from models.layout import ENGINE_VERSION
from tests import examples
from tests.harness import environment

ENGINE = examples.settings(hidden=8, context=16, horizon=4)
PEAK = """
import resource, sys
from daemon import cli
code = cli.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, code)
"""
#: Lists grow in steps; 36,000 readings more that were kept as they come would take twice as much and more.
SLACK_KIB = 10 << 10


def recording(path: Path, records: int) -> Path:
    """Readings of twenty streams in turn, and the epoch that serves them."""
    epoch = Epoch(0, 0, "naive", ENGINE, ENGINE_VERSION, fingerprints.here(ENGINE))
    with Writer(path) as writer:
        writer.write_epoch(epoch)
        for offset in range(records):
            reading = (f"s{offset % 20}", examples.T0_MS + offset // 20 * examples.MINUTE_MS, float(offset * 7 % 17))
            writer.write(examples.record(offset, reading))
    return path


def peak_kib(*arguments: str | Path) -> int:
    """Most memory that a command of recurd has held."""
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=400)
    peak, code = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stdout + done.stderr
    return int(peak)


def sent(path: Path, out: Path) -> Path:
    """The lines of a replay as a recording of the forecasts topic."""
    with path.open("rb") as lines, Writer(out) as writer:
        for offset, line in enumerate(lines):
            source, _, forecast = line.removeprefix(b'{"source":"').partition(b'","forecast":')
            key = json.loads(forecast[:-2])["stream"].encode()
            writer.write(Record("out", 0, offset, 0, key, forecast[:-2], (("source", source),)))
    return out


@pytest.mark.slow
def test_more_readings_take_no_more_memory(tmp_path: Path) -> None:
    """Replay with its scores and a season's, and an audit of the same."""
    peaks = []
    for records in (24_000, 60_000):  # both more than one poll
        data, out = recording(tmp_path / "log.jsonl.zst", records), tmp_path / "out.jsonl"
        replayed = peak_kib("replay", data, "--out", out, "--with-source", "--season", "1h")
        forecasts = sent(out, tmp_path / "sent.jsonl.zst")
        peaks.append((replayed, peak_kib("audit", "--readings", data, "--forecasts", forecasts)))
    print(peaks)
    for short, long in zip(*peaks, strict=True):
        assert long - short < SLACK_KIB
