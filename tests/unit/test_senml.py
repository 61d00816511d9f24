"""SenML packs: the examples of RFC 8428, section 5, and what must be refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.settings import InputSettings
from daemon.codec import Decoder
from daemon.errors import BadRecord
from daemon.pipeline import Pipeline
from daemon.records import Reading, Record
from tests import examples

NOW_MS = 1_700_000_000_000
DEVICE = "urn:dev:ow:10e2073a01080063"


def decode(pack: Any, timestamp_ms: int = NOW_MS, **settings: Any) -> list[Reading]:
    value = pack.encode() if isinstance(pack, str) else json.dumps(pack).encode()
    return Decoder(InputSettings(format="senml", **settings)).decode(Record("in", 0, 0, timestamp_ms, b"key", value))


def test_single_datapoint() -> None:
    """RFC 8428, 5.1.1: a time that is absent is now, which is the record's timestamp."""
    assert decode('[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]') == [Reading(DEVICE, NOW_MS, (23.1,))]


def test_multiple_datapoints() -> None:
    """RFC 8428, 5.1.2, first example: the base name goes on until another one."""
    pack = '[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},{"n":"current","u":"A","v":1.2}]'
    assert decode(pack) == [Reading(f"{DEVICE}:voltage", NOW_MS, (120.1,)), Reading(f"{DEVICE}:current", NOW_MS, (1.2,))]


def test_base_time() -> None:
    """RFC 8428, 5.1.2, second example: times are added to the base time; a unit differs from the base unit."""
    pack = """[
      {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
      {"n":"current","t":-5,"v":1.2},
      {"n":"current","t":-4,"v":1.3},
      {"n":"current","t":-3,"v":1.4},
      {"n":"current","t":-2,"v":1.5},
      {"n":"current","t":-1,"v":1.6},
      {"n":"current","v":1.7}
    ]"""
    voltage, *currents = decode(pack)
    assert voltage == Reading("urn:dev:ow:10e2073a0108006:voltage", 1_276_020_076_001, (120.1,))
    assert [(one.time_ms - 1_276_020_076_001, one.values[0]) for one in currents] == [
        (-5000, 1.2), (-4000, 1.3), (-3000, 1.4), (-2000, 1.5), (-1000, 1.6), (0, 1.7)
    ]  # fmt: skip


def test_a_stream_of_measurements() -> None:
    """RFC 8428, 5.1.2, third example: a record may have a base name alone; the pack is sent on its way and has no end there."""
    pack = """[
      {"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":21.2},
      {"t":10,"v":21.3},
      {"t":20,"v":21.4},
      {"t":30,"v":21.4},
      {"t":40,"v":21.5},
      {"t":50,"v":21.5},
      {"t":60,"v":21.5},
      {"t":70,"v":21.6},
      {"t":80,"v":21.7}"""
    values = (21.2, 21.3, 21.4, 21.4, 21.5, 21.5, 21.5, 21.6, 21.7)
    assert decode(pack + "]") == [Reading(DEVICE, 1_320_067_464_000 + i * 10_000, (value,)) for i, value in enumerate(values)]
    with pytest.raises(BadRecord, match="truncated"):
        decode(pack + ",")


SEVERAL_MEASUREMENTS = """[
  {"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
  {"u":"lon","v":24.30621},
  {"u":"lat","v":60.07965},
  {"t":60,"v":20.3},
  {"u":"lon","t":60,"v":24.30622},
  {"u":"lat","t":60,"v":60.07965},
  {"t":120,"v":20.7},
  {"u":"lon","t":120,"v":24.30623},
  {"u":"lat","t":120,"v":60.07966},
  {"u":"%EL","t":150,"v":98},
  {"t":180,"v":21.2},
  {"u":"lon","t":180,"v":24.30628},
  {"u":"lat","t":180,"v":60.07967}
]"""
RESOLVED = """[
  {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067464e+09,"v":20},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067464e+09,"v":24.30621},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067464e+09,"v":60.07965},
  {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067524e+09,"v":20.3},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067524e+09,"v":24.30622},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067524e+09,"v":60.07965},
  {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067584e+09,"v":20.7},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067584e+09,"v":24.30623},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067584e+09,"v":60.07966},
  {"n":"urn:dev:ow:10e2073a01080063","u":"%EL","t":1.320067614e+09,"v":98},
  {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067644e+09,"v":21.2},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067644e+09,"v":24.30628},
  {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067644e+09,"v":60.07967}
]"""


