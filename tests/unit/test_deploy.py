"""What is deployed names only what exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from config.settings import known_keys
from daemon.errors import EXIT_NO_RESTART, EXIT_USAGE
from daemon.metrics import Metrics
from tests import rules

ROOT = Path(__file__).parents[2]
DEPLOY = Path(__file__).parents[2] / "deploy"


def test_unit_restarts_only_where_it_helps() -> None:
    """The unit keeps to the exit codes of `daemon.errors`."""
    unit = (DEPLOY / "recurd.service").read_text("utf-8")
    assert f"RestartPreventExitStatus={EXIT_USAGE} {EXIT_NO_RESTART}\n" in unit


def test_named_metrics_exist() -> None:
    """Every metric that the page names is one that is served."""
    text = (DEPLOY / "README.md").read_text("utf-8") + (ROOT / "docs" / "runbook.md").read_text("utf-8")
    named = set(re.findall(r"\brecurd_[a-z_]+", text))
    assert named
    assert {rules.families(name) for name in named} <= served()


def test_named_settings_exist() -> None:
    """Every setting that the page names is one that can be set."""
    sections = "|".join({key.partition(".")[0] for key in known_keys()})
    text = (DEPLOY / "README.md").read_text("utf-8") + (DEPLOY / "recurd.service").read_text("utf-8")
    named = {name for name in re.findall(rf"\b((?:{sections})\.[a-z_]+)", text) if name not in ("config.toml", "retrain.service")}
    assert named
    assert named <= known_keys().keys()


def served() -> set[str]:
    """Families that are served, ours and those of the process."""
    return {rules.families(family.name) for family in Metrics().registry.collect()}


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    """Every metric of an expression is served, recorded, or made by Prometheus; every recorded one is used."""
    recorded = rules.rules("record")
    expressions = [rule["expr"] for kind in ("alert", "record") for rule in rules.rules(kind).values()]
    named = set().union(*map(rules.metrics_in, [*expressions, *rules.dashboard_expressions()]))
    assert {rules.families(name) for name in named - rules.OF_PROMETHEUS - recorded.keys()} <= served()
    assert "recurd_consumer_lag_records" in named


def test_every_alert_has_its_paragraph() -> None:
    """An alert without a paragraph in the runbook, or a paragraph without an alert, is unfinished."""
    headings = re.findall(r"^### (Recurd\w+)$", (ROOT / "docs" / "runbook.md").read_text("utf-8"), re.MULTILINE)
    alerts = rules.rules("alert")
    assert sorted(headings) == sorted(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_alert_is_tested_firing() -> None:
    """promtool knows a case in which each alert fires; the cases have a neighbour that stays quiet."""
    cases = "".join((rules.PROMETHEUS / name).read_text("utf-8") for name in ("tests.yaml", "tests-days.yaml"))
    assert set(re.findall(r"alertname: (\w+)", cases)) == rules.rules("alert").keys()
    assert cases.count("sick") > len(rules.rules("alert")) <= cases.count("well")


@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint-fatal", "alerts.yaml", "recording.yaml"),
        ("test", "rules", "tests.yaml", "tests-days.yaml"),
    ],
)
def test_promtool_finds_nothing(command: tuple[str, ...]) -> None:
    """The rules are sound, and fire and stay quiet as their unit tests say."""
    done = subprocess.run([rules.tool("promtool"), *command], cwd=rules.PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_in_the_metrics() -> None:
    """Names, types and help texts are as Prometheus wants them."""
    text = generate_latest(Metrics().registry)
    done = subprocess.run([rules.tool("promtool"), "check", "metrics"], input=text, capture_output=True)
    ours = [line for line in (done.stdout + done.stderr).decode().splitlines() if line.startswith("recurd")]
    assert ours == []


def test_the_dashboard_is_the_scripts() -> None:
    """recurd.json is what the script prints."""
    made = subprocess.run([sys.executable, rules.GRAFANA / "make_dashboard.py"], capture_output=True, check=True)
    assert json.loads(made.stdout) == json.loads((rules.GRAFANA / "recurd.json").read_text("utf-8"))


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    """Every link and anchor of the documentation leads somewhere, and every page is in the navigation."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "architecture" / "index.html").exists()


def test_every_pin_has_a_hash() -> None:
    """`constraints-hashed.txt` is `constraints.txt` with hashes: mend it with `make hashes`."""
    lines = [line.split() for line in (ROOT / "constraints-hashed.txt").read_text().splitlines() if not line.startswith("#")]
    pins = [line.lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert sorted(pin for pin, _ in lines) == sorted(pins)
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for _, text in lines)


def test_hashes_come_from_pips_report(tmp_path: Path) -> None:
    """One line a package; one without a hash is refused."""
    report = tmp_path / "report.json"

    def made(**info: object) -> subprocess.CompletedProcess[str]:
        taken = {"metadata": {"name": "Six", "version": "1"}, "download_info": info}
        report.write_text(json.dumps({"install": [taken]}))
        return subprocess.run([sys.executable, DEPLOY / "pin_hashes.py", report], capture_output=True, text=True, check=False)

    assert made(archive_info={"hashes": {"sha256": "ab"}}).stdout.endswith("\nsix==1 --hash=sha256:ab\n")
    assert made(dir_info={}).returncode == 1
