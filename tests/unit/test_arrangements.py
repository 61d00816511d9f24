"""Each arrangement's network: what torch.nn gives for the same weights, and a step by hand where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from daemon.pipeline import Pipeline
from models import encoder_decoder, kinds, many_to_many, many_to_one, noise, one_to_many, scaling, smoother
from models.arithmetic import seeded_network
from models.descent import Recipe
from models.engine import Readings
from models.recurrent import top
from models.sequences import prepare
from models.training_data import Series
from tests import examples
from tests.examples import MINUTE_MS, T0_MS
from tests.zoo import KINDS, as_torch, engine

CELLS = ("lstm", "gru", "elman")
B = 16


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) * 2 - 1


@pytest.mark.parametrize("cell", CELLS)
def test_many_to_many_equals_torch(cell: str) -> None:
    """Step by step: torch's deep network, and a full connection over its top."""
    settings = engine("many_to_many", cell=cell)
    ours: many_to_many.Network = seeded_network(settings)
    inputs, state = drawn(6, B, 8), ours.stack.zero(B)
    expected = ours.head(as_torch(ours.stack)(inputs)[0].flatten(0, 1)).view(6, B, 1, 5, 3)
    for now, then in zip(inputs, expected, strict=True):
        raw, state = ours.step(now, state)
        torch.testing.assert_close(raw, then)


@pytest.mark.parametrize("cell", CELLS)
def test_encoder_decoder_equals_torch(cell: str) -> None:
    """torch's encoder over the readings; its decoder from there, fed the median that came out, lead after lead."""
    settings = engine("encoder_decoder", cell=cell)
    ours: encoder_decoder.Network = seeded_network(settings)
    inputs, newest, state = drawn(6, B, 8), drawn(B, 1), ours.encoder.zero(B)
    for now in inputs:
        raw, state = ours.step(now, newest, state)
    decoder = as_torch(ours.decoder)
    memory = as_torch(ours.encoder)(inputs)[1]
    fed, before = newest, newest
    for lead in range(5):
        seen = torch.cat([fed, fed - before, torch.zeros(B, 6)], 1)
        hidden, memory = decoder(seen[None], memory)
        quantiles = fed + ours.head(hidden[0])
        torch.testing.assert_close(raw[:, 0, lead], quantiles - newest)
        before, fed = fed, quantiles[:, 1:2]


@pytest.mark.parametrize("cell", CELLS)
def test_many_to_one_equals_torch(cell: str) -> None:
    """The softmax over a full connection of torch's last hidden."""
    settings = engine("many_to_one class", cell=cell)
    ours: many_to_one.Network = seeded_network(settings)
    inputs, state = drawn(6, B, 8), ours.stack.zero(B)
    for now in inputs:
        answer, state = ours.step(now, state)
    expected = torch.softmax(ours.head(as_torch(ours.stack)(inputs)[0][-1]), 1)
    torch.testing.assert_close(answer, expected)
    torch.testing.assert_close(answer.sum(1), torch.ones(B))


@pytest.mark.parametrize("cell", CELLS)
def test_one_to_many_equals_torch(cell: str) -> None:
    """torch's network over the readings, then fed its own samples: a move of mu + sigma z, masks for what is no target."""
    settings = examples.settings(**{**KINDS["one_to_many"], "cell": cell, "values": {"a": "a", "b": "b"}, "targets": ("b",)})
    ours: one_to_many.Network = seeded_network(settings)
    inputs, newest = drawn(6, 2, 8), drawn(2, 2)
    uniforms = torch.from_numpy(noise.uniforms(noise.keys("xy"), np.array([1, 2]), (5, 3, 1)))
    state = ours.stack.zero(2)
    for now in inputs:
        paths, state = ours.step(now, newest, uniforms, state)
    theirs = as_torch(ours.stack)
    after = theirs(inputs)
    normal = torch.distributions.Normal(0, 1).icdf(uniforms).float()
    for row, scenario in ((0, 0), (1, 2)):
        hidden, memory = after[0][-1:, row : row + 1], _row(after[1], row)
        value = newest[row, 1]
        for lead in range(5):
            mean, log_sigma = ours.head(hidden[0])[0]
            value = value + mean + log_sigma.exp() * normal[row, lead, scenario, 0]
            assert (value - newest[row, 1]).item() == pytest.approx(paths[row, lead, scenario, 0].item(), abs=1e-5)
            seen = torch.tensor([0.0, value.item(), 1.0, 0.0, 0.5, 0.0, 0.0, 0.0])
            hidden, memory = theirs(seen[None, None], memory)


