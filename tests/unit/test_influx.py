"""Influx line protocol: the examples of its reference page, and what must be refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import InputSettings
from daemon.codec import Decoder
from daemon.errors import BadRecord
from daemon.records import Reading, Record

NOW_MS = 1_700_000_000_000
AT = 1_556_813_561_098


def decode(lines: str | bytes, timestamp_ms: int = NOW_MS, **settings: Any) -> list[Reading]:
    value = lines.encode() if isinstance(lines, str) else lines
    return Decoder(InputSettings(format="influx", **settings)).decode(Record("in", 0, 0, timestamp_ms, b"key", value))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("myMeasurement fieldKey=1.0", [("myMeasurement:fieldKey", NOW_MS, 1.0)]),
        ("myMeasurement fieldKey=1", [("myMeasurement:fieldKey", NOW_MS, 1.0)]),
        ("myMeasurement fieldKey=-1.234456e+78", None),  # beyond what is a measurement
        ("myMeasurement fieldKey=-1.234456e+7", [("myMeasurement:fieldKey", NOW_MS, -12344560.0)]),
        ("myMeasurement fieldKey=1i", [("myMeasurement:fieldKey", NOW_MS, 1.0)]),
        ("myMeasurement fieldKey=12485903i", [("myMeasurement:fieldKey", NOW_MS, 12485903.0)]),
        ("myMeasurement fieldKey=-12485903i", [("myMeasurement:fieldKey", NOW_MS, -12485903.0)]),
        ("myMeasurement fieldKey=1u", [("myMeasurement:fieldKey", NOW_MS, 1.0)]),
        ('myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue",a=2 1556813561098000000',
         [("myMeasurement,tag1=value1,tag2=value2:a", AT, 2.0)]),
        (r"my\ Measurement fieldKey=1", [("my Measurement:fieldKey", NOW_MS, 1.0)]),
        (r'myMeasurement fieldKey="\"string\" within a string",a=1', [("myMeasurement:a", NOW_MS, 1.0)]),
        (r"myMeasurement,tag\ Key1=tag\ Value1,tagKey2=tagValue2 fieldKey=100",
         [("myMeasurement,tag Key1=tag Value1,tagKey2=tagValue2:fieldKey", NOW_MS, 100.0)]),
        ('myMeasurement,tagKey=🍭 fieldKey="Launch 🚀",n=3 1556813561098000000', [("myMeasurement,tagKey=🍭:n", AT, 3.0)]),
        ("# a comment\n\ncpu,host=b value=1.5 1556813561098\r\ncpu,host=a value=2 1556813561\n",
         [("cpu,host=b", AT, 1.5), ("cpu,host=a", 1_556_813_561_000, 2.0)]),
        ("cpu,b=2,a=1 value=1", [("cpu,a=1,b=2", NOW_MS, 1.0)]),
        ("cpu,stream=pump-7 value=1,other=3", [("pump-7", NOW_MS, 1.0)]),
        ("cpu user=1,system=2i,on=true 1556813561098000", [("cpu:user", AT, 1.0), ("cpu:system", AT, 2.0)]),
        (r"weather,location=us\,midwest value=82", [("weather,location=us,midwest", NOW_MS, 82.0)]),
        (r"weather,loc\=ation=us value=82", [("weather,loc=ation=us", NOW_MS, 82.0)]),
        (r"weather value=82,path=\\n", None),
        ('a s="two\nlines",value=1\nb value=2', [("a", NOW_MS, 1.0), ("b", NOW_MS, 2.0)]),
    ],
)  # fmt: skip
def test_examples(line: str, expected: list[tuple[str, int, float]] | None) -> None:
    """Lines of the reference page and their kin: streams, times and numbers."""
    if expected is None:
        with pytest.raises(BadRecord):
            decode(line)
    else:
        assert [(one.stream, one.time_ms, one.values[0]) for one in decode(line)] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("myMeasurement fieldKey=12485903u", [("myMeasurement:fieldKey", NOW_MS, 12485903.0)]),
        (r"myMeasurement,tag\ Key1=tag\ Value1,tag\ Key2=tag\ Value2 fieldKey=100",
         [("myMeasurement,tag Key1=tag Value1,tag Key2=tag Value2:fieldKey", NOW_MS, 100.0)]),
        (r"foo,aB=y,a\ b=x value=99", [("foo,a b=x,aB=y", NOW_MS, 99.0)]),  # canonical form: by the keys without escapes
        (r"my\=Measurement,a\=b=c\=d x\=y=1", [(r"my\=Measurement,a=b=c=d:x=y", NOW_MS, 1.0)]),  # no escape in a measurement
        (r'm,tag=a\b\\c s="a\\",t="\\\"",n=1', [(r"m,tag=a\b\\c:n", NOW_MS, 1.0)]),  # in strings alone \\ is one backslash
        ("# This is a comment\n \r\n\r\nm value=1\r\nm value=2 \r\n", [("m", NOW_MS, 1.0), ("m", NOW_MS, 2.0)]),
        ("  # a comment\n  m  value=1  1556813561098000000  ", [("m", AT, 1.0)]),
        ('"m",\'t\'="x" "f"=1', [('"m",\'t\'="x":"f"', NOW_MS, 1.0)]),  # quotes are part of names
        ("m value=1 -1556813561098000000", [("m", -AT, 1.0)]),
    ],
)  # fmt: skip
def test_what_the_reference_says(line: str, expected: list[tuple[str, int, float]]) -> None:
    """Escapes, quotes, comments and whitespace as the reference page has them."""
    assert [(one.stream, one.time_ms, one.values[0]) for one in decode(line)] == expected


@pytest.mark.parametrize(
    "line", ['fieldKey="this is a string"', 'fieldKey="fieldValue" 1556813561098000000', r'fieldKey="\"a\" b"']
)
def test_strings_of_the_reference_are_sound_and_no_readings(line: str) -> None:
    """A record of strings alone is refused for having no number, not for its syntax."""
    with pytest.raises(BadRecord, match="no number in it"):
        decode(f"my\\ Measurement {line}")


@pytest.mark.parametrize("limit", ["-9223372036854775808i", "9223372036854775807i", "18446744073709551615u"])
def test_limits_of_integers(limit: str) -> None:
    """They are sound; as a measurement they are beyond what a value may be."""
    assert decode(f"m value=1,other={limit}")[0].values == (1.0,)
    with pytest.raises(BadRecord, match=r"is beyond 1e\+15"):
        decode(f"m value={limit}")


@pytest.mark.parametrize("word", ["t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"])
def test_booleans(word: str) -> None:
    """One or zero where a setting names their field."""
    assert decode(f"myMeasurement fieldKey={word}", value="fieldKey")[0].values == (float(word[0] in "tT"),)


@pytest.mark.parametrize("start", ["m,a=x", "m a=x"])
def test_a_bad_line_takes_no_time(start: str) -> None:
    """An escape is read in one way: a short line with many of them, and a mistake at its end, once took hours."""
    with pytest.raises(BadRecord, match="no line of line protocol"):
        decode(start + r"\,b\=y" * 40 + " !")


def test_settings_name_tag_and_field() -> None:
    """The tag that is the stream and the field that is the value may have any name."""
    line = r"cpu,ho\ st=a,region=eu usage\ idle=97.5,usage_user=2 1556813561098000000"
    assert decode(line, stream="ho st", value="usage idle") == [Reading("a", AT, (97.5,))]


def test_channels_are_fields() -> None:
    """With several channels a line is one reading; absent fields are missing, lines with none are no readings."""
    values = {"idle": "usage_idle", "on": "on"}
    first, second = decode("cpu usage_idle=1,on=t\ncpu other=1\ncpu usage_idle=2", values=values)
    assert first.values == (1.0, 1.0)
    assert (second.values[0], str(second.values[1])) == (2.0, "nan")


@pytest.mark.parametrize(
    ("lines", "reason", "index"),
    [
        ("cpu", "syntax", 0),
        ("cpu value=", "syntax", 0),
        ("cpu value=1 12x", "syntax", 0),
        ("cpu value=1\ncpu value=x", "syntax", 1),
        ("cpu,host value=1", "syntax", 0),
        ("cpu, value=1", "syntax", 0),
        ("cpu,host= value=1", "syntax", 0),
        (r"cpu,host=a\ value=1", "syntax", 0),
        ("cpu value=TrUe", "syntax", 0),
        ("cpu value=-1u", "syntax", 0),
        ("cpu value='x'", "syntax", 0),
        ('cpu value=1 "1556813561098000000"', "syntax", 0),
        ('cpu value="open', "syntax", 0),
        (b"cpu value=1\xff", "syntax", 0),
        ('cpu s="x"', "type", 0),
        ("# nothing", "type", 0),
        ("cpu value=1e16", "value", 0),
        ("cpu value=1e999", "value", 0),
        ("cpu value=1 9999999999999999999999", "time", 0),
        ("__recurd value=1", "stream_id", 0),
        ("a value=1\n" * 1001, "type", 1000),
    ],
)
def test_what_is_refused(lines: str | bytes, reason: str, index: int) -> None:
    """Each is a dead letter with its reason and line."""
    with pytest.raises(BadRecord) as caught:
        decode(lines)
    assert (caught.value.reason, caught.value.index) == (reason, index)


def test_line_without_a_time_needs_a_timestamp() -> None:
    """Without one it has no time."""
    with pytest.raises(BadRecord, match="neither the line nor the record"):
        decode("cpu value=1", timestamp_ms=-1)


@given(st.binary(min_size=1, max_size=60) | st.text('ab,= \\"#\n1.eit', min_size=1, max_size=40).map(str.encode))
def test_anything_decodes_or_is_refused(data: bytes) -> None:
    """No bytes raise anything else, and what decodes gives sound readings."""
    try:
        readings = decode(data)
    except BadRecord:
        return
    assert all(one.stream and len(one.values) == 1 for one in readings)
