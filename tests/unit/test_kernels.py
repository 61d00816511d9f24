"""The compiled loops compute as the lines say: no two operations are fused into one rounding."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

#: Multiply-add in one rounding: x86 (vfmadd231sd, vfnmsub213ps, ...) and Arm (fmadd, fmla, fmsub, ...).
FUSED = re.compile(r"\b(vfn?m(add|sub)\w*|fn?m(add|sub|la|ls))\b")

LOOK = """
import numpy, os, sys, tempfile
os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=sys.argv[1])  # code from the cache cannot be looked at
from config.settings import EngineSettings
from daemon import digits
from models import features, kernels
from models.arithmetic import check
from models.layout import row_dtype
check(EngineSettings())
features.window_features(features.FeatureShape(EngineSettings()), numpy.zeros(1, row_dtype(EngineSettings())))
digits.six_digits_or_unsure(*map(numpy.zeros, (1, 1), (float, float)), numpy.zeros(1, bool))
for function in (kernels.observe, kernels.forecast, kernels.window_features, digits.six_digits_or_unsure):
    assert function.signatures
    print(*function.inspect_asm().values())
"""


def test_no_operations_are_fused(tmp_path: object) -> None:
    """A product and a sum rounded once would make bytes depend on the processor."""
    assembly = subprocess.run([sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert len(assembly) > 100_000
    assert not FUSED.findall(assembly)


@pytest.mark.parametrize("line", ["vfmadd231sd %xmm0, %xmm1, %xmm2", "\tvfnmsub213ps\t", "fmadd d0, d1, d2, d3", "fmla v0.2d"])
def test_fused_operations_are_found(line: str) -> None:
    assert FUSED.search(line)