def _row(memory: torch.Tensor | tuple[torch.Tensor, ...], row: int) -> torch.Tensor | tuple[torch.Tensor, ...]:
    if isinstance(memory, tuple):
        return tuple(part[:, row : row + 1].contiguous() for part in memory)
    return memory[:, row : row + 1].contiguous()


@pytest.mark.parametrize("cell", CELLS)
def test_smoother_equals_torch(cell: str) -> None:
    """Where reading t is hidden in the whole sequence up to t + lag, torch's bidirectional network gives both sides at t."""
    settings = engine("smoother", cell=cell, layers=1)
    ours: smoother.Network = seeded_network(settings)
    theirs = as_torch(ours.past, bidirectional_with=ours.future)
    inputs, state = drawn(9, B, 8), ours.past.zero(B)
    unseen = drawn(B, 8)
    for t in range(6):
        sequence = torch.cat([inputs[:t], unseen[None], inputs[t + 1 : t + 4]])
        backwards = sequence[t:].flip(0).transpose(0, 1)
        raw, state = ours.step(unseen, inputs[t], backwards, state)
        torch.testing.assert_close(raw, ours.head(theirs(sequence)[0][t]).view(B, 1, 3))


def test_what_the_smoother_sees_by_hand() -> None:
    """Hidden and shown, the readings after it from the newest back to it, and the mean of its known neighbours."""
    recent = np.array([[[5.0], [np.nan], [8.0]]])
    sight = smoother.sight(
        recent, np.array([[1000, 2000, 4000, 5000]]), np.array([[4.0]]), np.array([[6.0]]), np.array([[2.0]]), np.array([1000]), 4
    )
    assert sight.hidden.tolist() == [[0.0, 1.0, 0.5, 0.0]]
    assert sight.shown.tolist() == [[-0.5, 0.0, 0.5, 0.0]]
    expected = [[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.5, 0.0], [0.0, 1.0, np.float32(2 / 3), 0.0]]
    assert sight.backwards[0].tolist() == np.array(expected, np.float32).tolist()
    assert sight.neighbours.tolist() == [[6.0]]
    alone = smoother.sight(
        recent[:, :2], np.array([[0, 2000, 4000]]), np.array([[np.nan]]), *[np.array([[6.0]])] * 2, np.array([0]), 4
    )
    assert alone.neighbours.tolist() == [[6.0]], "the level, where there are none"


def readings(time_ms: int, values: list[float], fresh: bool) -> Readings:
    count = len(values)
    none = np.zeros(count, np.int64)
    return Readings(np.array(values)[:, None], np.full(count, time_ms), none, none, np.full(count, fresh))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_training_sees_what_serving_saw(name: str) -> None:
    """Inputs prepared for training are those that the engine computed, reading by reading, missing ones included."""
    settings = engine(name)
    values = [10 + (i * 7 % 5) + (np.nan if i % 6 == 5 else 0) for i in range(30)]
    data = prepare([Series("s", T0_MS + np.arange(30) * MINUTE_MS, np.array(values)[:, None])], settings)
    made = kinds.of(settings).engine(settings, seeded_network(settings), "v")
    rows = np.zeros(1, made.row_dtype)
    for place, value in enumerate(values):
        made.step(rows, readings(T0_MS + place * MINUTE_MS, [value], place == 0))
        assert rows["level"][0, 0] == data.level[place, 0]
        assert scaling.spread(rows)[0, 0] == data.spread[place, 0]
        assert rows["interval_ms"][0] == data.interval_ms[place]


