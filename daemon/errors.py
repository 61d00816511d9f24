"""Every error recurd raises, by who must act.

    RecurdError
    +-- BadRecord            the record's producer: dead letter, counted, the loop goes on
    +-- OperatorError        the operator: one sentence with the remedy; `serve` ends with 78, other commands with 1
    |   +-- StateError       offsets, mark, changelog or topics contradict each other
    |       +-- BlockError      a block of the changelog cannot be read (`daemon.blocks`)
    |       +-- RecordingError  a line of a recording or CSV file cannot be read: what stands before it is used, then the end
    +-- BrokerError          nobody yet: the loop replaces the client and restores
        +-- Doubt            the fate of a transaction is unknown, or it was aborted: replace the producer, restore
        |   +-- Fenced       a newer holder has our transactional id or our membership: the same; twice in 60 s: exit 75
        +-- Stalled          a partition with records to read brings none although the consumer was made anew: exit 75
        +-- Pending          the newest offset commit belongs to a transaction that is still open: ask again
        +-- Unreachable      no broker answers: retry with backoff
        +-- FatalBrokerError authorization, unsupported version: 78

Outside the tree, because they know nothing of ours: `config.settings.SettingsError` (exit 2), `models.artifacts.ArtifactError`
and `models.arithmetic.UnstableArithmetic` (`serve`: 78, other commands: 1).

Exit codes: 0 done, 1 the command failed, 2 wrong use or settings, 75 a restart helps, 78 a restart does not help.
"""

from __future__ import annotations

from pathlib import Path

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RESTART = 75
EXIT_NO_RESTART = 78

#: Why a record or reading is a dead letter: the label of `recurd_dead_letters_total` and the header `recurd.error`.
REASONS = (
    "too_large",  # the value is longer than input.max_bytes
    "no_value",  # a tombstone or an empty value
    "syntax",  # not the format: broken JSON, non-UTF-8, nesting bombs
    "type",  # the format, but not a reading: a missing field, a wrong type or width, too many elements
    "stream_id",  # empty, too long, control characters, reserved, or a key that is not UTF-8
    "time",  # not a time, or outside the years 1 to 9999
    "value",  # NaN, infinite or a magnitude over 1e15
    "future",  # more than input.max_ahead_s after the record's timestamp
    "late",  # input.on_late = "dead-letter"
    "duplicate",  # input.on_late = "dead-letter"
)


class RecurdError(Exception):
    """Root of all errors raised on purpose."""


class BadRecord(RecurdError):
    """A record whose producer must act."""

    def __init__(self, reason: str, message: str, index: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.index = index


class OperatorError(RecurdError):
    """Something only the operator can mend; the message ends with the remedy."""


class StateError(OperatorError):
    """Offsets, mark, changelog or topics contradict each other."""


class RecordingError(StateError):
    """A line of a file that cannot be read. What stands before it is sound and has been given out."""

    def __init__(self, path: Path, line: int, what: str) -> None:
        super().__init__(f"{path}, line {line}: {what}{'' if what.endswith('?') else '.'}")
        self.line = line


class BrokerError(RecurdError):
    """The broker or the client failed; nobody needs to act yet."""


class Doubt(BrokerError):
    """A transaction was aborted or its fate is unknown: replace the producer, drop and restore."""


class Fenced(Doubt):
    """A newer holder of our transactional id or our group membership exists."""


class Stalled(BrokerError):
    """A partition brings no records although there are some, and a new consumer did not help."""


class Pending(BrokerError):
    """The newest offset commit belongs to a transaction that is still open."""


class Unreachable(BrokerError):
    """No broker answers within the time-out."""


class FatalBrokerError(BrokerError):
    """Retrying cannot help: authorization, authentication, unsupported version."""
