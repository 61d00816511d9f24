"""Bad input against a real daemon: each bad record is one dead letter, each sound reading one forecast, and the loop goes on."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kafka.codec
import pytest
from kafka import KafkaProducer
from kafka.errors import MessageSizeTooLargeError
from kafka.record import default_records

from daemon import blocks
from daemon.blocks import Mark
from daemon.brokers.dev import DevBroker
from daemon.engines import Engines
from daemon.errors import EXIT_NO_RESTART
from daemon.pipeline import Pipeline, Restored
from models.table import StateTable
from tests import checker, examples
from tests.bad_input import CASES, bad_records, padded
from tests.checker import Raw, Source
from tests.harness import Daemon, Topics, chaos_seed, collect, replay, running, sound
from tests.load import INTERVAL_MS, MAX_ELEMENTS, T0_MS

PARTITIONS = 2
GOOD = BAD = 10_000
STREAMS = 200
#: max.message.bytes of the input topic, and input.max_bytes. Larger values come in compressed.
LIMIT = 131_072
ZIPPED = {"compression_type": "gzip", "max_request_size": 64 << 20}
#: What a dead letter has for key and value, and how much of a value that does not fit is kept (docs/formats.md).
ROOM = 1_048_588 - 16_384
CUT_BYTES = 65_536
SETTINGS = {
    "input.max_bytes": LIMIT,
    "state.max_streams_per_partition": STREAMS,
    "state.checkpoint_interval_s": 1,
    "kafka.instance_id": "a",
}
ENGINES = {"chain": {"model.kind": "chain"}, "forecaster": {"model.hidden": 16, "model.horizon": 8, "model.context": 32}}
#: Headers of a dead letter that say what was cut.
NOTES = KEY_BYTES, VALUE_BYTES, HEADERS_DROPPED = "recurd.key_bytes", "recurd.value_bytes", "recurd.headers_dropped"

Headers = tuple[tuple[str, bytes], ...]
Place = tuple[int, int]  # partition and offset


class Item(NamedTuple):
    """A record to send, and what must come of it."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = T0_MS
    case: str = "sound"
    reasons: frozenset[str] = frozenset()  # none: every reading of it is forecast
    element: int = 0
    letter: tuple[bytes | None, bytes | None] | None = None  # key and value of the dead letter where they are not the record's
    notes: Headers = ()  # `NOTES` of the dead letter


# -- records of exactly the topic's maximum size ------------------------------------------------------------------------------


