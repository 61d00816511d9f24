"""Runs the experiments of `benchmarks.why_lstm`, prints their numbers and draws the plots of docs/why-lstm.md.

python -m benchmarks.why_lstm_plots [FOLDER]      docs/why-lstm by default; about three minutes on one core
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from statistics import mean

import matplotlib as mpl
import torch

from benchmarks.why_lstm import NETWORKS, gradient_norms, half_distance, learn_level, recall, repeated_weight

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SEEDS = (0, 1, 2)
COLOURS = dict(zip(NETWORKS, ("#b2182b", "#ef8a62", "#7f0000", "#92c5de", "#4393c3", "#053061"), strict=True))


def main() -> None:
    """Every experiment in the order of the page."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/why-lstm")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, draw in (
        ("repeated-weight", draw_repeated_weight),
        ("gradient-norms", draw_gradient_norms),
        ("clipping", draw_clipping),
        ("recall", draw_recall),
    ):
        figure = draw()
        figure.savefig(folder / f"{name}.png", dpi=90, metadata={"Software": None})
        plt.close(figure)


def draw_repeated_weight() -> Figure:
    """The output and its gradient against w, on a logarithmic scale."""
    figure, (axes,) = panels(1)
    weights = [0.98 + 0.0005 * i for i in range(81)]
    results = [repeated_weight(weight) for weight in weights]
    axes.semilogy(weights, [output for output, _ in results], color="#053061", label="output, $w^{999}$")
    axes.semilogy(weights, [by for _, by in results], color="#b2182b", label="its gradient by w, $999\\,w^{998}$")
    finish(axes, "The same weight 999 times", "w", "after 1,000 steps")
    for weight in (0.99, 1.0, 1.01):
        print("w = {}: y_1000 = {:.4g}, gradient {:.4g}".format(weight, *repeated_weight(weight)))
    return figure


def draw_gradient_norms() -> Figure:
    """The norm by distance, one line a network."""
    figure, (axes,) = panels(1)
    for name, colour in COLOURS.items():
        runs = [gradient_norms(name, seed=seed) for seed in SEEDS]
        for i, norms in enumerate(runs):
            axes.semilogy(norms, color=colour, linewidth=1, label=None if i else name)
        typical = " ".join(f"{d}: {mean(run[d] for run in runs):.1e}" for d in (0, 10, 50, 100, 199))
        print(f"{name:<20} gradient at distance {typical}; halves in {[round(half_distance(run), 1) for run in runs]} steps")
    axes.set_ylim(1e-45, 1e13)
    finish(axes, "How much the last hidden state depends on earlier inputs (untrained)", "distance in steps", "gradient norm")
    return figure


def draw_clipping() -> Figure:
    """The loss by update, with and without clipping."""
    figure, (axes,) = panels(1)
    for longest, name, colour in ((math.inf, "not clipped", "#b2182b"), (1.0, "clipped to norm 1", "#053061")):
        for seed in SEEDS:
            losses = [step.loss for step in learn_level(longest, seed=seed)]
            axes.semilogy(losses, color=colour, linewidth=1, label=None if seed else name)
            print(f"{name}, seed {seed}: {len(losses)} updates, worst loss {max(losses):.2g}, last 50 {mean(losses[-50:]):.2g}")
    for rate in (1e-3, 1e-4):
        for seed in SEEDS:
            losses = [step.loss for step in learn_level(math.inf, rate, seed=seed)]
            print(f"not clipped, rate {rate:g}, seed {seed}: worst loss {max(losses):.2g}, last 50 {mean(losses[-50:]):.2g}")
    axes.axhline(1 / 12, color="grey", linewidth=1, linestyle=":", label="always answering 1/2")
    axes.set_ylim(1e-4, 1e4)
    finish(axes, "Training a plain network over 100 steps (the spike ends at 8.5e35)", "update", "mean squared error")
    return figure


def draw_recall() -> Figure:
    """Left, the share of right answers while training on 100 steps; right, after training, by the number of steps."""
    figure, (course, reach) = panels(2)
    lengths = (5, 10, 20, 50, 100, 200)
    for name in ("RNN", "RNN, orthogonal", "LSTM, forget bias 1", "LSTM, forget bias 5"):
        runs = {steps: [recall(name, steps, seed=seed) for seed in SEEDS] for steps in lengths}
        for i, shares in enumerate(runs[100]):
            course.plot(smooth(shares, 10), color=COLOURS[name], linewidth=1, label=None if i else name)
        ends = {steps: [mean(shares[-20:]) for shares in runs[steps]] for steps in lengths}
        reach.semilogx(lengths, [mean(ends[steps]) for steps in lengths], "o-", color=COLOURS[name], linewidth=1, label=name)
        print(f"{name:<20} right at last " + "; ".join(f"{steps}: {[round(end, 2) for end in ends[steps]]}" for steps in lengths))
    for axes in (course, reach):
        axes.axhline(0.5, color="grey", linewidth=1, linestyle=":", label="chance")
        axes.set_ylim(0, 1.05)
    reach.set_xticks(lengths, [str(steps) for steps in lengths])
    reach.minorticks_off()
    finish(course, "Recall over 100 steps, while training", "update", "right answers")
    finish(reach, "After 150 updates", "steps to remember", "right answers (mean of 3 seeds)")
    return figure


def smooth(numbers: list[float], width: int) -> list[float]:
    """The mean of each number and those before it, at most `width`."""
    return [mean(numbers[max(0, i + 1 - width) : i + 1]) for i in range(len(numbers))]


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many plots side by side."""
    figure, axes = plt.subplots(1, count, figsize=(5 + 3 * count, 4), layout="constrained", squeeze=False)
    return figure, list(axes[0])


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """What every plot has."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


if __name__ == "__main__":
    main()
