"""Readings that compiled loops read many at once: as the parser reads each alone, and without it where they are ordinary."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import InputSettings
from daemon.codec import Decoder
from daemon.records import Reading, Record
from tests.property.test_codec_laws import (
    DECODER,
    TIMESTAMP_MS,
    flat,
    keys,
    literals,
    number_literals,
    outcome,
    several,
    texts,
    timestamps,
)

spaces = st.sampled_from(["", "", "", " ", "\t\r\n "])
ordinary_numbers = st.one_of(
    number_literals,
    st.decimals(-(10**6), 10**6, places=3).map(str),
    st.floats(-1e3, 1e3).map(repr),
    st.tuples(st.integers(0, 10**20), st.integers(0, 10**20), st.integers(-30, 20)).map(
        lambda part: f"{part[0]}.{part[1]}e{part[2]}"
    ),
    st.sampled_from(["-0.0", "-0", "01", "1.", ".5", "+1", "1e", "1e+", "0e5", "1E-7", "999999999999999.9", "1e00007"]),
)
ordinary_times = st.one_of(
    number_literals,
    st.integers(-(10**14), 10**15).map(str),
    st.decimals(-(10**11), 10**11, places=4).map(str),
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda time: f'"{time.isoformat()}Z"'),
    st.from_regex(r'"(19|20|00)[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,7})?Z?"', fullmatch=True),
)
ordinary_streams = st.one_of(st.from_regex(r'"[ -!#-\[\]-~]{0,12}"', fullmatch=True), texts.map(json.dumps))


@st.composite
def ordinary(draw: st.DrawFn) -> bytes:
    """Readings much as sensors write them, some of them damaged."""
    objects = []
    for _ in range(draw(st.integers(1, 3))):
        pairs = [("stream", draw(ordinary_streams)), ("time", draw(ordinary_times)), ("value", draw(ordinary_numbers))]
        pairs += draw(
            st.lists(
                st.tuples(st.sampled_from(["unit", "x", "value", "time"]), st.one_of(literals, ordinary_numbers)), max_size=1
            )
        )
        gap = draw(spaces)
        members = [f'{gap}"{name}"{gap}:{gap}{literal}{gap}' for name, literal in draw(st.permutations(pairs))]
        objects.append(f"{gap}{{{','.join(members)}}}{gap}")
    value = objects[0] if len(objects) == 1 and draw(st.booleans()) else f"[{','.join(objects)}]"
    damage = draw(st.integers(-20, len(value)))  # usually none
    if damage >= 0:
        value = (
            value[:damage]
            + draw(st.sampled_from(["", ",", "}", '"', "\\", "\x7f", "é", "1"]))
            + value[damage + draw(st.integers(0, 1)) :]
        )
    return value.encode("utf-8", "surrogatepass")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(keys, st.one_of(ordinary(), ordinary(), several(flat)), timestamps), max_size=6))
def test_many_records_at_once_are_each_decoded_as_alone(log: list[tuple[bytes | None, bytes, int]]) -> None:
    """What compiled loops read is what the parser reads, to the bit, and what it refuses is refused."""
    records = [Record("readings", 0, 5 + 2 * at, stamp, key, value) for at, (key, value, stamp) in enumerate(log)]
    decoded, dead = DECODER.decode_all(records)
    found: list[list[Reading]] = [[] for _ in records]
    for place, stream, time_ms, values in zip(
        decoded.record, decoded.streams, decoded.time_ms.tolist(), decoded.values.tolist(), strict=True
    ):
        found[place].append(Reading(stream, time_ms, tuple(values)))
    refused = {letter.record.offset: (letter.reason, letter.element) for letter in dead}
    for record, readings in zip(records, found, strict=True):
        assert outcome(DECODER, record) == refused.get(record.offset, ("readings", repr(readings)))
    assert decoded.element.tolist() == [element for readings in found for element in range(len(readings))]
    assert decoded.offset.tolist() == [records[place].offset for place in decoded.record]
    assert decoded.timestamp_ms.tolist() == [records[place].timestamp_ms for place in decoded.record]


@pytest.mark.parametrize("channels", [60, 61, 62, 64, 66, 128])
def test_channels_beyond_the_bits_of_a_number_are_each_required(channels: int) -> None:
    """However many channels there are, a reading that lacks some is refused."""
    names = [f"c{channel}" for channel in range(channels)]
    decoder = Decoder(InputSettings(values={name: name for name in names}))
    whole, first, last = (
        json.dumps({"stream": "a", **dict.fromkeys(some, 1.5)}).encode() for some in (names, names[:2], names[-2:])
    )
    decoded, dead = decoder.decode_all(
        [Record("r", 0, at, TIMESTAMP_MS, None, value) for at, value in enumerate((whole, first, last))]
    )
    assert decoded.values.tolist() == [[1.5] * channels]
    assert [(letter.record.offset, letter.reason) for letter in dead] == [(1, "type"), (2, "type")]


@pytest.mark.parametrize("channels", [1, 2, 10])
def test_shortest_readings_fill_the_room_made_for_them(channels: int) -> None:
    """The fewest bytes a reading, and numbers that are rounded one by one: none is lost, many channels take no more room."""
    names = "abcdefghij"[:channels]
    decoder = Decoder(InputSettings(stream="s", values={name: name for name in names}, max_elements=1000))
    for number in ("0", "1e-99"):
        reading = '{"s":"x",' + ",".join(f'"{name}":{number}' for name in names) + "}"
        records = [Record("r", 0, at, at, None, f"[{','.join([reading] * 1000)}]".encode()) for at in range(3)]
        tracemalloc.start()
        decoded, dead = decoder.decode_all(records)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not dead
        assert decoded.values.tolist() == [[float(number)] * channels] * 3000
        assert number != "0" or taken < 10 * sum(len(record.value or b"") for record in records) + 1_000_000


def test_integers_beside_the_largest_exact_one_are_rounded_as_by_the_parser() -> None:
    """From 2^53 on a float64 holds no more every integer, and a power of ten would round a second time."""
    literals = [f"{2**53 + beside}e-{power}" for beside in range(-3, 4) for power in range(1, 23)]
    records = [Record("r", 0, at, 0, None, f'{{"stream":"a","value":{text}}}'.encode()) for at, text in enumerate(literals)]
    assert DECODER.decode_all(records)[0].values[:, 0].tolist() == list(map(float, literals))


def test_ordinary_readings_take_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings as sensors write them are read by the compiled loop alone."""
    values = [
        b'{"stream":"pump-7","time":1795514400.25,"value":21.4}',
        b'[{"stream": "pump 7", "time": "2026-11-24T10:00:00.25Z", "value": -2e-3},'
        b' {"value":null,"unit":"K","stream":"a","ok":true}]',
        b' {"stream":"b","value":0.30000000000000004,"raw":-12.5e3}\n',
    ]
    expected = [DECODER.decode(Record("r", 0, at, TIMESTAMP_MS, None, value)) for at, value in enumerate(values)]
    monkeypatch.setattr(Decoder, "decode", None)
    decoded, dead = DECODER.decode_all([Record("r", 0, at, TIMESTAMP_MS, None, value) for at, value in enumerate(values)])
    assert not dead
    rows = zip(decoded.streams, decoded.time_ms.tolist(), map(tuple, decoded.values.tolist()), strict=True)
    assert repr([tuple(reading) for readings in expected for reading in readings]) == repr(list(rows))
