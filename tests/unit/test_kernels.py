"""The compiled loops: no two operations fused into one rounding, one machine code for all shapes, kept for its own source."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Multiply-add in one rounding: x86 (vfmadd231sd, vfnmsub213ps, ...) and Arm (fmadd, fmla, fmsub, ...).
FUSED = re.compile(r"\b(vfn?m(add|sub)\w*|fn?m(add|sub|la|ls))\b")

#: Every entry point, with one row and with many, by the daemon's own calls.
ENTRIES = """
import numpy
from config.settings import EngineSettings, InputSettings, NetworkSettings
from pathlib import Path
from daemon import batch, codec, digits, ordinary, pipeline, recording
from daemon.brokers import record_format
from models import adaptation, features, kernels
from models.arithmetic import _readings, seeded_network
from models.engine import Readings
from models.forecaster import Forecaster
one = EngineSettings(model=NetworkSettings(hidden=8, context=16, horizon=8))
two = one.model_copy(update={"input": InputSettings(values={"a": "a", "b": "b"})})
for engine in (one, two):
    forecaster = Forecaster(engine, seeded_network(engine), "x")
    for rows in (1, 2, 17, 200):
        table = numpy.zeros(rows, forecaster.row_dtype)
        for step in range(3):
            output = forecaster.step(table, Readings(*(column[:rows] for column in _readings(engine, step))))
        codec.encode(output, ["s"] * rows, table["last_time_ms"], engine.targets, engine.model.levels, "x")
        table["version"] = 0
        forecaster.rebuild(table)
        forecaster.rebuild(table[:1])
    pipeline.compile_loops(engine)
for count in (1, 1000):
    lines = b"".join(b'{"partition":0,"offset":%d,"topic":"t"}\\n' % offset for offset in range(count + 1))
    assert len(recording._Reader(Path("log")).read(lines)) == count + 1
    digits.six_digits_or_unsure(*map(numpy.zeros, (count, count), (float, float)), numpy.zeros(count, bool))
    list(record_format.decode_records(b"\\x0c\\0\\0\\0\\1\\1\\0" * count, count, record_format.Batch("t", 0, 0, 0)))
ALL = (
    adaptation.adapt, kernels.observe, kernels.forecast, kernels.window_features, digits.six_digits_or_unsure,
    digits.write_forecasts, ordinary.read_lines, ordinary.read_readings, batch.judge, record_format.index_records
)
"""
CODE = "for entry in ALL:\n    assert len(entry.machine.signatures) == 1, entry\n    print(*entry.machine.inspect_asm().values())"
HITS = "for entry in ALL:\n    print(sum(entry.machine.stats.cache_hits.values()), end=' ')"


def run(cache: Path, script: str) -> str:
    """What a script of our own prints, with this folder to keep machine code in."""
    environment = {"NUMBA_CACHE_DIR": str(cache), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a first start has filled."""
    folder = tmp_path_factory.mktemp("machine-code")
    assembly = run(folder, ENTRIES + CODE)  # code from the cache could not be looked at
    assert len(assembly) > 100_000
    assert not FUSED.findall(assembly)
    return folder


def test_no_operations_are_fused(cache: Path) -> None:
    """A product and a sum rounded once would make bytes depend on the processor. (Looked at where the folder is filled.)"""
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".nbi", ".nbc"}


@pytest.mark.parametrize("line", ["vfmadd231sd %xmm0, %xmm1, %xmm2", "\tvfnmsub213ps\t", "fmadd d0, d1, d2, d3", "fmla v0.2d"])
def test_fused_operations_are_found(line: str) -> None:
    """The look for them knows the names of both processors' instructions."""
    assert FUSED.search(line)


def test_a_second_start_compiles_nothing(cache: Path) -> None:
    """One row or many, one channel or two: it is all the same machine code, and it is there."""
    assert run(cache, ENTRIES + HITS).split() == ["1"] * 10


def test_damaged_machine_code_is_made_anew(cache: Path) -> None:
    """A file cut short by a power loss stops no start; the one after it finds nothing of it."""
    for path in cache.rglob("*index_records*.nbi"):
        path.write_bytes(b"")
    assert run(cache, ENTRIES.replace("ALL = (", "kernels.observe.machine = None\nALL = (") + "print('ran')") == "ran\n"
    assert not [path for path in cache.rglob("*index_records*.nbi") if path.stat().st_size == 0]


def test_where_no_folder_can_be_written_it_compiles(tmp_path: Path) -> None:
    """As under a read-only root."""
    script = "import numpy\nfrom daemon import digits\n"
    script += "print(digits.six_digits_or_unsure(numpy.ones(1), numpy.ones(1), numpy.ones(1, bool)))"
    (tmp_path / "file").touch()
    assert run(tmp_path / "file", script) == "False\n"
