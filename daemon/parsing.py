"""JSON as the input settings map it: a value parsed into the fields that they name, or what is wrong with it.

Knows JSON and which fields are asked for; what makes a field's content sound is for `daemon.codec` to say, whose rules 3 and 4
are kept here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from config.settings import InputSettings, SettingsError
from daemon.errors import BadRecord

#: The parser recurses; how deep it can depends on the caller's stack, which must not decide what becomes of a record.
MAX_DEPTH = 128
_SHALLOW_BYTES = 2 * MAX_DEPTH  # every level of sound JSON takes two

_ELEMENT = re.compile(r"at `\$\[(\d+)\]")
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_AS_BRACES = bytes.maketrans(b"[]", b"{}")
_NO_BRACES = bytes(set(range(256)) - set(b'{}[]"'))
_skim = msgspec.json.Decoder(msgspec.Raw).decode


class Parser:
    """Parses values of records, as the input settings map their fields.

    `fields` gives of a parsed element its stream (str), its time (datetime or float), each UNSET where it is absent, and then
    each channel in the order of the settings (float, or None for null): a tuple of 2 + C.

    Raises:
        SettingsError: Two settings name one field, or a path that no JSON object of ours can have.
    """

    def __init__(self, settings: InputSettings) -> None:
        leaves = list(_leaves(settings))
        element = _struct("", leaves)
        self.fields = operator.attrgetter(*(leaf.attribute for leaf in leaves))
        self._parse = msgspec.json.Decoder(element | list[element]).decode  # type: ignore[valid-type]

    def parse(self, value: bytes) -> Any:
        """The element that a value is, or a list of those that it holds; `fields` reads them.

        Raises:
            BadRecord: It is no JSON, or none of ours; `index` is the element at fault.
        """
        try:
            if not value.isascii():
                value.decode()  # the parser does not look into strings that it skips
            parsed = self._parse(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _refusal(value, error) from None
        shallow(value)
        return parsed


def shallow(value: bytes) -> bytes:
    """The value itself.

    Raises:
        BadRecord: It nests too deeply.
    """
    if len(value) > _SHALLOW_BYTES and _nests_deeply(value):
        raise _too_deep()
    return value


def _too_deep() -> BadRecord:
    return BadRecord("syntax", f"brackets do not pair or nest deeper than {MAX_DEPTH} levels")


def _refusal(value: bytes, error: Exception) -> BadRecord:
    """What to say of a value that the parser refused.

    The parser stops at the first field of a wrong type, before it has seen whether the rest is JSON. Syntax comes first, so
    that the reason does not hang on the order of fields.
    """
    if isinstance(error, UnicodeDecodeError):
        return BadRecord("syntax", f"not UTF-8: byte {error.start} is {error.object[error.start]:#04x}")
    if _nests_deeply(value):
        return _too_deep()
    if isinstance(error, RecursionError):
        raise error  # the value is shallow: it is the caller's stack that is exhausted
    if not isinstance(error, msgspec.ValidationError):
        return BadRecord("syntax", str(error))
    try:
        _skim(value)
    except msgspec.DecodeError as broken:
        return BadRecord("syntax", str(broken))
    message = str(error)
    element = _ELEMENT.search(message)
    return BadRecord(_reason(message), message, int(element[1]) if element else 0)


def _reason(message: str) -> str:
    """The reason behind a message of the parser about JSON that is no reading."""
    if message.startswith("Number out of range"):
        return "syntax"
    return "time" if message.startswith("Invalid RFC3339") else "type"


def _nests_deeply(value: bytes) -> bool:
    """Whether brackets outside of strings nest deeper than `MAX_DEPTH`, or do not pair and could.

    Peels the innermost pairs off, one level a round, in C: 0.1 us a reading in a list of a thousand. Where it says no, a parser
    meets at most `MAX_DEPTH` open brackets at once, in broken JSON too: up to the first mistake both see the same strings.
    """
    if value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return False
    if b"\\" in value:
        value = _ESCAPE.sub(b"", value)
    # Two quotes with nothing between them can go whichever strings they belong to: no bracket changes sides.
    rest = value.translate(_AS_BRACES, _NO_BRACES).replace(b'""', b"")
    if b'"' in rest:
        rest = b"".join(rest.split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        peeled = rest.replace(b"{}", b"")
        if len(peeled) == len(rest):
            break
        rest = peeled
    return bool(rest)


class _Leaf(NamedTuple):
    """One field that a setting maps."""

    setting: str
    path: str
    attribute: str  # where attrgetter finds it
    annotation: Any
    required: bool


def _leaves(settings: InputSettings) -> Iterator[_Leaf]:
    """The mapped fields. Their attribute names number the distinct path segments: a field may have any name in JSON."""
    mapped: list[tuple[str, str, Any, bool]] = [("input.stream", settings.stream, str | UnsetType, False)]
    mapped.append(("input.time", settings.time, datetime | float | UnsetType, False))
    for name, path in settings.values.items():
        mapped.append((f"input.values.{name}", path, float | None, True))
    if not settings.values:
        mapped.append(("input.value", settings.value, float | None, True))
    numbers: dict[str, str] = {}
    for setting, path, annotation, required in mapped:
        segments = path.split(".")
        if not all(segments) or re.search(r'["\\\x00-\x1f]', path):
            raise SettingsError(f'Setting {setting} = "{path}" is no dotted path of JSON fields: write it such as "device.id".')
        attribute = ".".join(numbers.setdefault(segment, f"f{len(numbers)}") for segment in segments)
        yield _Leaf(setting, path, attribute, annotation, required)


def _struct(prefix: str, leaves: Sequence[_Leaf]) -> type[msgspec.Struct]:
    """The struct of the JSON object at `prefix` ("" or ending with a dot) that holds these leaves.

    An object that holds nothing required may itself be absent: then all of its fields are.
    """
    groups: dict[str, list[_Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.path.removeprefix(prefix).split(".")[0], []).append(leaf)
    fields: list[Any] = []
    names: dict[str, str] = {}
    for name, group in groups.items():
        attribute = group[0].attribute.split(".")[prefix.count(".")]
        names[attribute] = name
        fields.append((attribute, *_field(f"{prefix}{name}", group)))
    return msgspec.defstruct("Element", fields, rename=names, kw_only=True, gc=False)


def _field(path: str, group: Sequence[_Leaf]) -> tuple[Any, ...]:
    """Type, and default where it may be absent, of the field at `path` that the leaves of this group share."""
    ending = next((leaf for leaf in group if leaf.path == path), None)
    if ending and len(group) > 1:
        other = next(leaf for leaf in group if leaf is not ending)
        raise SettingsError(
            f'Setting {other.setting} = "{other.path}" collides with {ending.setting} = "{ending.path}": '
            "give each a field of its own."
        )
    required = any(leaf.required for leaf in group)
    if ending:
        return (ending.annotation,) if required else (ending.annotation, UNSET)
    inner = _struct(f"{path}.", group)
    return (inner,) if required else (inner, msgspec.field(default_factory=inner))
