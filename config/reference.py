"""The settings as a page of the documentation: `python -m config.reference > docs/configuration.md`; a test compares them."""

from __future__ import annotations

import sys
from typing import Any

from pydantic.fields import FieldInfo

from config.settings import ENV_PREFIX, Section, Settings
from config.toml import allowed, as_toml

HEADER = f"""\
# Configuration

Every setting, from the models that the program reads (`config/settings.py`); `recurd config show --defaults` prints the same as a
TOML file to start from. Three sources, in rising order: the file of `--config`, variables
(`{ENV_PREFIX}KAFKA__GROUP_ID=plant-7`), and `--set kafka.group_id=plant-7`. A mistake ends a command with exit code 2 and one
sentence; `recurd config check` only looks, and `recurd config show` prints what is in force, without secrets.

`[input]`, the shape in `[model]`, `[output]` and `state.max_streams_per_partition` are what forecasts depend on: they are written
into every epoch, and a change begins a new one.
"""


def page() -> str:
    """The page as Markdown."""
    return HEADER + "".join(_section(name, section) for name, section in Settings())


def _section(name: str, section: Section) -> str:
    title = (type(section).__doc__ or "").partition("\n")[0]
    rows = [_row(key, field, getattr(section, key)) for key, field in type(section).model_fields.items()]
    return "\n".join([f"\n## [{name}]\n", title, "", "| key | default | meaning |", "|---|---|---|", *rows, ""])


def _row(key: str, field: FieldInfo, value: Any) -> str:
    default = f"`{as_toml(value)}`" if value is not None else "-"
    meaning = f"{field.description}{allowed(field)}".replace("|", "\\|").replace("<", "&lt;")
    return f"| `{key}` | {default} | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(page())
