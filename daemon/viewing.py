"""What a viewer of the page may know of the loop's state: questions in, copies out. The HTTP threads never touch state.

The loop looks into the mailbox once a turn and answers a few questions with copies: ids, or the rows of a page of streams. While
somebody looks, it also hands over the lists of messages that it sends, by reference; while nobody does, a turn costs two
comparisons.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from daemon.epochs import Epoch
from daemon.records import Message
from daemon.restore import Partition
from models.engine import version_number

#: A viewer that has asked nothing for so long is gone.
WATCHED_S = 10.0
#: Ids are copied at most this often: a million take 5 ms.
IDS_S = 5.0
#: A question that the loop has not answered within this gets no answer.
ANSWER_S = 1.5
#: Questions answered in one turn.
ANSWERS_A_TURN = 4
#: Streams whose forecasts are kept while they are looked at, and how many of each.
STREAMS_KEPT, FORECASTS_KEPT = 100, 128
#: Lists of messages that wait for a viewer.
MAIL_KEPT = 512

#: A stream: its partition and id.
Place = tuple[int, str]


class PartitionView(NamedTuple):
    """Where a partition stands."""

    number: int
    serving: bool
    next_offset: int
    streams: int
    epochs: list[tuple[int, str, bool]]  # first offset, model version, cold; the newest last


class RowView(NamedTuple):
    """A copy of a stream's row, and what it takes to read it."""

    row: Any  # structured scalar
    channels: tuple[str, ...]
    targets: tuple[str, ...]
    levels: tuple[float, ...]
    version: str  # that made the row


class _Question:
    """A function of the held partitions, to be run by the loop."""

    def __init__(self, ask: Callable[[Mapping[int, Partition]], Any]) -> None:
        self.ask = ask
        self.answer: Any = None
        self.answered = threading.Event()


class Viewing:
    """The mailbox between the loop and those who look."""

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._mail: deque[tuple[int, Sequence[Message]]] = deque(maxlen=MAIL_KEPT)
        self._watched_until_s = 0.0
        self._lock = threading.Lock()  # of what follows, among viewers: the loop never takes it
        self._kept: OrderedDict[Place, deque[bytes]] = OrderedDict()
        self._ids: dict[int, list[str]] = {}
        self._ids_s = float("-inf")

    # -- the loop's side --------------------------------------------------------------------------------------------------

    def sent(self, partition: int, messages: Sequence[Message]) -> None:
        """Forecasts were sent; the list is not changed any more."""
        if time.monotonic() < self._watched_until_s:
            self._mail.append((partition, messages))

    def turn(self, held: Mapping[int, Partition]) -> None:
        """Answer what was asked."""
        for _ in range(min(self._questions.qsize(), ANSWERS_A_TURN)):
            question = self._questions.get_nowait()
            question.answer = question.ask(held)
            question.answered.set()

    # -- the viewers' side ------------------------------------------------------------------------------------------------

    def ids(self) -> dict[int, list[str]]:
        """Stream ids by partition, in the order of their rows, a few seconds old; the caller must not change them."""
        if time.monotonic() - self._ids_s > IDS_S:
            found = self._ask(_ids)
            if found is not None:
                self._ids, self._ids_s = found, time.monotonic()
        return self._ids

    def partitions(self) -> list[PartitionView] | None:
        """Where the partitions stand; None where the loop does not answer."""
        found: list[PartitionView] | None = self._ask(_partitions)
        return found

    def rows(self, places: Sequence[Place]) -> dict[Place, RowView]:
        """Copies of the rows of these streams; those without a row are left out."""
        found: dict[Place, RowView] | None = self._ask(lambda held: _rows(held, places))
        return found or {}

    def forecasts(self, places: Iterable[Place]) -> dict[Place, list[bytes]]:
        """Forecasts of these streams since they are looked at, oldest first. Looking keeps them watched."""
        self._watched_until_s = time.monotonic() + WATCHED_S
        with self._lock:
            for place in places:
                self._kept.setdefault(place, deque(maxlen=FORECASTS_KEPT))
                self._kept.move_to_end(place)
            while len(self._kept) > STREAMS_KEPT:
                self._kept.popitem(last=False)
            self._take_mail()
            return {place: list(self._kept[place]) for place in places}

    def _take_mail(self) -> None:
        wanted = {(partition, stream.encode()): kept for (partition, stream), kept in self._kept.items()}
        while self._mail:
            partition, messages = self._mail.popleft()
            for message in messages:
                kept = wanted.get((partition, message.key or b""))
                if kept is not None and message.value is not None:
                    kept.append(message.value)

    def _ask(self, ask: Callable[[Mapping[int, Partition]], Any]) -> Any:
        question = _Question(ask)
        self._questions.put(question)
        return question.answer if question.answered.wait(ANSWER_S) else None


def _ids(held: Mapping[int, Partition]) -> dict[int, list[str]]:
    return {number: list(partition.pipeline.table.slots.ids) for number, partition in held.items()}


def _partitions(held: Mapping[int, Partition]) -> list[PartitionView]:
    views = []
    for number, partition in sorted(held.items()):
        pipeline = partition.pipeline
        epochs = [(epoch.first_offset, epoch.model_version, epoch.cold) for epoch in pipeline.epochs[-8:]]
        views.append(PartitionView(number, partition.serving, pipeline.next_offset, len(pipeline.table), epochs))
    return views


def _rows(held: Mapping[int, Partition], places: Sequence[Place]) -> dict[Place, RowView]:
    found = {}
    for number, stream in places:
        partition = held.get(number)
        slot = partition.pipeline.table.slots.find(stream) if partition else None
        if partition and slot is not None:
            epoch = partition.pipeline.epoch
            row = partition.pipeline.table.gather(np.array([slot]))[0]
            engine = epoch.engine
            version = _made_by(row, partition.pipeline.epochs) or epoch.model_version
            found[number, stream] = RowView(row, engine.channels, engine.targets, engine.model.levels, version)
    return found


def _made_by(row: Any, epochs: Sequence[Epoch]) -> str | None:
    """The newest version that has the row's number: while streams go over in turn it is not the epoch's."""
    number = int(row["version"])
    return next((epoch.model_version for epoch in reversed(epochs) if version_number(epoch.model_version) == number), None)
