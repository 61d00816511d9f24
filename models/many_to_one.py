"""Many to one: one output for a window of N readings, or for a session that a long gap ends. The state begins from zero in each.

    over the window      a_t = cell(x_t, a_{t-1}),  a_0 = 0
    a class              p = softmax(W a_N + b)                 one probability for each of model.labels
    a number             q = o + u (W a_N + b)                  quantiles; o and u: mean and deviation of the labels trained on
    the next mean        q = m + s (W a_N + b)                  of each target; m and s: the stream's level and spread

A window's output comes with its last reading. A session is closed by the reading after it, whose output it is. What a window is
trained on is its last label; for the next mean, the mean of the window that follows.
B rows, T targets, Q levels, O outputs, S steps.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from config.settings import EngineSettings
from models import scaling
from models.carried import Carried, Field
from models.descent import Recipe, pinball
from models.engine import Answers, Readings
from models.recurrent import Full, Stack, level_bias, top
from models.scaling import Scale
from models.sequences import Sequences
from models.tiles import through

#: The gradient goes back so many readings into a window.
LEARNED = 256


def outputs(engine: EngineSettings) -> int:
    """O: a number for each class, or for each level of each number."""
    model = engine.model
    if model.predicts == "class":
        return len(model.labels)
    return (len(engine.targets) if model.predicts == "next_mean" else 1) * len(model.levels)


class Network(nn.Module):
    """A stack, and a head for the one output."""

    def __init__(self, engine: EngineSettings) -> None:
        super().__init__()
        model = engine.model
        self._softmax = model.predicts == "class"
        self.stack = Stack(model, scaling.input_width(engine))
        width = outputs(engine)
        bias = torch.zeros(width) if self._softmax else level_bias(model, width // len(model.levels))
        self.head = Full(model.hidden, bias)
        self.label_scale = nn.Parameter(torch.tensor([0.0, 1.0]), requires_grad=False)  # mean and deviation of labels

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, F) and state (B, L, P, H) to the answer (B, O) after the reading, and the state."""
        state = self.stack(inputs, state)
        return self.answer(state)[0], state

    def answer(self, state: Tensor) -> tuple[Tensor]:
        """Of a window that ends with this state, (B, O): probabilities, or raw quantiles."""
        raw = self.head(top(state))
        return (torch.softmax(raw, 1) if self._softmax else raw,)

    def draw(self, generator: torch.Generator) -> None:
        """First weights."""
        self.stack.draw(generator)


class ManyToOne(Carried):
    """The engine: the row knows how much of its window has been read."""

    made = ("recurrent", "opened")

    @classmethod
    def own_fields(cls, engine: EngineSettings) -> list[Field]:
        """The window that is open."""
        return [("opened", "<i8"), ("first_ms", "<i8")]  # its readings so far; the time of the first

    def advance(self, rows: np.ndarray, readings: Readings) -> Answers:
        """An answer of each row's window, and whether it is at its end."""
        model = self.engine.model
        scale = scaling.observe(rows, readings)
        raw = np.empty((len(rows), outputs(self.engine)), np.float32)
        last_ms = rows["last_time_ms"].copy()
        scaling.stamp(rows, readings)
        if model.session_gap_s is not None:
            ends = (rows["opened"] > 0) & (readings.time_ms - last_ms > round(model.session_gap_s * 1000))
            through(self._network.answer, (rows["recurrent"],), (raw,))
            window = rows["first_ms"].copy(), last_ms, rows["opened"].copy()
            self._step(rows, readings, scale, ends, np.empty_like(raw))
        else:
            self._step(rows, readings, scale, rows["opened"] == model.window_readings, raw)
            ends = rows["opened"] == model.window_readings
            window = rows["first_ms"].copy(), readings.time_ms.copy(), rows["opened"].copy()
        return Answers(self._answers(raw, scale), *window, ends)

    def _step(self, rows: np.ndarray, readings: Readings, scale: Scale, begins: np.ndarray, raw: np.ndarray) -> None:
        """Take the reading in, into a new window where one begins."""
        rows["recurrent"][begins] = 0
        rows["opened"][begins] = 0
        rows["first_ms"] = np.where(rows["opened"] == 0, readings.time_ms, rows["first_ms"])
        rows["opened"] += 1
        through(self._network.step, (self.inputs(readings, scale), rows["recurrent"]), (raw, rows["recurrent"]))

    def _answers(self, raw: np.ndarray, scale: Scale) -> np.ndarray:
        """Probabilities (B, 1, O) as they are; quantiles (B, T or 1, Q) in the units of what they are of."""
        model = self.engine.model
        if model.predicts == "class":
            return raw[:, None].astype(np.float64)
        ordered = np.sort(raw.reshape(len(raw), -1, len(model.levels)), axis=-1)
        if model.predicts == "label":
            middle, unit = self._network.label_scale.detach().numpy().astype(np.float64)
            labels: np.ndarray = middle + unit * ordered
            return labels
        means: np.ndarray = scale.level[:, self.targets, None] + scale.spread[:, self.targets, None] * ordered
        return means


