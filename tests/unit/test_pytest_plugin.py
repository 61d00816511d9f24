"""The pytest plugin, as a user of the installed package meets it: a pytest of its own, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import examples
from tests.unit.test_replay import RECORDS, SETTINGS, record

TEST = """
def test_pump(recurd_replay):
    settings = {"model.hidden": 8, "model.context": 16, "model.horizon": 2}
    forecasts = recurd_replay("log.jsonl", weights=["weights"], settings=settings)
    assert len(forecasts) == 80
    assert set(forecasts[0]["targets"]) == {"value"}
"""


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    """A test of a user's, its recording and weights."""
    record(pytester.path, RECORDS)
    (pytester.path / "test_pump.py").write_text(TEST)
    (pytester.path / "weights").write_bytes(examples.seeded_weights(SETTINGS.engine())[1])
    return pytester.path


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """A pytest of its own in that folder; it finds the plugin as it finds every installed one."""

    def ran(*options: str) -> tuple[int, str]:
        done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options)
        return done.ret, done.stdout.str()

    return ran


def test_golden_files(folder: Path, run: Run) -> None:
    """Absent it is asked for; written, it holds; a changed number and a missing forecast are named; it says how it compared."""
    golden = folder / "log.golden.jsonl"
    code, said = run()
    assert (code, f"There is no golden file {golden}" in said, "--update-golden" in said) == (1, True, True)

    assert run("--update-golden")[0] == 0
    code, said = run()
    assert code == 0
    assert "log.golden.jsonl: 80 forecasts equal, compared byte for byte" in said

    head, *kept = golden.read_text().splitlines()
    where = kept[3].index('"0.5":[') + 7
    number = kept[3][where : kept[3].index(",", where)]
    changed = kept[3][:where] + str(float(number) + 1) + kept[3][where + len(number) :]
    golden.write_text("\n".join([head, *kept[:3], changed, *kept[5:]]) + "\n")
    code, said = run()
    assert code == 1
    assert "2 of 80 forecasts differ from log.golden.jsonl (compared byte for byte):" in said
    source = json.loads(kept[3])["source"].split(",")
    assert f"partition {source[0]}, offset {source[1]}, element 0, stream " in said
    assert f"targets.value.0.5[0]: golden {float(number) + 1!r}, now {float(number)!r}" in said
    assert "not in the golden file" in said

    assert run("--update-golden")[0] == 0
    assert golden.read_text().splitlines() == [head, *kept]


def test_other_arithmetic_is_compared_to_a_tolerance(folder: Path, run: Run) -> None:
    """A golden file of another machine is held to 1e-5 and the summary says so."""
    assert run("--update-golden")[0] == 0
    golden = folder / "log.golden.jsonl"
    head, *kept = golden.read_text().splitlines()
    where = kept[3].index('"0.5":[') + 7
    number = kept[3][where : kept[3].index(",", where)]
    near = kept[3][:where] + repr(float(number) * (1 + 4e-6)) + kept[3][where + len(number) :]
    golden.write_text("\n".join([head.replace('"fingerprints": ["', '"fingerprints": ["x'), *kept[:3], near, *kept[4:]]) + "\n")
    code, said = run()
    assert code == 0, said
    assert "80 forecasts equal, compared to 1e-05: the arithmetic is" in said
    golden.write_text("\n".join([head, *kept[:3], near, *kept[4:]]) + "\n")
    assert run()[0] == 1


def test_what_cannot_be_compared_is_said_in_a_sentence(folder: Path, run: Run) -> None:
    """No stack of ours: a golden file that is none, or cut, and a recording that is not there."""
    golden = folder / "log.golden.jsonl"
    assert run("--update-golden")[0] == 0
    whole = golden.read_bytes()
    for data in (b"<<<<<<< ours\n" + whole, b"[1]\n", whole + b"{}\n"):
        golden.write_bytes(data)
        code, said = run()
        assert (code, f"{golden} is no golden file, or was cut: write it anew" in said, "Traceback" in said) == (1, True, False)
    (folder / "log.jsonl").unlink()
    code, said = run()
    assert (code, "log.jsonl cannot be replayed: " in said, "cannot be read (No such file" in said) == (1, True, True)
    assert "daemon/" not in said


def test_a_run_without_the_fixture_stays_quick() -> None:
    """pytest loads the plugin in every run of every project: it imports nothing heavy."""
    program = "import sys, daemon.pytest_plugin; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "numpy", "kafka", "pydantic", "numba"} & set(ran.stdout.split())
