"""Counter-based random numbers: a function of a stream's key, a time and a place, and of nothing else.

SplitMix64 (Steele, Lea and Flood 2014) seeded by key and time: the n-th number is the mix of the seed and n steps of the golden
ratio, so any of them can be had without those before, in any batch. Integers wrap; no float is computed but by exact operations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def keys(streams: Iterable[str]) -> np.ndarray:
    """A number for each stream id, uint64: the first 8 bytes, little endian, of its SHA-256."""
    digests = [hashlib.sha256(stream.encode()).digest()[:8] for stream in streams]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def mix(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's output function: a bijection of uint64 in which every bit depends on every bit."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _FIRST
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _SECOND
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def uniforms(keys: np.ndarray, time_ms: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in (0, 1), never its ends, for each of B keys at its time.

    Args:
        keys: uint64 (B,).
        time_ms: int64 (B,).
        shape: Of the numbers of one key and time; the place in it is counted row by row.

    Returns:
        float64 (B, *shape), multiples of 2^-53 less half of one.
    """
    seeds = mix(mix(keys + _GOLDEN) ^ time_ms.astype(np.uint64))
    places = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    numbers = mix(seeds[:, None] + places * _GOLDEN)  # (B, N)
    return (((numbers >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).reshape(len(keys), *shape)
