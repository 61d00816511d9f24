"""Numbers to six significant digits, exactly, compiled: seventy a forecast, so they are what encoding costs.

Nothing of ours is imported but the compiler: the machine code is made anew when this file changes.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from models.compiled import compiled


def _decades() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tables by binade (the 2048 exponents of a float64): the power of ten inside it, and the factors below and from it on.

    No binade holds two powers of ten. `up` and `down` bring a magnitude to 1e5 <= x <= 1e6; one of the two is 1, the other an
    exact power of ten. NaN says that there is none.
    """
    start = np.full(2048, np.inf)
    up, down = np.full(4096, np.nan), np.full(4096, np.nan)
    for binade in range(1, 2047):
        decade = Decimal(2.0 ** (binade - 1023)).adjusted()
        start[binade] = float(f"1e{decade + 1}") if decade < 308 else np.inf
        for entry, shift in ((2 * binade, 5 - decade), (2 * binade + 1, 4 - decade)):
            if abs(shift) <= 22:
                up[entry], down[entry] = 10.0 ** max(shift, 0), 10.0 ** max(-shift, 0)
    # Binade 0 holds zero, which is its own six digits, and the denormal numbers, which are not.
    start[0], up[0], down[0] = 5e-324, 1.0, 1.0
    return start, up, down


_DECADE_START, _UP, _DOWN = _decades()


@compiled
def six_digits_or_unsure(numbers: np.ndarray, rounded: np.ndarray, unsure: np.ndarray) -> bool:
    """The float64 nearest to each number's decimal of six significant digits; -0 becomes 0.

    The digits before the point are brought to six by one exactly rounded product or quotient with an exact power of ten,
    rounded, and brought back the same way. Where that cannot be trusted (a tie to within the product's error, magnitudes that
    need a power of ten beyond 1e22, what is not finite) the result is NaN and marked.

    Args:
        numbers: float64 (N,), contiguous.
        rounded: float64 (N,), filled.
        unsure: bool (N,), filled.

    Returns:
        Whether any is unsure.
    """
    binades = numbers.view(np.int64)
    some = False
    for i in range(len(numbers)):
        magnitude = abs(numbers[i])
        binade = binades[i] >> 52 & 2047
        entry = 2 * binade + (1 if magnitude >= _DECADE_START[binade] else 0)
        scaled = magnitude * _UP[entry] / _DOWN[entry]
        whole = np.rint(scaled)
        sure = abs(scaled - whole) < 0.5 - 1e-9  # the product is at most 6e-11 off; NaN compares false
        unsure[i] = not sure
        some |= not sure
        rounded[i] = np.copysign(whole / _UP[entry] * _DOWN[entry], numbers[i]) + 0.0 if sure else np.nan  # -0.0 + 0.0 is 0.0
    return some
