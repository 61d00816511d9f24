"""The arithmetic of a row, row by row, compiled: what `models.features` does with a reading and with the network's output.

Each function reads like the rule it states, for one row i. Everything is exactly rounded arithmetic in a fixed order, float64
unless a name says otherwise, so a row's result depends on nothing but the row and its reading (architecture 3).

B rows, C channels, T targets, W window, R rungs, Q levels, K leads, F features, P phases.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.compiled import compiled, compiled_beside, part

#: What a gap of one sampling interval is in `gap_units`.
GAP_UNIT = 64
#: A first reading alone says nothing of the spread: this share of its magnitude is assumed.
FIRST_SPREAD = 0.02
#: Half-life of level and spread, in readings: a week of hourly data.
SCALE_HALF_LIFE = 168
#: Features are clipped to this many spreads, window differences to the second.
FEATURE_CLIP = 8.0
WINDOW_CLIP = 12.0
#: The spread is mean absolute deviation times this (the standard deviation of a normal distribution).
SPREAD_PER_DEVIATION = 1.25
#: The unit of scaled numbers is at least this share of the level's magnitude, and this: never zero.
LEAST_SHARE, LEAST_UNIT = 1e-9, 1e-12
#: The window's float32 differences are taken from a new anchor when a reading is this many spreads away from it.
ANCHOR_REACH = 1024.0
#: Weight of the newest error in the running errors of a rung; that of a short one remembers as many readings.
ERROR_RATE = 1 / 16
ERROR_READINGS = 256
#: Step of the quantile tracker, in running errors of the rung (Gibbs and Candes 2021; the P part of conformal PID, 2023).
#: A rung's first steps are wider, one over how many forecasts of it were scored, up to the second number.
CALIBRATION_RATE, FIRST_CALIBRATION_RATE = 0.02, 0.05
#: Least weight of the newest season in the profile; the first ones weigh 1/n.
SEASON_RATE = 1 / 14
#: A phase of the season is as wide as a reading: the widest of 1, 2, 4, 8 that a quarter more than the season's readings fill.
WIDEST_PHASE = 8
#: No difference to a level is larger, and no profile: readings are at most 1e15.
FARTHEST = 4e15
#: Relative rounding of what is taken back by a reading of the window, which is a float32.
TAKEN_BACK_ROUNDING = 2.0**-24
#: How surprising a reading is counts up to here; kept in such steps.
MOST_SURPRISING = 6.0
SURPRISE_STEPS = 4096
#: Surprises that one reading in 10, in 100 and in 1,000 of a stream is beyond, while nothing is known of it.
FIRST_TAILS = (0.8, 1.4, 2.2)
#: A tail moves out by its first factor when a reading is beyond it, else in by its second: 9, 99 and 999 steps in undo one out.
TAIL_OUT = (1.05, 1.2, 1.5)
TAIL_IN = (1.005436, 1.0018433, 1.00040595)
#: Tails stay above this, and each at least so many times as far out as the one before.
LEAST_TAIL, NARROWEST_DECADE = 0.2, 1.15

_SCALE_RATE = 1 - 2 ** (-1 / SCALE_HALF_LIFE)
_MINUTES = 24 * 60
_HOURS = 7 * 24
_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000
_CALIBRATION_LIMIT = 4 * FEATURE_CLIP
_ONE = np.float32(1)


def _circle(steps: int) -> np.ndarray:
    """sin and cos of `steps` equal angles, float32 (steps, 2)."""
    angles = [2 * math.pi * step / steps for step in range(steps)]
    return np.array([(math.sin(angle), math.cos(angle)) for angle in angles], np.float32)


_DAY = _circle(_MINUTES)
_WEEK = _circle(_HOURS)


class Columns(NamedTuple):
    """Views of B rows by field (`models.layout.row_dtype`): what the functions here read and change."""

    count: np.ndarray  # type: ignore[assignment]  # hides the method of tuples
    last_time_ms: np.ndarray
    applied_offset: np.ndarray
    applied_index: np.ndarray
    interval_ms: np.ndarray
    anchor: np.ndarray
    level: np.ndarray
    spread: np.ndarray
    season_start_ms: np.ndarray
    period_ms: np.ndarray
    due_ms: np.ndarray
    window: np.ndarray
    pending: np.ndarray
    pending_model: np.ndarray
    pending_naive: np.ndarray
    model_error: np.ndarray
    naive_error: np.ndarray
    calibration: np.ndarray
    profile: np.ndarray
    gaps_ms: np.ndarray
    gap_units: np.ndarray
    missing: np.ndarray
    tails: np.ndarray
    surprise: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Columns:
        """The columns of structured rows (B,)."""
        return cls(*(rows[name] for name in cls._fields))


class Constants(NamedTuple):
    """What the settings and the season of the weights fix."""

    targets: np.ndarray  # int64 (T,) channels that are forecast
    rungs: np.ndarray  # int64 (R,) leads
    levels: np.ndarray  # float32 (Q,)
    leads: np.ndarray  # int64 (K,), 1..K
    season_leads: np.ndarray  # int64 (4,) leads at which the network sees the season ahead
    below: np.ndarray  # int64 (K,), rung at or below each lead
    above: np.ndarray  # int64 (K,)
    weight: np.ndarray  # float32 (K,), of the rung above
    median: int  # index of level 0.5
    period_ms: int  # 0 is none
    per_width_above: float  # surprise at the highest level's distance from the median
    per_width_below: float
    of_targets: float  # log10 of T: the worst of so many is that much less unlikely


class Observed(NamedTuple):
    """Where `observe` puts what a reading brought: `models.features.Observation`."""

    features: np.ndarray
    windows: np.ndarray
    newest: np.ndarray
    spread: np.ndarray
    anomaly_score: np.ndarray
    model_error: np.ndarray
    naive_error: np.ndarray
    covered: np.ndarray


@compiled
def observe(
    shape: Constants,
    rows: Columns,
    values: np.ndarray,
    time_ms: np.ndarray,
    offset: np.ndarray,
    element: np.ndarray,
    seen: Observed,
) -> None:
    """Advance every row by its reading: values float64 (B, C), the others int64 (B,). Fresh rows have been started."""
    channels = values.shape[1]
    reading = np.empty(channels)
    previous = np.empty(channels)
    spread = np.empty(len(shape.targets))
    ahead = np.empty((len(shape.targets), len(shape.leads)), np.float32)
    some = np.empty((len(shape.targets), len(shape.season_leads)), np.float32)
    gaps = np.empty(rows.gaps_ms.shape[1], np.int64)
    for i in range(len(values)):
        gap_ms = time_ms[i] - rows.last_time_ms[i] if rows.count[i] > 0 else 0
        _move_interval(rows, i, gap_ms, gaps)
        _score(shape, rows, i, values[i], time_ms[i], seen)
        _fill(shape, rows, i, values[i], time_ms[i], reading)
        for c in range(channels):
            if not math.isnan(values[i, c]):
                _move_scale(rows.level[i], rows.spread[i], c, rows.count[i], reading[c])
        _move_anchor(shape, rows, i, reading)
        for c in range(channels):
            previous[c] = rows.anchor[i, c] + rows.window[i, c, -1]
        if shape.period_ms > 0 and rows.period_ms[i] != shape.period_ms:
            _begin_season(shape, rows, i, spread, time_ms[i])
        season = _season(shape, rows, i, spread)
        for t in range(len(shape.targets)):
            c = shape.targets[t]
            if not math.isnan(values[i, c]):
                _learn(season, t, reading[c] - rows.level[i, c], time_ms[i])
        _shift_window(rows, i, values[i], reading, gap_ms)
        rows.count[i] += 1
        rows.last_time_ms[i] = time_ms[i]
        rows.applied_offset[i] = offset[i]
        rows.applied_index[i] = element[i]
        _season_ahead(season, time_ms[i], shape.leads, ahead)
        for t in range(len(some)):
            for n in range(len(shape.season_leads)):
                some[t, n] = ahead[t, shape.season_leads[n] - 1]
        last = rows.window.shape[2] - 1
        _features(rows, i, last, reading, previous, time_ms[i], some, seen.features[i])
        for t in range(len(shape.targets)):
            c = shape.targets[t]
            seen.newest[i, t] = reading[c]
            seen.spread[i, t] = spread[t]
            _window(rows, i, c, ahead[t], reading[c], seen.windows[i, t])


@part
def _spread(rows: Columns, i: int, c: int) -> float:
    """The unit of scaled numbers, in sensor units."""
    return _unit(rows.level[i, c], rows.spread[i, c])


@part
def _unit(level: float, deviation: float) -> float:
    """The unit of scaled numbers at a level and its mean absolute deviation: never zero."""
    floor = max(abs(level) * LEAST_SHARE, LEAST_UNIT)
    return max(deviation * SPREAD_PER_DEVIATION, floor)


@part
def _clip(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


@part
def _move_interval(rows: Columns, i: int, gap_ms: int, gaps: np.ndarray) -> None:
    """The interval is the median (the lower one of two) of the last gaps, 0 before there is one."""
    if rows.count[i] == 0:
        rows.interval_ms[i] = 0
        return
    last = len(gaps) - 1
    for j in range(last):
        rows.gaps_ms[i, j] = rows.gaps_ms[i, j + 1]
    rows.gaps_ms[i, last] = np.uint32(gap_ms)
    for j in range(len(gaps)):  # sorted by insertion; the zeros of gaps not yet known come first
        gap, at = np.int64(rows.gaps_ms[i, j]), j
        while at > 0 and gaps[at - 1] > gap:
            gaps[at] = gaps[at - 1]
            at -= 1
        gaps[at] = gap
    known = min(rows.count[i], len(gaps))
    rows.interval_ms[i] = gaps[len(gaps) - known + (known - 1) // 2]


@part
def _score(shape: Constants, rows: Columns, i: int, values: np.ndarray, time_ms: int, seen: Observed) -> None:
    """Score the pending forecasts that this reading answers, calibrate by them, and free their rungs and the expired ones."""
    worst = -1.0  # of the targets' anomaly scores
    interval_ms = rows.interval_ms[i]
    next_due_ms = rows.due_ms[i, 0]
    for r in range(len(shape.rungs)):
        due_ms = rows.due_ms[i, r]
        twice_late = 2 * (time_ms - due_ms)
        answered = due_ms > 0 and abs(twice_late) <= interval_ms
        for t in range(len(shape.targets)):
            value = values[shape.targets[t]]
            if answered and not math.isnan(value):
                miss = _score_rung(shape, rows, i, t, r, value, seen)
                _keep_surprise(shape, rows, i, t, r, miss)
                _calibrate(shape, rows, i, t, r, value)
            else:
                seen.model_error[i, t, r] = seen.naive_error[i, t, r] = seen.covered[i, t, r] = math.nan
        if answered or twice_late > interval_ms:
            rows.due_ms[i, r] = 0
    if next_due_ms > 0 and abs(2 * (time_ms - next_due_ms)) <= interval_ms:
        for t in range(len(shape.targets)):
            if not math.isnan(values[shape.targets[t]]):
                worst = max(worst, _anomaly(shape, rows, i, t, values[shape.targets[t]]))
    seen.anomaly_score[i] = max(worst - shape.of_targets, 0.0) if worst >= 0 else math.nan


@part
def _score_rung(shape: Constants, rows: Columns, i: int, t: int, r: int, value: float, seen: Observed) -> float:
    """Errors of one pending forecast in spreads, into `seen` and the running ones; the miss of its median, in sensor units."""
    c = shape.targets[t]
    spread = _spread(rows, i, c)
    reading = value - rows.anchor[i, c]
    miss = reading - rows.pending[i, t, r, shape.median]
    naive_error = abs(reading - rows.pending_naive[i, t, r]) / spread
    seen.model_error[i, t, r] = abs(miss) / spread
    seen.naive_error[i, t, r] = naive_error
    inside = reading >= rows.pending[i, t, r, 0] and reading <= rows.pending[i, t, r, -1]
    seen.covered[i, t, r] = 1.0 if inside else 0.0
    rate = max(min(ERROR_RATE, shape.rungs[r] / ERROR_READINGS), shape.rungs[r] / rows.count[i])
    rows.model_error[i, t, r] = _running(rows.model_error[i, t, r], abs(reading - rows.pending_model[i, t, r]) / spread, rate)
    rows.naive_error[i, t, r] = _running(rows.naive_error[i, t, r], naive_error, rate)
    return miss


@part
def _running(before: float, error: float, rate: float) -> float:
    """A running error, moved towards the newest one; the first one is taken as it is."""
    return error if before == 0 else before + min(rate, 1.0) * (error - before)


@part
def _keep_surprise(shape: Constants, rows: Columns, i: int, t: int, r: int, miss: float) -> None:
    """Keep how far out a rung's newest reading was: -log10 of its tail probability, were the tails beyond the outermost
    quantiles exponential; in steps from 1, since 0 is none."""
    least = 1e-9 * _spread(rows, i, shape.targets[t])
    median = np.float64(rows.pending[i, t, r, shape.median])
    above = max(rows.pending[i, t, r, -1] - median, least)
    below = max(median - rows.pending[i, t, r, 0], least)
    surprise = miss / above * shape.per_width_above if miss >= 0 else -miss / below * shape.per_width_below
    rows.surprise[i, t, r] = np.uint16(min(surprise, MOST_SURPRISING) * SURPRISE_STEPS + 1)


@part
def _anomaly(shape: Constants, rows: Columns, i: int, t: int, value: float) -> float:
    """-log10 of the share of this stream's readings that were as surprising, in the mean over the ladder: each rung's newest
    surprise, and the move since so many readings before, in spreads."""
    c, length = shape.targets[t], rows.window.shape[2]
    spread, reading = _spread(rows, i, c), value - rows.anchor[i, c]
    total, known = 0.0, 0
    for r in range(len(shape.rungs)):
        kept, before = np.int64(rows.surprise[i, t, r]), shape.rungs[r]
        if kept > 0:
            total += (kept - 1) / SURPRISE_STEPS
            known += 1
        if before <= min(rows.count[i], length):
            total += min(abs(reading - rows.window[i, c, length - before]) / spread, MOST_SURPRISING)
            known += 1
    surprise = total / max(known, 1)
    score = _tail_score(rows.tails[i, t], surprise)
    _move_tails(rows.tails[i, t], surprise)
    return score


@part
def _tail_score(tails: np.ndarray, surprise: float) -> float:
    """Linear between the tails, which are 1, 2 and 3; beyond, each further one lies as many times as far out as the last."""
    begun = tails[0] > 0
    one = np.float64(tails[0] if begun else FIRST_TAILS[0])
    two = max(np.float64(tails[1] if begun else FIRST_TAILS[1]), one * NARROWEST_DECADE)
    last = max(np.float64(tails[2] if begun else FIRST_TAILS[2]), two * NARROWEST_DECADE)
    if surprise <= one:
        return surprise / one
    if surprise <= two:
        return 1 + (surprise - one) / (two - one)
    if surprise <= last:
        return 2 + (surprise - two) / (last - two)
    score, decade = 3.0, last / two
    while surprise > last * decade:
        last *= decade
        score += 1
    return score + (surprise - last) / (last * decade - last)


@part
def _move_tails(tails: np.ndarray, surprise: float) -> None:
    """Move the trackers of the quantiles 0.9, 0.99 and 0.999 of a stream's surprises, by factors (Gibbs and Candes 2021)."""
    for k in range(len(FIRST_TAILS)):
        tail = np.float64(tails[k]) if tails[k] > 0 else FIRST_TAILS[k]
        tails[k] = tail * TAIL_OUT[k] if surprise > tail else max(tail / TAIL_IN[k], LEAST_TAIL)


