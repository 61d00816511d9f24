"""Judges a run from the topics alone: what had to be sent, and whether it was, to the byte.

The policy is recomputed here from the documents with `json` and `hashlib`, reading by reading: no line of `daemon` or `models`
is imported, so that a mistake there cannot excuse itself. Every check returns sentences about what is wrong; none is right.

    judge              input records and epochs   -> what each reading must become, with the digest where the chain engine runs
    check_exactly_once judgement and topics       -> each forecast and dead letter once, no other, streams in order
    check_at_least_once the same                  -> nothing lost, every repetition identical
    check_replay       lines of `recurd replay`   -> equal to what was sent, byte for byte per stream
    check_reader       a reader during the chaos  -> saw what a reader afterwards sees
"""

from __future__ import annotations

import binascii
import hashlib
import json
import math
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

MOST_PROBLEMS = 20
MAX_DEPTH = 128
MAX_MAGNITUDE = 1e15
RESERVED_PREFIX = "__recurd"
RESET_KEY = b"__recurd.reset"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Raw(NamedTuple):
    """A record as the broker gave it."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def header(self, name: str) -> str | None:
        """The last header of that name, as text."""
        return next((value.decode() for key, value in reversed(self.headers) if key == name), None)


class Source(NamedTuple):
    """Where a reading came from: the header `source` of its forecast."""

    partition: int
    offset: int
    index: int


class Due(NamedTuple):
    """A forecast that must have been sent."""

    source: Source
    stream: str
    time_ms: int
    model_version: str
    epoch: Epoch
    digest: str | None  # hexadecimal; None where no chain engine runs


# -- epochs ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Epoch:
    """One value of topic `epochs`, as it is."""

    raw: bytes
    document: Mapping[str, Any]

    @property
    def first_offset(self) -> int:
        return int(self.document["first_offset"])

    @property
    def engine(self) -> Mapping[str, Any]:
        return self.document["engine"]  # type: ignore[no-any-return]

    @property
    def input(self) -> Mapping[str, Any]:
        return self.engine["input"]  # type: ignore[no-any-return]

    @property
    def cap(self) -> int:
        return int(self.engine["max_streams_per_partition"])

    @property
    def is_chain(self) -> bool:
        return bool(self.engine["model"]["kind"] == "chain")

    @property
    def version(self) -> str:
        return str(self.document["model_version"])

    def turn_of(self, stream: str) -> int:
        """The offset from which on a stream goes over to this epoch's version."""
        length = self.document["handover_offsets"]
        return self.first_offset + (binascii.crc32(stream.encode()) % length if length else 0)

    def fits(self) -> tuple[str, int]:
        """What weights must fit; the text keeps the order of the channels."""
        return json.dumps(self.engine), self.document["engine_version"]

    def layout(self) -> tuple[Any, ...]:
        """What the shape of a row depends on: when it changes, rows start cold."""
        if self.is_chain:
            return ("chain",)
        model, channels = self.engine["model"], len(self.input["values"] or ("value",))
        rungs = len({1, 2, 4, 8, 16, model["horizon"]} & set(range(1, model["horizon"] + 1)))
        shape = (model["layers"], model["hidden"], model["context"], len(model["levels"]), rungs)
        return (channels, len(model["targets"]) or channels, *shape)


def epochs_by_partition(records: Iterable[Raw]) -> dict[int, list[Epoch]]:
    """The epochs in force, rising by first offset: of records with one key the last holds, none where it is a tombstone."""
    latest = {record.key: record.value for record in records}
    found: dict[int, list[Epoch]] = defaultdict(list)
    for key, value in latest.items():
        if value is None:
            continue
        epoch = Epoch(value, json.loads(value))
        assert key == b"%d:%d" % (epoch.document["partition"], epoch.first_offset), f"epoch {value!r} under key {key!r}"
        found[epoch.document["partition"]].append(epoch)
    return {partition: sorted(epochs, key=lambda epoch: epoch.first_offset) for partition, epochs in found.items()}


# -- what a record says ---------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """The record must be a dead letter, for one of these reasons."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = frozenset(reasons)


class Seen(NamedTuple):
    """One reading as it stands in a record."""

    stream: str
    time_ms: int
    values: tuple[float, ...]


