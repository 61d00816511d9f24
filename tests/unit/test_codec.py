"""The codec: which bytes are readings, what is said of the others, and the exact bytes that go out."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import numpy as np
import pytest

from config.settings import InputSettings, SettingsError
from daemon import codec
from daemon.codec import Decoder, encode, format_time, six_digits, source_header
from daemon.errors import REASONS, BadRecord
from daemon.parsing import MAX_DEPTH
from daemon.records import Reading, Record
from models.engine import QuantileForecasts
from tests.bad_input import CASES, NOON_MS, BadInput, bad_records, padded


def record(value: bytes | None, key: bytes | None = b"pump-7", timestamp_ms: int = NOON_MS) -> Record:
    return Record("readings", 3, 41, timestamp_ms, key, value)


def decode(value: Any, /, key: bytes | None = b"pump-7", timestamp_ms: int = NOON_MS, **settings: Any) -> list[Reading]:
    """The readings of bytes, or of something that is dumped to JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Decoder(InputSettings(**settings)).decode(record(data, key, timestamp_ms))


def refusal(value: Any, /, key: bytes | None = b"pump-7", timestamp_ms: int = NOON_MS, **settings: Any) -> BadRecord:
    with pytest.raises(BadRecord) as caught:
        decode(value, key, timestamp_ms, **settings)
    return caught.value


def time_ms(time: Any) -> int:
    return decode({"stream": "a", "time": time, "value": 1})[0].time_ms


def test_one_object() -> None:
    """An object is one reading."""
    expected = [Reading("pump-8", NOON_MS, (21.4,))]
    assert expected == decode({"stream": "pump-8", "time": "2026-11-24T10:00:00Z", "value": 21.4})
    assert type(decode({"stream": "pump-8", "value": 21.4})[0]) is Reading


def test_list_of_objects() -> None:
    """A list is readings in its order, of one stream or of several."""
    elements = [{"stream": stream, "time": NOON_MS + i, "value": i} for i, stream in enumerate("aab")]
    assert [Reading("a", NOON_MS, (0.0,)), Reading("a", NOON_MS + 1, (1.0,)), Reading("b", NOON_MS + 2, (2.0,))] == decode(
        elements
    )


def test_key_and_timestamp_stand_in() -> None:
    """Without a stream field the key is the id, without a time the record's timestamp is the time."""
    assert [Reading("pumpe-ü", 7, (1.0,)), Reading("pumpe-ü", 7, (2.0,))] == decode(
        [{"value": 1}, {"value": 2}], key="pumpe-ü".encode(), timestamp_ms=7
    )


def test_key_is_not_asked_when_the_stream_is_there() -> None:
    """A key that is no id harms no reading that names its stream."""
    assert decode({"stream": "a", "value": 1}, key=b"\xff")[0].stream == "a"


def test_no_timestamp_and_no_time() -> None:
    """A record without a timestamp cannot stand in for a missing time."""
    error = refusal([{"value": 1, "time": 5}, {"value": 1}], timestamp_ms=-1)
    assert (error.reason, error.index) == ("time", 1)


@pytest.mark.parametrize("timestamp_ms", [codec.FIRST_TIME_MS - 1, codec.LAST_TIME_MS + 1])
def test_timestamp_beyond_all_years(timestamp_ms: int) -> None:
    """A timestamp that stands in must be a time as well."""
    assert refusal({"value": 1}, timestamp_ms=timestamp_ms).reason == "time"


def test_null_is_a_missing_value() -> None:
    """A null value is read, as NaN."""
    assert math.isnan(decode({"value": None})[0].values[0])


def test_ignored_fields() -> None:
    """Fields that no setting names may hold anything that is JSON."""
    assert decode({"value": 1, "unit": "°C", "raw": [[[{}]], 1e300, None, True], "values": "x"})[0].values == (1.0,)
    assert decode(b'{"value": 1, "huge": 1e400}')[0].values == (1.0,)


def test_last_of_repeated_keys() -> None:
    """Of a key that repeats in an object the last one counts."""
    assert decode(b'{"value": 1, "value": 2}')[0].values == (2.0,)


def test_field_mapping() -> None:
    """Dotted paths reach into nested objects; the channels keep the order of the settings."""
    value = {"device": {"id": "pump-7", "at": {"t": NOON_MS}}, "values": {"temp": 21.4, "rh": None, "spare": "x"}, "p": 3}
    mapping: dict[str, Any] = {
        "stream": "device.id",
        "time": "device.at.t",
        "values": {"p": "p", "rh": "values.rh", "temp": "values.temp"},
    }
    (reading,) = decode(value, **mapping)
    assert reading[:2] == ("pump-7", NOON_MS)
    assert repr(reading.values) == "(3.0, nan, 21.4)"


