"""A version on trial: beside another one, on the same live readings, until it has passed or failed. No I/O.

Shadow: a candidate before it is promoted. Probation: a version after that, beside the one before it. The trial itself is a
record of topic `models` (`daemon.weights`), so that a worker that takes over from another goes on from the same offsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from models import judging
from models.engine import QuantileForecasts
from models.judging import BLOCKS, Errors

#: A version on probation that has this many times the error of the one before it is rolled back early: from this share of the
#: readings on, where the difference is no chance.
CLEARLY_WORSE = 1.2
EARLY = 0.25
#: By how much more its coverage may fall short of the outermost interval than the incumbent's. Covering too much is no
#: fault: calibration, which the rows keep across a swap, is still that of a wider forecast.
COVERAGE = 0.05
#: A trial takes so many horizons of every stream at least: less would judge the first leads alone.
HORIZONS = 2


class Trial(BaseModel):
    """Which version is on trial, beside which, from which input offsets on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["shadow", "probation"]
    version: str
    against: str
    since: dict[int, int]  # by partition; one that is not named: from its next record on

    def to_bytes(self) -> bytes:
        """JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes | None) -> Trial | None:
        """The trial of a record's value; None where it is none that this release knows."""
        try:
            return None if data is None else cls.model_validate_json(data)
        except ValidationError:
            return None


class Verdict(NamedTuple):
    """How a trial ended."""

    passed: bool
    reason: str


class Standing:
    """Errors and coverage of both versions so far, over forecasts of the same readings."""

    def __init__(self) -> None:
        self.readings = 0  # by which at least one forecast of each version came due
        self._unscored = False
        self._sums: list[list[float]] = []  # by part: pairs, naive, and error and covered of either version

    def add(self, against: QuantileForecasts, tried: QuantileForecasts) -> None:
        """Take in what both versions' forecasts of the same B readings came to."""
        scored = ~np.isnan(against.model_error)  # (B, T, R)
        if np.isnan(tried.model_error[scored]).any():
            self._unscored = True
        elif scored.any():
            self.readings += int(scored.any(axis=(1, 2)).sum())
            columns = scored, against.naive_error, against.model_error, against.covered, tried.model_error, tried.covered
            self._sums.append([float(column[scored].sum()) for column in columns])

    def errors(self) -> tuple[Errors, Errors]:
        """Of the version beside it and of the one on trial, by blocks in the order of the log."""
        pairs, naive, against, _, tried, _ = self._blocks().T
        return Errors(pairs, against, naive), Errors(pairs, tried, naive)

    def coverage(self) -> tuple[float, float]:
        """Share of the readings inside the outermost interval, in the same order; NaN where there are none."""
        pairs, _, _, against, _, tried = self._blocks().sum(axis=0)
        return (against / pairs, tried / pairs) if pairs else (float("nan"), float("nan"))

    def verdict(self, kind: str, needed: int, min_gain: float, interval: float) -> Verdict | None:
        """Whether it has passed or failed; None while it is not over.

        Args:
            kind: Of the trial.
            needed: Readings it takes.
            min_gain: As `retrain.min_gain`.
            interval: Probability of the outermost interval.
        """
        if self._unscored:
            return Verdict(False, "some of its forecasts are not numbers")
        over = self.readings >= needed
        against, tried = self.errors()
        if kind == "shadow":
            return self._shadow(against, tried, min_gain, interval) if over else None
        worse, bound = judging.gain(against, tried)
        clearly = 1 - 1 / CLEARLY_WORSE
        limit = min(min_gain, clearly) if over else clearly
        if self.readings >= EARLY * needed and worse >= limit and bound > 0:
            return Verdict(False, f"the version before is {worse:.1%} better over {self.readings} live readings")
        better, _ = judging.gain(tried, against)
        return Verdict(True, f"{better:+.1%} better than the version before over {self.readings} live readings") if over else None

    def _shadow(self, against: Errors, tried: Errors, min_gain: float, interval: float) -> Verdict:
        refusal = judging.refusal(tried, against, min_gain)
        short, own_short = (max(interval - coverage, 0.0) for coverage in self.coverage())
        if not refusal and own_short > short + COVERAGE:
            refusal = f"its interval covers {self.coverage()[1]:.1%}, the incumbent's {self.coverage()[0]:.1%}"
        return Verdict(not refusal, refusal or f"better over {self.readings} live readings")

    def _blocks(self) -> np.ndarray:
        """(BLOCKS, 6), in the order of the log."""
        parts = np.array_split(np.array(self._sums).reshape(-1, 6), BLOCKS)
        return np.array([part.sum(axis=0) for part in parts])


def readings_needed(asked: int, horizon: int, streams: int) -> int:
    """Readings that a trial takes: those asked for, or `HORIZONS` of every stream where that is more."""
    return max(asked, HORIZONS * horizon * streams)


def scores(standing: Standing) -> Mapping[str, float]:
    """Mean absolute errors so far, in spreads, by who; NaN where nothing was scored."""
    against, tried = standing.errors()
    return {"against": against.mae, "tried": tried.mae, "naive": tried.naive_mae}