class Literal(str):
    """A number as it is written: whether a float64 holds it matters only where it is used."""


def read(raw: Raw, rules: Mapping[str, Any]) -> list[Seen]:
    """The readings of a record under the input settings of an epoch; raises Refused."""
    if not raw.value:
        raise Refused("no_value")
    if len(raw.value) > rules["max_bytes"]:
        raise Refused("too_large")
    document = _parse(raw.value)
    elements = document if isinstance(document, list) else [document]
    if not 1 <= len(elements) <= rules["max_elements"]:
        raise Refused("type")
    faults = {fault for element in elements for fault in _faults(element, rules)}
    if faults:
        raise Refused(*faults)
    return [_seen(element, raw, rules) for element in elements]


def _parse(value: bytes) -> Any:
    """JSON as RFC 8259 has it, numbers left as they are written."""
    try:
        text = value.decode()
        if _depth(text) > MAX_DEPTH:
            raise Refused("syntax")
        document = json.loads(text, parse_int=Literal, parse_float=Literal, parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False).encode()  # fails for lone surrogates
    except (ValueError, RecursionError):
        raise Refused("syntax") from None
    return document


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _depth(text: str) -> int:
    """How deep brackets nest outside of strings, as far as the text is JSON."""
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', text, re.DOTALL):
        depth += (token[0] in "[{") - (token[0] in "]}")
        deepest = max(deepest, depth)
    return deepest


def _faults(element: Any, rules: Mapping[str, Any]) -> Iterator[str]:
    """What is of a wrong type, or written so that it cannot be read."""
    if not isinstance(element, dict):
        yield "type"
        return
    stream, time = _at(element, rules["stream"]), _at(element, rules["time"])
    if stream is not ABSENT and (not isinstance(stream, str) or isinstance(stream, Literal)):
        yield "type"
    if isinstance(time, Literal):
        yield from ["syntax"] if math.isinf(float(time)) else []
    elif isinstance(time, str):
        yield from [] if _moment(time) else ["time"]
    elif time is not ABSENT:
        yield "type"
    for path in _paths(rules):
        value = _at(element, path)
        if isinstance(value, Literal):
            yield from ["syntax"] if math.isinf(float(value)) else []
        elif value is not None:
            yield "type"


def _seen(element: Mapping[str, Any], raw: Raw, rules: Mapping[str, Any]) -> Seen:
    stream = _at(element, rules["stream"])
    if stream is ABSENT:
        stream = _as_id(raw.key)
    if not _may_name(stream):
        raise Refused("stream_id")
    time_ms = _time_ms(_at(element, rules["time"]), raw.timestamp_ms)
    values = tuple(math.nan if value is None else float(value) for value in (_at(element, path) for path in _paths(rules)))
    if any(abs(value) > MAX_MAGNITUDE for value in values):
        raise Refused("value")
    return Seen(stream, time_ms, values)


class _Absent:
    """No such field, which is not the same as null."""


ABSENT = _Absent()


def _at(element: Any, path: str) -> Any:
    """What stands at a dotted path."""
    for name in path.split("."):
        if not isinstance(element, dict) or name not in element:
            return ABSENT
        element = element[name]
    return element


def _paths(rules: Mapping[str, Any]) -> list[str]:
    return list(rules["values"].values()) or [rules["value"]]


def _as_id(text: bytes | None) -> str:
    try:
        return (text or b"").decode()
    except UnicodeDecodeError:
        raise Refused("stream_id") from None


def _may_name(stream: str) -> bool:
    return 0 < len(stream) <= 256 and not stream.startswith(RESERVED_PREFIX) and not CONTROL.search(stream)


