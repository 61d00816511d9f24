"""Dockerfile, compose file, manifests and units: sound by their own checkers, and in agreement with the program."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import Settings, load
from tests import manifests, rules
from tests.manifests import Resource, rendered

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = sorted((DEPLOY / "kubernetes" / "overlays").iterdir())
UNITS = sorted(DEPLOY.glob("*.service"))
BIN = Path(sys.executable).parent
PORT = Settings().http.port


def passes(*command: str | Path, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def pods(resources: list[Resource]) -> dict[str, dict[str, Any]]:
    """Pod specifications by workload."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in resources if "template" in each.get("spec", {})
    }


def test_the_dockerfile_is_sound() -> None:
    """hadolint has nothing to say; the process is nobody, and the base is pinned to a minor version."""
    passes(BIN / "hadolint", "Dockerfile")
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert "USER 10001:10001" in text
    assert f"EXPOSE {PORT}" in text
    assert f"127.0.0.1:{PORT}/livez" in text


def test_the_compose_file_is_sound() -> None:
    """The schema of compose files holds; what is published is on loopback; recurd's root is read-only; mounted files exist."""
    passes(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", []))
    for name in ("recurd", "retrainer"):
        assert (services[name]["read_only"], services[name]["cap_drop"]) == (True, ["ALL"])
        environment = services[name]["environment"]
        assert load(None, environment).kafka.bootstrap_servers == "kafka:19092"
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    assert [mount for mount in mounts if mount.startswith(".") and not (DEPLOY / mount).exists()] == []
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text("utf-8"))
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": [f"recurd:{PORT}"]}]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
class TestOverlay:
    def test_the_schemas_hold(self, overlay: Path, tmp_path: Path) -> None:
        """Every resource fits Kubernetes' own schema, strictly: no unknown field."""
        file = tmp_path / "resources.yaml"
        file.write_text(yaml.safe_dump_all(rendered(overlay)))
        passes(BIN / "kubernetes-validate", "--strict", file)

    def test_kubectl_makes_the_same(self, overlay: Path) -> None:
        """What these tests look at is what kubectl would apply; where it is not installed, only the tests' own view is known."""
        theirs = manifests.by_kubectl(overlay)
        key = lambda each: (each["kind"], each["metadata"]["name"])  # noqa: E731
        assert theirs is None or sorted(theirs, key=key) == sorted(rendered(overlay), key=key)

    def test_pods_are_restricted(self, overlay: Path) -> None:
        """Nobody, no privilege, a read-only root, limits, and no token of the cluster: Pod Security `restricted`."""
        found = pods(rendered(overlay))
        assert found.keys() == {"recurd", "recurd-retrainer"}
        for pod in found.values():
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            (container,) = pod["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]

    def test_identity_and_probes(self, overlay: Path) -> None:
        """The pod's name is the member's; liveness and readiness ask the paths that are served."""
        (container,) = pods(rendered(overlay))["recurd"]["containers"]
        (identity,) = (each for each in container["env"] if each["name"] == "RECURD_KAFKA__INSTANCE_ID")
        assert identity["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["ports"] == [{"name": "http", "containerPort": PORT}]

    def test_the_settings_are_settings(self, overlay: Path, tmp_path: Path) -> None:
        """recurd reads the config map; files that it names are mounted; its Kafka's port is let out."""
        resources = rendered(overlay)
        (text,) = (each["data"]["recurd.toml"] for each in resources if each["kind"] == "ConfigMap")
        Settings.model_validate(tomllib.loads(text))
        (policy,) = (each for each in resources if each["kind"] == "NetworkPolicy")
        out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        ports = set(map(int, re.findall(r"[a-z0-9]:(\d+)", text)))
        assert ports
        assert ports <= out
        for pod in pods(resources).values():
            mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
            named = re.findall(r'file = "(.+)/\w', text)
            assert set(named) <= set(mounts)
            assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {each["name"] for each in pod["volumes"]}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_sound(unit: Path, tmp_path: Path) -> None:
    """systemd-analyze verifies the unit, and finds it little exposed."""
    analyze = rules.tool("systemd-analyze")
    installed = tmp_path / unit.name
    installed.write_text(unit.read_text("utf-8").replace("/opt/recurd/.venv/bin/recurd", "/bin/true"))
    passes(analyze, "verify", "--man=no", installed)
    passes(analyze, "security", "--offline=true", "--threshold=20", installed)
