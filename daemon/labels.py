"""The labels that many_to_one is trained on: what stands at `input.label` of a record's elements. Serving never looks there."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from config.settings import Settings, SettingsError
from daemon.errors import OperatorError
from daemon.records import Record

_parse = msgspec.json.Decoder().decode


class Labels:
    """Reads labels of records that decode.

    Raises:
        SettingsError: The settings ask for labels and do not say where they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.input.label.split(".")
        self._classes = {label: float(place) for place, label in enumerate(settings.model.labels)}
        if not settings.input.label:
            raise SettingsError(
                f'model.predicts = "{settings.model.predicts}" is trained on labels: name their field in input.label, '
                'such as input.label = "state".'
            )

    def of(self, record: Record) -> list[float]:
        """A label for each element of a record: a number, or a class by its place in `model.labels`; NaN is none.

        Raises:
            OperatorError: It is no number, or none of the classes.
        """
        document = _parse(record.value or b"null")
        return [self._label(element, record) for element in (document if isinstance(document, list) else [document])]

    def _label(self, element: Any, record: Record) -> float:
        for name in self._path:
            element = element.get(name) if isinstance(element, dict) else None
        if element is None or element == "":
            return math.nan
        if self._classes:
            return self._class(element if isinstance(element, str) else json.dumps(element), record)
        try:
            return float(element)
        except (TypeError, ValueError):
            raise OperatorError(f"{_place(record)}: the label {element!r} is no number: set model.predicts to class?") from None

    def _class(self, label: str, record: Record) -> float:
        if label not in self._classes:
            known = ", ".join(self._classes)
            raise OperatorError(f"{_place(record)}: the label {label!r} is none of model.labels ({known}): name it there.")
        return self._classes[label]


def _place(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"
