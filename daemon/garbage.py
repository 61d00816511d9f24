"""The cyclic garbage collector, told what a long-lived process on a hot path knows.

Nearly all of what a turn allocates is freed by reference counts. With Python's defaults the collector still looks at young
objects every 700 allocations and again and again at everything torch ever made: a quarter of the CPU of a forecast, measured.
"""

from __future__ import annotations

import gc

#: Young containers until the collector looks at them: some more than a full poll holds.
YOUNG = 100_000
#: Young collections until the middle generation is looked at, and middle ones until everything is.
MIDDLE, OLD = 10, 50


def settle() -> None:
    """Call once everything that lives as long as the process is made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