def _moment(text: str) -> datetime | None:
    """The moment that an RFC 3339 text names; UTC where it names no zone."""
    if not RFC3339.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper().replace(" ", "T"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time_ms(time: Any, timestamp_ms: int) -> int:
    """Epoch milliseconds, to the nearest; numbers below 1e11 are seconds."""
    if time is ABSENT:
        if timestamp_ms == -1:
            raise Refused("time")
        return timestamp_ms
    if isinstance(time, Literal):
        number = float(time)
        if abs(number) > MAX_MAGNITUDE:
            raise Refused("time")
        time_ms = round(number * 1000) if abs(number) < 1e11 else round(number)
    else:
        moment = _moment(time)
        assert moment is not None
        time_ms = (moment - EPOCH + timedelta(microseconds=500)) // timedelta(milliseconds=1)
    if not -62_135_596_800_000 <= time_ms <= 253_402_300_799_999:
        raise Refused("time")
    return time_ms


# -- what must become of it -----------------------------------------------------------------------------------------------------


@dataclass
class Stream:
    """What the policy remembers of a stream."""

    last_time_ms: int
    used: tuple[int, int]  # offset and index of the last applied reading
    count: int  # readings applied since the row started
    digest: bytes
    version: str = ""  # the model version that made its row
    forgotten: bool = False  # a reset came after its last reading


@dataclass
class Judgement:
    """What every reading of the input must have become."""

    forecasts: list[Due] = field(default_factory=list)  # a partition's in log order
    dead_letters: dict[tuple[int, int, int | None], frozenset[str]] = field(default_factory=dict)  # index None: the whole record
    counts: Counter[str] = field(default_factory=Counter)  # the law's outcomes; a refused record is one
    readings: int = 0  # with those of refused records that could not be told apart as one
    evicted: int = 0
    restarted: int = 0  # rows begun afresh after a long gap or a reset
    resets: int = 0  # of streams with a row
    earlier: int = 0  # records before the partition's first epoch


class _Partition:
    """The policy of one partition: admission, eviction, thinning, digests."""

    def __init__(self, number: int, epochs: Sequence[Epoch], judgement: Judgement) -> None:
        self._number = number
        self._epochs = list(epochs)
        self._epoch: Epoch | None = None
        self._older: set[str] = set()  # versions whose rows go on until their turn
        self._streams: dict[str, Stream] = {}
        self._out = judgement

    def take(self, raw: Raw) -> None:
        """Judge the next record."""
        epoch = self._epoch_of(raw.offset)
        if epoch is None:
            self._out.earlier += 1
            return
        try:
            if raw.key == RESET_KEY:
                self._reset(raw)
                return
            readings = read(raw, epoch.input)
            latest = raw.timestamp_ms + round(epoch.input["max_ahead_s"] * 1000)
            if raw.timestamp_ms >= 0 and any(reading.time_ms > latest for reading in readings):
                raise Refused("future")
        except Refused as refused:
            self._dead(raw.offset, None, refused.reasons)
            return
        for index, reading in enumerate(readings):
            self._out.readings += 1
            self._admit(epoch, Source(self._number, raw.offset, index), reading)

    def _reset(self, raw: Raw) -> None:
        """Forget a stream; it keeps its place among those that may be evicted."""
        if not raw.value:
            raise Refused("no_value")
        stream = _as_id(raw.value)
        if not _may_name(stream):
            raise Refused("stream_id")
        if stream in self._streams:
            self._streams[stream].forgotten = True
            self._out.resets += 1

    def _epoch_of(self, offset: int) -> Epoch | None:
        """The epoch in force; what it changes for the rows happens when it begins."""
        past = [epoch for epoch in self._epochs if epoch.first_offset <= offset]
        epoch = past[-1] if past else None
        if epoch is not None and epoch is not self._epoch:
            self._begin(epoch)
        return epoch

    def _going_on(self, newest: Epoch) -> set[str]:
        """Versions that step a row until its turn comes: those in force since rows were emptied or weights need fit no more."""
        found: set[str] = set()
        for before, epoch in pairwise(each for each in self._epochs if each.first_offset <= newest.first_offset):
            changed = epoch.document["cold"] or epoch.fits() != before.fits()
            found = set() if changed else found | {before.version}
        return found

    def _begin(self, epoch: Epoch) -> None:
        if epoch.document["cold"] or (self._epoch is not None and self._epoch.layout() != epoch.layout()):
            self._streams.clear()
        self._epoch, self._older = epoch, self._going_on(epoch)
        for stream in self._by_use()[: max(len(self._streams) - epoch.cap, 0)]:
            del self._streams[stream]

    def _by_use(self) -> list[str]:
        """Streams, least recently seen first."""
        return sorted(self._streams, key=lambda stream: (*self._streams[stream].used, stream))

    def _admit(self, epoch: Epoch, source: Source, reading: Seen) -> None:
        known = self._streams.get(reading.stream)
        starts = known is None or known.forgotten
        if known is not None and not known.forgotten:
            gap_ms = reading.time_ms - known.last_time_ms
            if gap_ms <= 0:
                self._not_after(epoch, source, "late" if gap_ms < 0 else "duplicate")
                return
            starts = gap_ms > round(epoch.input["max_gap_s"] * 1000)
        if starts and any(math.isnan(value) for value in reading.values):
            self._out.counts["incomplete_start"] += 1
            return
        if known is None and len(self._streams) >= epoch.cap:
            del self._streams[min(self._streams, key=lambda stream: (*self._streams[stream].used, stream))]
            self._out.evicted += 1
        self._out.restarted += starts and known is not None
        self._apply(epoch, source, reading, Stream(0, (0, 0), 0, bytes(32)) if starts or known is None else known)

    def _not_after(self, epoch: Epoch, source: Source, reason: str) -> None:
        if epoch.input["on_late"] == "dead-letter":
            self._dead(source.offset, source.index, frozenset({reason}))
        else:
            self._out.counts[reason] += 1

    def _apply(self, epoch: Epoch, source: Source, reading: Seen, stream: Stream) -> None:
        self._streams[reading.stream] = stream
        stream.last_time_ms, stream.used, stream.count = reading.time_ms, source[1:], stream.count + 1
        if not (stream.version in self._older and source.offset < epoch.turn_of(reading.stream)):
            stream.version = epoch.version
        if epoch.is_chain:
            stream.digest = link(stream.digest, source, reading, epoch.raw)
        if (stream.count - 1) % epoch.engine["emit_every"]:
            self._out.counts["thinned"] += 1
            return
        self._out.counts["forecast"] += 1
        digest = stream.digest.hex() if epoch.is_chain else None
        self._out.forecasts.append(Due(source, reading.stream, reading.time_ms, stream.version, epoch, digest))

    def _dead(self, offset: int, index: int | None, reasons: frozenset[str]) -> None:
        self._out.counts["dead_letter"] += 1
        self._out.readings += index is None
        self._out.dead_letters[self._number, offset, index] = reasons


def link(state: bytes, source: Source, reading: Seen, epoch: bytes) -> bytes:
    """The chain's next state: all that ever reached the row, in order, in one hash."""
    numbers = struct.pack("<3q", source.offset, source.index, reading.time_ms)
    # NaN has many forms; the chain takes the quiet one without sign or payload.
    values = b"".join(bytes.fromhex("000000000000f87f") if math.isnan(v) else struct.pack("<d", v) for v in reading.values)
    return hashlib.sha256(state + numbers + values + hashlib.sha256(epoch).digest()).digest()


def judge(records: Iterable[Raw], epochs: Mapping[int, Sequence[Epoch]]) -> Judgement:
    """What every reading must become. `records` are the input, each partition's in offset order."""
    judgement = Judgement()
    partitions: dict[int, _Partition] = {}
    for raw in records:
        if raw.partition not in partitions:
            partitions[raw.partition] = _Partition(raw.partition, epochs.get(raw.partition, ()), judgement)
        partitions[raw.partition].take(raw)
    return judgement


# -- whether it was done --------------------------------------------------------------------------------------------------------


def source_of(record: Raw) -> Source:
    """The header `source`, which every forecast has."""
    text = record.header("source")
    assert text is not None, f"the forecast at {record.partition}:{record.offset} has no source"
    return Source(*map(int, text.split(",")))


def check_exactly_once(judgement: Judgement, forecasts: Sequence[Raw], dead_letters: Sequence[Raw]) -> list[str]:
    """Each forecast and dead letter that is due exactly once, nothing else, every stream's forecasts in order."""
    times_sent = Counter(map(source_of, forecasts))
    problems = [f"forecast {tuple(source)} was sent {n} times" for source, n in times_sent.items() if n > 1]
    problems += _compare_sets(judgement, forecasts)
    problems += _order(judgement, forecasts)
    problems += _check_dead_letters(judgement, dead_letters, once=True)
    return problems[:MOST_PROBLEMS]


def check_at_least_once(judgement: Judgement, forecasts: Sequence[Raw], dead_letters: Sequence[Raw]) -> list[str]:
    """Nothing lost, nothing extra, every repetition identical, every stream's first sendings in order."""
    first: dict[Source, Raw] = {}
    problems = []
    for record in forecasts:
        earlier = first.setdefault(source_of(record), record)
        if (record.partition, record.key, record.value) != (earlier.partition, earlier.key, earlier.value):
            problems.append(f"forecast {tuple(source_of(record))} was repeated otherwise: {record.value!r}, {earlier.value!r}")
    problems += _compare_sets(judgement, forecasts)
    problems += _order(judgement, list(first.values()))
    problems += _check_dead_letters(judgement, dead_letters, once=False)
    return problems[:MOST_PROBLEMS]


def _compare_sets(judgement: Judgement, forecasts: Sequence[Raw]) -> list[str]:
    """Missing, extra and wrong forecasts."""
    due = {forecast.source: forecast for forecast in judgement.forecasts}
    sent = {source_of(record) for record in forecasts}
    problems = [f"forecast {tuple(source)} of {due[source].stream!r} is missing" for source in sorted(due.keys() - sent)]
    problems += [f"forecast {tuple(source)} is extra: no reading asks for it" for source in sorted(sent - due.keys())]
    for record in forecasts:
        source = source_of(record)
        if source in due:
            problems += [f"forecast {tuple(source)}: {what}" for what in _wrong(record, due[source])]
    return problems


def _order(judgement: Judgement, forecasts: Sequence[Raw]) -> list[str]:
    """Streams whose forecasts do not rise by source."""
    problems = []
    last: dict[tuple[int, bytes | None], Source] = {}
    for record in forecasts:
        source, stream = source_of(record), (record.partition, record.key)
        if stream in last and source < last[stream]:
            problems.append(f"forecast {tuple(source)} of {record.key!r} comes after {tuple(last[stream])}: reordered")
        last[stream] = max(source, last.get(stream, source))
    return problems


def _wrong(record: Raw, due: Due) -> Iterator[str]:
    """What a sent forecast says other than it must."""
    try:
        said = json.loads(record.value or b"")
    except ValueError:
        yield f"not JSON: {record.value!r}"
        return
    expected: dict[str, Any] = {"stream": due.stream, "time": _rfc3339(due.time_ms), "model_version": due.model_version}
    if due.digest is not None:
        expected["digest"] = due.digest
    if record.key != due.stream.encode():
        yield f"key {record.key!r}, not {due.stream!r}"
    if record.partition != due.source.partition:
        yield f"in partition {record.partition}"
    for name, value in expected.items():
        if said.get(name) != value:
            yield f"{name} is {said.get(name)!r}, not {value!r}"
    if due.digest is None:
        yield from _wrong_quantiles(said, due.epoch)


def _wrong_quantiles(said: Mapping[str, Any], epoch: Epoch) -> Iterator[str]:
    """Every target has K finite numbers a level, and quantiles do not cross."""
    model = epoch.engine["model"]
    targets = tuple(model["targets"] or epoch.input["values"] or ("value",))
    if tuple(said.get("targets", {})) != targets:
        yield f"targets are {list(said.get('targets', {}))}, not {list(targets)}"
        return
    for target, levels in said["targets"].items():
        fans = [levels.get(repr(float(level)), []) for level in model["levels"]]
        if any(len(fan) != model["horizon"] or not all(isinstance(x, int | float) for x in fan) for fan in fans):
            yield f"{target} has not {model['horizon']} numbers for each of the levels {model['levels']}"
        elif any(list(column) != sorted(column) for column in zip(*fans, strict=True)):
            yield f"quantiles of {target} cross"


def _rfc3339(time_ms: int) -> str:
    moment = EPOCH + timedelta(milliseconds=time_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"


def _check_dead_letters(judgement: Judgement, dead_letters: Sequence[Raw], once: bool) -> list[str]:
    """Each refused record or reading has its dead letter, with a reason that is right and the record's own bytes."""
    due = judgement.dead_letters
    problems = []
    sent: Counter[tuple[int, int, int | None]] = Counter()
    for letter in dead_letters:
        where = tuple(int(letter.header(f"recurd.{name}") or -1) for name in ("partition", "offset", "index"))
        position = (where[0], where[1], None) if (where[0], where[1], None) in due else where
        sent[position] += 1  # type: ignore[index]
        reason = letter.header("recurd.error")
        if position not in due:
            problems.append(f"dead letter {where} ({reason}) is extra")
        elif reason not in due[position]:  # type: ignore[index]
            problems.append(f"dead letter {where} says {reason}, not one of {sorted(due[position])}")  # type: ignore[index]
    problems += [f"dead letter {position} ({', '.join(due[position])}) is missing" for position in due.keys() - sent.keys()]
    if once:
        problems += [f"dead letter {position} was sent {n} times" for position, n in sent.items() if n > 1]
    return problems


def check_dead_letter_bytes(records: Iterable[Raw], dead_letters: Iterable[Raw]) -> list[str]:
    """Each dead letter carries its record's key and value as they were."""
    by_position = {(record.partition, record.offset): record for record in records}
    problems = []
    for letter in dead_letters:
        position = (int(letter.header("recurd.partition") or -1), int(letter.header("recurd.offset") or -1))
        record = by_position.get(position)
        if record is None or (letter.key, letter.value) != (record.key, record.value):
            problems.append(f"the dead letter of {position} does not carry its record")
    return problems[:MOST_PROBLEMS]


REPLAYED = re.compile(rb'\{"source":"(\d+),(\d+),(\d+)","forecast":(.*)\}', re.DOTALL)


def replayed(lines: Iterable[bytes]) -> list[tuple[Source, bytes]]:
    """Source and bytes of each forecast of `recurd replay --with-source`; the bytes are cut out, never parsed and written."""
    found = []
    for line in lines:
        match = REPLAYED.fullmatch(line.rstrip(b"\n"))
        assert match, f"not a line of a replay: {line[:200]!r}"
        found.append((Source(*map(int, match.groups()[:3])), match[4]))
    return found


def check_replay(replay: Sequence[tuple[Source, bytes]], forecasts: Sequence[Raw]) -> list[str]:
    """What was sent equals one uninterrupted replay, byte for byte per stream."""
    sent = [(source_of(record), record.value or b"") for record in forecasts]
    problems = []
    ours, theirs = _by_stream(sent), _by_stream(replay)
    for stream in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(stream, []), theirs.get(stream, [])
        if len(a) != len(b):
            problems.append(f"stream {stream}: {len(a)} forecasts were sent, {len(b)} replayed")
        different = next(((x, y) for x, y in zip(a, b, strict=False) if x != y), None)
        if different:
            (source, value), (replay_source, replay_value) = different
            problems.append(
                f"stream {stream}: sent {tuple(source)} {value[:300]!r}, replayed {tuple(replay_source)} {replay_value[:300]!r}"
            )
    return problems[:MOST_PROBLEMS]


def _by_stream(forecasts: Iterable[tuple[Source, bytes]]) -> dict[tuple[int, str], list[tuple[Source, bytes]]]:
    streams: dict[tuple[int, str], list[tuple[Source, bytes]]] = defaultdict(list)
    for source, value in forecasts:
        streams[source.partition, json.loads(value)["stream"]].append((source, value))
    return streams


def check_reader(during: Sequence[Raw], afterwards: Sequence[Raw]) -> list[str]:
    """A read-committed reader that ran all along saw what one sees afterwards, in the same order, and nothing twice."""
    problems = []
    for partition in sorted({record.partition for record in (*during, *afterwards)}):
        live = [record for record in during if record.partition == partition]
        final = [record for record in afterwards if record.partition == partition]
        if live != final:
            at = next((i for i, (a, b) in enumerate(zip(live, final, strict=False)) if a != b), min(len(live), len(final)))
            problems.append(
                f"partition {partition}: the reader during the run saw {len(live)} forecasts, one afterwards {len(final)}; "
                f"they part at number {at}: {live[at : at + 1]} and {final[at : at + 1]}"
            )
    return problems