def test_field_names_of_any_kind() -> None:
    """Fields are named as in JSON: spaces, other scripts, Python's keywords, our own attribute names."""
    value = {"class": {"f1": "a"}, "f0": NOON_MS, "messwert [°C]": 2}
    assert [Reading("a", NOON_MS, (2.0,))] == decode(value, stream="class.f1", time="f0", value="messwert [°C]")


@pytest.mark.parametrize("device", [{}, {"at": 5}, None])
def test_nested_stream_absent(device: dict[str, int] | None) -> None:
    """A path is absent when any of its objects is; what is there must still be an object."""
    value = {"value": 1} | ({} if device is None else {"device": device})
    assert decode(value, stream="device.id", time="device.at")[0].stream == "pump-7"
    assert refusal({"value": 1, "device": None}, stream="device.id").reason == "type"


@pytest.mark.parametrize("values", [{}, {"temp": 1}, {"temp": 1, "rh": "2"}, {"temp": 1, "rh": [2]}, [1, 2], 1, None])
def test_channels_are_all_required(values: Any) -> None:
    """A missing channel, or a list or number in place of the channels, is of the wrong width."""
    error = refusal([{"values": {"temp": 1, "rh": 2}}, {"values": values}], values={"temp": "values.temp", "rh": "values.rh"})
    assert (error.reason, error.index) == ("type", 1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"stream": "a", "value": "a.b"}, "input.value"),
        ({"stream": "id", "time": "id"}, "input.time"),
        ({"values": {"x": "v", "y": "v"}}, "input.values.y"),
        ({"values": {"x": "time.v"}}, "input.values.x"),
        ({"value": "a..b"}, "input.value"),
        ({"time": 'a"b'}, "input.time"),
        ({"stream": "."}, "input.stream"),
    ],
)
def test_mapping_that_contradicts_itself(settings: dict[str, Any], named: str) -> None:
    """Two settings that name one field, or a path that is none, are a settings mistake that names the key."""
    with pytest.raises(SettingsError, match=named):
        Decoder(InputSettings(**settings))


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-24T10:00:00Z", NOON_MS),
        ("2026-11-24t10:00:00z", NOON_MS),
        ("2026-11-24 10:00:00Z", NOON_MS),
        ("2026-11-24T10:00:00", NOON_MS),
        ("2026-11-24T12:30:00+02:30", NOON_MS),
        ("2026-11-24T10:00:00.0014Z", NOON_MS + 1),
        ("2026-11-24T10:00:00.0015Z", NOON_MS + 2),
        ("2026-11-24T10:00:00.000499Z", NOON_MS),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1969-12-31T23:59:59.9995", 0),
        ("0001-01-01T00:00:00Z", codec.FIRST_TIME_MS),
        ("9999-12-31T23:59:59.999Z", codec.LAST_TIME_MS),
        (0, 0),
        (-1.5, -1500),
        (1_795_514_400, NOON_MS),
        (1_795_514_400.0015, NOON_MS + 2),
        (1_795_514_400_000, NOON_MS),
        (1_795_514_400_000.6, NOON_MS + 1),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (-100_000_000_000, -100_000_000_000),
        (-62_135_596_800, codec.FIRST_TIME_MS),
        (253_402_300_799_999, codec.LAST_TIME_MS),
    ],
)
def test_time(time: Any, expected: int) -> None:
    """RFC 3339, epoch seconds, or epoch milliseconds from 1e11 on become the nearest millisecond; no zone is UTC."""
    assert expected == time_ms(time)


@pytest.mark.parametrize("literal", ["1e15", "-1e15", "1000000000000000", "999999999999999.9", "0", "-0.0", "5e-324"])
def test_values_within_bounds(literal: str) -> None:
    """Magnitudes up to 1e15 are values."""
    assert decode(b'{"value": %s}' % literal.encode())[0].values == (float(literal),)


@pytest.mark.parametrize(
    "stream", ["a", " ", "a" * 256, "😀" * 256, "_recurd", "__Recurd", "a\u00a0b", "\u200d", "\U000e0001", "x/y z"]
)
def test_ids_allowed(stream: str) -> None:
    """An id is 1 to 256 characters of any script, spaces and invisible ones included."""
    assert decode({"stream": stream, "value": 1})[0].stream == stream
    assert decode({"value": 1}, key=stream.encode())[0].stream == stream


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str) -> None:
    """Every kind of bad input is refused for its own reason, and the element at fault is named."""
    inputs = [bad for seed in range(8) for bad in bad_records(seed, len(CASES) * 3, 8192, 100) if bad.case == case]
    decoder = Decoder(InputSettings(max_bytes=8192, max_elements=100))
    for bad in inputs:
        assert {"future"} == bad.reasons or refused_as_expected(decoder, bad)
    assert inputs


