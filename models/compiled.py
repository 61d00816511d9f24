"""How this project compiles its loops: one place, one set of rules, so that their bytes are those of plain IEEE arithmetic.

No fast-math, no contraction of a product and a sum into one rounding, one thread: what a loop computes for a row is what the
same lines would compute in Python with numpy's scalars (`tests/unit/test_kernels.py` looks for fused instructions).

The machine code is kept for the next start, in NUMBA_CACHE_DIR, systemd's CACHE_DIRECTORY or the user's cache, in a folder
named by the source itself, so that no start can meet code of another source. For the same reason only whole entry points are
kept, each with all that it calls.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def part(function: _Function) -> _Function:
    """Compile a function with, and into, the compiled functions that call it; they stand in the same file."""
    return cast("_Function", _numba(function))


def compiled(function: _Function) -> _Function:
    """Compile a function at its first call, with the types of that call, or take the machine code of an earlier start.

    All it uses stands in its own file. Where no folder can be written, every process compiles for itself.
    """
    return cast("_Function", Entry(function))


def compiled_beside(function: _Function) -> _Function:
    """`compiled`, for what runs long enough that other threads should go on meanwhile: it lets go of the interpreter."""
    return cast("_Function", Entry(function, nogil=True))


class Entry:
    """A compiled function that Python calls."""

    def __init__(self, function: Callable[..., Any], nogil: bool = False) -> None:
        functools.update_wrapper(self, function)
        self._function, self._nogil = function, nogil
        self.machine: Any = None  # numba's, from the first call on

    def __call__(self, *arguments: Any) -> Any:
        if self.machine is None:
            self.machine = self._made(arguments)
        return self.machine(*arguments)

    def _made(self, arguments: tuple[Any, ...]) -> Any:
        """Compiled for these arguments; what is kept is thrown away where it cannot be read."""
        types = tuple(map(numba.typeof, arguments))
        folder = _folder(Path(inspect.getfile(self._function)))
        try:
            machine = _with_cache(self._function, folder, self._nogil)
            machine.compile(types)
        except Exception:  # noqa: BLE001  # damaged files, a full disk: numba has no name for it. What is ours is raised below
            shutil.rmtree(folder, ignore_errors=True)
            machine = _numba(self._function, nogil=self._nogil)
            machine.compile(types)
        return machine


def _numba(function: Callable[..., Any], cache: bool = False, nogil: bool = False) -> Any:
    """Numba's function under the rules above."""
    return numba.njit(function, cache=cache, nogil=nogil, error_model="numpy")


def _with_cache(function: Callable[..., Any], folder: Path, nogil: bool) -> Any:
    """Numba's function, which keeps its machine code in the folder.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass  # numba would look for another folder, and find old code there
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        return _numba(function, cache=True, nogil=nogil)
    finally:
        config.CACHE_DIR = before


def _folder(source: Path) -> Path:
    """Where the machine code of a file's functions is kept."""
    name = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes() + numba.__version__.encode()).hexdigest()[:16]
    given = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("CACHE_DIRECTORY")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "recurd"
    return base / name