@part
def _calibrate(shape: Constants, rows: Columns, i: int, t: int, r: int, value: float) -> None:
    """Move the quantile tracker of a rung that was scored; the median is left to the network."""
    reading = value - rows.anchor[i, shape.targets[t]]
    usual = np.float64(min(rows.model_error[i, t, r], rows.naive_error[i, t, r]))  # what the guard serves
    rate = min(max(CALIBRATION_RATE, shape.rungs[r] / rows.count[i]), FIRST_CALIBRATION_RATE)
    step = rate * min(usual, FEATURE_CLIP)
    for q in range(len(shape.levels)):
        if q == shape.median:
            continue
        push = shape.levels[q] - (1.0 if reading <= rows.pending[i, t, r, q] else 0.0)
        rows.calibration[i, t, r, q] = _clip(np.float64(rows.calibration[i, t, r, q]) + step * push, _CALIBRATION_LIMIT)


@part
def _fill(shape: Constants, rows: Columns, i: int, values: np.ndarray, time_ms: int, reading: np.ndarray) -> None:
    """The reading, and for what is missing the median forecast for this time where there is one, else the last value."""
    for c in range(len(values)):
        reading[c] = values[c] if not math.isnan(values[c]) else rows.anchor[i, c] + rows.window[i, c, -1]
    one_step = rows.gap_units[i, -1] > 0 and rows.count[i] > 1  # a forecast was made
    near = 2 * (time_ms - rows.last_time_ms[i]) <= 3 * rows.interval_ms[i]
    if one_step and near:
        for t in range(len(shape.targets)):
            c = shape.targets[t]
            if math.isnan(values[c]):
                reading[c] = rows.anchor[i, c] + rows.pending[i, t, 0, shape.median]


