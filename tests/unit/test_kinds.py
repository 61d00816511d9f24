"""Kinds other than the default: what is refused, in one sentence, and that whoever reads forecasts gets on with their records."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from config.settings import Settings, SettingsError, load
from daemon import replay, train, versions, weights, worker
from daemon.codec import format_time
from daemon.epochs import from_bytes
from daemon.errors import OperatorError
from daemon.page import detail_document, stream_document
from daemon.pipeline import Pipeline
from daemon.scoring import Scorer
from daemon.state import Checkpoint, row_document
from daemon.viewing import RowView
from models import artifacts, kinds
from models.artifacts import ArtifactError
from tests import examples, zoo
from tests.examples import MINUTE_MS, T0_MS

OTHERS = sorted(set(kinds.KINDS) - {"forecaster"})


def settings(kind: str, *more: str) -> Settings:
    fewer = ["model.scenarios=2"] if kind == "one_to_many" else []
    return load(None, {}, [f"model.kind={kind}", "model.hidden=8", "model.horizon=3", *fewer, *more])


@pytest.mark.parametrize("kind", OTHERS)
def test_retraining_and_swaps_are_refused(kind: str, tmp_path: Path) -> None:
    """In one sentence, before a broker is asked."""
    for refused in (
        lambda: worker.run(settings(kind), True, False, print),
        lambda: versions.promote(settings(kind), "x", print),
        lambda: versions.rollback(settings(kind), print),
        lambda: versions.import_file(settings(kind), tmp_path / "w", True, print),
        lambda: replay.run(settings(kind), wide_csv(tmp_path), [weights_of(kind, tmp_path)], tmp_path / "o", retrain_every_s=60),
    ):
        with pytest.raises(OperatorError, match=rf'model\.kind = "{kind}".* only "forecaster"'):
            refused()
    with pytest.raises(SettingsError, match=r"retrain\.supervised = false"):
        settings(kind, "retrain.supervised=true")


@pytest.mark.parametrize("kind", OTHERS)
def test_weights_are_needed(kind: str, tmp_path: Path) -> None:
    """There is no version naive of these kinds, neither for a replay nor for the daemon."""
    with pytest.raises(OperatorError, match=f'model.kind = "{kind}" forecasts nothing without weights'):
        replay.run(settings(kind), wide_csv(tmp_path), [], tmp_path / "out")
    store = SimpleNamespace(refresh=lambda: None, current=None, in_force=lambda: "naive")
    with pytest.raises(OperatorError, match=f'model.kind = "{kind}" cannot serve without weights'):
        weights.first_version(settings(kind), None, store)  # type: ignore[arg-type]


@pytest.mark.parametrize("current", [None, "naive"])
def test_the_first_weights_are_published(current: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is in force, and where naive is, which cannot serve: a group that has served the default goes on."""
    file, published = weights_of("smoother", tmp_path), list[str | None]()
    store = SimpleNamespace(refresh=lambda: None, current=current)
    monkeypatch.setattr(weights, "publish", lambda _settings, _broker, _data, current: published.append(current))
    version = weights.first_version(settings("smoother", f"model.weights={file}"), None, store)  # type: ignore[arg-type]
    assert published == [version] == [artifacts.version_of(file.read_bytes())]


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("other", sorted(kinds.KINDS))
def test_weights_of_another_kind_are_refused(kind: str, other: str, tmp_path: Path) -> None:
    """By the name of the setting."""
    data = weights_of(kind, tmp_path).read_bytes()
    if kind == other:
        artifacts.load(data, settings(other).engine())
        return
    with pytest.raises(ArtifactError, match=f'trained for model.kind = "{kind}" and the settings say "{other}"') as refused:
        artifacts.load(data, settings(other).engine())
    assert refused.value.reason == "architecture"


def test_weights_of_another_cell_or_lag_are_refused(tmp_path: Path) -> None:
    """Whatever the network's shape hangs on."""
    data = weights_of("smoother", tmp_path).read_bytes()
    for other, named in (("model.cell=gru", "model.cell"), ("model.lag=3", "model.lag"), ("model.layers=2", "model.layers")):
        with pytest.raises(ArtifactError, match=named):
            artifacts.load(data, settings("smoother", other).engine())


def weights_of(kind: str, folder: Path, *more: str) -> Path:
    file = folder / f"{kind}.weights"
    file.write_bytes(examples.seeded_weights(settings(kind, *more).engine())[1])
    return file


def wide_csv(folder: Path) -> Path:
    file = folder / "d.csv"
    file.write_text("\n".join(["time,a,b", *(f"{T0_MS + i * MINUTE_MS},{i % 7},{i % 5 + 10}" for i in range(60))]))
    return file


@pytest.mark.parametrize("kind", OTHERS)
def test_epochs_of_each_kind_are_read_again(kind: str) -> None:
    """In full, without the settings of other kinds; those of the default are what they were before there were others."""
    for engine in (settings(kind).engine(), settings("forecaster").engine()):
        epoch = examples.epoch(engine)
        assert from_bytes(epoch.to_bytes()) == epoch
    model = json.loads(epoch.to_bytes())["engine"]["model"]
    assert list(model) == ["cell", "context", "hidden", "horizon", "kind", "layers", "levels", "targets"]
    assert "label" not in json.loads(epoch.to_bytes())["engine"]["input"]


