"""Alert and recording rules, the dashboard, and the tools of Prometheus, for the tests that hold them to what is served."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"

#: Metrics that Prometheus itself makes.
OF_PROMETHEUS = {"up"}


def tool(name: str) -> str:
    """The path of a program; without it a test is skipped, but fails in CI, which installs it."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed, and CI installs it: see .ci/run")
    return found or pytest.skip(f"{name} is not installed: apt-get install the package that .ci/run names")


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Rules by name; kind is `alert` or `record`."""
    files = [yaml.safe_load((PROMETHEUS / name).read_text("utf-8")) for name in ("alerts.yaml", "recording.yaml")]
    return {rule[kind]: rule for file in files for group in file["groups"] for rule in group["rules"] if kind in rule}


def dashboard_expressions() -> Iterator[str]:
    """Every expression of the dashboard, its variables replaced by what fits all."""
    board = json.loads((GRAFANA / "recurd.json").read_text("utf-8"))
    targets = [target for panel in board["panels"] for target in panel.get("targets", [])]
    for each in [*targets, *board["annotations"]["list"]]:
        yield each["expr"].replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")


def metrics_in(expression: str) -> set[str]:
    """Names of metrics in an expression: what is neither quoted, a label, a function nor a recorded name's part."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"(?<![\w:])((?:recurd|process)_\w+|up|job\w*:\w+:\w+)\b", bare))


def families(name: str) -> str:
    """A sample's name without what a histogram or counter adds to its family's."""
    return re.sub(r"_(total|bucket|sum|count)$", "", name)