@part
def _scale_rate(place: int) -> float:
    """Weight of a stream's reading number `place` (from 0) in level and spread: 1/n at first, to settle fast."""
    return max(1 / (place + 1.0), _SCALE_RATE)


@part
def _move_scale(level: np.ndarray, spread: np.ndarray, c: int, place: int, value: float) -> None:
    """Move a channel's running mean and mean absolute deviation; the first reading has set them."""
    if place > 0:
        rate, away = _scale_rate(place), value - level[c]
        spread[c] += rate * (abs(away) - spread[c])
        level[c] += rate * away


@part
def _move_scale_back(level: np.ndarray, spread: np.ndarray, c: int, place: int, value: float) -> None:
    """What `_move_scale` had before, but for rounding; the reading is not a stream's first."""
    rate = _scale_rate(place)
    level[c] = (level[c] - rate * value) / (1 - rate)
    spread[c] = (spread[c] - rate * abs(value - level[c])) / (1 - rate)


@part
def _move_anchor(shape: Constants, rows: Columns, i: int, reading: np.ndarray) -> None:
    """Take a channel's differences from the reading itself where it lies far from the anchor (float32 has 24 bits)."""
    for c in range(len(reading)):
        if not abs(reading[c] - rows.anchor[i, c]) > ANCHOR_REACH * _spread(rows, i, c):
            continue
        shift = rows.anchor[i, c] - reading[c]
        for j in range(rows.window.shape[2]):
            rows.window[i, c, j] += shift
        for t in range(len(shape.targets)):
            if shape.targets[t] == c:
                for r in range(len(shape.rungs)):
                    rows.pending_model[i, t, r] += shift
                    rows.pending_naive[i, t, r] += shift
                    for q in range(len(shape.levels)):
                        rows.pending[i, t, r, q] += shift
        rows.anchor[i, c] = reading[c]


