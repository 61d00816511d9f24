"""Where a partition goes on: every combination of commit, mark and log has its plan or its named refusal."""

from __future__ import annotations

import pytest

from config.settings import load
from daemon.blocks import Mark, mark_metadata
from daemon.errors import StateError
from daemon.records import Committed
from daemon.restore import Plan, make_plan

MARK = Mark(sequence=4, offset=100, epoch_first_offset=0, born=0, streams=3)


def plan(
    committed: Committed | None, mark: Mark | None, log: tuple[int, int], *, epochs: bool = True, on_gap: str = "fail"
) -> Plan:
    settings = load(None, {}, [f"kafka.on_gap={on_gap}"])
    return make_plan("readings[3]", settings, committed, mark, epochs, log, lambda: 17)


def commit(offset: int, mark: Mark = MARK) -> Committed:
    return Committed(offset, mark_metadata(mark))


def test_first_start_begins_where_settings_say() -> None:
    """No commit, no mark, no epoch: kafka.start."""
    assert plan(None, None, (0, 50), epochs=False) == Plan(17, 17, keep=False)


def test_catch_up_runs_from_the_mark_to_the_commit() -> None:
    """Readings between the mark and the committed offset are run again and not sent."""
    assert plan(commit(140), MARK, (0, 200)) == Plan(100, 140, keep=True)


def test_nothing_to_catch_up_at_a_checkpoint() -> None:
    """At the mark the partition serves at once."""
    assert plan(commit(100), MARK, (100, 100)) == Plan(100, 100, keep=True)


@pytest.mark.parametrize(
    ("committed", "mark", "log", "says"),
    [
        (None, MARK, (0, 200), "has no committed offset"),
        (None, None, (0, 200), "has no committed offset"),
        (
            commit(140),
            MARK,
            (150, 200),
            r"committed offset 140 of readings\[3\] is below the low watermark 150: 10 records are gone",
        ),
        (commit(140), MARK, (0, 130), "is beyond the end of the log 130"),
        (commit(140), MARK, (120, 200), "stands at offset 100, below the low watermark 120"),
        (commit(140), None, (0, 200), "the changelog holds none"),
        (Committed(140, ""), MARK, (0, 200), "names no checkpoint: another tool set it"),
        (commit(140), MARK._replace(sequence=5, offset=120), (0, 200), "names checkpoint 4 at offset 100"),
    ],
)
def test_a_contradiction_is_refused_with_its_remedy(
    committed: Committed | None, mark: Mark | None, log: tuple[int, int], says: str
) -> None:
    """Never silently alive: the message says what, where, and how to go on."""
    with pytest.raises(StateError, match=says) as refusal:
        plan(committed, mark, log)
    assert 'kafka.on_gap = "skip"' in str(refusal.value)


@pytest.mark.parametrize(
    ("committed", "mark", "log", "expected"),
    [
        (None, MARK, (0, 200), Plan(17, 17, keep=False)),
        (commit(140), MARK, (150, 200), Plan(150, 150, keep=True)),
        (commit(140), MARK, (0, 130), Plan(0, 0, keep=False)),
        (commit(140), MARK, (120, 200), Plan(120, 140, keep=True)),
        (commit(140), None, (0, 200), Plan(140, 140, keep=False)),
        (Committed(140, ""), MARK, (0, 200), Plan(140, 140, keep=False)),
    ],
)
def test_skip_goes_on_without_what_is_gone(
    committed: Committed | None, mark: Mark | None, log: tuple[int, int], expected: Plan
) -> None:
    """kafka.on_gap = skip: the remedy that the refusals name."""
    assert plan(committed, mark, log, on_gap="skip") == expected