def varint_bytes(number: int) -> int:
    """Bytes of a length as Kafka writes it: zigzag, seven bits a byte."""
    return max(1, -(-(2 * number).bit_length() // 7))


def batch_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Size of a batch of this one record, which is what max.message.bytes is compared with (message format 2)."""
    size = 3 + varint_bytes(len(headers))  # attributes, time and offset within the batch
    for part in (key, value, *(part for name, text in headers for part in (name.encode(), text))):
        size += 1 if part is None else varint_bytes(len(part)) + len(part)
    return 61 + varint_bytes(size) + size


def fill(make: Callable[[int], Item], limit: int = LIMIT) -> Item:
    """The item of `make(n)`, which grows by a byte with n, whose batch has exactly `limit` bytes."""
    size = limit - 400
    while batch_bytes(*make(size)[:3]) < limit:
        size += 1
    item = make(size)
    assert batch_bytes(*item[:3]) == limit
    return item


SOUND = b'{"stream": "largest", "time": %d, "value": 1.5}'


def maximum() -> list[Item]:
    """Records that the topic just takes, each large in another part."""
    syntax, no_value = frozenset({"syntax"}), frozenset({"no_value"})
    traces = (("trace", bytes(range(256)) * 16),) * 31

    def headers(n: int) -> Item:
        pad = ("pad", b"x" * (n - 31 * 4103))
        return Item(b"k", b"broken", (*traces, pad), T0_MS, "headers", syntax, notes=((HEADERS_DROPPED, b"32"),))

    return [
        fill(lambda n: Item(b"largest", padded(SOUND % T0_MS, n), (), T0_MS, "sound at the maximum")),
        fill(lambda n: Item(b"\xff", padded(b'{"stream": ', n), (), T0_MS, "broken at the maximum", syntax)),
        fill(lambda n: Item(b"\xfe" * n, b"x", (), T0_MS, "key at the maximum", syntax)),
        fill(lambda n: Item(b"\x00" * n, None, (), T0_MS, "tombstone at the maximum", no_value)),
        fill(headers),
    ]


def compressed() -> Iterator[Item]:
    """Records that are larger than any dead letter, or just fit: compression lets them past the topic's limit."""
    huge, key = padded(b'{"stream": "a"}', 8 << 20), b"\xff" * 3_000_000
    key_note, value_note = (KEY_BYTES, b"3000000"), (VALUE_BYTES, b"8388608")

    def item(key: bytes, value: bytes | None, reason: str, cut: Any = None, *notes: tuple[str, bytes]) -> Item:
        return Item(key, value, (("h", b""),), T0_MS, "compressed", frozenset({reason}), 0, cut, notes)

    yield item(b"a", huge, "too_large", (b"a", huge[:CUT_BYTES]), value_note)
    yield item(key, b"x", "syntax", (key[:ROOM], b""), key_note, (VALUE_BYTES, b"1"))
    yield item(key, huge, "too_large", (key[:ROOM], b""), key_note, value_note)
    yield item(key[:ROOM], None, "no_value")
    most = b"x" * (ROOM - 200)
    yield item(b"k" * 200, most, "too_large")
    yield item(b"k" * 201, most, "too_large", (b"k" * 201, most[:CUT_BYTES]), (VALUE_BYTES, b"%d" % len(most)))


# -- the flood ------------------------------------------------------------------------------------------------------------------


def sound_items(rng: random.Random) -> Iterator[Item]:
    """Records of one reading, and some of several, of streams whose clocks go on by themselves; in the order of sending."""
    clocks = dict.fromkeys((f"pump-{number}" for number in range(STREAMS // 2)), T0_MS)
    names = list(clocks)
    for _ in range(GOOD):
        streams = rng.choices(names, k=rng.choice([1] * 9 + [4]))
        elements = []
        for stream in streams:
            clocks[stream] += INTERVAL_MS
            value = rng.choice([round(rng.gauss(20, 5), 3), -1e15, 0])
            elements.append({"stream": stream, "time": clocks[stream], "value": value})
        text = json.dumps(elements[0] if len(elements) == 1 else elements)
        yield Item(streams[0].encode(), text.encode(), (), max(clocks.values()))


def bad_items(rng: random.Random) -> Iterator[Item]:
    """Every case many times. A header of its own tells each one's dead letter; some have headers that look like ours."""
    for number, bad in enumerate(bad_records(rng.randrange(10**6), BAD, LIMIT, MAX_ELEMENTS, T0_MS)):
        headers: Headers = (("n", b"%d" % number),)
        if rng.random() < 0.1:
            headers += (("recurd.error", b"none"), ("recurd.offset", b"-1"), ("", b"\xff\x00"))
        yield Item(bad.key, bad.value, headers, T0_MS, bad.case, bad.reasons, bad.element)


class Flood(NamedTuple):
    """A topic full of good and bad records, and which is which."""

    topics: Topics
    items: dict[Place, Item]


@pytest.fixture(scope="module")
def flood(broker: DevBroker, unique: Callable[[str], str]) -> Flood:
    """Ten thousand sound records and more than ten thousand bad ones, in random order."""
    rng = random.Random(chaos_seed())
    topics = Topics.create(broker.bootstrap, unique("flood"), PARTITIONS, max__message__bytes=str(LIMIT))
    bad = [*bad_items(rng), *compressed()]
    rng.shuffle(bad)
    sources = [iter(bad), sound_items(rng)]
    turns = [0] * len(bad) + [1] * GOOD
    rng.shuffle(turns)
    items = [next(sources[turn]) for turn in turns]
    half = len(items) // 2
    runs = [(items[:half], ZIPPED), (maximum(), {}), (items[half:], ZIPPED)]
    return Flood(topics, dict(pair for run, client in runs for pair in send(topics, run, rng, client)))


def send(topics: Topics, items: Sequence[Item], rng: random.Random, client: Mapping[str, Any]) -> Iterator[tuple[Place, Item]]:
    """Send items, a stream's to one partition; what stands where."""
    partitions = [rng.randrange(PARTITIONS) if item.reasons else sum(item.key or b"") % PARTITIONS for item in items]
    rows = [
        (partition, item.key, item.value, item.timestamp_ms, item.headers)
        for partition, item in zip(partitions, items, strict=True)
    ]
    return zip(zip(partitions, topics.send(rows, **client), strict=True), items, strict=True)


def position(letter: Raw) -> Place:
    """Partition and offset of a dead letter's record."""
    return int(letter.header("recurd.partition") or -1), int(letter.header("recurd.offset") or -1)


def wrong(letter: Raw, item: Item) -> list[str]:
    """What a dead letter has other than it must."""
    kept = () if HEADERS_DROPPED in dict(item.notes) else item.headers
    ours = dict(letter.headers[len(kept) :])
    right = {
        "reason": ours["recurd.error"].decode() in item.reasons,
        "element": not item.element or int(ours["recurd.index"]) == item.element,
        "key and value": (letter.key, letter.value) == (item.letter or (item.key, item.value)),
        "headers": letter.headers[: len(kept)] == kept,
        "notes": {(name, ours[name]) for name in NOTES if name in ours} == set(item.notes),
    }
    return [f"{item.case} at {position(letter)}: wrong {name}; {ours}" for name in right if not right[name]]


def counted(daemon: Daemon, metric: str) -> dict[str, int]:
    """A counter by its one label, zeros left out."""
    text = daemon.ready("/metrics")[1]
    found = {label: int(float(value)) for label, value in re.findall(rf'{metric}{{\w+="(\w+)"}} (\S+)', text)}
    return {label: count for label, count in found.items() if count}


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.parametrize("engine", ENGINES)
def test_ten_thousand_bad_records(flood: Flood, unique: Callable[[str], str], tmp_path: Path, engine: str) -> None:
    """Each bad record is in the dead letters once, as it was and with its reason; each sound reading is forecast once."""
    topics = flood.topics.of_group(unique(engine))
    daemon = Daemon(topics, tmp_path, "a", {**SETTINGS, **ENGINES[engine]})
    with running(daemon):
        life = daemon.start()
        began = life.wait_for("restored")
        topics.wait_committed()
        seconds = life.named("committed")[-1].at_s - began.at_s
        reasons = counted(daemon, "recurd_dead_letters_total")
        outcomes = counted(daemon, "recurd_readings_total")
        assert life.complaints() == []
        assert len(life.named("restored")) == PARTITIONS, "nothing was restored again: the loop has not stopped"
        assert daemon.stop() == 0, life.tail()
        found = collect(topics)
    print(f"{engine}: {len(flood.items)} records in {seconds:.1f} s, {len(flood.items) / seconds:,.0f} a second; {found}")
    bad = {where: item for where, item in flood.items.items() if item.reasons}
    assert {item.case for item in bad.values()} >= {*CASES}
    assert Counter(map(position, found.dead_letters)) == Counter(bad.keys())
    sound([problem for letter in found.dead_letters for problem in wrong(letter, bad[position(letter)])])
    assert reasons == Counter(letter.header("recurd.error") for letter in found.dead_letters)
    readings = {
        Source(*where, index)
        for where, item in flood.items.items()
        if not item.reasons
        for index in range((item.value or b"").count(b'"stream"'))
    }
    assert Counter(map(checker.source_of, found.forecasts)) == Counter(readings)
    assert outcomes == {"forecast": len(readings), "dead_letter": len(bad)}
    sound(checker.check_exactly_once(found.judgement, found.forecasts, found.dead_letters))
    if engine == "forecaster":
        sound(checker.check_replay(replay(topics, tmp_path), found.forecasts))


@pytest.mark.broker
def test_the_maximum_is_the_maximum(broker: DevBroker, unique: Callable[[str], str]) -> None:
    """The largest records above are the largest: one byte more is refused by the topic."""
    topics = Topics.create(broker.bootstrap, unique("most"), 1, max__message__bytes=str(LIMIT))
    for item in maximum():
        topics.send([(0, item.key, item.value, item.timestamp_ms, item.headers)])
        with pytest.raises(MessageSizeTooLargeError):
            topics.send([(0, (item.key or b"") + b"x", item.value, item.timestamp_ms, item.headers)])


# -- what only other clients send -----------------------------------------------------------------------------------------------


class NoText(str):
    """A header name that a client writes as bytes that are no UTF-8."""

    def encode(self, *_: str) -> bytes:
        return b"na\xffme\xfe"


RUN = b" " * 20_000


def lz4_frame(data: bytes) -> bytes:
    """An LZ4 frame of data that contains `RUN`: literals, one match that repeats a byte, literals."""
    first = data.index(RUN) + 1
    last = first + len(RUN) - 1

    def more(length: int) -> bytes:
        return b"" if length < 15 else b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])

    block = bytes([min(first, 15) << 4 | 15]) + more(first) + data[:first] + b"\x01\x00" + more(len(RUN) - 5)
    block += bytes([min(len(data) - last, 15) << 4]) + more(len(data) - last) + data[last:]
    return bytes.fromhex("04224d18604082") + len(block).to_bytes(4, "little") + block + bytes(4)


@pytest.mark.broker
def test_other_clients(topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header name that is no UTF-8 stops nothing; a limit lowered under way and an unknown codec end with 78, and say so."""
    reading = b'{"stream": "a", "time": %d, "value": 1}'
    daemon = Daemon(topics, tmp_path, "a", {**SETTINGS, "model.kind": "chain"})
    with running(daemon):
        daemon.start().wait_for("epoch started", count=PARTITIONS)
        headers = ((NoText("x"), b"1"), ("plain", b"\xff"))
        topics.send([(0, b"\xffk\xfe", b"broken", T0_MS, headers), (0, b"a", reading % T0_MS, T0_MS, headers)])
        topics.wait_committed()
        (letter,) = topics.read("dead-letters")
        assert (letter.key, letter.value, letter.headers[:2]) == (b"\xffk\xfe", b"broken", (("na?me?", b"1"), ("plain", b"\xff")))
        assert [checker.source_of(record) for record in topics.read("forecasts")] == [Source(0, 1, 0)]
        assert daemon.life.complaints() == []

        topics.configure("dead-letters", cleanup__policy="delete", max__message__bytes="20000")
        topics.send([(0, b"k", b"broken" * 10_000, T0_MS)])
        assert daemon.life.end(timeout_s=30) == EXIT_NO_RESTART, daemon.life.tail()
        assert f"records were not written to {topics.name('dead-letters')}[0]: MessageSizeTooLargeError" in daemon.life.tail(5)
        topics.configure("dead-letters", cleanup__policy="delete", max__message__bytes="2000000")

        daemon.start()
        topics.wait_committed()
        assert [len(letter.value or b"") for letter in topics.read("dead-letters")] == [6, 60_000]
        with monkeypatch.context() as patched:
            kind = KafkaProducer._COMPRESSORS["lz4"][1]
            patched.setitem(KafkaProducer._COMPRESSORS, "lz4", (lambda: True, kind))
            patched.setattr(kafka.codec, "has_lz4", lambda: True)
            patched.setattr(default_records, "lz4_encode", lz4_frame)
            topics.send([(1, b"b", RUN + reading % T0_MS, T0_MS)], compression_type="lz4")
        assert daemon.life.end(timeout_s=30) == EXIT_NO_RESTART, daemon.life.tail()
    assert "install lz4 or python-snappy beside recurd" in daemon.life.tail(5)


@pytest.fixture
def topics(broker: DevBroker, unique: Callable[[str], str]) -> Topics:
    return Topics.create(broker.bootstrap, unique("clients"), PARTITIONS)


# -- counters -----------------------------------------------------------------------------------------------------------------

#: Readings that a row has seen, and offsets: around every width a counter might wrongly have.
COUNTS = (10**9 - 4, 2**31 - 4, 2**32 - 4, 2**53 - 4, 2**62)
FEW = 50_000  # by now every running mean has its final rate
ENGINE = examples.settings(hidden=8, horizon=4, context=16)
CHAIN = examples.settings(kind="chain")


def grown(pipeline: Pipeline, count: int, offset: int) -> Pipeline:
    """The pipeline as if its rows had seen `count` readings by `offset`: through the bytes of a checkpoint."""
    table, epoch = pipeline.table, pipeline.epoch
    ids, rows = table.block(0)
    rows = rows.copy()
    rows["count"] = count
    rows["applied_offset"] += offset - pipeline.next_offset
    mark = blocks.decode_mark(blocks.encode_mark(Mark(2**40, offset, epoch.first_offset, 0, len(rows))))
    restored = StateTable(table.dtype, table.slots.capacity)
    restored.load(*blocks.living_rows([blocks.encode_block(0, 0, ids, rows)], mark, table.dtype))
    assert blocks.parse_metadata(blocks.mark_metadata(mark)) == (mark.sequence, offset)
    return Pipeline(0, [epoch], Engines({}.get), Restored(restored, mark.born, epoch, mark.offset))


def some(first: int, offset: int, n: int = 60) -> list[Any]:
    """Records of three streams from the first-th minute on."""
    rng = random.Random(first)
    return [
        examples.record(offset + i, (f"s-{i % 3}", examples.T0_MS + (first + i) * examples.MINUTE_MS, rng.gauss(20, 3)))
        for i in range(n)
    ]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("offset", [2**31 - 30, 2**32 - 30, 2**53])
def test_large_counters_change_no_forecast(count: int, offset: int) -> None:
    """A row that has seen billions of readings at offsets in the billions forecasts as one that has seen thousands."""
    pipeline = Pipeline(0, [examples.epoch(ENGINE)], Engines({}.get))
    pipeline.process(some(0, 0))
    few, many = grown(pipeline, FEW, 60), grown(pipeline, count, offset)
    expected, outcome = few.process(some(60, 60)), many.process(some(60, offset))
    assert [message.value for message in outcome.forecasts] == [message.value for message in expected.forecasts]
    assert [dict(message.headers)["source"] for message in outcome.forecasts] == [b"0,%d,0" % (offset + i) for i in range(60)]
    rows = many.table.rows(0, 3)
    assert rows["count"].tolist() == [count + 20] * 3
    assert rows["applied_offset"].tolist() == [offset + 57, offset + 58, offset + 59]
    assert many.next_offset == offset + 60


@pytest.mark.parametrize("count", COUNTS)
def test_large_counters_keep_the_step_of_thinning(count: int) -> None:
    """`emit_every` goes on in step, and the chain's digest does not depend on the count."""
    engine = CHAIN.model_copy(update={"emit_every": 7})
    pipeline = Pipeline(0, [examples.epoch(engine, version="chain")], Engines({}.get))
    pipeline.process(some(0, 0))
    many = grown(pipeline, count, 2**40)
    outcome = many.process(some(60, 2**40))
    emitted = [i for i in range(60) if (count + i // 3) % 7 == 0]
    assert [dict(message.headers)["source"] for message in outcome.forecasts] == [b"0,%d,0" % (2**40 + i) for i in emitted]
    assert outcome.drops["thinned"] == 60 - len(emitted)


def test_extremes_pass_without_a_trace_in_others() -> None:
    """The largest magnitudes and the first and last year are sound: no error, no warning, finite in time, alone with it."""
    times = [-62_135_596_800_000, 200_000_000_000, examples.T0_MS, 253_402_300_700_000]
    values = [1e15, -1e15, 5e-324, 0.0, -0.0, 1e-300, 1e15]
    odd = [("odd", time_ms + i * 1000, value) for time_ms in times for i, value in enumerate(values)]
    calm = [("calm", examples.T0_MS + i * examples.MINUTE_MS, 20.0 + i % 5) for i in range(len(odd))]
    alone = Pipeline(0, [examples.epoch(ENGINE)], Engines({}.get))
    expected = alone.process([examples.record(2 * i + 1, reading) for i, reading in enumerate(calm)])
    both = Pipeline(0, [examples.epoch(ENGINE)], Engines({}.get))
    mixed = [reading for pair in zip(odd, calm, strict=True) for reading in pair]
    outcome = both.process([examples.record(i, reading) for i, reading in enumerate(mixed)])
    assert len(outcome.forecasts) == len(mixed)
    assert [message for message in outcome.forecasts if message.key == b"calm"] == expected.forecasts
    for message in outcome.forecasts:
        text = json.dumps(json.loads(message.value or b""))
        assert "null" not in text.replace('"anomaly_score": null', "").replace('"interval_ms": null', ""), text