class Season(NamedTuple):
    """A row's season: a few numbers instead of all columns, so that calls in the innermost loop are cheap."""

    period_ms: int  # 0 where there is none
    interval_ms: int
    start_ms: int
    profile: np.ndarray  # (T, P)
    spread: np.ndarray  # (T,)


@part
def _season(shape: Constants, rows: Columns, i: int, spread: np.ndarray) -> Season:
    """The season that a row knows; `spread`, float64 (T,), is filled."""
    for t in range(len(spread)):
        spread[t] = _spread(rows, i, shape.targets[t])
    known = rows.period_ms[i] == shape.period_ms and rows.interval_ms[i] > 0
    period_ms = shape.period_ms if known else 0
    return Season(period_ms, rows.interval_ms[i], rows.season_start_ms[i], rows.profile[i], spread)


@part
def _begin_season(shape: Constants, rows: Columns, i: int, spread: np.ndarray, time_ms: int) -> None:
    """Begin a profile anew from the row's own window, before the newest reading is in it."""
    rows.profile[i] = 0
    rows.period_ms[i], rows.season_start_ms[i] = shape.period_ms, time_ms
    length = rows.window.shape[2]
    first = length - min(rows.count[i], length)
    if first == length:
        return
    time_ms = _oldest_ms(rows, i, first)
    rows.season_start_ms[i] = time_ms
    season = _season(shape, rows, i, spread)
    for j in range(first, length):
        if j > first:
            time_ms += _gap_ms(rows, i, j)
        for t in range(len(shape.targets)):
            c = shape.targets[t]
            if not _is_missing(rows.missing[i, c], length - 1 - j):
                _learn(season, t, rows.window[i, c, j] + rows.anchor[i, c] - rows.level[i, c], time_ms)