def refused_as_expected(decoder: Decoder, bad: BadInput) -> bool:
    with pytest.raises(BadRecord) as caught:
        decoder.decode(bad.record())
    assert caught.value.reason in bad.reasons, (bad, str(caught.value))
    assert bad.element == caught.value.index, (bad, str(caught.value))
    return bool(str(caught.value))


def test_bad_inputs_of_full_size() -> None:
    """The large inputs are refused at the default limits too."""
    bad = [bad for bad in bad_records(0, len(CASES)) if len(bad.value or b"") > 10_000]
    assert all(refused_as_expected(Decoder(InputSettings()), one) for one in bad)
    assert max(len(one.value or b"") for one in bad) > 1_048_576


def test_future_decodes() -> None:
    """A reading from 2099 is sound here: whether it is from the future is judged against the record, elsewhere."""
    (future,) = [bad for bad in bad_records(0, len(CASES)) if bad.case == "future"]
    assert decode(future.value)[0].time_ms == 4_070_908_800_000


def test_generator_covers_its_cases() -> None:
    """`bad_records` is a function of its arguments, holds every case, and large inputs stay rare."""
    bad = bad_records(7, 2000)
    assert bad == bad_records(7, 2000)
    assert bad != bad_records(8, 2000)
    assert set(CASES) == {one.case for one in bad}
    assert set().union(*(one.reasons for one in bad)) == set(REASONS) - {"late", "duplicate"}
    assert sum(len(one.value or b"") > 100_000 for one in bad) < 20


def test_largest_record_is_read() -> None:
    """A value of exactly `input.max_bytes` is read."""
    assert len(decode(padded(b'{"value": 1}', 4096), max_bytes=4096)) == 1
    assert refusal(padded(b'{"value": 1}', 4097), max_bytes=4096).reason == "too_large"


def test_most_elements_are_read() -> None:
    """A list of exactly `input.max_elements` is read."""
    assert len(decode([{"value": 1}] * 7, max_elements=7)) == 7
    error = refusal([{"value": 1}] * 8, max_elements=7)
    assert (error.reason, error.index) == ("type", 7)


def test_depth_has_a_fixed_limit() -> None:
    """Exactly `MAX_DEPTH` levels are read, wherever they are and whatever strings look like brackets."""
    for deepest, accepted in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False)):
        for noise in ("", '"]}]}", "\\"]]", "\\\\", "}",'):
            value = f'{{"value": 1, "x": [{noise} {"[" * (deepest - 1)}{"]" * (deepest - 1)}], "pad": "{"]" * 300}"}}'.encode()
            if accepted:
                assert len(decode(value)) == 1
            else:
                assert refusal(value).reason == "syntax"


def test_brackets_in_strings_are_no_depth() -> None:
    """Any number of brackets in strings is read."""
    assert len(decode({"value": 1, "note": "[" * 5000 + '"' + "{" * 5000 + "\\"})) == 1


def test_many_shallow_objects_are_no_depth() -> None:
    """A long list of readings with nested fields is read."""
    assert len(decode([{"value": 1, "tags": {"a": [1], "b": {"c": []}}}] * 500)) == 500


def test_depth_does_not_hang_on_the_callers_stack() -> None:
    """What becomes of a record is the same at the bottom of a deep stack."""
    value = b'{"value": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}"
    shallow = refusal(value)

    def deep(levels: int) -> BadRecord:
        return refusal(value) if levels == 0 else deep(levels - 1)

    assert (shallow.reason, str(shallow)) == (deep(500).reason, str(deep(500)))


def test_exhausted_stack_is_not_the_records_fault() -> None:
    """Where the caller's own stack is exhausted a sound record is not called bad."""
    raised: list[BaseException] = []

    def into_the_limit(decoder: Decoder, sound: Record) -> None:
        try:
            decoder.decode(sound)
            into_the_limit(decoder, sound)
        except RecursionError:
            pass
        except BadRecord as bad:
            raised.append(bad)

    sound = record(b'{"value": 1, "x": ' + b"[" * 100 + b"]" * 100 + b"}")
    thread = threading.Thread(target=into_the_limit, args=(Decoder(InputSettings()), sound))
    thread.start()
    thread.join()
    assert not raised


def forecasts(quantiles: np.ndarray, interval_ms: int = 60_000, score: float = 1.25, warming: bool = False) -> QuantileForecasts:
    """B equal rows' worth of output around the quantiles (B, T, K, Q)."""
    rows = len(quantiles)
    encoded = {
        "quantiles": quantiles,
        "interval_ms": np.full(rows, interval_ms),
        "anomaly_score": np.full(rows, score),
        "warming": np.full(rows, warming),
    }
    return QuantileForecasts(**dict.fromkeys(QuantileForecasts._fields, np.zeros(rows)) | encoded)


