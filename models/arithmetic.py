"""Does this machine compute as architecture 3 assumes? The self-check, and the fingerprint of its arithmetic.

Both run a fixed seeded network of the served shapes over fixed readings: nothing depends on the weights that will serve.
`python -m models.arithmetic` does it at the defaults and prints the fingerprint. The first time on a machine it takes half a
minute, since it compiles `models.kernels`: an installer may let that happen then, and not in a first start.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
import torch

from config.settings import EngineSettings
from models import kinds
from models.engine import Engine, Named, Readings, Rebuilds
from models.kernels import GAP_UNIT
from models.tiles import SMALL_TILE_ROWS, TILE_ROWS

_STEPS = 6
_SHIFTS = (0, 1, 37, 100, 255)
_STEP_MS = 60_000
_SEASON_STEPS = 3


class UnstableArithmetic(Exception):
    """Rows depend on their place or their neighbours on this machine: it must not serve."""


def check(engine: EngineSettings) -> str:
    """Run the self-check; return the arithmetic fingerprint, 16 hex digits.

    Raises:
        UnstableArithmetic: A row's bytes changed with its place in the tile or with the tile's shape.
    """
    made = kinds.of(engine).engine(engine, seeded_network(engine), "self-check")
    reference = _run(made, engine, 0, TILE_ROWS)
    for shift in _SHIFTS[1:]:
        _compare(reference, _run(made, engine, shift, TILE_ROWS), f"moved by {shift} rows in the tile of {TILE_ROWS}")
    for shift in _SHIFTS:
        _compare(reference, _run(made, engine, shift, SMALL_TILE_ROWS), f"moved by {shift} rows, in tiles of {SMALL_TILE_ROWS}")
    if not isinstance(made, Rebuilds):
        return hashlib.sha256(b"".join(reference)).hexdigest()[:16]
    rebuilt = _rebuilt(made, engine, 0)
    for shift in _SHIFTS[1:3]:  # 1 and 5 places on in a tile of 16
        _compare(rebuilt, _rebuilt(made, engine, shift), f"rebuilt from their windows and moved by {shift} rows")
    return hashlib.sha256(b"".join([*reference, *rebuilt])).hexdigest()[:16]


def seeded_network(engine: EngineSettings) -> Any:
    """The network of these settings with fixed weights of ordinary size, equal on every machine."""
    network = kinds.of(engine).network(engine)
    if hasattr(network, "period_ms"):
        network.period_ms = _SEASON_STEPS * _STEP_MS
    numbers = np.random.Generator(np.random.PCG64(20260101))
    with torch.no_grad():
        for _, weight in sorted(network.named_parameters()):
            if weight.requires_grad:
                values = numbers.random(tuple(weight.shape)) - 0.5
                weight.copy_(torch.from_numpy((values * 0.5).astype(np.float32)))
    return network


def _compare(reference: list[bytes], moved: list[bytes], how: str) -> None:
    differing = sum(one != other for one, other in zip(reference, moved, strict=True))
    if differing:
        raise UnstableArithmetic(
            f"self-check: {differing} of {len(reference)} rows change their bytes when {how}. This build of torch or numpy "
            "does not compute rows independently on this processor: use another build."
        )


def _run(made: Engine, engine: EngineSettings, shift: int, size: int) -> list[bytes]:
    """Final row and forecasts of each of 256 streams, as bytes, when stepped in tiles of `size`, rotated by `shift`."""
    order = np.roll(np.arange(TILE_ROWS), shift)
    rows = np.zeros(TILE_ROWS, made.row_dtype)
    if isinstance(made, Named):
        rows = made.named(rows, [str(stream) for stream in range(TILE_ROWS)])
    last = [b""] * TILE_ROWS
    for step in range(_STEPS):
        readings = _readings(engine, step)
        for first in range(0, TILE_ROWS, size):
            part = order[first : first + size]
            moved = rows[part]
            output = made.step(moved, Readings(*(column[part] for column in readings)))
            rows[part] = moved
            for i, stream in enumerate(part):
                last[stream] = moved[i].tobytes() + b"".join(np.ascontiguousarray(column[i]).tobytes() for column in output)
    return last


def _rebuilt(made: Any, engine: EngineSettings, shift: int) -> list[bytes]:
    """Hidden and cell of each of 256 streams with full windows, as bytes, when rebuilt in an order rotated by `shift`."""
    numbers = np.random.Generator(np.random.PCG64(_STEPS))
    rows = np.zeros(TILE_ROWS, made.row_dtype)
    rows["count"], rows["interval_ms"], rows["gap_units"], rows["spread"] = engine.model.context, _STEP_MS, GAP_UNIT, 1
    rows["window"] = numbers.standard_normal(rows["window"].shape)
    order = np.roll(np.arange(TILE_ROWS), shift)
    moved = rows[order]
    made.rebuild(moved)
    rows[order] = moved
    return [row["hidden"].tobytes() + row["cell"].tobytes() for row in rows]


def _readings(engine: EngineSettings, step: int) -> Readings:
    """Reading `step` of 256 streams of very different level and spread, some missing, some after a longer gap."""
    channels = len(engine.channels)
    numbers = np.random.Generator(np.random.PCG64(step))
    stream = np.arange(TILE_ROWS)
    level = 10.0 ** (stream % 13 - 6)
    values = level[:, None] * (1 + 0.3 * (numbers.random((TILE_ROWS, channels)) - 0.5))
    if step:
        values[numbers.random((TILE_ROWS, channels)) < 0.05] = np.nan
    time_ms = (1_700_000_000_000 + step * _STEP_MS + (stream % 7 == step) * 4000 * step).astype(np.int64)
    return Readings(values, time_ms, np.full(TILE_ROWS, step), np.zeros(TILE_ROWS, np.int64), np.full(TILE_ROWS, step == 0))


if __name__ == "__main__":
    sys.stdout.write(f"{check(EngineSettings())}\n")
