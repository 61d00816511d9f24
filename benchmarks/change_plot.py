"""Runs `benchmarks.change`, prints its numbers and draws the plot of docs/retraining.md.

python -m benchmarks.change_plot [FILE]      docs/retraining.png by default; some minutes on one core
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.change import EVERY_DAYS, WINDOW_DAYS, Errors, run

mpl.use("Agg")
from matplotlib import pyplot as plt

DAYS = 140


def main() -> None:
    """The experiment, its numbers, its plot."""
    with tempfile.TemporaryDirectory() as directory:
        errors = run(Path(directory), DAYS)
    half = DAYS // 2
    say("four weeks before", errors, half - 29, half - 1)
    for week in range((DAYS - half) // 7):
        say(f"week {week + 1} after", errors, half + 7 * week, half + 7 * week + 7)
    print(f"{errors.versions} versions forecast while retraining")
    draw(errors, Path(sys.argv[1] if len(sys.argv) > 1 else "docs/retraining.png"))


def say(what: str, errors: Errors, first: int, last: int) -> None:
    """The mean errors of some days, the last of which has all its targets."""
    last = min(last, DAYS - 1)
    print(f"{what:<20} frozen {errors.frozen[first:last].mean():.3f}   retrained {errors.retrained[first:last].mean():.3f}")


def draw(errors: Errors, path: Path) -> None:
    """Errors by day, averaged over a week."""
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for name, colour, daily in (
        ("weights frozen", "#b2182b", errors.frozen),
        (f"retrained every {EVERY_DAYS} days", "#053061", errors.retrained),
    ):
        days = np.arange(7, DAYS)
        axes.plot(days, [daily[day - 7 : day].mean() for day in days], color=colour, label=name)
    axes.axvline(DAYS // 2, color="grey", linestyle=":", label="level, season and noise change")
    axes.axvspan(0, WINDOW_DAYS, color="#eeeeee", label="first weights trained on this")
    axes.set(xlabel="day", ylabel="mean absolute error, leads 1 to 12", xlim=(7, DAYS), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