def encode_one(output: QuantileForecasts, targets: tuple[str, ...] = ("value",), levels: tuple[float, ...] = (0.1, 0.5)) -> bytes:
    (encoded,) = encode(output, ["pump-7"], np.array([NOON_MS]), targets, levels, "a1b2")
    return encoded


def test_forecast_bytes() -> None:
    """The forecast record is exactly this JSON."""
    quantiles = np.array([[[1.23456789, 2.0], [1e7, 1.5e7]], [[-0.0, 0.0], [-1.5, 1e-9]]])[None]  # (1, T, K, Q)
    assert encode_one(forecasts(quantiles), ("temp", "rh")) == (
        b'{"stream":"pump-7","time":"2026-11-24T10:00:00.000Z","interval_ms":60000,"model_version":"a1b2","targets":'
        b'{"temp":{"0.1":[1.23457,10000000.0],"0.5":[2.0,15000000.0]},"rh":{"0.1":[0.0,-1.5],"0.5":[0.0,1e-9]}},'
        b'"anomaly_score":1.25,"warming":false}'
    )


def test_forecast_without_interval_and_score() -> None:
    """An unknown interval and a missing score are null."""
    decoded = json.loads(encode_one(forecasts(np.ones((1, 1, 1, 2)), interval_ms=0, score=math.nan, warming=True)))
    assert [decoded[name] for name in ("interval_ms", "anomaly_score", "warming")] == [None, None, True]


def test_numbers_that_are_not_finite() -> None:
    """Whatever an engine puts out, the bytes are JSON: what is not finite is null."""
    decoded = json.loads(encode_one(forecasts(np.array([[[[math.nan, math.inf], [-math.inf, 1.0]]]]), score=math.inf)))
    assert decoded["targets"]["value"] == {"0.1": [None, None], "0.5": [None, 1.0]}
    assert decoded["anomaly_score"] is None


def test_no_rows() -> None:
    """An output of no rows is no records."""
    assert encode(forecasts(np.ones((0, 1, 2, 2))), [], np.zeros(0, np.int64), ["value"], [0.1, 0.5], "a1b2") == []


@pytest.mark.parametrize("shape", [(1, 2, 4, 2), (1, 1, 4, 3), (2, 1, 4, 2)])
def test_output_of_another_shape(shape: tuple[int, ...]) -> None:
    """An output that does not fit the streams, targets and levels is refused, never cut to size."""
    with pytest.raises(ValueError, match="shape"):
        encode_one(forecasts(np.ones(shape)))


@pytest.mark.parametrize("exponent", range(-323, 309))
def test_six_digits_at_powers_of_ten(exponent: int) -> None:
    """On both sides of every power of ten there are six digits, neither five nor seven."""
    power = float(f"1e{exponent}")
    near = [
        power,
        math.nextafter(power, 0),
        math.nextafter(power, math.inf),
        *(power * factor for factor in (0.9999994, 0.9999996)),
    ]
    near += [power * factor for factor in (1.0000049, 1.0000051, 1.234565)] if exponent < 308 else []
    assert [float(f"{number:.5e}") for number in near] == six_digits(np.array(near)).tolist()


def test_six_digits_of_ties() -> None:
    """A tie goes to the even digit of the number's exact decimal, as Python's own formatting does."""
    ties = np.array([100000.5, 100001.5, 123456.5, 1234565.0, 1234575.0, 1.234565, 0.1234575, 999999.5, 9999995.0])
    assert six_digits(ties)[:5].tolist() == [100000.0, 100002.0, 123456.0, 1234560.0, 1234580.0]
    assert [float(f"{number:.5e}") for number in ties.tolist()] == six_digits(ties).tolist()


def test_six_digits_of_nothing() -> None:
    """Zero has no sign, the smallest and the largest float64 are rounded too, the rest is NaN."""
    assert repr(six_digits(np.array([0.0, -0.0])).tolist()) == "[0.0, 0.0]"
    assert six_digits(np.array([5e-324, -5e-324, 1.7976931348623157e308])).tolist() == [5e-324, -5e-324, 1.79769e308]
    assert np.isnan(six_digits(np.array([math.nan, math.inf, -math.inf]))).all()


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (NOON_MS + 7, "2026-11-24T10:00:00.007Z"),
        (codec.FIRST_TIME_MS, "0001-01-01T00:00:00.000Z"),
        (codec.LAST_TIME_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_format_time(time: int, expected: str) -> None:
    """Times are RFC 3339 in UTC with milliseconds, from year 1 to year 9999."""
    assert expected == format_time(time)


def test_source_header() -> None:
    """The header `source` is the input position in ASCII."""
    assert source_header(3, 123456789012, 0) == b"3,123456789012,0"
