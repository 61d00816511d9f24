"""`recurd dead-letters list | retry`: what could not be used and why, and the same records sent to the input again.

A retry sends each record once, to its own partition, with its own key, value and headers, and writes in the same transaction
which dead letters these were, so that a second retry passes over them. It is a new record with a new offset and timestamp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import NamedTuple

from config.settings import Settings
from daemon.brokers import connect
from daemon.errors import OperatorError
from daemon.letters import RETRIED, RETRY, Letter, decode_letter
from daemon.record import read_whole
from daemon.records import Record


class Wanted(NamedTuple):
    """Which dead letters are meant."""

    reasons: frozenset[str] = frozenset()  # empty: all
    partition: int | None = None  # of the input
    retried: bool = False  # those too that were retried already

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is meant, retried or not."""
        return (not self.reasons or letter.reason in self.reasons) and self.partition in (None, letter.partition)


def list_letters(settings: Settings, wanted: Wanted, say: Callable[[str], None]) -> int:
    """Say a line for every dead letter that is meant, and how many there are of each reason."""
    letters = _read(settings, wanted)
    for letter in letters:
        say(str(letter))
    counts = Counter(letter.reason for letter in letters)
    shown = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    say(f"{len(letters)} dead letters{f' ({shown})' if shown else ''}")
    return 0


def retry(settings: Settings, wanted: Wanted, say: Callable[[str], None]) -> int:
    """Send the records of the dead letters that are meant to the input again, in the order of their offsets; all or none.

    A record of which a part was cut cannot be sent again; it is named.

    Raises:
        OperatorError: The input topic lacks a partition that a letter names.
        BrokerError: The broker failed; nothing was sent, or all was: retrying again sends only what was not.
    """
    letters = _read(settings, wanted)
    for letter in letters:
        if not letter.whole:
            say(f"not retried, a part of it was cut: {letter}")
    records = once([letter for letter in letters if letter.whole])
    if records:
        _send(settings, records, [letter for letter in letters if letter.whole])
    say(f"{len(records)} records sent to {settings.topics.readings} again")
    return 0


def letters_of(records: Iterable[Record], wanted: Wanted) -> list[Letter]:
    """The dead letters among the records of their topic that are meant, in order.

    Raises:
        OperatorError: A record is no dead letter of recurd.
    """
    letters: dict[int, Letter] = {}
    for record in records:
        headers = dict(record.headers)
        if RETRIED in headers:
            if not wanted.retried:
                letters.pop(int(headers[RETRIED]), None)
        else:
            letters[record.offset] = decode_letter(record)
    return [letter for letter in letters.values() if wanted.takes(letter)]


def once(letters: Iterable[Letter]) -> list[Letter]:
    """One letter a record: its elements may have letters of their own, and delivery at least once may repeat them."""
    by_record = {(letter.partition, letter.input_offset): letter for letter in letters}
    return sorted(by_record.values(), key=lambda letter: (letter.partition, letter.input_offset))


def _read(settings: Settings, wanted: Wanted) -> list[Letter]:
    with closing(connect(settings).reader()) as reader:
        return letters_of(read_whole(reader, settings.topic("dead_letters")), wanted)


def _send(settings: Settings, records: Iterable[Letter], letters: Iterable[Letter]) -> None:
    """In one transaction: the records, and which letters they were."""
    broker, topic = connect(settings), settings.topics.readings
    with closing(broker.reader()) as reader:
        known = set(reader.partitions(topic))
    for letter in records:
        if letter.partition not in known:
            raise OperatorError(f"Topic {topic!r} has no partition {letter.partition}, which {letter} names: check the topics.")
    with closing(broker.producer(f"{settings.kafka.group_id}-retry")) as producer:
        producer.begin()
        for letter in records:
            headers = (*letter.headers, (RETRY, b"%d" % (letter.retries + 1)))
            producer.send(topic, letter.partition, letter.key, letter.value, headers)
        for letter in letters:
            producer.send(letter.topic, 0, None, None, ((RETRIED, b"%d" % letter.offset),))
        producer.commit({}, None)
