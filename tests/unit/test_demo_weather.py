"""The demo's sensors: found without an import, read with their gaps."""

from __future__ import annotations

import math
import sys
from importlib import metadata
from pathlib import Path

import pytest

from daemon import demo_weather
from daemon.codec import Decoder
from daemon.csv_log import read_csv
from daemon.errors import OperatorError
from daemon.records import Record

HEADER = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"
ROWS = (
    "JFK,2013,1,1,2,39.02,26.96,61.63,250,8.05546,NA,0,1012.3,10,2013-01-01T07:00:00Z",
    "EWR,2013,1,1,1,39.02,26.06,59.37,270,10.35702,NA,0,NA,10,2013-01-01T06:00:00Z",
)
FIRST_MS = 1_357_020_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weather.csv"
    path.write_text("\n".join((HEADER, *ROWS)) + "\n")
    return path


def test_the_file_is_found_without_importing_its_package() -> None:
    """The package would load every flight of the year, and pandas."""
    assert demo_weather.locate().is_file()
    assert demo_weather.PACKAGE not in sys.modules


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(OperatorError, match=r'pip install "recurd\[demo\]"'):
        demo_weather.locate()


def test_readings_rise_by_time_and_keep_their_gaps(file: Path) -> None:
    """One reading an airport and hour; NA is missing."""
    first, second = demo_weather.read(file)
    assert (first.stream, first.time_ms) == ("EWR", FIRST_MS)
    assert (second.stream, second.time_ms) == ("JFK", FIRST_MS + 3_600_000)
    assert second.values == (39.02, 1012.3, 61.63, 26.96, 8.05546, 10.0)
    assert [name for name, value in zip(demo_weather.QUANTITIES, first.values, strict=True) if math.isnan(value)] == ["pressure"]


def test_a_reading_is_sent_as_it_is_trained_on(file: Path, tmp_path: Path) -> None:
    """The daemon's decoder reads the same from the wire and from the training file."""
    readings, csv, decode = demo_weather.read(file), tmp_path / "train.csv", Decoder(demo_weather.INPUT).decode
    demo_weather.write_csv(csv, readings)
    sent = [decode(Record("t", 0, 0, -1, None, demo_weather.to_json(each)))[0] for each in readings]
    trained = [decode(record)[0] for record in read_csv(csv, demo_weather.INPUT)]
    assert list(map(repr, sent)) == list(map(repr, readings))
    assert list(map(repr, trained)) == list(map(repr, readings))


def test_sensors_have_a_name_and_a_unit() -> None:
    """A channel of a stream, as the table shows it; airports of one quantity stand together."""
    assert [str(sensor) for sensor in demo_weather.SENSORS[:4]] == ["EWR temp", "JFK temp", "LGA temp", "EWR pressure"]
    assert demo_weather.SENSORS[3].unit == "hPa"
    assert len(set(demo_weather.SENSORS)) == 18
