"""Scores of forecasts against what came: for the reports of replay and audit, from messages alone and outside of the engine.

Told of every poll, it decodes the records again, holds each forecast until its targets come, and scores the leads of the ladder:
the median against the reading, beside the last value and the value of a season before, both as they were known when the forecast
was made. A target is the first reading within half an interval of origin + k intervals. Nothing here touches a forecast.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import msgspec

from config.settings import EngineSettings, InputSettings
from daemon.anomalies import Anomalies
from daemon.codec import Decoder
from daemon.control import is_control, stream_of
from daemon.epochs import Epoch, epoch_at
from daemon.errors import BadRecord
from daemon.pipeline import Outcome
from daemon.records import Record
from models.layout import ladder

#: Series of which readings and fans are kept to be drawn; all are scored.
DRAWN_SERIES = 2000
DRAWN_READINGS = 160
DRAWN_FANS = 5
WORST_PAIRS = 30  # fewer pairs make no series a bad one
#: Samples of the throughput: one in so many seconds, thinned out to so many.
_SAMPLE_S = 0.25
_MOST_SAMPLES = 360


class _Forecast(msgspec.Struct):
    """What is scored of a forecast; records of kinds that forecast no leads have no targets."""

    interval_ms: int | None = None
    targets: dict[str, dict[str, list[float | None]]] = {}
    anomaly_score: float | None = None
    warming: bool = False


_parse = msgspec.json.Decoder(_Forecast).decode


class Fan(NamedTuple):
    """One forecast of one series."""

    origin_ms: int
    interval_ms: int
    last: float  # the reading that it follows
    levels: tuple[float, ...]
    quantiles: list[list[float]]  # by level, then lead 1..K

    @property
    def median(self) -> list[float]:
        """By lead 1..K."""
        return self.quantiles[self.levels.index(0.5)]


@dataclass
class LeadScore:
    """Sums over the targets of one lead that came, in units of the sensor."""

    pairs: int = 0
    model: float = 0.0
    naive: float = 0.0
    covered: int = 0
    seasonal_pairs: int = 0  # those for which a value of a season before was known
    seasonal: float = 0.0
    below: list[int] = field(default_factory=list)  # readings at or below each level


@dataclass
class Series:
    """One target of one stream."""

    name: str
    last_ms: int = -(1 << 62)
    pending: deque[Fan] = field(default_factory=deque)
    scores: dict[int, LeadScore] = field(default_factory=dict)
    times_ms: list[int] = field(default_factory=list)  # of the past, for the value of a season before
    values: list[float] = field(default_factory=list)
    drawn: deque[tuple[int, float]] | None = None  # the newest readings
    fans: deque[Fan] = field(default_factory=lambda: deque(maxlen=DRAWN_FANS))

    def ratio(self) -> float:
        """Error of the medians to that of the last value, over all leads; NaN where too few came."""
        pairs = sum(score.pairs for score in self.scores.values())
        naive = sum(score.naive for score in self.scores.values())
        return sum(score.model for score in self.scores.values()) / naive if pairs >= WORST_PAIRS and naive else math.nan


class Row(NamedTuple):
    """One lead over all series; errors are means in units of each series' own last-value error at the first lead."""

    lead: int
    pairs: int
    model: float
    naive: float
    seasonal: float  # NaN where no season is known
    covered: float  # share inside of the outermost interval


@dataclass(order=True)
class Start:
    """An epoch that some record was in."""

    partition: int
    offset: int
    version: str
    timestamp_ms: int  # of its first record
    time_ms: int | None = field(default=None, compare=False)  # of its first reading, which may be from long before


