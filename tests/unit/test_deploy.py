"""What is deployed names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

from config.settings import known_keys
from daemon.errors import EXIT_NO_RESTART, EXIT_USAGE
from daemon.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_unit_restarts_only_where_it_helps() -> None:
    """The unit keeps to the exit codes of `daemon.errors`."""
    unit = (DEPLOY / "recurd.service").read_text("utf-8")
    assert f"RestartPreventExitStatus={EXIT_USAGE} {EXIT_NO_RESTART}\n" in unit


def test_named_metrics_exist() -> None:
    """Every metric that the page names is one that is served."""
    served = {family.name for family in Metrics().registry.collect()}
    named = set(re.findall(r"recurd_[a-z_]+", (DEPLOY / "README.md").read_text("utf-8")))
    assert named
    assert {name.removesuffix("_total") for name in named} <= served


def test_named_settings_exist() -> None:
    """Every setting that the page names is one that can be set."""
    sections = "|".join({key.partition(".")[0] for key in known_keys()})
    text = (DEPLOY / "README.md").read_text("utf-8") + (DEPLOY / "recurd.service").read_text("utf-8")
    named = {name for name in re.findall(rf"\b((?:{sections})\.[a-z_]+)", text) if name != "config.toml"}
    assert named
    assert named <= known_keys().keys()