def ran(name: str, count: int = 24) -> tuple[Pipeline, Scorer, list[bytes]]:
    """One stream through a kind's pipeline, watched by a scorer."""
    engine = zoo.engine(name)
    version, engines = examples.seeded_engines(engine)
    pipeline, scorer = Pipeline(0, [examples.epoch(engine, version=version)], engines), Scorer()
    times = [T0_MS + i * MINUTE_MS + (i // 6) * 10 * MINUTE_MS for i in range(count)]
    records = [examples.record(i, ("pump", time_ms, float(i % 5))) for i, time_ms in enumerate(times)]
    outcome = pipeline.process(records)
    scorer.watch(0, records, outcome, pipeline.epochs)
    assert len(outcome.forecasts) + outcome.drops["thinned"] == count
    return pipeline, scorer, [message.value or b"" for message in outcome.forecasts]


@pytest.mark.parametrize("name", sorted(zoo.KINDS))
def test_scoring_says_what_it_passes_over(name: str) -> None:
    """Forecasts of leads are scored as ever; other records are counted, in the text and so in the report."""
    _, scorer, sent = ran(name)
    said = "\n".join(scorer.lines())
    if "targets" in json.loads(sent[0]):
        assert scorer.unscored == 0
        assert scorer.rows()[0].pairs > 0
        assert "not scored" not in said
    else:
        assert scorer.rows() == []
        assert f"{len(sent)} records are of a kind that forecasts no leads: they are not scored" in said


@pytest.mark.parametrize("name", sorted(zoo.KINDS))
def test_the_page_and_the_state_show_a_stream(name: str) -> None:
    """What every row begins with, and nothing that is not there."""
    pipeline, _, sent = ran(name)
    row = pipeline.table.gather(np.array([0]))[0]
    view = RowView(row, ("value",), ("value",), (0.1, 0.5, 0.9), "v")
    for told in (stream_document((0, "pump"), view, sent, 48), detail_document((0, "pump"), view, sent)):
        assert (told["count"], told["stream"], told["time_ms"]) == (24, "pump", int(row["last_time_ms"]))
        json.dumps(told)
    shown = row_document(Checkpoint(0, None, ["pump"], np.array([row]), {}), 0)  # type: ignore[arg-type]
    json.dumps(shown)
    assert shown["count"] == 24


def test_training_by_a_setting(tmp_path: Path) -> None:
    """`recurd train --set model.kind=...`: a file that loads and serves, and a replay by it."""
    for kind in OTHERS:
        chosen, out, said = (
            settings(kind, *({"many_to_one": ["model.window_readings=4"]}.get(kind, []))),
            tmp_path / kind,
            list[str](),
        )
        data = tmp_path / "long.csv"
        data.write_text("\n".join(["time,a", *(f"{T0_MS + i * MINUTE_MS},{i % 7}" for i in range(300))]))
        assert train.run(chosen, data, out, None, 1, said.append, steps=3) == 0
        assert artifacts.manifest(out.read_bytes()).network.kind == kind
        assert "hold-out    loss" in said[0]
        assert replay.run(chosen, data, [out], tmp_path / "o.jsonl", say=said.append) == 0
        assert (tmp_path / "o.jsonl").read_bytes()


LABELLED = [f"{T0_MS + i * MINUTE_MS},{i % 7},{'up' if i % 40 < 20 else 'down'}" for i in range(300)]
CLASSES = ["model.predicts=class", 'model.labels=["up", "down"]', "input.label=state", "model.window_readings=5"]


def test_labels_of_a_csv(tmp_path: Path) -> None:
    """A column of texts is what is learned, and no stream of its own."""
    data, out, said = tmp_path / "d.csv", tmp_path / "w", list[str]()
    data.write_text("\n".join(["time,a,state", *LABELLED]))
    train.run(settings("many_to_one", *CLASSES), data, out, None, 1, said.append, steps=3)
    assert "300 readings of 1 streams" in said[0]
    replay.run(settings("many_to_one", *CLASSES), data, [out], tmp_path / "o.jsonl")
    told = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(told) == 60
    assert sum(told[0]["classes"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "column", "message"),
    [
        (CLASSES[:2], "up", "name their field in input.label"),
        (CLASSES, "sideways", "'sideways' is none of model.labels"),
        (["model.predicts=label", "input.label=state"], "up", "'up' is no number"),
    ],
)
def test_labels_that_cannot_be_used(overrides: list[str], column: str, message: str, tmp_path: Path) -> None:
    """One sentence, with the place."""
    data = tmp_path / "d.csv"
    data.write_text("\n".join(["time,a,state", *(f"{T0_MS + i * MINUTE_MS},{i % 7},{column}" for i in range(9))]))
    with pytest.raises((SettingsError, OperatorError), match=message):
        train.run(settings("many_to_one", *overrides), data, tmp_path / "w", None, 1)
    assert not (tmp_path / "w").exists()


def test_too_few_readings(tmp_path: Path) -> None:
    """How many examples there are, and what would give more."""
    with pytest.raises(OperatorError, match=r"examples to train model\.kind"):
        train.run(settings("many_to_one"), wide_csv(tmp_path), tmp_path / "w", None, 1)


def test_a_replay_fills_the_gaps_of_a_csv(tmp_path: Path) -> None:
    """An empty cell has a record of its own time, with null for what was read and numbers for what it should have been."""
    chosen, data = settings("smoother", "model.lag=2"), tmp_path / "d.csv"
    cells = ["" if i in (4, 5, 9) else str(i % 7) for i in range(12)]
    data.write_text("\n".join(["time,a", *(f"{T0_MS + i * MINUTE_MS},{cell}" for i, cell in enumerate(cells))]))
    assert replay.run(chosen, data, [weights_of("smoother", tmp_path, "model.lag=2")], tmp_path / "o.jsonl") == 0
    told = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [one["time"] for one in told] == [format_time(T0_MS + i * MINUTE_MS) for i in range(10)]
    assert [one["readings"]["value"] for one in told] == [float(cell) if cell else None for cell in cells[:10]]
    for one in told:
        low, middle, high = one["quantiles"]["value"].values()
        assert low <= middle <= high
