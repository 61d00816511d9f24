"""ARCHITECTURE.md speaks of code that is there, and its layout table is the real one."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from config.settings import EngineSettings
from daemon.metrics import STAGES
from models.layout import describe, row_dtype

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
ROWS = re.findall(r"^\| (\w+) \| `([\w.]+)` \|", PAGE, re.MULTILINE)


def test_the_stages_are_the_nine_words() -> None:
    """The table, the metric's label and the order are one."""
    assert tuple(stage for stage, _ in ROWS) == STAGES


@pytest.mark.parametrize(("stage", "name"), ROWS)
def test_a_stage_names_a_function_that_is_there(stage: str, name: str) -> None:
    """Every name in the table resolves; modules that need a broker's client are looked into as text."""
    parts = name.split(".")
    if "kafka_python" in parts:
        source = (ROOT / "daemon/brokers/kafka_python.py").read_text("utf-8")
        body = source[source.index(f"class {parts[-2]}") :]
        assert f"def {parts[-1]}(" in body
        return
    module_length = next(n for n in range(len(parts) - 1, 0, -1) if (ROOT / f"{'/'.join(parts[:n])}.py").exists())
    found = import_module(".".join(parts[:module_length]))
    for part in parts[module_length:]:
        found = getattr(found, part)
    assert callable(found)


def test_the_layout_table_is_printed_as_it_is() -> None:
    """The row of the default settings, field by field."""
    assert describe(row_dtype(EngineSettings())) in PAGE


def test_the_row_keeps_its_budget() -> None:
    """3 KiB a stream at the defaults, season and adaptation among them."""
    assert row_dtype(EngineSettings()).itemsize <= 3072


def test_every_module_is_in_the_table() -> None:
    """A file that no row tells of has no room of its own."""
    modules = [path.name for folder in ("config", "models", "daemon") for path in (ROOT / folder).glob("*.py")]
    missing = [name for name in modules if name not in PAGE and name not in ("__init__.py",)]
    assert missing == []
