"""A small run of the experiment of docs/retraining.md: what retraining is worth where behaviour changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.change import DAY, LEVEL, NOISE, run, values

SMALL = ("model.hidden=8", "model.horizon=6", "model.context=96", "retrain.steps=60")


def test_level_season_and_noise_change_half_way() -> None:
    """Every other stream moves, the season grows by half, and the noise keeps its size but comes to remember."""
    before, after = np.split(values(200), 2)
    assert after.mean(axis=0)[:2] - before.mean(axis=0)[:2] == pytest.approx([LEVEL, 0], abs=0.1)
    for part, season in ((before, 24), (after, 36)):
        away = part[season:] - part[:-season]
        assert away.std() == pytest.approx(np.sqrt(2) * NOISE, rel=0.05)
        assert (part[30:] - part[:-30]).std() > 2.5
    noise = [part[72:, 0] - part[:-72, 0] for part in (before, after)]
    assert [np.corrcoef(one[1:], one[:-1])[0, 1] for one in noise] == pytest.approx([0, 0.6], abs=0.1)


@pytest.mark.slow
def test_retraining_comes_back_and_frozen_weights_do_not(tmp_path: Path) -> None:
    """The error of the last week is within a tenth of that before the change; frozen weights, to which rows adapt: half as large
    again."""
    days = 112
    errors = run(tmp_path, days, streams=2, given=SMALL)
    before = errors.retrained[days // 2 - 14 : days // 2].mean()
    last = slice(days - 8, days - 1)
    assert errors.retrained[last].mean() < 1.1 * before
    assert errors.frozen[last].mean() > 1.5 * before
    assert errors.versions > 2
    assert len(errors.frozen) * DAY == len(values(days))
