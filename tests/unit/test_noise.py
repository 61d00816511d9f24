"""Counter-based noise: SplitMix64's own numbers, a stream's own at each time, whoever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest

from models import noise


def test_the_sequence_is_splitmix64s() -> None:
    """The first numbers after seed 1234567, as the algorithm's published test has them."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    seeds = np.array([1234567], np.uint64) + np.arange(1, 6, dtype=np.uint64) * golden
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert noise.mix(seeds).tolist() == expected


def test_a_number_depends_on_key_time_and_place_alone() -> None:
    """In any batch, and in any larger shape whose first places it fills."""
    keys, times = noise.keys(["a", "b", "c"]), np.array([1, 1, 2], np.int64)
    whole = noise.uniforms(keys, times, (4, 3, 2))
    for row in range(3):
        alone = noise.uniforms(keys[row : row + 1], times[row : row + 1], (2, 3, 2))
        assert alone[0].tobytes() == whole[row, :2].tobytes()
    assert len(np.unique(whole)) == whole.size


@pytest.mark.parametrize(("key", "time_ms"), [("a", 2), ("b", 1)])
def test_another_stream_or_time_has_other_numbers(key: str, time_ms: int) -> None:
    """Not one of them is the same."""
    one, other = (noise.uniforms(noise.keys([k]), np.array([t]), (50,)) for k, t in (("a", 1), (key, time_ms)))
    assert not (one == other).any()


def test_numbers_are_uniform() -> None:
    """Mean, deviation and correlation of neighbours of 100,000, and never an end of the interval."""
    numbers = noise.uniforms(noise.keys(map(str, range(100))), np.arange(100), (1000,))
    assert 0 < numbers.min() < numbers.max() < 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.004)
    assert numbers.std() == pytest.approx(12**-0.5, abs=0.003)
    for one, other in ((numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.015
