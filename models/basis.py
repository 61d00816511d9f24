"""In which directions streams differ from what they share: found in training, for the adaptation of rows (`models.adaptation`).

The highway is the best map for all streams together. Each stream, taken alone, would have another one. The differences between
the two, measured by what they change in forecasts, have a few main directions (of windows) and responses (of leads): the singular
vectors of all differences. A stream's own map is then the shared one plus few numbers.

T targets, D width of what the highway sees, K leads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from models.adaptation import DIRECTIONS, RESPONSES
from models.highway import weighed
from models.training_data import Piece, TrainingData, cut

#: A stream's own map is drawn to the shared one as if by this share of the mean moments of all.
SHRINK = 0.5
#: Added to the mean moments in every direction.
RIDGE = 0.01
#: The most streams that are looked at, the longest first; where there are fewer than `LEAST_PARTS`, their readings are cut.
MOST_PARTS = 64
LEAST_PARTS = 4
#: The most that their moments may take: long windows have large ones, and fewer streams are looked at.
MOST_BYTES = 256 << 20
#: Singular values of such a share of the largest are rounding.
LEAST_SIZE = 1e-9


class Basis(NamedTuple):
    """What the adaptation works in; zeros where the data know fewer directions."""

    directions: Tensor  # float32 (T, D, DIRECTIONS); of training windows each has a mean square of one
    responses: Tensor  # float32 (T, RESPONSES, K), orthonormal


def find(data: TrainingData, pieces: Sequence[Piece], lines: Tensor) -> Basis:
    """The basis of these pieces.

    Args:
        data: Where they lie.
        pieces: Readings to look at, a piece of each segment.
        lines: The shared map, float32 (T, D, K).
    """
    parts = list(_parts(pieces, max(LEAST_PARTS, min(MOST_PARTS, MOST_BYTES // (8 * lines.shape[1] ** 2)))))
    found = [_of_target(data, parts, target, line.double()) for target, line in enumerate(lines)]
    return Basis(*(torch.stack(columns).float() for columns in zip(*found, strict=True)))


def _parts(pieces: Sequence[Piece], most: int) -> Iterator[Piece]:
    longest = sorted(pieces, key=lambda piece: piece.first - piece.last)[:most]
    cuts = -(-LEAST_PARTS // len(longest))
    for segment, first, last in longest:
        edges = [first + (last - first) * i // cuts for i in range(cuts + 1)]
        yield from (Piece(segment, *edge) for edge in pairwise(edges) if edge[0] < edge[1])


def _of_target(data: TrainingData, parts: Sequence[Piece], target: int, line: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (D, DIRECTIONS) and responses (RESPONSES, K), float64."""
    moments = [_moments(data, part, target, line) for part in parts]
    gram = torch.stack([gram * count for gram, _, count in moments]).sum(0) / sum(count for *_, count in moments)
    gram += RIDGE * torch.eye(len(gram), dtype=torch.float64)
    half = torch.linalg.cholesky(gram)
    differences = [half.T @ torch.linalg.solve(own + SHRINK * gram, cross) for own, cross, _ in moments]
    inward, sizes, _ = torch.linalg.svd(torch.cat(differences, 1), full_matrices=False)
    inward = inward[:, :DIRECTIONS] * _known(sizes)[:DIRECTIONS]
    _, sizes, outward = torch.linalg.svd(torch.cat(differences, 0), full_matrices=False)
    outward = (outward * _known(sizes)[:, None])[:RESPONSES]
    directions = torch.zeros(len(gram), DIRECTIONS, dtype=torch.float64)
    directions[:, : inward.shape[1]] = torch.linalg.solve_triangular(half.T, inward, upper=True)
    responses = torch.zeros(RESPONSES, line.shape[1], dtype=torch.float64)
    responses[: len(outward)] = outward
    return directions, responses


def _known(sizes: Tensor) -> Tensor:
    """One for each singular value that is more than rounding, else zero: any vector would do there, and says nothing."""
    return (sizes > LEAST_SIZE * sizes[0]).double()


def _moments(data: TrainingData, part: Piece, target: int, line: Tensor) -> tuple[Tensor, Tensor, float]:
    """Weighted means of window x window (D, D) and window x what the shared map leaves (D, K), and the sum of weights."""
    width, horizon = line.shape
    gram, cross, total = torch.zeros(width, width).double(), torch.zeros(width, horizon).double(), 1e-9
    for piece in cut(iter([part])):
        windows, _, error, weights = weighed(data, piece, target, line)
        weighted = windows * weights[:, None]
        gram += weighted.T @ windows
        cross += weighted.T @ error
        total += float(weights.sum())
    return gram / total, cross / total, total