@pytest.mark.parametrize("pack", [SEVERAL_MEASUREMENTS, RESOLVED])
def test_several_measurements_of_one_name(pack: str) -> None:
    """RFC 8428, 5.1.3, and the same resolved, 5.1.4: one name has humidity, position and charge; each unit is a stream."""
    readings = decode(pack)
    assert len(readings) == 13
    start_ms = 1_320_067_464_000
    assert [(one.time_ms - start_ms, one.values[0]) for one in readings if one.stream == f"{DEVICE}:%RH"] == [
        (0, 20.0), (60_000, 20.3), (120_000, 20.7), (180_000, 21.2)
    ]  # fmt: skip
    assert [one.values[0] for one in readings if one.stream == f"{DEVICE}:lon"] == [24.30621, 24.30622, 24.30623, 24.30628]
    assert [one.values[0] for one in readings if one.stream == f"{DEVICE}:lat"] == [60.07965, 60.07965, 60.07966, 60.07967]
    assert [one for one in readings if one.stream == f"{DEVICE}:%EL"] == [Reading(f"{DEVICE}:%EL", start_ms + 150_000, (98.0,))]


def test_units_as_channels() -> None:
    """RFC 8428, 5.1.3, as readings of several channels: humidity and position of one time are one reading."""
    readings = decode(SEVERAL_MEASUREMENTS, values={"rh": "%RH", "lon": "lon", "lat": "lat"})
    assert [one.values for one in readings][::3] == [(20.0, 24.30621, 60.07965), (21.2, 24.30628, 60.07967)]
    assert {one.stream for one in readings} == {DEVICE}
    assert len(readings) == 4


def test_several_types_of_value() -> None:
    """RFC 8428, 5.1.5: numbers are readings, booleans are 1 and 0, strings and data are none."""
    pack = """[
      {"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},
      {"n":"label","vs":"Machine Room"},
      {"n":"open","vb":false},
      {"n":"nfc-reader","vd":"aGkgCg"}
    ]"""
    assert decode(pack) == [Reading(f"{DEVICE}:temp", NOW_MS, (23.1,)), Reading(f"{DEVICE}:open", NOW_MS, (0.0,))]


def test_collection_of_resources() -> None:
    """RFC 8428, 5.1.6: a new base name keeps the base time."""
    pack = """[
      {"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":25.2},
      {"n":"humidity","u":"%RH","v":30},
      {"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3},
      {"n":"humidity","u":"%RH","v":67}
    ]"""
    assert [(one.stream, one.time_ms, one.values) for one in decode(pack)] == [
        ("2001:db8::2/temperature", 1_320_078_429_000, (25.2,)),
        ("2001:db8::2/humidity", 1_320_078_429_000, (30.0,)),
        ("2001:db8::1/temperature", 1_320_078_429_000, (12.3,)),
        ("2001:db8::1/humidity", 1_320_078_429_000, (67.0,)),
    ]


def test_setting_an_actuator() -> None:
    """RFC 8428, 5.1.7, first example: a record of base fields alone is no reading."""
    pack = '[{"bn":"urn:dev:ow:10e2073a01080063:"},{"n":"temp","v":23.1},{"n":"heat","u":"/","v":1},{"n":"fan","u":"/","v":0}]'
    assert [one.values for one in decode(pack)] == [(23.1,), (1.0,), (0.0,)]


@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        ("""[
           {"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":1},
           {"n":"2001:db8::4","v":1}
         ]""", [("2001:db8::3", 0, 1.0), ("2001:db8::4", 0, 1.0)]),
        ("""[
           {"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":0.5},
           {"n":"2001:db8::4","v":0.5},
           {"n":"2001:db8::3","t":0.1,"v":0},
           {"n":"2001:db8::4","t":0.1,"v":0}
         ]""", [("2001:db8::3", 0, 0.5), ("2001:db8::4", 0, 0.5), ("2001:db8::3", 100, 0.0), ("2001:db8::4", 100, 0.0)]),
    ],
)  # fmt: skip
def test_switching_lights(pack: str, expected: list[tuple[str, int, float]]) -> None:
    """RFC 8428, 5.1.7, second and third example: names without a base name; times to the millisecond."""
    assert [(one.stream, one.time_ms - 1_320_078_429_000, one.values[0]) for one in decode(pack)] == expected