class Scorer:
    """Collects what a report shows. Memory grows with the number of series, not with the readings.

    Args:
        season_ms: The season of the seasonal naive forecast; None: there is none.
    """

    def __init__(self, season_ms: int | None = None) -> None:
        self.season_ms = season_ms
        self.series: dict[tuple[int, str, str], Series] = {}
        self.levels: tuple[float, ...] = ()
        self.starts: dict[tuple[int, int], Start] = {}  # by partition and first offset of the epoch
        self.anomalies = Anomalies()
        self.unscored = 0  # records without leads: answers, scenarios, smoothed readings, digests
        self.readings = 0
        self.seconds = 0.0
        self.rates: list[tuple[float, int]] = []  # seconds since the start, readings applied
        self._started_s = time.perf_counter()
        self._decoder_of = lru_cache(maxsize=64)(lambda text: Decoder(InputSettings.model_validate_json(text)))

    def watch(self, partition: int, records: Sequence[Record], outcome: Outcome, epochs: Sequence[Epoch]) -> None:
        """A poll of a partition was processed."""
        forecasts = {message.headers[0][1]: message.value for message in outcome.forecasts}
        for record in records:
            epoch = epoch_at(epochs, record.offset)
            start = self._begin(epoch, record)
            first_ms = self._record(partition, record, epoch.engine, forecasts)
            start.time_ms = first_ms if start.time_ms is None else start.time_ms
        self.readings += outcome.stepped
        self.seconds = time.perf_counter() - self._started_s
        if not self.rates or self.seconds - self.rates[-1][0] > _SAMPLE_S:
            self.rates.append((self.seconds, self.readings))
            if len(self.rates) > _MOST_SAMPLES:
                self.rates = self.rates[::2]

    def rows(self) -> list[Row]:
        """The score of every lead, over all series."""
        leads = sorted({lead for series in self.series.values() for lead in series.scores})
        return [self._row(lead) for lead in leads]

    def calibration(self) -> list[tuple[float, float]]:
        """For each level, the share of readings at or below its quantile; over all leads."""
        scores = [score for series in self.series.values() for score in series.scores.values() if score.below]
        pairs = sum(score.pairs for score in scores)
        return [(level, sum(score.below[i] for score in scores) / pairs) for i, level in enumerate(self.levels)] if pairs else []

    def by_ratio(self) -> list[Series]:
        """The series that can be drawn and have enough scores, worst first."""
        scored = [one for one in self.series.values() if one.drawn is not None and not math.isnan(one.ratio())]
        return sorted(scored, key=lambda one: -one.ratio())

    def lines(self) -> Iterator[str]:
        """The table of leads as text."""
        yield f"{'lead':>5} {'forecasts':>10} {'error':>8} {'naive':>8} {'seasonal':>9} {'to naive':>9} {'covered':>8}"
        for row in self.rows():
            seasonal = "-" if math.isnan(row.seasonal) else f"{row.seasonal:.4f}"
            ratio = f"{row.model / row.naive - 1:+.1%}" if row.naive else "-"
            yield (
                f"{row.lead:>5} {row.pairs:>10} {row.model:>8.4f} {row.naive:>8.4f} {seasonal:>9} {ratio:>9} {row.covered:>8.1%}"
            )
        if self.unscored:
            yield f"{self.unscored} records are of a kind that forecasts no leads: they are not scored"

    def _begin(self, epoch: Epoch, record: Record) -> Start:
        key = epoch.partition, epoch.first_offset
        if key not in self.starts:
            self.starts[key] = Start(epoch.partition, record.offset, epoch.model_version, record.timestamp_ms)
            self.levels = self.levels or epoch.engine.model.levels
        return self.starts[key]

    def _record(self, partition: int, record: Record, engine: EngineSettings, forecasts: dict[bytes, bytes | None]) -> int | None:
        """Score a record's readings; the time of the first, None where there is none."""
        try:
            if is_control(record):
                self._forget(partition, stream_of(record), engine)
                return None
            readings = self._decoder_of(engine.input.model_dump_json()).decode(record)
        except BadRecord:
            return None
        for element, (stream, time_ms, values) in enumerate(readings):
            sent = forecasts.get(b"%d,%d,%d" % (partition, record.offset, element))
            forecast = _parse(sent) if sent else None
            if forecast is not None:
                self.unscored += not forecast.targets
                self.anomalies.take(partition, stream, time_ms, forecast.anomaly_score, forecast.warming)
            for target in engine.targets:
                series = self._series(partition, stream, target, len(engine.targets) > 1)
                value = values[engine.channels.index(target)]
                if time_ms > series.last_ms:
                    self._reading(series, time_ms, value, engine)
                    if forecast is not None and target in forecast.targets and not math.isnan(value):
                        self._issued(series, time_ms, value, forecast, target, engine)
        return readings[0].time_ms

    def _series(self, partition: int, stream: str, target: str, several: bool) -> Series:
        key = (partition, stream, target)
        found = self.series.get(key)
        if found is None:
            drawn = deque[tuple[int, float]](maxlen=DRAWN_READINGS) if len(self.series) < DRAWN_SERIES else None
            found = self.series[key] = Series(f"{stream} {target}" if several else stream, drawn=drawn)
        return found

    def _forget(self, partition: int, stream: str, engine: EngineSettings) -> None:
        self.anomalies.forget(partition, stream)
        for target in engine.targets:
            series = self.series.get((partition, stream, target))
            if series is not None:
                series.pending.clear()
                series.last_ms = -(1 << 62)
                series.times_ms, series.values = [], []

    def _reading(self, series: Series, time_ms: int, value: float, engine: EngineSettings) -> None:
        """Score what comes due with a reading, then remember it."""
        if time_ms - series.last_ms > engine.input.max_gap_s * 1000:
            series.pending.clear()
        series.last_ms = time_ms
        if math.isnan(value):
            return
        horizon, rungs = engine.model.horizon, ladder(engine.model.horizon)
        while series.pending and time_ms > series.pending[0].origin_ms + (horizon + 0.5) * series.pending[0].interval_ms:
            series.pending.popleft()
        for fan in series.pending:
            lead = round((time_ms - fan.origin_ms) / fan.interval_ms)
            if lead in rungs:
                self._score(series, fan, lead, time_ms, value)
        if series.drawn is not None:
            series.drawn.append((time_ms, value))
        if self.season_ms is not None:
            series.times_ms.append(time_ms)
            series.values.append(value)

    def _score(self, series: Series, fan: Fan, lead: int, time_ms: int, value: float) -> None:
        score = series.scores.setdefault(lead, LeadScore(below=[0] * len(fan.levels)))
        quantiles = [column[lead - 1] for column in fan.quantiles]
        score.pairs += 1
        score.model += abs(value - fan.median[lead - 1])
        score.naive += abs(value - fan.last)
        score.covered += quantiles[0] <= value <= quantiles[-1]
        if len(score.below) == len(quantiles):
            score.below = [count + (value <= quantile) for count, quantile in zip(score.below, quantiles, strict=True)]
        before = self._season_before(series, fan, time_ms)
        if before is not None:
            score.seasonal_pairs += 1
            score.seasonal += abs(value - before)

    def _season_before(self, series: Series, fan: Fan, time_ms: int) -> float | None:
        """The value whole seasons before, of the newest season that was known at the origin; within half an interval."""
        if self.season_ms is None:
            return None
        seasons = max(1, math.ceil((time_ms - fan.origin_ms) / self.season_ms))
        wanted_ms = time_ms - seasons * self.season_ms
        at = bisect_left(series.times_ms, wanted_ms - fan.interval_ms // 2)
        if at < len(series.times_ms) and series.times_ms[at] <= wanted_ms + fan.interval_ms // 2:
            return series.values[at]
        return None

    def _issued(
        self, series: Series, time_ms: int, value: float, forecast: _Forecast, target: str, engine: EngineSettings
    ) -> None:
        """Hold a forecast until its targets come."""
        if not forecast.interval_ms:
            return
        levels = engine.model.levels
        columns = [forecast.targets[target][repr(float(level))] for level in levels]
        if any(number is None for column in columns for number in column):
            return
        fan = Fan(time_ms, forecast.interval_ms, value, levels, columns)  # type: ignore[arg-type]
        series.pending.append(fan)
        if not series.fans or time_ms >= series.fans[-1].origin_ms + engine.model.horizon * fan.interval_ms:
            series.fans.append(fan)
        if self.season_ms is not None and len(series.times_ms) > 4096:
            reach_ms = (math.ceil(engine.model.horizon * fan.interval_ms / self.season_ms) + 1) * self.season_ms
            first = bisect_left(series.times_ms, time_ms - reach_ms)
            if first > len(series.times_ms) // 2:
                del series.times_ms[:first], series.values[:first]

    def _row(self, lead: int) -> Row:
        means: list[tuple[float, float, float]] = []  # model, naive, seasonal by series
        pairs = covered = 0
        for series in self.series.values():
            score, first = series.scores.get(lead), series.scores.get(1)
            if score is None or first is None or not first.naive:
                continue
            unit = first.naive / first.pairs
            seasonal = score.seasonal / score.seasonal_pairs / unit if score.seasonal_pairs else math.nan
            means.append((score.model / score.pairs / unit, score.naive / score.pairs / unit, seasonal))
            pairs, covered = pairs + score.pairs, covered + score.covered
        known = [seasonal for _, _, seasonal in means if not math.isnan(seasonal)]
        count = max(1, len(means))
        return Row(
            lead,
            pairs,
            sum(one for one, _, _ in means) / count,
            sum(one for _, one, _ in means) / count,
            sum(known) / len(known) if known else math.nan,
            covered / max(1, pairs),
        )
