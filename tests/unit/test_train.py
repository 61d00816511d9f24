"""recurd train: data in, a weights file out that serves, or one clear sentence and no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from config.settings import InputSettings, ModelSettings, Settings, SettingsError
from daemon import train
from daemon.errors import OperatorError
from daemon.recording import Writer
from daemon.records import Record
from models import artifacts, training
from models.artifacts import Manifest

SETTINGS = Settings(model=ModelSettings(hidden=8, horizon=4, context=16))
MINUTE_MS = 60_000
LENGTH = 150


QUICK = training.Recipe(steps=10, rows=4, length=20, burn_in=4, judge_every=5)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps are enough to see that everything is passed on."""
    monkeypatch.setattr(training, "Recipe", lambda: QUICK)


def values(seed: int) -> list[float]:
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(LENGTH)
    return [round(float(x), 3) for x in 20 + noise.cumsum()]


def wide_csv(path: Path) -> Path:
    rows = [f"2026-01-01T{i // 60:02}:{i % 60:02}:00Z,{a},{b}" for i, (a, b) in enumerate(zip(values(1), values(2), strict=True))]
    path.write_text("\n".join(["time,a,b", *rows]))
    return path


def recording(path: Path) -> Path:
    with Writer(path) as writer:
        for i, value in enumerate(values(1)):
            text = f'{{"stream":"s","time":{1_700_000_000_000 + i * MINUTE_MS},"value":{value}}}'
            writer.write(Record("readings", 0, 2 * i, -1, None, text.encode()))
            writer.write(Record("readings", 0, 2 * i + 1, -1, None, b"no reading"))
    return path


def test_a_csv_file_becomes_weights_that_serve(tmp_path: Path) -> None:
    """The file loads under the settings it was trained for, and says where it comes from."""
    out, said = tmp_path / "w.safetensors", list[str]()
    assert train.run(SETTINGS, wide_csv(tmp_path / "d.csv"), out, None, 7, said.append) == 0
    _, manifest = artifacts.load(out.read_bytes(), SETTINGS.engine())
    facts = manifest.training
    assert facts.seed == 7
    assert facts.last_time_ms is not None
    assert facts.first_time_ms is not None
    assert facts.last_time_ms - facts.first_time_ms == (LENGTH - 1) * MINUTE_MS
    assert set(facts.scores) == {"pinball", "mae", "naive_mae"}
    assert manifest == Manifest.of(SETTINGS.engine(), facts)
    assert artifacts.version_of(out.read_bytes()) in said[0]
    assert f"{2 * LENGTH} readings of 2 streams" in said[0]


def test_a_recording_with_records_that_are_no_readings(tmp_path: Path) -> None:
    """They are left out and counted."""
    out, said = tmp_path / "w.safetensors", list[str]()
    train.run(SETTINGS, recording(tmp_path / "d.jsonl"), out, None, 0, said.append)
    assert f"{LENGTH} readings of 1 streams" in said[0]
    assert f"{LENGTH} records not decodable" in said[0]
    assert out.exists()


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    """Data, settings and seed decide every byte."""
    data = wide_csv(tmp_path / "d.csv")
    for name in ("one", "two"):
        train.run(SETTINGS, data, tmp_path / name, None, 7, lambda _: None)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_until(tmp_path: Path) -> None:
    """Readings at that time and later are not used."""
    out, said = tmp_path / "w", list[str]()
    train.run(SETTINGS, wide_csv(tmp_path / "d.csv"), out, "2026-01-01T02:00:00Z", 0, said.append)
    assert "240 readings of 2 streams, 2026-01-01T00:00:00.000Z to 2026-01-01T01:59:00.000Z" in said[0]


@pytest.mark.parametrize(
    ("settings", "data", "until", "error", "message"),
    [
        (SETTINGS, "d.csv", "yesterday", SettingsError, "--until 'yesterday' is no time"),
        (SETTINGS, "d.csv", "2026-01-01T00:10:00Z", OperatorError, "d.csv: 20 readings are not enough"),
        (SETTINGS, "absent.csv", None, OperatorError, "cannot be read"),
        (SETTINGS, "absent.jsonl", None, OperatorError, "cannot be read"),
        (Settings(input=InputSettings(time="when", stream="id")), "no_columns.csv", None, OperatorError, "no column 'when'"),
        (Settings(model=ModelSettings(kind="chain")), "d.csv", None, SettingsError, 'model.kind = "chain"'),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_no_file(
    tmp_path: Path, settings: Settings, data: str, until: str | None, error: type[Exception], message: str
) -> None:
    """One sentence, and neither the weights nor a part of them."""
    wide_csv(tmp_path / "d.csv")
    (tmp_path / "no_columns.csv").write_text("a,b\n1,2\n")
    with pytest.raises(error, match=message):
        train.run(settings, tmp_path / data, tmp_path / "w", until, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv", "no_columns.csv"]


def test_a_file_that_cannot_be_written_is_noticed_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a minute for that."""
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(OperatorError, match="cannot be written"):
        train.run(SETTINGS, wide_csv(tmp_path / "d.csv"), tmp_path / "absent" / "w", None, 0)