def test_the_smoothers_lesson_sees_what_serving_saw() -> None:
    """The carried state of the past, and both sides' outputs, from training's places and from the engine's row."""
    settings = engine("smoother", layers=1)
    network: smoother.Network = seeded_network(settings)
    made = smoother.Smoother(settings, network, "v")
    values = [10 + (i * 7 % 5) + (np.nan if i % 6 == 5 else 0) for i in range(30)]
    series = Series("s", T0_MS + np.arange(30) * MINUTE_MS + np.arange(30) % 4 * 500, np.array(values)[:, None])
    lesson = smoother.Lesson(settings, prepare([series], settings))
    rows = np.zeros(1, made.row_dtype)
    state = network.past.zero(1)
    for place, value in enumerate(values):
        output = made.step(rows, readings(int(series.time_ms[place]), [value], place == 0))
        t = place - 3
        assert bool(output.emits[0]) == (t >= 0)
        if t < 0:
            continue
        seen = lesson._sight(np.array([t]))
        with torch.no_grad():
            raw, state = network.step(*map(torch.from_numpy, seen[:3]), state)
        torch.testing.assert_close(torch.from_numpy(rows["recurrent"].copy()), state, atol=1e-6, rtol=1e-5)
        expected = seen.neighbours[0, 0] + lesson.data.spread[place, 0] * np.sort(raw[0, 0].numpy())
        assert output.quantiles[0, 0] == pytest.approx(expected, rel=1e-5)
        assert (int(output.time_ms[0]), output.readings[0, 0]) == pytest.approx((int(series.time_ms[t]), values[t]), nan_ok=True)


def answered(settings_name: str, gaps_ms: list[int]) -> list[tuple[int, int, int]]:
    """For each reading whose record carries an answer: first and last reading of the window by number, and how many it has."""
    settings = engine(settings_name)
    made = many_to_one.ManyToOne(settings, seeded_network(settings), "v")
    rows, times, found = np.zeros(1, made.row_dtype), T0_MS + np.cumsum(gaps_ms), []
    for place, time_ms in enumerate(times.tolist()):
        output = made.step(rows, readings(time_ms, [float(place % 3)], place == 0))
        if output.emits[0]:
            window = [int(np.flatnonzero(times == edge[0])[0]) for edge in (output.first_ms, output.last_ms)]
            found.append((place, *window, int(output.readings[0])))  # type: ignore[arg-type]
    return found  # type: ignore[return-value]


def test_windows_follow_one_another() -> None:
    """Four readings each, whatever lies between them; the answer comes with the last."""
    assert answered("many_to_one window", [0] + [60_000] * 9) == [(3, 0, 3, 4), (7, 4, 7, 4)]


def test_a_session_ends_with_a_long_gap() -> None:
    """The reading after it carries the answer; a gap of exactly the setting ends none; the open one has no answer yet."""
    gaps_ms = [0, 60_000, 120_000, 120_001, 1, 500_000, 500_000, 5]
    assert answered("many_to_one session", gaps_ms) == [(3, 0, 2, 3), (5, 3, 4, 2), (6, 5, 5, 1)]


@pytest.mark.parametrize("name", ["many_to_one window", "many_to_one session"])
def test_each_window_begins_from_zero(name: str) -> None:
    """Equal windows have equal answers whatever came before: only the scale is carried."""
    settings = engine(name)
    made = many_to_one.ManyToOne(settings, seeded_network(settings), "v")
    rows = np.zeros(2, made.row_dtype)
    gap_ms = 500_000 if settings.model.session_gap_s else 60_000
    for place in range(9):
        time_ms = T0_MS + place * 60_000 + (place >= 4) * gap_ms + (place >= 8) * gap_ms
        made.step(rows, readings(time_ms, [1.0 + place if place < 4 else 3.0, 9.0 - place if place < 4 else 3.0], place == 0))
        rows["level"], rows["deviation"] = 3.0, 1.0
        if place == 3:
            assert rows["recurrent"][0].tolist() != rows["recurrent"][1].tolist()
        if place == 7:
            assert rows["recurrent"][0].tolist() == rows["recurrent"][1].tolist()


