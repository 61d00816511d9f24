"""Replay: a file in, the pipeline's forecasts out, under the recording's epochs or the settings' own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from config.settings import Settings, load
from daemon import replay
from daemon.engines import Engines
from daemon.epochs import Epoch
from daemon.errors import OperatorError, StateError
from daemon.pipeline import Pipeline
from daemon.recording import Writer
from daemon.records import Record
from models import artifacts
from models.arithmetic import seeded_network
from models.layout import ENGINE_VERSION
from tests import examples

SETTINGS = Settings.model_validate({"model": {"hidden": 8, "context": 16, "horizon": 2}})
CHAIN = Settings.model_validate({"model": {"kind": "chain", "hidden": 8, "context": 16, "horizon": 2}})
RECORDS = [
    examples.record(offset, (f"s{offset % 3}", examples.T0_MS + offset * examples.MINUTE_MS, float(offset % 7)))._replace(
        partition=partition
    )
    for offset in range(40)
    for partition in (0, 1)
]


def record(path: Path, records: Sequence[Record] = RECORDS, epochs: Sequence[Epoch] = ()) -> Path:
    with Writer(path / "log.jsonl") as writer:
        for epoch in epochs:
            writer.write_epoch(epoch)
        for one in records:
            writer.write(one)
    return path / "log.jsonl"


def chain_epoch(partition: int, first_offset: int, fingerprint: str = "chain") -> Epoch:
    return Epoch(partition, first_offset, "chain", CHAIN.engine(), ENGINE_VERSION, fingerprint)


def weights(path: Path) -> Path:
    engine = SETTINGS.engine()
    path.write_bytes(artifacts.dump(seeded_network(engine), artifacts.Manifest.of(engine)))
    return path


def forecasts(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("with_source", [False, True])
def test_poll_size_changes_no_byte(tmp_path: Path, with_source: bool) -> None:
    """How records are cut into polls changes nothing within a partition; with one partition not even the order."""
    data = record(tmp_path, RECORDS[::2])
    outputs = set()
    for poll_records in (1, 7, 1000):
        assert replay.run(SETTINGS, data, [], tmp_path / "out", with_source=with_source, poll_records=poll_records) == 0
        outputs.add((tmp_path / "out").read_bytes())
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 40


def test_output_is_the_pipelines_values(tmp_path: Path) -> None:
    """A line is exactly the value that the daemon sends."""
    data = record(tmp_path, RECORDS[::2], [chain_epoch(0, 0)])
    assert replay.run(CHAIN, data, [], tmp_path / "out") == 0
    expected = Pipeline(0, [chain_epoch(0, 0)], Engines({}.get)).process(RECORDS[::2]).forecasts
    assert (tmp_path / "out").read_bytes() == b"".join((message.value or b"") + b"\n" for message in expected)


@pytest.mark.parametrize("streams", [[], ["s1"]])
def test_without_a_file_it_says_the_same(tmp_path: Path, streams: list[str]) -> None:
    """Forecasts that go nowhere are counted and scored all the same."""
    data, said = record(tmp_path), list[str]()
    for out in (tmp_path / "out", None):
        assert replay.run(SETTINGS, data, [], out, streams=streams, say=said.append) == 0
    with_file, without = ([line for line in text.splitlines() if "/s" not in line] for text in said)
    assert with_file == without
    assert any("forecasts" in line for line in without)


def test_source_names_the_reading(tmp_path: Path) -> None:
    """With sources a line says which reading a forecast follows and holds the value unchanged."""
    data = record(tmp_path)
    replay.run(SETTINGS, data, [], tmp_path / "bare")
    replay.run(SETTINGS, data, [], tmp_path / "sourced", with_source=True)
    by_partition = sorted(RECORDS, key=lambda one: (one.partition, one.offset))
    sourced = (tmp_path / "sourced").read_bytes().splitlines()
    assert [json.loads(line)["source"] for line in sourced] == [f"{one.partition},{one.offset},0" for one in by_partition]
    bare = (tmp_path / "bare").read_bytes().splitlines()
    assert [line.split(b'"forecast":', 1)[1][:-1] for line in sourced] == bare


def test_recorded_epochs_are_used(tmp_path: Path) -> None:
    """A recording with epochs is replayed under them, whatever the settings say; when asked, under the settings alone."""
    data = record(tmp_path, RECORDS, [chain_epoch(0, 0), chain_epoch(0, 20), chain_epoch(1, 0)])
    replay.run(SETTINGS, data, [], tmp_path / "recorded")
    assert all("digest" in forecast for forecast in forecasts(tmp_path / "recorded"))
    replay.run(SETTINGS, data, [], tmp_path / "own", as_recorded=False)
    assert all("targets" in forecast for forecast in forecasts(tmp_path / "own"))


def test_records_before_the_first_epoch_are_counted(tmp_path: Path) -> None:
    """What the daemon never took is not replayed, and the summary says so."""
    said: list[str] = []
    data = record(tmp_path, RECORDS[::2], [chain_epoch(0, 15)])
    assert replay.run(CHAIN, data, [], tmp_path / "out", say=said.append, poll_records=10) == 0
    assert len(forecasts(tmp_path / "out")) == 25
    assert "before epochs  15 records" in said[0]


def test_partition_without_epochs_is_refused(tmp_path: Path) -> None:
    """A recording whose epochs do not cover a partition cannot be an audit."""
    data = record(tmp_path, RECORDS, [chain_epoch(0, 0)])
    with pytest.raises(OperatorError, match="none of partition 1"):
        replay.run(CHAIN, data, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_are_the_model_version(tmp_path: Path) -> None:
    """Without epochs the given weights forecast; without weights, version naive."""
    data = record(tmp_path)
    file = weights(tmp_path / "weights")
    assert replay.run(SETTINGS, data, [file], tmp_path / "out") == 0
    assert {forecast["model_version"] for forecast in forecasts(tmp_path / "out")} == {artifacts.version_of(file.read_bytes())}
    assert replay.run(SETTINGS, data, [], tmp_path / "naive") == 0
    assert {forecast["model_version"] for forecast in forecasts(tmp_path / "naive")} == {"naive"}


def test_weights_of_an_epoch_are_needed(tmp_path: Path) -> None:
    """An epoch whose weights are not given is an error that says what to give, and no file appears."""
    epoch = Epoch(0, 0, "cafe", SETTINGS.engine(), ENGINE_VERSION, "f")
    with pytest.raises(StateError, match="give the weights file"):
        replay.run(SETTINGS, record(tmp_path, RECORDS[::2], [epoch]), [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_weights_need_epochs(tmp_path: Path) -> None:
    """Without epochs nothing says which of two weights to use."""
    one, other = weights(tmp_path / "a"), tmp_path / "b"
    other.write_bytes(b"other")
    with pytest.raises(OperatorError, match="give one"):
        replay.run(SETTINGS, record(tmp_path), [one, other], tmp_path / "out")


def test_csv_is_replayed(tmp_path: Path) -> None:
    """A CSV file gives a forecast for every reading of every column."""
    data = tmp_path / "plant.csv"
    data.write_text("time,a,b\n" + "".join(f"{1_700_000_000 + 60 * i},{i},{-i}\n" for i in range(20)))
    assert replay.run(SETTINGS, data, [], tmp_path / "out", poll_records=3) == 0
    assert [forecast["stream"] for forecast in forecasts(tmp_path / "out")] == ["a", "b"] * 20


def test_readable_part_is_replayed(tmp_path: Path) -> None:
    """A cut file gives the forecasts of what is whole, names the line, and the command fails."""
    said: list[str] = []
    data = record(tmp_path, RECORDS[::2])
    data.write_bytes(data.read_bytes()[:-10])
    assert replay.run(SETTINGS, data, [], tmp_path / "out", poll_records=7, say=said.append) == 1
    assert len(forecasts(tmp_path / "out")) == 39
    assert "line 40" in said[-1]


def test_report_counts_every_reading(tmp_path: Path) -> None:
    """Forecasts, drops and dead letters are counted, the latter by reason, with the errors by lead against naive."""
    said: list[str] = []
    late = RECORDS[0]._replace(offset=40)
    broken = RECORDS[0]._replace(offset=41, value=b"{")
    data = record(tmp_path, [*RECORDS[::2], late, broken])
    assert replay.run(SETTINGS, data, [], tmp_path / "out.zst", say=said.append) == 0
    lines = said[0].splitlines()
    assert lines[0].startswith("42 records, 40 readings applied in ")
    assert lines[1:4] == ["forecasts      40", "dropped        1 (late 1)", "dead letters   1 (syntax 1)"]
    assert [line.split()[:2] for line in lines[4:]] == [["target", "lead"], ["value", "1"], ["value", "2"]]


def test_other_arithmetic_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Epochs that another machine or version computed are replayed with a warning that bytes may differ."""
    data = record(tmp_path, RECORDS[::2], [chain_epoch(0, 0, fingerprint="other")])
    with caplog.at_level("WARNING"):
        replay.run(CHAIN, data, [], tmp_path / "out")
    assert ["forecasts may differ" in message for message in caplog.messages] == [True]