class Lesson:
    """Cross-entropy of the class, or pinball loss of the number, of whole windows."""

    def __init__(self, engine: EngineSettings, data: Sequences) -> None:
        self._engine, self._data = engine, data
        self._inputs = torch.from_numpy(data.inputs())  # (N, F)
        self._levels = torch.tensor(engine.model.levels)
        self._sums = np.concatenate([np.zeros((1, data.newest.shape[1])), data.newest.cumsum(axis=0)])  # (N + 1, C)
        self._windows = np.concatenate([np.zeros((0, 5), np.int64), *map(self._cut, pairwise(data.starts.tolist()))])
        labelled = np.where(np.isnan(data.labels), -1, np.arange(len(data)))
        self._labelled: np.ndarray = np.maximum.accumulate(labelled) if len(data) else labelled  # the last one with a label
        known = data.labels[~np.isnan(data.labels)]
        self._label_scale = torch.tensor([known.mean(), known.std() or 1.0] if len(known) else [0.0, 1.0], dtype=torch.float32)

    def _cut(self, segment: tuple[int, int]) -> np.ndarray:
        """A segment's windows: first, last + 1, the reading that the answer comes with, the next window's first and last + 1."""
        model, (first, last) = self._engine.model, segment
        if model.session_gap_s is not None:
            breaks = np.flatnonzero(np.diff(self._data.time_ms[first:last]) > round(model.session_gap_s * 1000)) + first + 1
            edges = np.array([first, *breaks.tolist()])  # the session after the last of them has no end yet
            begin, end, after = edges[:-1], edges[1:], np.append(edges[2:], 0)
            return np.stack([begin, end, end, end, after], 1)
        size = model.window_readings
        begin = np.arange(first, last - size + 1, max(1, size // 8))
        end = begin + size
        return np.stack([begin, end, end - 1, end, np.where(end + size <= last, end + size, 0)], 1)

    def examples(self, since_ms: int, until_ms: int) -> np.ndarray:
        """Windows that are answered between two times and have something to be trained on, int64 (M, 5)."""
        first, last, at, _, after = self._windows.T  # one across the cut has its last readings in the hold-out: it is held out
        uses_next = self._engine.model.predicts == "next_mean"
        known = after > 0 if uses_next else self._labelled[last - 1] >= first
        ends = np.where(known & uses_next, after - 1, at)
        times = self._data.time_ms
        inside = (times[at] >= since_ms) & (times[ends] < until_ms)
        examples: np.ndarray = self._windows[known & inside]
        return examples

    def judged_loss(self, network: Network, chosen: np.ndarray, recipe: Recipe) -> Tensor:
        """Of these windows, (B, 5)."""
        with torch.no_grad():
            network.label_scale.copy_(self._label_scale)
        raw = network.head(top(self._read(network, chosen)))
        if self._engine.model.predicts == "class":
            return nn.functional.cross_entropy(raw, torch.from_numpy(self._labels(chosen)).long())
        return pinball(self._targets(chosen), raw.view(len(chosen), -1, len(self._levels)), self._levels)

    def _read(self, network: Network, chosen: np.ndarray) -> Tensor:
        """The state at the end of each window, (B, L, P, H)."""
        first, last = chosen[:, 0], chosen[:, 1]
        length = int((last - first).max())
        at = last - length + np.arange(length)[:, None]  # (S, B): windows end together
        inputs, valid = self._inputs[torch.from_numpy(at.clip(min=0))], torch.from_numpy(at >= first)
        state = network.stack.zero(len(chosen))
        unlearned = max(0, length - LEARNED)
        for part, real, learned in (
            (inputs[:unlearned], valid[:unlearned], False),
            (inputs[unlearned:], valid[unlearned:], True),
        ):
            with torch.set_grad_enabled(learned and torch.is_grad_enabled()):
                if bool(real.all()) and len(part):
                    state = network.stack.run(part, state)[1]
                else:
                    for now, begun in zip(part, real, strict=True):
                        state = network.stack(now, state) * begun[:, None, None, None]
        return state

    def _labels(self, chosen: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self._data.labels[self._labelled[chosen[:, 1] - 1]]
        return labels

    def _targets(self, chosen: np.ndarray) -> Tensor:
        """What the raw quantiles are of, float32 (B, T or 1)."""
        if self._engine.model.predicts == "label":
            middle, unit = self._label_scale.tolist()
            return torch.from_numpy(((self._labels(chosen)[:, None] - middle) / unit).astype(np.float32))
        _, _, at, following, after = chosen.T
        means = (self._sums[after] - self._sums[following]) / (after - following)[:, None]
        data = self._data
        return torch.from_numpy(((means - data.level[at]) / data.spread[at])[:, data.targets].astype(np.float32))
