"""Training data: what training sees is what serving saw, and targets are what serving would have scored by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from config.settings import EngineSettings, InputSettings, NetworkSettings
from models.arithmetic import seeded_network
from models.engine import Readings
from models.forecaster import Forecaster
from models.networks import Network
from models.training_data import Piece, Series, cut, prepare

ENGINE = EngineSettings(
    input=InputSettings(max_gap_s=3600, values={"a": "a", "b": "b"}),
    model=NetworkSettings(hidden=8, horizon=6, context=16, targets=("b",)),
)
MINUTE_MS = 60_000


def seasonal(name: str, length: int, start_ms: int = 0, season: int = 12) -> Series:
    """Channel b has a season of so many readings, channel a none."""
    plain = series(name, length, start_ms=start_ms)
    plain.values[:, 1] = 5 + 3 * np.sin(2 * np.pi * np.arange(length) / season) + 0.05 * plain.values[:, 1]
    return plain


def series(name: str, length: int, channels: int = 2, start_ms: int = 0) -> Series:
    numbers = np.random.Generator(np.random.PCG64(length))
    times = start_ms + MINUTE_MS * np.arange(1, length + 1)
    return Series(name, times, 20 + numbers.standard_normal((length, channels)).cumsum(axis=0))


class Spy(Network):
    """Remembers what the forecaster hands to the network, and what comes back."""

    def step(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        outputs = super().step(*inputs)
        self.seen.append((inputs[0][0].clone(), inputs[1][0].clone(), outputs[0][0].clone()))
        return outputs

    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def served(one: Series, period_ms: int) -> tuple[torch.Tensor, ...]:
    """Features, windows and raw quantiles of each reading of a stream that is served alone."""
    network = Spy.of(ENGINE)
    network.seen = []
    network.load_state_dict(seeded_network(ENGINE).state_dict())
    network.period_ms = period_ms
    forecaster = Forecaster(ENGINE, network, "spy")
    rows = np.zeros(1, forecaster.row_dtype)
    for i, (time_ms, values) in enumerate(zip(one.time_ms, one.values, strict=True)):
        at = np.array([i])
        forecaster.step(rows, Readings(values[None], np.array([time_ms]), at, at, at == 0))
    return tuple(torch.stack(column) for column in zip(*network.seen, strict=True))


@pytest.mark.parametrize(("make", "season"), [(series, 0), (seasonal, 12)])
def test_training_equals_serving(make: Callable[..., Series], season: int) -> None:
    """Streams of different lengths, unrolled for training, get the inputs and outputs of the daemon's step after step."""
    streams = [make("a", 40), make("long", 90), make("b", 33, start_ms=MINUTE_MS // 2)]
    data = prepare(streams, ENGINE)
    assert data.period_ms == season * MINUTE_MS
    for piece, length in zip(data.pieces(), (90, 40, 33), strict=True):
        features, windows, quantiles = served(next(one for one in streams if len(one.time_ms) == length), data.period_ms)
        inputs = torch.from_numpy(data.features[piece.first : piece.last])
        assert torch.equal(inputs, features)
        torch.testing.assert_close(torch.from_numpy(data.windows(piece)), windows, atol=1e-4, rtol=1e-5)
        zero = torch.zeros(1, 1, 8)
        unrolled, _, _ = seeded_network(ENGINE).unroll(inputs[:, None], windows[:, None], zero, zero)
        torch.testing.assert_close(unrolled[:, 0], quantiles, atol=1e-4, rtol=1e-4)


def test_what_comes_later_changes_nothing_before() -> None:
    """Features and windows of a reading depend on it and on what came before it."""
    one = series("a", 60)
    changed = Series("a", one.time_ms, np.where(np.arange(60)[:, None] < 40, one.values, 5.0))
    before, after = prepare([one], ENGINE), prepare([changed], ENGINE)
    piece = Piece(0, 0, 40)
    assert before.features[:40].tobytes() == after.features[:40].tobytes()
    assert before.windows(piece).tobytes() == after.windows(piece).tobytes()


def test_targets_of_a_regular_stream_are_the_next_readings() -> None:
    """Lead k is the k-th next reading's offset from the newest in spreads; beyond the end it is unknown."""
    one = series("a", 30)
    data = prepare([one], ENGINE)
    for i in (5, 27):
        for lead in range(1, 7):
            if i + lead < 30:
                expected = (one.values[i + lead, 1] - one.values[i, 1]) / data.spread[i, 0]
                assert data.targets[i, 0, lead - 1] == pytest.approx(expected, rel=1e-5)
            else:
                assert np.isnan(data.targets[i, 0, lead - 1])


def test_no_target_before_there_is_an_interval() -> None:
    """A stream's first reading has no interval, so its leads have no times."""
    assert np.isnan(prepare([series("a", 30)], ENGINE).targets[0]).all()


def test_targets_are_by_time() -> None:
    """After a hole, a lead is answered by the first reading within half an interval of its time, or by none."""
    one = series("a", 30)
    times = one.time_ms.copy()
    times[21:] += 3 * MINUTE_MS - 20_000  # three readings lost, and the clock 20 s early from then on
    data = prepare([Series("a", times, one.values)], ENGINE)
    offsets = data.targets[20, 0] * data.spread[20, 0]
    assert np.isnan(offsets[:3]).all()
    np.testing.assert_allclose(offsets[3:], one.values[21:24, 1] - one.values[20, 1], rtol=1e-5)
    times[21:] -= 15_000  # now 35 s early: nearer to the lead before
    offsets = prepare([Series("a", times, one.values)], ENGINE).targets[20, 0] * data.spread[20, 0]
    np.testing.assert_array_equal(np.isnan(offsets), [True, True, False, False, False, False])


def test_a_missing_value_is_no_target_and_no_nan_among_the_inputs() -> None:
    """A missing reading is carried forward as input, marked, and never learned."""
    one = series("a", 30)
    one.values[10, 1] = np.nan
    data = prepare([one], ENGINE)
    assert np.isfinite(data.features).all()
    assert np.isfinite(data.windows(Piece(0, 0, 30))).all()
    assert data.features[10, 8:10].tolist() == [0, 1]  # the masks
    assert np.isnan(data.targets[8, 0, 1])
    assert np.isfinite(data.targets[8, 0, [0, 2, 3, 4, 5]]).all()
    assert data.targets[10, 0, 0] * data.spread[10, 0] == pytest.approx(one.values[11, 1] - one.values[9, 1], rel=1e-5)


def test_segments_are_what_the_daemon_would_start_afresh() -> None:
    """Late readings are left out, a silence starts a segment, and a start waits for every channel's value."""
    one = series("a", 12)
    times = one.time_ms.copy()
    times[3] = times[1]  # late
    times[6:] += 2 * 3_600_000
    one.values[6, 0] = np.nan  # the first after the silence
    data = prepare([Series("a", times, one.values)], ENGINE)
    kept = [[0, 1, 2, 4, 5], [7, 8, 9, 10, 11]]
    assert [data.time_ms[first:last].tolist() for _, first, last in data.pieces()] == [times[part].tolist() for part in kept]


def test_pieces_by_time_and_cut() -> None:
    """Pieces hold the readings since one time and before another; cutting keeps them."""
    data = prepare([series("a", 30), series("b", 12), Series("none", np.zeros(0, np.int64), np.zeros((0, 2)))], ENGINE)
    assert list(data.pieces(until_ms=11 * MINUTE_MS)) == [Piece(0, 0, 10), Piece(1, 30, 40)]
    assert list(data.pieces(since_ms=13 * MINUTE_MS)) == [Piece(0, 12, 30)]
    assert list(cut(iter([Piece(0, 5, 20_000)]))) == [Piece(0, 5, 8197), Piece(0, 8197, 16389), Piece(0, 16389, 20_000)]


def test_nothing() -> None:
    """No readings are no error here."""
    assert len(prepare([], ENGINE)) == 0
    assert list(prepare([], ENGINE).pieces()) == []
