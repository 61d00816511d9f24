"""The adaptation of each stream: what its own readings teach about how it differs from what all streams share. Compiled.

Beside the network's move a row has a linear map of its own, in the few directions and responses of the weights' basis
(`models.basis`): offset of lead k = sum over j of response[j, k] (sum over d of map[d, j] seen[d]), where `seen` are the window's
places along the directions, and one. The map is learned from the row's own forecasts, by normalized least mean squares
(Widrow and Hoff 1960; Nagumo and Noda 1967): every few readings a forecast is kept as an origin, and when its last lead is known
the map moves along what was seen then, by what the network and the map had left over. No step of it can grow without bound.

All in spreads, and exactly rounded in a fixed order. B rows, C channels, T targets, W window, K leads, Q levels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from models.compiled import compiled, part

#: What a gap of one interval is in `gap_units`: `kernels.GAP_UNIT`, stated here since machine code is kept by the file.
UNIT = 64
#: Directions that a map reads, responses that it gives.
DIRECTIONS = 12
RESPONSES = 6
#: Forecasts that wait for their leads to be known.
ORIGINS = 5
#: How far the map moves, for each reading between origins: half-life about 1,700 readings. Chosen on ETT's validation months.
RATE = 0.0004
#: Leftovers of more spreads are taken as so many, at each lead.
LEFT_CLIP = 8.0
#: An origin whose leftover is so many spreads weighs one; larger ones weigh less in proportion, smaller ones more, up to a limit.
USUAL_LEFT = 0.5
MOST_WEIGHT = 2.5
#: An origin with fewer of its leads known teaches nothing.
LEAST_KNOWN = 0.5


@part
def stride(horizon: int) -> int:
    """Readings from one origin to the next: the last lead of an origin is known when its place is needed again."""
    return -(-horizon // ORIGINS)


class Adapting(NamedTuple):
    """Views of B rows by field (`models.layout.row_dtype`)."""

    count: np.ndarray  # type: ignore[assignment]  # hides the method of tuples
    basis: np.ndarray
    window: np.ndarray
    own_map: np.ndarray
    origins: np.ndarray
    gap_units: np.ndarray
    missing: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Adapting:
        """The columns of structured rows (B,)."""
        return cls(*(rows[name] for name in cls._fields))


@compiled
def adapt(
    basis: np.uint64,
    targets: np.ndarray,
    responses: np.ndarray,
    rows: Adapting,
    seen: np.ndarray,
    spread: np.ndarray,
    median: int,
    raw: np.ndarray,
) -> None:
    """Add each row's own move to its network's raw quantiles, in place, after the row has learned from an origin that is due.

    Args:
        basis: Number of the weights' basis; 0 is none. A row's map in another one is forgotten.
        targets: int64 (T,), channels that are forecast.
        responses: float32 (T, RESPONSES, K).
        rows: After `kernels.observe`; changed in place.
        seen: float32 (B, T, DIRECTIONS), the windows' places along the directions.
        spread: float64 (B, T).
        median: Index of level 0.5.
        raw: float32 (B, T, K, Q).
    """
    horizon = raw.shape[2]
    between = stride(horizon)
    network, known, move = np.empty(RESPONSES), np.empty(RESPONSES), np.empty(RESPONSES)
    away, offsets = np.empty(horizon), np.empty(horizon, np.float32)
    for i in range(len(raw)):  # there may be one more row, lent
        if rows.basis[i] != basis:
            rows.basis[i] = basis
            rows.own_map[i] = 0
            rows.origins[i] = 0
        if basis == 0:
            continue
        place = rows.count[i] - 1
        slot = place // between % ORIGINS
        for t in range(len(targets)):
            if place % between == 0:
                origin = rows.origins[i, t, slot]
                if place >= between * ORIGINS and origin[-1] > 0:
                    answered_share = _known_leads(rows, i, targets[t], between * ORIGINS, np.float64(origin[-1]), away)
                    if answered_share >= LEAST_KNOWN:
                        _project(responses[t], away, known)
                        _learn(rows.own_map[i, t], origin, known, answered_share, between, horizon)
                for k in range(horizon):
                    away[k] = raw[i, t, k, median]
                _project(responses[t], away, network)
                for d in range(DIRECTIONS):
                    origin[d] = seen[i, t, d]
                for j in range(RESPONSES):
                    origin[DIRECTIONS + j] = network[j]
                origin[-1] = spread[i, t]
            if place < between * ORIGINS:
                continue  # no origin was due yet: the map is zero
            _place(rows.own_map[i, t], seen[i, t], move)
            offsets[:] = 0
            for j in range(RESPONSES):
                now = np.float32(move[j])
                for k in range(horizon):
                    offsets[k] += responses[t, j, k] * now
            for k in range(horizon):
                for q in range(raw.shape[3]):
                    raw[i, t, k, q] += offsets[k]


@part
def _place(own_map: np.ndarray, seen: np.ndarray, move: np.ndarray) -> None:
    """What a map makes of the first DIRECTIONS numbers of `seen` and of one, into float64 (RESPONSES,)."""
    for j in range(RESPONSES):
        move[j] = own_map[DIRECTIONS, j]
    for d in range(DIRECTIONS):
        for j in range(RESPONSES):
            move[j] += np.float64(own_map[d, j]) * seen[d]


@part
def _project(responses: np.ndarray, leads: np.ndarray, into: np.ndarray) -> None:
    """How much of each response there is in a course of leads float64 (K,)."""
    for j in range(RESPONSES):
        into[j] = 0.0
        for k in range(len(leads)):
            into[j] += responses[j, k] * leads[k]


@part
def _known_leads(rows: Adapting, i: int, c: int, age: int, spread: float, away: np.ndarray) -> float:
    """What came at each lead of the origin `age` readings ago, from its own reading in spreads, into float64 (K,).

    Lead k is answered by the first reading within half an interval of it, as forecasts are scored; one that is not has the value
    before it. Which share of the leads was answered by readings that were not missing; 0 where the window does not reach back.
    """
    last = rows.window.shape[2] - 1
    first = last - age
    if first < 0:
        return 0.0
    units, answered, known, value = 0, 0, 0, 0.0
    for j in range(first + 1, last + 1):
        units += int(rows.gap_units[i, j])
        lead = (2 * units + UNIT) // (2 * UNIT)
        if lead <= answered:
            continue
        for k in range(answered, min(lead - 1, len(away))):
            away[k] = value
        if lead > len(away):
            break
        moved = (np.float64(rows.window[i, c, j]) - np.float64(rows.window[i, c, first])) / spread
        value = min(max(moved, -LEFT_CLIP), LEFT_CLIP)
        away[lead - 1] = value
        answered = lead
        known += 1 - ((rows.missing[i, c, (last - j) // 8] >> ((last - j) % 8)) & 1)
    for k in range(answered, len(away)):
        away[k] = value
    return known / len(away)


@part
def _learn(own_map: np.ndarray, origin: np.ndarray, known: np.ndarray, share: float, between: int, horizon: int) -> None:
    """Move a map along what was seen at an origin, by what is left over of what came."""
    left = np.empty(RESPONSES)
    _place(own_map, origin, left)
    network_squares = 0.0
    for j in range(RESPONSES):
        beside_network = known[j] - origin[DIRECTIONS + j]
        network_squares += beside_network * beside_network
        left[j] = beside_network - left[j]
    seen_squares = 1.0
    for d in range(DIRECTIONS):
        seen_squares += np.float64(origin[d]) * np.float64(origin[d])
    usual = math.sqrt(network_squares / horizon) / USUAL_LEFT
    rate = RATE * between * share * min(1.0 / max(usual, 1e-9), MOST_WEIGHT)
    rate /= 1 + rate * seen_squares
    if not math.isfinite(rate * network_squares):
        return
    for j in range(RESPONSES):
        step = rate * left[j]
        own_map[DIRECTIONS, j] += step
        for d in range(DIRECTIONS):
            own_map[d, j] += step * origin[d]
