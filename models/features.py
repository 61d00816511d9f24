"""What a row learns from a reading before the network sees it: the one code path of serving and of training.

`observe` scores and clears due forecasts, moves scale and interval, shifts the window, and gives the network's inputs;
`schedule` stores the new forecast where a rung of the ladder is free; `window_features` gives the inputs of the row's own window.

Everything is elementwise, exactly rounded arithmetic over B rows (architecture 3), so a row's result does not depend on the
batch. Constants come from Python's math module. B rows, C channels, T targets, W window, R rungs, Q levels, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from config.settings import EngineSettings, NetworkSettings
from models.engine import Readings
from models.layout import GAP_UNIT, PHASES, RECENT_GAPS, ladder

#: Raised whenever features or windows change their meaning: weights trained on others are refused.
FEATURE_VERSION = 2
#: Half-life of level and spread, in readings: a week of hourly data.
SCALE_HALF_LIFE = 168
#: Readings until a new stream's scale counts as settled.
WARMING_READINGS = 32
#: Features are clipped to this many spreads, window differences to the second.
FEATURE_CLIP = 8.0
WINDOW_CLIP = 12.0
#: A first reading alone says nothing of the spread: this share of its magnitude is assumed.
FIRST_SPREAD = 0.02
#: The spread is mean absolute deviation times this (the standard deviation of a normal distribution).
SPREAD_PER_DEVIATION = 1.25
#: The window's float32 differences are taken from a new anchor when a reading is this many spreads away from it.
ANCHOR_REACH = 1024.0
#: Weight of the newest error in the running errors of a rung.
ERROR_RATE = 1 / 16
#: Step of the quantile tracker, in running errors of the rung (Gibbs and Candes 2021; the P part of conformal PID, 2023).
CALIBRATION_RATE = 0.05
#: Least weight of the newest season in the profile; the first ones weigh 1/n.
SEASON_RATE = 1 / 14
#: A phase of the season is as wide as a reading: the widest of these that a quarter more than the season's readings fill.
PHASE_WIDTHS = (1, 2, 4, 8)
#: Anomaly scores end here.
MOST_ANOMALOUS = 99.0

#: Leads at which the network sees the season ahead, as shares of the horizon.
SEASON_LEADS = (0.0, 0.25, 0.5, 1.0)

_SCALE_RATE = 1 - 2 ** (-1 / SCALE_HALF_LIFE)
_MINUTES = 24 * 60
_HOURS = 7 * 24
_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000


def _circle(steps: int) -> np.ndarray:
    """sin and cos of `steps` equal angles, float32 (steps, 2)."""
    angles = [2 * math.pi * step / steps for step in range(steps)]
    return np.array([(math.sin(angle), math.cos(angle)) for angle in angles], np.float32)


_DAY = _circle(_MINUTES)
_WEEK = _circle(_HOURS)


def feature_count(engine: EngineSettings) -> int:
    """Width F of the network's input: features padded with zeros to a multiple of 16 (architecture 3)."""
    return -(-(signed_features(engine) + len(engine.channels) + 5) // 16) * 16


def signed_features(engine: EngineSettings) -> int:
    """So many features come first and change sign with the stream's values; the others do not."""
    return 2 * len(engine.channels) + len(SEASON_LEADS) * len(engine.targets)


def window_width(model: NetworkSettings) -> int:
    """Width D of what the highway sees of a target: its window, the season ahead, its place; padded to a multiple of 8."""
    return model.context + -(-(model.horizon + 1) // 8) * 8


@dataclass(frozen=True)
class FeatureShape:
    """The constants that `observe` needs, worked out once from the settings and the season of the weights (0: none)."""

    engine: EngineSettings
    period_ms: int = 0
    rungs: np.ndarray = field(init=False)  # int64 (R,) leads
    levels: np.ndarray = field(init=False)  # float32 (Q,)
    targets: np.ndarray = field(init=False)  # int64 (T,) channels that are forecast
    features: int = field(init=False)
    season_leads: np.ndarray = field(init=False)  # int64 (4,) leads at which the network sees the season ahead

    def __post_init__(self) -> None:
        engine = self.engine
        put = object.__setattr__
        put(self, "rungs", np.array(ladder(engine.model.horizon), np.int64))
        put(self, "levels", np.array(engine.model.levels, np.float32))
        put(self, "targets", np.array([engine.channels.index(name) for name in engine.targets], np.int64))
        put(self, "features", feature_count(engine))
        horizon = engine.model.horizon
        put(self, "season_leads", np.array([max(1, round(horizon * share)) for share in SEASON_LEADS], np.int64))

    @property
    def median(self) -> int:
        """Index of level 0.5."""
        return self.engine.model.levels.index(0.5)


class Observation(NamedTuple):
    """What a reading brought: the network's inputs, and how the pending forecasts did."""

    features: np.ndarray  # float32 (B, F)
    windows: np.ndarray  # float32 (B, T, D): W differences to the newest reading, newest (0) last, then K of the season, place
    newest: np.ndarray  # float64 (B, T), the reading, or the model's own median where it is missing
    spread: np.ndarray  # float64 (B, T)
    anomaly_score: np.ndarray  # float64 (B,)
    model_error: np.ndarray  # float64 (B, T, R), NaN where no forecast was due
    naive_error: np.ndarray  # float64 (B, T, R)
    covered: np.ndarray  # float64 (B, T, R)


def observe(shape: FeatureShape, rows: np.ndarray, readings: Readings) -> Observation:
    """Advance all of a row but hidden and cell by its reading, in place.

    Args:
        shape: The settings' constants.
        rows: Structured (B,), rows of `models.layout.row_dtype`; changed in place.
        readings: B readings, in time after their rows' last.

    Returns:
        The network's inputs and the scores of the forecasts that were due.
    """
    _start(rows, readings)
    gap_ms = np.where(rows["count"] > 0, readings.time_ms - rows["last_time_ms"], 0)  # (B,)
    _move_interval(rows, gap_ms)
    missing = np.isnan(readings.values)  # (B, C)
    scores = _score(shape, rows, readings, missing)
    values = np.where(missing, _expected(shape, rows, readings), readings.values)  # (B, C)
    _move_scale(rows, values, missing)
    _move_anchor(shape, rows, values)
    previous = rows["anchor"] + rows["window"][:, :, -1]  # (B, C)
    _move_season(shape, rows, values, missing, readings.time_ms)
    _shift_window(rows, values, missing, gap_ms)
    rows["count"] += 1
    rows["last_time_ms"] = readings.time_ms
    rows["applied_offset"] = readings.offset
    rows["applied_index"] = readings.element
    season = _season_ahead(shape, rows, readings.time_ms)  # (B, T, K)
    features = _features(shape, rows, values, previous, missing, rows["gap_units"][:, -1], readings.time_ms, season)
    spread = spread_of(rows)[:, shape.targets]  # (B, T)
    newest = values[:, shape.targets]
    return Observation(features, _windows(shape, rows, newest, spread, season), newest, spread, *scores)


def spread_of(rows: np.ndarray) -> np.ndarray:
    """The unit of scaled numbers, in sensor units, float64 (B, C): never zero."""
    floor = np.maximum(np.abs(rows["level"]) * 1e-9, 1e-12)
    spread: np.ndarray = np.maximum(rows["spread"] * SPREAD_PER_DEVIATION, floor)
    return spread


def _start(rows: np.ndarray, readings: Readings) -> None:
    """Rows whose reading starts them afresh: all zero, but for scale and anchor at the reading."""
    fresh = readings.fresh
    if not fresh.any():
        return
    first = readings.values[fresh]
    started = np.zeros(len(first), rows.dtype)
    started["anchor"] = started["level"] = first
    started["spread"] = np.abs(first) * FIRST_SPREAD
    rows[fresh] = started


def _move_interval(rows: np.ndarray, gap_ms: np.ndarray) -> None:
    """The interval is the median (the lower one of two) of the last gaps."""
    known = rows["count"] > 0
    gaps = rows["gaps_ms"]  # (B, RECENT_GAPS), zeros first
    shifted = np.concatenate([gaps[:, 1:], gap_ms[:, None].astype(np.uint32)], axis=1)
    gaps[known] = shifted[known]
    n = np.minimum(rows["count"], RECENT_GAPS)  # gaps known, (B,)
    middle = RECENT_GAPS - n + np.maximum(n - 1, 0) // 2
    ordered = np.sort(gaps, axis=1)
    interval = np.take_along_axis(ordered, np.minimum(middle, RECENT_GAPS - 1)[:, None], axis=1)[:, 0]
    rows["interval_ms"] = np.where(known, interval, 0)


def _score(shape: FeatureShape, rows: np.ndarray, readings: Readings, missing: np.ndarray) -> tuple[np.ndarray, ...]:
    """Score the pending forecasts that this reading answers, calibrate by them, and free their rungs and the expired ones."""
    due = rows["due_ms"]  # (B, R)
    twice_late = 2 * (readings.time_ms[:, None] - due)
    interval = rows["interval_ms"][:, None]
    answered = (due > 0) & (np.abs(twice_late) <= interval)  # (B, R)
    absent = missing[:, shape.targets]  # (B, T)
    scored = np.nonzero(answered[:, None, :] & ~absent[:, :, None])  # places in (B, T, R), N of them: few are due at a time
    row, target, rung = scored
    reading = (readings.values - rows["anchor"])[:, shape.targets][row, target]  # (N,)
    spread = spread_of(rows)[:, shape.targets][row, target]  # (N,)
    pending = rows["pending"][scored].astype(np.float64)  # (N, Q)
    miss = reading - pending[:, shape.median]
    served, own, naive = (
        np.abs(away) / spread for away in (miss, reading - rows["pending_model"][scored], reading - rows["pending_naive"][scored])
    )
    inside = (reading >= pending[:, 0]) & (reading <= pending[:, -1])
    anomaly = np.full(absent.shape, -1.0)  # (B, T)
    next_one = rung == 0
    anomaly[row[next_one], target[next_one]] = _anomaly(shape, miss[next_one], pending[next_one], spread[next_one])
    _calibrate(shape, rows, scored, reading, pending, own, naive)
    due[answered | (twice_late > interval)] = 0
    worst = anomaly.max(axis=1)  # the most surprising target
    scores = (_placed((*absent.shape, len(shape.rungs)), scored, values) for values in (served, naive, inside))
    return np.where(worst >= 0, worst, np.nan), *scores


def _placed(shape: tuple[int, ...], places: tuple[np.ndarray, ...], values: np.ndarray) -> np.ndarray:
    """Values (N,) in their places, NaN elsewhere, float64."""
    placed = np.full(shape, np.nan)
    placed[places] = values
    return placed


def _anomaly(shape: FeatureShape, miss: np.ndarray, pending: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """-log10 of each reading's tail probability, were the tails beyond the outermost quantiles exponential, (N,)."""
    lowest, highest = shape.engine.model.levels[0], shape.engine.model.levels[-1]
    least = 1e-9 * spread
    above = np.maximum(pending[:, -1] - pending[:, shape.median], least)
    below = np.maximum(pending[:, shape.median] - pending[:, 0], least)
    per_width_above, per_width_below = -math.log10(2 * min(1 - highest, 0.25)), -math.log10(2 * min(lowest, 0.25))
    score = np.where(miss >= 0, miss / above * per_width_above, -miss / below * per_width_below)
    capped: np.ndarray = np.minimum(score, MOST_ANOMALOUS)
    return capped


def _calibrate(
    shape: FeatureShape,
    rows: np.ndarray,
    scored: tuple[np.ndarray, ...],
    reading: np.ndarray,
    pending: np.ndarray,
    model_error: np.ndarray,
    naive_error: np.ndarray,
) -> None:
    """Move running errors and the quantile tracker of the scored places; the median is left to the network."""
    for name, error in (("model_error", model_error), ("naive_error", naive_error)):
        running = rows[name][scored].astype(np.float64)  # (N,)
        rows[name][scored] = np.where(running == 0, error, running + ERROR_RATE * (error - running))
    usual = np.minimum(rows["model_error"][scored], rows["naive_error"][scored]).astype(np.float64)  # what the guard serves
    step = CALIBRATION_RATE * np.minimum(usual, FEATURE_CLIP)[:, None]  # (N, 1)
    push = shape.levels.astype(np.float64) - (reading[:, None] <= pending)  # (N, Q)
    push[:, shape.median] = 0
    limit = 4 * FEATURE_CLIP
    rows["calibration"][scored] = (rows["calibration"][scored] + step * push).clip(-limit, limit)


def _expected(shape: FeatureShape, rows: np.ndarray, readings: Readings) -> np.ndarray:
    """What stands in for a missing value, (B, C): the median forecast for this time where there is one, else the last value."""
    last = rows["anchor"] + rows["window"][:, :, -1]  # (B, C)
    one_step = (rows["gap_units"][:, -1] > 0) & (rows["count"] > 1)  # a forecast was made
    near = 2 * (readings.time_ms - rows["last_time_ms"]) <= 3 * rows["interval_ms"]
    forecast = rows["anchor"][:, shape.targets] + rows["pending"][:, :, 0, shape.median]  # (B, T)
    expected: np.ndarray = last.copy()
    expected[:, shape.targets] = np.where((one_step & near)[:, None], forecast, last[:, shape.targets])
    return expected


def _move_scale(rows: np.ndarray, values: np.ndarray, missing: np.ndarray) -> None:
    """Running mean and mean absolute deviation; the first readings weigh 1/n, so that a new stream settles fast."""
    rate = np.maximum(1 / (rows["count"] + 1.0), _SCALE_RATE)[:, None]  # (B, 1)
    away = values - rows["level"]
    seen = ~missing & (rows["count"] > 0)[:, None]
    rows["spread"] = np.where(seen, rows["spread"] + rate * (np.abs(away) - rows["spread"]), rows["spread"])
    rows["level"] = np.where(seen, rows["level"] + rate * away, rows["level"])


def _move_anchor(shape: FeatureShape, rows: np.ndarray, values: np.ndarray) -> None:
    """Take the window's differences from the reading itself where it lies far from the anchor (float32 has 24 bits)."""
    far = np.abs(values - rows["anchor"]) > ANCHOR_REACH * spread_of(rows)  # (B, C)
    if not far.any():
        return
    shift = rows["anchor"] - values  # (B, C)
    of_targets = np.s_[:, shape.targets]
    for name, moves, by in (
        ("window", far[:, :, None], shift[:, :, None]),
        ("pending_model", far[of_targets][:, :, None], shift[of_targets][:, :, None]),
        ("pending", far[of_targets][:, :, None, None], shift[of_targets][:, :, None, None]),
        ("pending_naive", far[of_targets][:, :, None], shift[of_targets][:, :, None]),
    ):  # only where far: adding 0.0 elsewhere would turn -0.0 into 0.0 and make a row depend on its neighbours
        rows[name] = np.where(moves, rows[name] + by, rows[name])
    rows["anchor"] = np.where(far, values, rows["anchor"])


def _move_season(shape: FeatureShape, rows: np.ndarray, values: np.ndarray, missing: np.ndarray, time_ms: np.ndarray) -> None:
    """Let each target's profile learn the reading; one of another season begins anew, from the row's own window."""
    if not shape.period_ms:
        return
    other = np.flatnonzero(rows["period_ms"] != shape.period_ms)
    if other.size:
        begun = rows[other]
        begun["profile"], begun["period_ms"], begun["season_start_ms"] = 0, shape.period_ms, time_ms[other]
        if begun["count"].any():
            _learn_window(shape, begun)
        rows[other] = begun
    _learn_phase(shape, rows, values[:, shape.targets], missing[:, shape.targets], time_ms)


def _learn_window(shape: FeatureShape, rows: np.ndarray) -> None:
    """Run a new profile over the readings of the window, before the newest reading is in it."""
    times, valid = _window_times(rows)
    window = _window_values(rows)
    oldest = np.take_along_axis(times, np.argmax(valid, axis=1)[:, None], axis=1)[:, 0]
    rows["season_start_ms"] = np.where(rows["count"] > 0, oldest, rows["season_start_ms"])
    for i in range(window.shape[2]):
        missing = (rows["missing"][:, shape.targets, i] > 0) | ~valid[:, i, None]
        _learn_phase(shape, rows, window[:, shape.targets, i], missing, times[:, i])


def _learn_phase(shape: FeatureShape, rows: np.ndarray, values: np.ndarray, missing: np.ndarray, time_ms: np.ndarray) -> None:
    """Move the phases that a reading stands for towards its difference to the level; values and missing are (B, T)."""
    per_season = shape.period_ms / np.maximum(rows["interval_ms"], 1)  # readings, (B,)
    width = np.full(len(rows), PHASE_WIDTHS[-1])
    for narrower in PHASE_WIDTHS[-2::-1]:
        width[per_season * 1.25 * narrower >= PHASES] = narrower
    first = _phase(shape.period_ms, time_ms) - width // 2  # (B,)
    stands = (np.arange(PHASES) - first[:, None]) % PHASES < width[:, None]  # (B, PHASES)
    seasons = np.maximum(time_ms - rows["season_start_ms"], 0) // shape.period_ms + 1
    rate = np.maximum(SEASON_RATE, 1 / seasons) / np.maximum(per_season / PHASES, 1)  # (B,)
    learns = stands[:, None, :] & (~missing & (rows["interval_ms"] > 0)[:, None])[:, :, None]  # (B, T, PHASES)
    away = (values - rows["level"][:, shape.targets])[:, :, None] - rows["profile"]
    rows["profile"] = np.where(learns, rows["profile"] + rate[:, None, None] * away, rows["profile"])


def _phase(period_ms: int, time_ms: np.ndarray) -> np.ndarray:
    """The nearest of the season's phases, int64."""
    phase: np.ndarray = (time_ms % period_ms * PHASES + period_ms // 2) // period_ms % PHASES
    return phase


def _season_ahead(shape: FeatureShape, rows: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
    """How far the profile at each lead lies from the profile now, in spreads, clipped, float32 (B, T, K).

    Zero without a season, and until a whole one was seen.
    """
    leads = np.arange(1, shape.engine.model.horizon + 1)
    ahead = np.zeros((len(rows), len(shape.targets), len(leads)), np.float32)
    if not shape.period_ms:
        return ahead
    whole = (rows["period_ms"] == shape.period_ms) & (time_ms - rows["season_start_ms"] >= shape.period_ms)
    seen = np.flatnonzero(whole & (rows["interval_ms"] > 0))
    now = time_ms[seen] % shape.period_ms * PHASES / shape.period_ms  # (n,)
    step = rows["interval_ms"][seen] * PHASES / shape.period_ms
    place = np.floor(now[:, None] + leads * step[:, None] + 0.5)  # (n, K)
    phase = (place - PHASES * np.floor(place / PHASES)).astype(np.int64)
    profile = rows["profile"][seen]  # (n, T, PHASES)
    later = np.take_along_axis(profile, np.broadcast_to(phase[:, None, :], (*profile.shape[:2], len(leads))), axis=2)
    here = np.broadcast_to(_phase(shape.period_ms, time_ms[seen])[:, None, None], (*profile.shape[:2], 1))
    at_now = np.take_along_axis(profile, here, axis=2)
    spread = spread_of(rows)[seen][:, shape.targets, None]
    ahead[seen] = ((later - at_now) / spread).clip(-WINDOW_CLIP, WINDOW_CLIP)
    return ahead


def _shift_window(rows: np.ndarray, values: np.ndarray, missing: np.ndarray, gap_ms: np.ndarray) -> None:
    """Age the window by one and put the reading in at its newest end."""
    interval = np.maximum(rows["interval_ms"], 1)
    units = ((2 * GAP_UNIT * gap_ms + interval) // (2 * interval)).clip(1, 65535)
    for name, newest in (("window", values - rows["anchor"]), ("missing", missing), ("gap_units", units)):
        column = rows[name]
        column[..., :-1] = column[..., 1:]
        column[..., -1] = newest


def _features(
    shape: FeatureShape,
    rows: np.ndarray,
    values: np.ndarray,
    previous: np.ndarray,
    missing: np.ndarray,
    gap_units: np.ndarray,
    time_ms: np.ndarray,
    season: np.ndarray,
) -> np.ndarray:
    """The network's input for one reading of each row, float32 (B, F).

    Place and step of each channel, the season ahead of each target, the mask of each channel; then the gap as (g - 1) / (g + 1)
    in intervals; time of day and of week on circles.
    """
    channels = values.shape[1]
    spread = spread_of(rows)
    features = np.zeros((len(rows), shape.features), np.float32)
    features[:, :channels] = ((values - rows["level"]) / spread).clip(-FEATURE_CLIP, FEATURE_CLIP)
    features[:, channels : 2 * channels] = ((values - previous) / spread).clip(-FEATURE_CLIP, FEATURE_CLIP)
    signed = signed_features(shape.engine)
    chosen = season[:, :, shape.season_leads - 1].reshape(len(rows), -1)
    features[:, 2 * channels : signed] = chosen.clip(-FEATURE_CLIP, FEATURE_CLIP)
    features[:, signed : signed + channels] = missing
    at = signed + channels
    gap = gap_units.astype(np.float64)
    features[:, at] = (gap - GAP_UNIT) / (gap + GAP_UNIT)
    features[:, at + 1 : at + 3] = _DAY[time_ms // _MINUTE_MS % _MINUTES]
    features[:, at + 3 : at + 5] = _WEEK[time_ms // _HOUR_MS % _HOURS]
    return features


def _windows(shape: FeatureShape, rows: np.ndarray, newest: np.ndarray, spread: np.ndarray, season: np.ndarray) -> np.ndarray:
    """What the highway sees of each target, float32 (B, T, D), clipped: see `Observation`."""
    model = shape.engine.model
    context, horizon = model.context, model.horizon
    seen = np.zeros((*newest.shape, window_width(model)), np.float32)
    window = seen[:, :, :context]
    window[...] = rows["window"][:, shape.targets]
    window -= window[:, :, -1:].copy()
    window *= (1 / spread).astype(np.float32)[:, :, None]
    seen[:, :, context : context + horizon] = season
    seen[:, :, context + horizon] = (newest - rows["level"][:, shape.targets]) / spread
    return seen.clip(-WINDOW_CLIP, WINDOW_CLIP, out=seen)


def window_features(shape: FeatureShape, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of each row's own window, at today's scale, oldest first.

    Returns:
        features: float32 (W, B, F). Times are counted back from the last reading by the stored gaps.
        valid: bool (W, B), False for the part of a young row's window that holds no reading.
    """
    window = _window_values(rows)
    length = window.shape[2]
    time_ms, valid = _window_times(rows)
    features = np.empty((length, len(rows), shape.features), np.float32)
    for i in range(length):
        values, previous = window[:, :, i], window[:, :, max(i - 1, 0)]
        gap_units = rows["gap_units"][:, i].clip(1)
        season = _season_ahead(shape, rows, time_ms[:, i])
        features[i] = _features(shape, rows, values, previous, rows["missing"][:, :, i] > 0, gap_units, time_ms[:, i], season)
    return features, np.ascontiguousarray(valid.T)


def _window_values(rows: np.ndarray) -> np.ndarray:
    """The window's readings in sensor units, float64 (B, C, W)."""
    values: np.ndarray = rows["window"].astype(np.float64) + rows["anchor"][:, :, None]
    return values


def _window_times(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times of the window's readings, counted back from the last one by the stored gaps, and where there are any, (B, W) each."""
    gaps_ms = rows["gap_units"] * rows["interval_ms"][:, None] // GAP_UNIT  # (B, W)
    after = np.zeros_like(gaps_ms)
    after[:, :-1] = np.cumsum(gaps_ms[:, :0:-1], axis=1)[:, ::-1]
    length = gaps_ms.shape[1]
    return rows["last_time_ms"][:, None] - after, length - np.arange(length) <= rows["count"][:, None]


def trust(rows: np.ndarray) -> np.ndarray:
    """How much of the network's move from the last value is served, by rung, float64 (B, T, R).

    All of it while its running error is not above the last value's, else the 32nd power of their ratio. With errors m and n the
    served one is at most t m + (1 - t) n, t = (n / m)^32, which is never more than 1.2 % above n.
    """
    model, naive = rows["model_error"].astype(np.float64), rows["naive_error"].astype(np.float64)
    share = np.where(model > naive, naive / np.maximum(model, 1e-30), 1.0)
    for _ in range(5):
        share = share * share
    return share


def schedule(shape: FeatureShape, rows: np.ndarray, quantiles: np.ndarray, medians: np.ndarray, newest: np.ndarray) -> None:
    """Keep the forecast of every free rung of the ladder until it is due.

    Args:
        shape: The settings' constants.
        rows: Structured (B,), after `observe`; changed in place.
        quantiles: float64 (B, T, K, Q) in sensor units.
        medians: float64 (B, T, K), the network's own.
        newest: float64 (B, T), the readings the forecasts start from.
    """
    row, rung = np.nonzero((rows["due_ms"] == 0) & (rows["interval_ms"] > 0)[:, None])  # N free places in (B, R)
    lead = shape.rungs[rung]
    rows["due_ms"][row, rung] = rows["last_time_ms"][row] + lead * rows["interval_ms"][row]
    anchor = rows["anchor"][:, shape.targets][row]  # (N, T)
    rows["pending"][row, :, rung] = quantiles[row, :, lead - 1] - anchor[:, :, None]  # (N, T, Q)
    rows["pending_model"][row, :, rung] = medians[row, :, lead - 1] - anchor
    rows["pending_naive"][row, :, rung] = newest[row] - anchor