def test_base_value_is_added() -> None:
    """RFC 8428, 4.1: a base value is added to every value after it."""
    assert [one.values for one in decode([{"bn": "a", "bv": 20, "v": 1.5}, {"n": "b", "v": -1}])] == [(21.5,), (19.0,)]


def test_channels_of_one_base_name_and_time_are_one_reading() -> None:
    """With several channels the base name is the stream; what is absent at a time is missing."""
    values = {"temp": "temperature", "rh": "humidity"}
    pack = [{"bn": "room-1/", "bt": 1.32e9, "n": "temperature", "v": 25.2}, {"n": "humidity", "v": 30}, {"n": "x", "v": 1},
            {"n": "temperature", "t": 60, "v": 26}]  # fmt: skip
    first, second = decode(pack, values=values)
    assert first == Reading("room-1", 1_320_000_000_000, (25.2, 30.0))
    assert (second.time_ms, second.values[0], str(second.values[1])) == (1_320_000_060_000, 26.0, "nan")


@pytest.mark.parametrize(
    ("pack", "reason", "index"),
    [
        ("{", "syntax", 0),
        ('[{"n":"a","v":NaN}]', "syntax", 0),
        ('{"n":"a","v":1}', "type", 0),
        ("[" * 200_000, "syntax", 0),
        ("[1]", "type", 0),
        ("[]", "type", 0),
        ([{"n": "a", "vs": "x"}], "type", 0),
        ([{"n": "a", "v": 1}, {"n": "b", "v": "1"}], "type", 1),
        ([{"n": "a", "v": True}], "type", 0),
        ([{"n": 5, "v": 1}], "type", 0),
        ([{"n": "a", "v": 1, "u": 5}], "type", 0),
        ([{"n": "a", "v": 1, "bver": 11}], "type", 0),
        ([{"n": "a", "v": 1, "must_": 1}], "type", 0),
        ([{"v": 1}], "stream_id", 0),
        ([{"n": "-a", "v": 1}], "stream_id", 0),
        ([{"n": "ä", "v": 1}], "stream_id", 0),
        ([{"n": "a", "v": 1}, {"n": "a" * 257, "v": 1}], "stream_id", 1),
        ([{"n": "a", "v": 1e16}], "value", 0),
        ([{"n": "a", "v": 1, "t": 1e15}], "time", 0),
        ([{"n": "a", "v": 1}] * 1001, "type", 1000),
    ],
)  # fmt: skip
def test_what_is_refused(pack: Any, reason: str, index: int) -> None:
    """Each is a dead letter with its reason and place."""
    with pytest.raises(BadRecord) as caught:
        decode(pack)
    assert (caught.value.reason, caught.value.index) == (reason, index)


def test_relative_time_needs_a_timestamp() -> None:
    """Without one there is no now."""
    with pytest.raises(BadRecord, match="relative time"):
        decode([{"n": "a", "v": 1, "t": -5}], timestamp_ms=-1)
    assert decode([{"n": "a", "v": 1, "t": 1 << 28}], timestamp_ms=-1)[0].time_ms == (1 << 28) * 1000


def test_a_pack_goes_through_the_pipeline() -> None:
    """Readings of one pack are elements of its record; a bad one in it makes the pack a dead letter."""
    engine = examples.settings(hidden=8, context=16, horizon=2, format="senml")
    pipeline = Pipeline(0, [examples.epoch(engine)], examples.seeded_engines(engine)[1])
    pack = [{"bn": "room/", "bt": 1.7e9, "n": "t", "v": 20}, {"n": "label", "vs": "x"}, {"n": "rh", "v": 40}]
    bad = [*pack, {"n": "x", "v": "no"}]
    records = [Record("in", 0, i, NOW_MS, None, json.dumps(each).encode()) for i, each in enumerate((pack, bad))]
    outcome = pipeline.process(records)
    assert [(one.key, dict(one.headers)["source"]) for one in outcome.forecasts] == [
        (b"room/t", b"0,0,0"),
        (b"room/rh", b"0,0,1"),
    ]
    assert [(one.record.offset, one.element, one.reason) for one in outcome.dead_letters] == [(1, 3, "type")]
