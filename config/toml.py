"""Settings as TOML text: the effective ones for `recurd config show`, and every key with its meaning for `default.toml`.

`python -m config.toml > config/default.toml` writes that file anew; a test compares them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from config.settings import Section, Settings, alternatives

HEADER = """\
# Every setting of recurd with its default. A key is set here, by a variable (RECURD_KAFKA__GROUP_ID=plant-7) or by
# --set kafka.group_id=plant-7, in rising order. Keys that begin with # have no default.
"""


def effective(settings: Settings) -> str:
    """The settings as TOML, secrets masked; keys without a value are left out."""
    return "\n".join(f"[{name}]\n" + "".join(_lines(section, documented=False)) for name, section in settings)


def defaults() -> str:
    """Every key with its default, meaning, unit and range, as TOML."""
    sections = []
    for name, section in Settings():
        title = (type(section).__doc__ or "").partition("\n")[0]
        sections.append(f"[{name}]  # {title}\n" + "".join(_lines(section, documented=True)))
    return HEADER + "\n" + "\n".join(sections)


def _lines(section: Section, documented: bool) -> Iterator[str]:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if documented:
            yield f"# {field.description}{allowed(field)}\n"
        if isinstance(value, SecretStr):
            yield f"# {key} is set and not shown\n"
        elif value is not None:
            yield f"{key} = {as_toml(value)}\n"
        elif documented:
            yield f"# {key} =\n"


def as_toml(value: Any) -> str:
    """A value as TOML. JSON's strings, numbers, booleans and arrays are TOML's; its control characters are escaped alike."""
    if isinstance(value, dict):
        entries = ", ".join(f"{json.dumps(key)} = {as_toml(entry)}" for key, entry in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def allowed(field: FieldInfo) -> str:
    """The values a key takes, in brackets: words of a choice, or a range."""
    words = [
        json.dumps(word) for kind in alternatives(field.annotation) if get_origin(kind) is Literal for word in get_args(kind)
    ]
    if words:
        return f" [{' | '.join(words)}]"
    limits = {name: value for limit in field.metadata for name, value in _limits(limit)}
    least, most = limits.get("ge", limits.get("gt")), limits.get("le")
    if least is None:
        return ""
    step = f", a multiple of {limits['multiple_of']}" if "multiple_of" in limits else ""
    above = "above " if "gt" in limits else ""
    return f" [{above}{least}{f' to {most}' if most is not None else ' or more' if not above else ''}{step}]"


def _limits(limit: object) -> Iterator[tuple[str, Any]]:
    for name in ("ge", "gt", "le", "multiple_of"):
        if hasattr(limit, name):
            yield name, getattr(limit, name)


if __name__ == "__main__":
    sys.stdout.write(defaults())
