"""Tiles: the fixed numbers of rows that a network is called with, so that a row's bytes do not depend on its neighbours.

A batch is cut into tiles of exactly 256 rows, or 16 where at most 16 are left, padded with zeros: with these two shapes a row's
bytes depend neither on its neighbours nor on its place (architecture 3; `models.arithmetic` checks it at start).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

TILE_ROWS = 256
SMALL_TILE_ROWS = 16


def through(function: Callable[..., Sequence[Tensor]], columns: Sequence[np.ndarray], into: Sequence[np.ndarray]) -> None:
    """Call a network tile by tile.

    Args:
        function: Takes a tile of each column and returns as many tensors as there are in `into`, the same rows.
        columns: What goes in, (B, ...) each.
        into: What comes out, (B, ...) each; filled in place.
    """
    for part, size in tiles(len(columns[0])):
        outputs = function(*(torch.from_numpy(pad(column[part], size)) for column in columns))
        real = part.stop - part.start
        for column, output in zip(into, outputs, strict=True):
            column[part] = output.numpy()[:real]


def tiles(count: int) -> Iterator[tuple[slice, int]]:
    """Cut `count` rows into tiles: (which rows, padded size)."""
    for first in range(0, count, TILE_ROWS):
        rest = min(TILE_ROWS, count - first)
        yield slice(first, first + rest), SMALL_TILE_ROWS if rest <= SMALL_TILE_ROWS else TILE_ROWS


def pad(column: np.ndarray, size: int) -> np.ndarray:
    """(B, ...) padded with zeros to (size, ...), contiguous."""
    if len(column) == size:
        return np.ascontiguousarray(column)
    padded = np.zeros((size, *column.shape[1:]), column.dtype)
    padded[: len(column)] = column
    return padded