def test_unused_weights_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Weights that no recorded epoch names are not used, and the log says so."""
    data = record(tmp_path, RECORDS[::2], [chain_epoch(0, 0)])
    with caplog.at_level("WARNING"):
        replay.run(CHAIN, data, [weights(tmp_path / "weights")], tmp_path / "out")
    assert ["weights not used" in message for message in caplog.messages] == [True]


def test_unusable_weights_are_refused(tmp_path: Path) -> None:
    """A file that is no weights is the operator's to mend, and no output appears."""
    (tmp_path / "weights").write_bytes(b"no weights")
    with pytest.raises(OperatorError):
        replay.run(SETTINGS, record(tmp_path), [tmp_path / "weights"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_retraining_on_the_way_does_not_depend_on_the_polls(tmp_path: Path) -> None:
    """Weights come in force by event time, each from the ones before, and the forecasts are the same however polled."""
    settings = load(None, {}, ["model.hidden=8", "model.horizon=4", "model.context=16", "retrain.steps=60"])
    hours = [(i, 10 * math.sin(2 * math.pi * i / 24) + (i * 7 % 5) / 10) for i in range(480)]
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["time,a", *(f"{1_700_000_000 + 3600 * i},{value:.3f}" for i, value in hours)]))
    outs = []
    for poll_records in (7, 5000):
        outs.append(tmp_path / f"{poll_records}.jsonl")
        assert replay.run(settings, data, [], outs[-1], poll_records=poll_records, retrain_every_s=7 * 86_400) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    versions = [json.loads(line)["model_version"] for line in outs[0].read_text().splitlines()]
    assert versions[0] == "naive"
    assert versions[168] != "naive"
    assert versions[:168] == ["naive"] * 168


def test_retraining_begins_when_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a time of the first cycle there is none before it, and the period counts from there."""
    settings = load(None, {}, ["model.hidden=8", "model.horizon=4", "model.context=16"])
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["time,a", *(f"{1_700_000_000 + 3600 * i},1.5" for i in range(400))]))
    first_ms = 1000 * (1_700_000_000 + 3600 * 200)
    with caplog.at_level("INFO"):
        replay.run(settings, data, [], tmp_path / "f", retrain_every_s=100 * 3600, retrain_from_ms=first_ms)
    assert [message for message in caplog.messages if message == "cycle"] == ["cycle", "cycle"]
