"""From readings to what a network is trained on, through the very path that serving takes.

Each stream's readings run through `features.observe` one by one, as the forecaster would have run them with the last value as
its forecast. Streams advance together, a wave at a time; nothing here depends on how they line up. N readings in all, G
segments, C channels, T targets, W window, D width of what the highway sees, K leads, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings
from models import features, kernels, seasons
from models.engine import Readings
from models.layout import row_dtype
from models.networks import untrained

#: Targets are clipped to this many spreads: one freak must not outweigh a season.
TARGET_CLIP = 8.0

_CHUNK = 8192
_PROGRESS_WAVES = 256


class Series(NamedTuple):
    """The readings of one stream, in log order."""

    stream: str
    time_ms: np.ndarray  # int64 (n,)
    values: np.ndarray  # float64 (n, C), NaN is missing
    labels: np.ndarray | None = None  # float64 (n,), what many_to_one is trained on: a number, or a class by place; NaN is none

    def since(self, time_ms: int) -> Series:
        """The readings from a time on."""
        return self.chosen(self.time_ms >= time_ms)

    def before(self, time_ms: int) -> Series:
        """The readings before a time."""
        return self.chosen(self.time_ms < time_ms)

    def chosen(self, which: np.ndarray | slice) -> Series:
        """Some of the readings, in order."""
        labels = None if self.labels is None else self.labels[which]
        return Series(self.stream, self.time_ms[which], self.values[which], labels)


class Piece(NamedTuple):
    """Consecutive readings of one segment, as indices into the data's arrays: first to last - 1."""

    segment: int
    first: int
    last: int


@dataclass(frozen=True)
class TrainingData:
    """All readings in segments; a segment is what one stream brings between two fresh starts of its row."""

    starts: np.ndarray  # int64 (G + 1,), segment g is starts[g]..starts[g + 1] - 1
    time_ms: np.ndarray  # int64 (N,)
    features: np.ndarray  # float32 (N, F)
    spread: np.ndarray  # float64 (N, T)
    targets: np.ndarray  # float32 (N, T, K), offsets from the newest reading in spreads, clipped; NaN where unknown
    signed: int  # so many features change sign with the stream's; the others do not
    calendar: slice  # which features are the time of day and of week
    period_ms: int  # the season found, 0 is none
    _season: np.ndarray  # float32 (N, T, D - W), the season ahead and the place
    _history: np.ndarray  # float64 (N + G (W - 1), T), each segment behind W - 1 copies of its first reading
    context: int

    def __len__(self) -> int:
        return len(self.time_ms)

    @property
    def width(self) -> int:
        """D."""
        return self.context + int(self._season.shape[2])

    def pieces(self, until_ms: int | None = None, since_ms: int | None = None) -> Iterator[Piece]:
        """Each segment's readings with since_ms <= time < until_ms, where there are any."""
        for segment, (first, last) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            times = self.time_ms[first:last]
            begin = 0 if since_ms is None else int(np.searchsorted(times, since_ms))
            end = len(times) if until_ms is None else int(np.searchsorted(times, until_ms))
            if begin < end:
                yield Piece(segment, int(first) + begin, int(first) + end)

    def windows(self, piece: Piece) -> np.ndarray:
        """What the highway sees at each reading of a piece, float32 (n, T, D)."""
        before = piece.segment * (self.context - 1)
        history = self._history[piece.first + before : piece.last + before + self.context - 1]
        view = np.lib.stride_tricks.sliding_window_view(history, self.context, axis=0)  # (n, T, W)
        scaled: np.ndarray = (view - view[..., -1:]) / self.spread[piece.first : piece.last, :, None]
        clipped = scaled.clip(-kernels.WINDOW_CLIP, kernels.WINDOW_CLIP).astype(np.float32)
        return np.concatenate([clipped, self._season[piece.first : piece.last]], axis=2)