@part
def _gap_ms(rows: Columns, i: int, j: int) -> int:
    """The time from reading j - 1 of the window to reading j, from the stored gap."""
    return np.int64(rows.gap_units[i, j]) * rows.interval_ms[i] // GAP_UNIT


@part
def _oldest_ms(rows: Columns, i: int, first: int) -> int:
    """The time of reading `first` of the window, counted back from the last one by the stored gaps."""
    time_ms = rows.last_time_ms[i]
    for j in range(first + 1, rows.window.shape[2]):
        time_ms -= _gap_ms(rows, i, j)
    return time_ms


@part
def _learn(season: Season, t: int, away: float, time_ms: int) -> None:
    """Move the phases that a reading stands for towards its difference to the level."""
    if season.period_ms == 0:
        return
    first, width, rate = _moved_phases(season, time_ms)
    profile, phases = season.profile[t], season.profile.shape[1]
    for k in range(first, first + width):
        usual = np.float64(profile[k % phases])
        profile[k % phases] = usual + rate * (away - usual)


@part
def _learn_back(season: Season, t: int, away: float, time_ms: int) -> None:
    """What `_learn` had before, but for rounding; 0 where the reading replaced it, which it will again."""
    if season.period_ms == 0 or time_ms < season.start_ms:
        return
    first, width, rate = _moved_phases(season, time_ms)
    profile, phases = season.profile[t], season.profile.shape[1]
    for k in range(first, first + width):
        usual = np.float64(profile[k % phases])
        profile[k % phases] = _clip((usual - rate * away) / (1 - rate), FARTHEST) if rate < 1 else 0.0


