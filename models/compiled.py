"""How this project compiles its loops: one place, one set of rules, so that their bytes are those of plain IEEE arithmetic.

No fast-math, no contraction of a product and a sum into one rounding, one thread: what a loop computes for a row is what the
same lines would compute in Python with numpy's scalars (`tests/unit/test_kernels.py` looks for fused instructions).

The machine code is kept beside the source, or in the user's cache, or where NUMBA_CACHE_DIR says, for the next start. It is made
anew when its **own** file changes, so a file of compiled functions imports nothing that they use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function at its first call. Where no folder can keep the machine code, every process compiles for itself."""
    try:
        kept: _Function = numba.njit(function, cache=True, error_model="numpy")
    except RuntimeError:  # numba's word for "no folder can be written"
        kept = numba.njit(function, error_model="numpy")
    return kept