def cut(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same readings in pieces of bounded length, for work that takes memory by the reading."""
    for segment, first, last in pieces:
        for begin in range(first, last, _CHUNK):
            yield Piece(segment, begin, min(begin + _CHUNK, last))


def prepare(
    series: Sequence[Series], engine: EngineSettings, progress: Callable[[float], None] = lambda share: None
) -> TrainingData:
    """Run all readings through the features and look up their targets.

    Args:
        series: Any number of streams, of any lengths.
        engine: Under which the network will serve.
        progress: Told the share of readings done, from time to time.

    Returns:
        The data, in memory: about 4 (F + T K) + 32 T bytes a reading.
    """
    parts = segments(series, engine.input.max_gap_s)
    channels = features.FeatureShape(engine).targets.tolist()
    period_ms = seasons.find([(one.time_ms, one.values[:, channel]) for one in parts for channel in channels])
    shape = features.FeatureShape(engine, period_ms)
    starts, time_ms, values = end_to_end(parts, len(engine.channels))
    seen = _observe(shape, starts, time_ms, values, progress)
    known = np.where(np.isnan(values[:, shape.targets]), np.nan, seen.newest)  # (N, T)
    columns = time_ms, seen.interval_ms, seen.newest, seen.spread, known
    targets = [lead_targets(engine.model.horizon, *(column[i:j] for column in columns)) for i, j in pairwise(starts)]
    history = [_led_in(seen.newest[first:last], engine.model.context - 1) for first, last in pairwise(starts)]
    return TrainingData(
        starts,
        time_ms,
        seen.features,
        seen.spread,
        np.concatenate([np.zeros((0, len(shape.targets), engine.model.horizon), np.float32), *targets]),
        features.signed_features(engine),
        features.calendar_features(engine),
        period_ms,
        seen.season,
        np.concatenate([np.zeros((0, len(shape.targets))), *history]),
        engine.model.context,
    )


class _Observed(NamedTuple):
    features: np.ndarray  # float32 (N, F)
    newest: np.ndarray  # float64 (N, T)
    spread: np.ndarray  # float64 (N, T)
    interval_ms: np.ndarray  # int64 (N,)
    season: np.ndarray  # float32 (N, T, D - W)


def tail_ms(time_ms: np.ndarray, share: float) -> int:
    """The time from which on the last share of the readings lies; there is at least one."""
    return int(np.sort(time_ms)[min(int(len(time_ms) * (1 - share)), len(time_ms) - 1)])


def segments(series: Sequence[Series], max_gap_s: float) -> list[Series]:
    """All segments of all streams, the longest first: those that still have readings in a wave are then the first ones."""
    parts = [part for one in series for part in _segments(one, max_gap_s)]
    return sorted(parts, key=lambda part: -len(part.time_ms))


def end_to_end(parts: Sequence[Series], channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments behind one another: their starts (G + 1,), times (N,) and values (N, C)."""
    none = Series("", np.zeros(0, np.int64), np.zeros((0, channels)))
    time_ms, values = (np.concatenate(columns) for columns in list(zip(none, *parts, strict=True))[1:3])
    return np.cumsum([0, *(len(part.time_ms) for part in parts)]), time_ms, values


def waves(starts: np.ndarray, time_ms: np.ndarray, values: np.ndarray) -> Iterator[tuple[np.ndarray, Readings]]:
    """The next reading of every segment that still has one, again and again: their places (B,), of the first B segments."""
    lengths = np.diff(starts)
    for wave in range(int(lengths.max(initial=0))):
        active = int(np.searchsorted(-lengths, -wave))  # segments longer than `wave`
        at, none = starts[:active] + wave, np.zeros(active, np.int64)
        yield at, Readings(values[at], time_ms[at], none, none, np.full(active, wave == 0))


def _segments(series: Series, max_gap_s: float) -> Iterator[Series]:
    """Cut a stream as the daemon would start its row afresh: late readings dropped, a start needs every channel's value."""
    later = np.maximum.accumulate(series.time_ms)
    keep = np.concatenate([[True], series.time_ms[1:] > later[:-1]])[: len(later)]
    kept = series.chosen(keep)
    time_ms, values = kept.time_ms, kept.values
    whole = ~np.isnan(values).any(axis=1)  # (n,)
    breaks = np.flatnonzero(np.diff(time_ms) > max_gap_s * 1000) + 1
    for first, last in pairwise([0, *breaks.tolist(), len(time_ms)]):
        begins = np.flatnonzero(whole[first:last])
        if len(begins):
            begin = first + int(begins[0])
            yield kept.chosen(slice(begin, last))


def _observe(
    shape: features.FeatureShape, starts: np.ndarray, time_ms: np.ndarray, values: np.ndarray, progress: Callable[[float], None]
) -> _Observed:
    """Wave after wave over all segments, longest first, what `features.observe` says of each reading."""
    n, t = len(time_ms), len(shape.targets)
    model = shape.engine.model
    season = np.zeros((n, t, features.window_width(model) - model.context), np.float32)
    into = _Observed(np.zeros((n, shape.features), np.float32), np.zeros((n, t)), np.ones((n, t)), np.zeros(n, np.int64), season)
    table, last_value = np.zeros(len(starts) - 1, row_dtype(shape.engine)), np.array(untrained(model.levels), np.float32)
    done = 0
    for wave, (at, readings) in enumerate(waves(starts, time_ms, values)):
        rows = table[: len(at)]
        seen = features.observe(shape, rows, readings)
        # The last value as forecast, between quantiles: what stands in for a missing value comes from here.
        features.forecast(shape, rows, np.tile(last_value, (len(at), t, model.horizon, 1)), seen)
        ahead = seen.windows[:, :, model.context :]
        for column, now in zip(into, (seen.features, seen.newest, seen.spread, rows["interval_ms"], ahead), strict=True):
            column[at] = now
        done += len(at)
        if wave % _PROGRESS_WAVES == 0:
            progress(done / n)
    return into


def lead_targets(
    horizon: int, time_ms: np.ndarray, interval_ms: np.ndarray, newest: np.ndarray, spread: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """What each lead of each reading of one segment would have been scored by, scaled, float32 (n, T, K).

    Lead k is answered by the first reading within half an interval of k intervals ahead, as `features.observe` scores it.

    Args:
        horizon: K.
        time_ms: int64 (n,).
        interval_ms: int64 (n,), 0 is unknown.
        newest: float64 (n, T), what a forecast starts from.
        spread: float64 (n, T).
        known: float64 (n, T), the readings, NaN where missing.
    """
    leads = np.arange(1, horizon + 1)
    scaled = np.full((*newest.shape, horizon), np.nan, np.float32)
    for first in range(0, len(time_ms), _CHUNK):
        part = slice(first, first + _CHUNK)
        interval = interval_ms[part, None]
        twice_due = 2 * (time_ms[part, None] + leads * interval)  # (n, K)
        at = np.searchsorted(2 * time_ms, twice_due - interval)
        answer = np.minimum(at, len(time_ms) - 1)
        answered = (at < len(time_ms)) & (interval > 0) & (2 * time_ms[answer] <= twice_due + interval)
        away = np.where(answered[..., None], known[answer], np.nan) - newest[part, None]  # (n, K, T)
        away /= spread[part, None]
        scaled[part] = away.clip(-TARGET_CLIP, TARGET_CLIP).transpose(0, 2, 1)
    return scaled


def _led_in(values: np.ndarray, length: int) -> np.ndarray:
    """The values behind `length` copies of the first one: a young row's window."""
    return np.concatenate([np.repeat(values[:1], length, axis=0), values])
