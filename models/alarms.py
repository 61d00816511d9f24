"""From a stream's anomaly scores to alarms: a threshold, and quiet afterwards. Knows no forecast, no stream and no time.

An anomaly seldom is one reading: a score that stays high, or comes back, is one alarm. A consumer in any language can do the
same from the forecasts alone; the report of a replay and the benchmark use this.
"""

from __future__ import annotations

#: An alarm is raised at this score: about one reading in 300, and far fewer alarms since unusual readings come together.
THRESHOLD = 2.5
#: An alarm is over when so many readings in a row have scored less.
QUIET_READINGS = 100


class Alarm:
    """The alarm of one stream, reading by reading.

    Args:
        threshold: The least score that raises it.
        quiet: How many readings in a row must score less before it can be raised again, at least 1.
    """

    def __init__(self, threshold: float = THRESHOLD, quiet: int = QUIET_READINGS) -> None:
        self._threshold, self._quiet = threshold, quiet
        self._left = 0  # readings until it is over, 0 is over

    def raised(self, score: float | None, warming: bool = False) -> bool:
        """Whether it is raised by this reading.

        Args:
            score: Of the reading's forecast; None (or NaN) where there is none, which counts as a low one.
            warming: The stream's scale has not settled: its scores say little yet, and count as low ones.
        """
        if score is None or warming or not score >= self._threshold:
            self._left = max(self._left - 1, 0)
            return False
        begins = self._left == 0
        self._left = self._quiet
        return begins