@part
def _moved_phases(season: Season, time_ms: int) -> tuple[int, int, float]:
    """The phases that a reading stands for, first and how many, and its weight in them."""
    phases = season.profile.shape[1]
    per_season = season.period_ms / season.interval_ms  # readings
    width = WIDEST_PHASE
    while width > 1 and per_season * 1.25 * (width // 2) >= phases:
        width //= 2
    seasons = max(time_ms - season.start_ms, 0) // season.period_ms + 1
    rate = max(SEASON_RATE, 1 / seasons) / max(per_season / phases, 1.0)
    return _phase(season.period_ms, time_ms, phases) - width // 2, width, rate


@part
def _phase(period_ms: int, time_ms: int, phases: int) -> int:
    """The nearest of the season's phases."""
    return (time_ms % period_ms * phases + period_ms // 2) // period_ms % phases


@part
def _season_ahead(season: Season, time_ms: int, leads: np.ndarray, ahead: np.ndarray) -> None:
    """How far the profile at each of N leads lies from the profile now, in spreads, clipped, into float32 (T, N).

    Zero without a season, and until a whole one was seen.
    """
    period_ms, phases = season.period_ms, season.profile.shape[1]
    if period_ms == 0 or time_ms - season.start_ms < period_ms:
        for t in range(len(ahead)):
            for n in range(len(leads)):
                ahead[t, n] = 0
        return
    now = time_ms % period_ms * phases / period_ms
    step = season.interval_ms * phases / period_ms
    here = _phase(period_ms, time_ms, phases)
    for t in range(len(ahead)):
        for n in range(len(leads)):
            phase = np.int64(now + leads[n] * step + 0.5) % phases
            moved = np.float64(season.profile[t, phase] - season.profile[t, here])
            ahead[t, n] = _clip(moved / season.spread[t], WINDOW_CLIP)


@part
def _shift_window(rows: Columns, i: int, values: np.ndarray, reading: np.ndarray, gap_ms: int) -> None:
    """Age the window by one and put the reading in at its newest end."""
    last = rows.window.shape[2] - 1
    interval_ms = max(rows.interval_ms[i], 1)
    units = (2 * GAP_UNIT * gap_ms + interval_ms) // (2 * interval_ms)
    for j in range(last):
        rows.gap_units[i, j] = rows.gap_units[i, j + 1]
    rows.gap_units[i, last] = np.uint16(min(max(units, 1), 65535))
    for c in range(len(values)):
        for j in range(last):
            rows.window[i, c, j] = rows.window[i, c, j + 1]
        rows.window[i, c, last] = reading[c] - rows.anchor[i, c]
        _age_mask(rows.missing[i, c], math.isnan(values[c]))


@part
def _age_mask(mask: np.ndarray, missing: bool) -> None:
    """Put the newest reading's bit in: bit 0 of the first byte is the newest reading, bit 0 of the second the ninth."""
    carry = np.uint8(missing)
    for b in range(len(mask)):
        bits = mask[b]
        mask[b] = np.uint8((bits << 1 | carry) & 255)
        carry = np.uint8(bits >> 7)


@part
def _is_missing(mask: np.ndarray, age: int) -> bool:
    """Whether the reading of an age (0 is the newest) was missing."""
    return (mask[age // 8] >> (age % 8)) & 1 == 1


@part
def _features(
    rows: Columns,
    i: int,
    j: int,
    reading: np.ndarray,
    previous: np.ndarray,
    time_ms: int,
    season: np.ndarray,
    features: np.ndarray,
) -> None:
    """The network's input for reading j of the window, into float32 (F,).

    Place and step of each channel, the season at some leads of each target (T, N), the mask of each channel; then the gap as
    (g - 1) / (g + 1) in intervals; time of day and of week on circles.
    """
    channels = len(reading)
    for c in range(channels):
        spread = _spread(rows, i, c)
        features[c] = _clip((reading[c] - rows.level[i, c]) / spread, FEATURE_CLIP)
        features[channels + c] = _clip((reading[c] - previous[c]) / spread, FEATURE_CLIP)
    at = 2 * channels
    for t in range(len(season)):
        for n in range(season.shape[1]):
            features[at] = _clip(season[t, n], FEATURE_CLIP)
            at += 1
    for c in range(channels):
        features[at] = 1 if _is_missing(rows.missing[i, c], rows.window.shape[2] - 1 - j) else 0
        at += 1
    gap = max(np.float64(rows.gap_units[i, j]), 1.0)
    features[at] = (gap - GAP_UNIT) / (gap + GAP_UNIT)
    minute, hour = time_ms // _MINUTE_MS % _MINUTES, time_ms // _HOUR_MS % _HOURS
    for half in range(2):
        features[at + 1 + half] = _DAY[minute, half]
        features[at + 3 + half] = _WEEK[hour, half]


@part
def _window(rows: Columns, i: int, c: int, season: np.ndarray, newest: float, window: np.ndarray) -> None:
    """What the highway sees of a target, into float32 (D,): W differences to the newest reading, K of the season, the place."""
    length, horizon = rows.window.shape[2], len(season)
    spread = _spread(rows, i, c)
    per_spread, last = np.float32(1 / spread), rows.window[i, c, -1]
    limit = np.float32(WINDOW_CLIP)
    for j in range(length):
        window[j] = min(max((rows.window[i, c, j] - last) * per_spread, -limit), limit)
    for k in range(horizon):
        window[length + k] = season[k]
    window[length + horizon] = _clip((newest - rows.level[i, c]) / spread, WINDOW_CLIP)


@compiled_beside
def window_features(shape: Constants, rows: Columns, features: np.ndarray, valid: np.ndarray) -> None:
    """The network's inputs at each reading of each row's window, as they were then, into float32 (W, B, F) and bool (W, B).

    Rows are used up: each is taken back to where its window begins, and learns it again.
    """
    length, channels = rows.window.shape[2], rows.window.shape[1]
    reading, previous = np.empty(channels), np.empty(channels)
    spread = np.empty(len(shape.targets))
    ahead = np.empty((len(shape.targets), len(shape.season_leads)), np.float32)
    for i in range(valid.shape[1]):
        first = length - min(rows.count[i], length)
        valid[:first, i] = False
        valid[first:, i] = True
        if first == length:
            continue
        time_ms = _take_back(shape, rows, i, first, spread)
        season = _season(shape, rows, i, spread)
        level, deviation = rows.level[i], rows.spread[i]
        for j in range(first, length):
            place = rows.count[i] - length + j
            if j > first:
                time_ms += _gap_ms(rows, i, j)
            for c in range(channels):
                reading[c] = rows.window[i, c, j] + rows.anchor[i, c]
                previous[c] = rows.window[i, c, max(j - 1, first)] + rows.anchor[i, c]
                if not _is_missing(rows.missing[i, c], length - 1 - j):
                    _move_scale(level, deviation, c, place, reading[c])
            for t in range(len(shape.targets)):
                c = shape.targets[t]
                spread[t] = _unit(level[c], deviation[c])
                if place > 0 and time_ms >= season.start_ms and not _is_missing(rows.missing[i, c], length - 1 - j):
                    _learn(season, t, reading[c] - level[c], time_ms)
            _season_ahead(season, time_ms, shape.season_leads, ahead)
            _features(rows, i, j, reading, previous, time_ms, ahead, features[j, i])


@part
def _take_back(shape: Constants, rows: Columns, i: int, first: int, spread: np.ndarray) -> int:
    """Take level, spread and profile back to before reading `first` of the window; its time.

    A profile of another season than the weights' begins at that reading. The spread is no less than what rounding leaves of a
    jump: that of a stream that was idle before it would be nothing.
    """
    length = rows.window.shape[2]
    level, deviation = rows.level[i], rows.spread[i]
    oldest_ms = _oldest_ms(rows, i, first)
    if rows.count[i] <= length:  # the window holds all
        for c in range(len(level)):
            level[c] = rows.window[i, c, first] + rows.anchor[i, c]
            deviation[c] = abs(level[c]) * FIRST_SPREAD
        rows.profile[i] = 0
    else:
        season, time_ms = _season(shape, rows, i, spread), rows.last_time_ms[i]
        for j in range(length - 1, first - 1, -1):
            for t in range(len(shape.targets)):
                c = shape.targets[t]
                if not _is_missing(rows.missing[i, c], length - 1 - j):
                    _learn_back(season, t, rows.window[i, c, j] + rows.anchor[i, c] - level[c], time_ms)
            for c in range(len(level)):
                if not _is_missing(rows.missing[i, c], length - 1 - j):
                    value = rows.window[i, c, j] + rows.anchor[i, c]
                    _move_scale_back(level, deviation, c, rows.count[i] - length + j, value)
            time_ms -= _gap_ms(rows, i, j)
        for c in range(len(level)):
            deviation[c] = max(deviation[c], TAKEN_BACK_ROUNDING * _largest(rows.window[i, c]))
    if rows.period_ms[i] != shape.period_ms:
        rows.profile[i] = 0
        rows.period_ms[i], rows.season_start_ms[i] = shape.period_ms, oldest_ms
    return oldest_ms


@part
def _largest(numbers: np.ndarray) -> float:
    """The largest magnitude."""
    largest = 0.0
    for number in numbers:
        largest = max(largest, abs(np.float64(number)))
    return largest


@compiled
def forecast(
    shape: Constants, rows: Columns, raw: np.ndarray, newest: np.ndarray, spread: np.ndarray, quantiles: np.ndarray
) -> None:
    """Guard, calibrate, sort and unscale the network's raw quantiles float32 (B, T, K, Q), into float64; keep them until due."""
    trust = np.empty(len(shape.rungs), np.float32)
    calibration = np.empty((len(shape.rungs), len(shape.levels)), np.float32)
    scaled = np.empty(len(shape.levels), np.float32)
    for i in range(len(raw)):
        for t in range(len(shape.targets)):
            for r in range(len(trust)):
                trust[r] = trusted(rows.model_error[i, t, r], rows.naive_error[i, t, r])
                for q in range(len(scaled)):
                    calibration[r, q] = rows.calibration[i, t, r, q]
            for k in range(len(shape.below)):
                below, above, weight = shape.below[k], shape.above[k], shape.weight[k]
                # Between two rungs the more trusted one counts: the value of a season ago, at its rung as good as any forecast,
                # says nothing of the leads around it.
                own, less = raw[i, t, k, shape.median], _ONE - max(trust[below], trust[above])
                for q in range(len(scaled)):
                    moved = raw[i, t, k, q] - less * own
                    _insert(scaled, q, moved + _between(calibration[below, q], calibration[above, q], weight))
                for q in range(len(scaled)):
                    quantiles[i, t, k, q] = newest[i, t] + spread[i, t] * np.float64(scaled[q])
        _schedule(shape, rows, i, raw, newest, spread, quantiles)


@part
def trusted(model_error: float, naive_error: float) -> float:
    """How much of the network's move from the last value is served at a rung.

    All of it while its running error is not above the last value's, else the 32nd power of their ratio. With errors m and n the
    served one is at most t m + (1 - t) n, t = (n / m)^32, which is never more than 1.2 % above n.
    """
    model, naive = np.float64(model_error), np.float64(naive_error)
    share = naive / max(model, 1e-30) if model > naive else 1.0
    for _ in range(5):
        share = share * share
    return share


@part
def _between(below: np.float32, above: np.float32, weight: np.float32) -> np.float32:
    """A number of each rung at a lead between two of them, float32: linear in the lead."""
    return below + weight * (above - below)


@part
def _insert(ordered: np.ndarray, count: int, number: float) -> None:
    """Put a number among the first `count` sorted ones."""
    at = count
    while at > 0 and ordered[at - 1] > number:
        ordered[at] = ordered[at - 1]
        at -= 1
    ordered[at] = number


@part
def _schedule(
    shape: Constants, rows: Columns, i: int, raw: np.ndarray, newest: np.ndarray, spread: np.ndarray, quantiles: np.ndarray
) -> None:
    """Keep the forecast of every free rung of the ladder until it is due."""
    if rows.interval_ms[i] == 0:
        return
    for r in range(len(shape.rungs)):
        if rows.due_ms[i, r] != 0:
            continue
        k = shape.rungs[r] - 1
        rows.due_ms[i, r] = rows.last_time_ms[i] + shape.rungs[r] * rows.interval_ms[i]
        for t in range(len(shape.targets)):
            anchor = rows.anchor[i, shape.targets[t]]
            for q in range(len(shape.levels)):
                rows.pending[i, t, r, q] = quantiles[i, t, k, q] - anchor
            own = newest[i, t] + spread[i, t] * np.float64(raw[i, t, k, shape.median])
            rows.pending_model[i, t, r] = own - anchor
            rows.pending_naive[i, t, r] = newest[i, t] - anchor
