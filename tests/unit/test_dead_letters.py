"""Dead letters as commands see them: by reason and partition, each record once, and never twice."""

from __future__ import annotations

import pytest

from daemon.dead_letters import Wanted, letters_of, once
from daemon.errors import OperatorError
from daemon.letters import RETRIED, RETRY, encode_letter
from daemon.records import DeadLetter, Record

HEADERS = (("trace", b"a1"), ("recurd.error", b"of the input"))


def dead(at: int, offset: int, reason: str, element: int = 0, partition: int = 3, **changes: object) -> Record:
    """A record of the dead-letter topic, as the daemon writes it."""
    record = Record("readings", partition, offset, 5, b"k", b"v%d" % offset, HEADERS)._replace(**changes)
    message = encode_letter(DeadLetter(record, element, reason, "what is wrong"), 1 << 20)
    return Record("dead", 0, at, 9, message.key, message.value, message.headers)


def retried(at: int, of: int) -> Record:
    return Record("dead", 0, at, 9, None, None, ((RETRIED, b"%d" % of),))


LOG = [dead(0, 10, "late"), dead(1, 11, "syntax"), dead(2, 12, "late", partition=1), dead(3, 11, "late", element=2)]


def test_letter_holds_the_input_as_it_was() -> None:
    """Place, reason, key, value and the input's own headers, also those that are named like ours."""
    letter = letters_of(LOG, Wanted())[1]
    assert (letter.input, letter.partition, letter.input_offset, letter.reason) == ("readings", 3, 11, "syntax")
    assert (letter.key, letter.value, letter.headers, letter.whole, letter.retries) == (b"k", b"v11", HEADERS, True, 0)
    assert str(letter) == "@1  syntax  readings[3]@11 element 0  what is wrong"


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        (Wanted(), [0, 1, 2, 3]),
        (Wanted(frozenset({"late"})), [0, 2, 3]),
        (Wanted(frozenset({"late"}), partition=3), [0, 3]),
        (Wanted(partition=7), []),
    ],
)
def test_filters(wanted: Wanted, offsets: list[int]) -> None:
    """By reason and by partition of the input."""
    assert [letter.offset for letter in letters_of(LOG, wanted)] == offsets


def test_what_was_retried_is_passed_over() -> None:
    """Unless asked for."""
    log = [*LOG, retried(4, of=1), retried(5, of=99)]
    assert [letter.offset for letter in letters_of(log, Wanted())] == [0, 2, 3]
    assert [letter.offset for letter in letters_of(log, Wanted(retried=True))] == [0, 1, 2, 3]


def test_a_record_is_sent_once() -> None:
    """Letters of several elements, or repeated ones, are one record; the order is the input's."""
    assert [(one.partition, one.input_offset) for one in once(letters_of(LOG, Wanted()))] == [(1, 12), (3, 10), (3, 11)]


def test_cut_record_is_not_whole() -> None:
    """What was cut is known, so that no half is sent."""
    cut = dead(0, 10, "too_large", value=b"x" * (2 << 20))
    assert [letter.whole for letter in letters_of([cut], Wanted())] == [False]


def test_second_failure_counts() -> None:
    """A record that fails again after a retry says how often it was tried, and keeps its own headers."""
    letter = letters_of([dead(0, 10, "late", headers=(*HEADERS, (RETRY, b"2")))], Wanted())[0]
    assert (letter.retries, letter.headers) == (2, HEADERS)
    assert "retry 2" in str(letter)


def test_foreign_record_is_refused() -> None:
    """A record without our headers says that somebody else writes here."""
    with pytest.raises(OperatorError, match=r"dead\[0\]@7 is no dead letter of recurd"):
        letters_of([Record("dead", 0, 7, 9, None, b"x")], Wanted())