def test_another_version_begins_from_zero() -> None:
    """A row that another model version made keeps its scale and loses the network's state."""
    settings = engine("many_to_many")
    one, other = (many_to_many.ManyToMany(settings, seeded_network(settings), version) for version in "ab")
    rows = np.zeros(1, one.row_dtype)
    for place in range(5):
        one.step(rows, readings(T0_MS + place * 60_000, [float(place)], place == 0))
    fresh, level = rows.copy(), float(rows["level"][0, 0])
    fresh["recurrent"] = 0
    stale = rows.copy()
    other.step(stale, readings(T0_MS + 300_000, [5.0], False))
    one.step(fresh, readings(T0_MS + 300_000, [5.0], False))
    assert stale["recurrent"].tobytes() == fresh["recurrent"].tobytes()
    assert float(stale["level"][0, 0]) > level
    assert torch.equal(top(torch.from_numpy(stale["recurrent"].copy())), torch.from_numpy(stale["recurrent"][:, -1, 0].copy()))


def test_scenarios_are_a_streams_own() -> None:
    """Of equal readings no two trajectories are equal; a stream's are the same whoever comes first."""
    settings = engine("one_to_many")
    version, engines = examples.seeded_engines(settings)

    def paths(*streams: str) -> dict[tuple[str, str], list[list[float]]]:
        pipeline = Pipeline(0, [examples.epoch(settings, version=version)], engines)
        sent = [(stream, T0_MS + i * MINUTE_MS, 5.0) for i in range(4) for stream in streams]
        outcome = pipeline.process([examples.record(i, reading) for i, reading in enumerate(sent)])
        told = [json.loads(message.value or b"") for message in outcome.forecasts]
        return {(one["stream"], one["time"]): one["scenarios"]["value"] for one in told}

    both = paths("a", "b")
    every = [tuple(path) for scenarios in both.values() for path in scenarios]
    assert len(set(every)) == len(every) == 2 * 4 * 3
    assert {place: each for place, each in both.items() if place[0] == "b"} == paths("b")
    assert paths("b", "a") == both


def test_noise_goes_with_the_time() -> None:
    """Rows and readings that differ in nothing but when they were have other scenarios."""
    settings = engine("one_to_many")
    made = one_to_many.OneToMany(settings, seeded_network(settings), "v")
    rows = made.named(np.zeros(1, made.row_dtype), ["a"])
    for place in range(5):
        made.step(rows, readings(T0_MS + place * MINUTE_MS, [float(place)], place == 0))
    later = rows.copy()
    later["last_time_ms"] += 1000
    now, then = (made.step(row, readings(int(row["last_time_ms"][0]) + 7, [3.0], False)).paths for row in (rows, later))
    assert rows["recurrent"].tobytes() == later["recurrent"].tobytes()
    assert not (now == then).any()


def test_a_sequence_at_a_segments_start_begins_from_zero() -> None:
    """There is nothing to burn in: its loss does not depend on the burn-in; further on it does."""
    settings = engine("many_to_many")
    values = np.array([10.0 + i * 7 % 5 for i in range(60)])[:, None]
    times = T0_MS + np.concatenate([np.arange(30), 20_000 + np.arange(30)]) * MINUTE_MS
    data = prepare([Series("s", times, values)], settings)
    lesson, network = many_to_many.Lesson(settings, data), seeded_network(settings)
    examples_of = lesson.examples(T0_MS, int(times[-1]))
    assert data.starts.tolist() == [0, 30, 60]

    def loss(place: int, burn_in: int) -> float:
        chosen = examples_of[examples_of[:, 0] == place]
        return lesson.judged_loss(network, chosen, Recipe(length=8, burn_in=burn_in)).item()

    assert loss(30, 8) == pytest.approx(loss(30, 1))
    assert loss(45, 8) != pytest.approx(loss(45, 1), abs=1e-4)
