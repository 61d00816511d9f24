"""The benchmark of alarms: the judgement of hits and false alarms by hand, the rival by its definition, and what is left out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import anomalies, unseen
from benchmarks.anomalies import File, Judged, Window


def file(windows: list[Window], length: int = 400) -> File:
    return File("f", Path("f"), np.arange(length), np.zeros(length), windows)


def test_an_alarm_in_a_window_is_a_hit_the_earlier_the_better() -> None:
    """The first alarm counts; the others in the same window are nothing; a window missed costs one."""
    one = file([Window(100, 199)])
    assert anomalies.judge(one, [100, 150, 199]) == Judged(1, 1, 0, 1.0)
    late = anomalies.judge(one, [199])
    assert (late.hits, late.false_alarms) == (1, 0)
    assert 0 < late.points < 0.1
    assert anomalies.judge(one, []) == Judged(1, 0, 0, -1.0)
    assert anomalies.judge(one, []).score == 0
    assert anomalies.judge(one, [100]).score == 100


def test_a_false_alarm_costs_less_just_after_a_window() -> None:
    """And nothing in the probationary part, of which no alarm counts."""
    one = file([Window(100, 199)])
    assert anomalies.judge(one, [10, 59]) == Judged(1, 0, 0, -1.0)
    assert anomalies.judge(one, [60, 80]) == Judged(1, 0, 2, pytest.approx(-1 - 2 * 0.11))
    assert anomalies.judge(one, [399, 205]).points == pytest.approx(-1 - 0.11 * (_soon(200 / 99) + _soon(6 / 99)))
    assert _soon(6 / 99) < 0.2


def _soon(widths: float) -> float:
    return 1 - 2 / (1 + math.exp(5 * widths))


def test_windowed_gaussian_is_the_tail_under_the_readings_before() -> None:
    """Written out reading by reading: all readings so far, later the window that moves by its step."""
    values = np.random.Generator(np.random.PCG64(1)).standard_normal(6700)
    found = anomalies.windowed_gaussian(values)
    for place, first, last in ((1, 0, 1), (50, 0, 50), (6400, 0, 6400), (6499, 0, 6400), (6500, 100, 6500), (6699, 200, 6600)):
        before = values[first:last]
        deviations = abs(values[place] - before.mean()) / (before.std() or 1e-6)
        if deviations < 30:
            assert found[place] == pytest.approx(-math.log10(0.5 * math.erfc(deviations / math.sqrt(2))))
        else:
            assert found[place] > 190
    assert math.isnan(found[0])


def test_without_data_it_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With a sentence that says what is wanted."""
    monkeypatch.setenv("RECURD_DATA", str(tmp_path))
    assert anomalies.run(1.0) == []
    assert unseen.run(1.0) == []
    said = capsys.readouterr().out
    assert "RECURD_DATA names no folder that holds NAB/combined_windows.json" in said
    assert "RECURD_DATA names no folder that holds ETT/ETTh1.csv, ETT/ETTh2.csv" in said


def test_labels_are_found_in_the_files(tmp_path: Path) -> None:
    """A window is the places of its readings."""
    rows = [f"2014-04-01 00:{minute:02}:00,{minute}.5" for minute in range(50)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.csv").write_text("\n".join(["timestamp,value", *rows]))
    labels = '{"a/b.csv": [["2014-04-01 00:20:00.000000", "2014-04-01 00:29:00.000000"]], "a/absent.csv": []}'
    (tmp_path / "combined_windows.json").write_text(labels)
    (one,) = anomalies.read(tmp_path)
    assert (one.name, one.windows, one.probationary) == ("a/b.csv", [Window(20, 29)], 7)
    assert one.values[49] == 49.5
    assert one.normal().sum() == 50 - 7 - 10
