"""The Kubernetes overlays as one list of resources: what `kubectl kustomize` makes of them, without kubectl.

Knows what our overlays use: a base by `resources`, and `patches` of JSON 6902 operations (add, replace).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]


def rendered(folder: Path) -> list[Resource]:
    """Resources of a kustomization, patched."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    assert kustomization.keys() <= {"apiVersion", "kind", "resources", "patches"}
    found: list[Resource] = []
    for name in kustomization["resources"]:
        path = folder / name
        found += rendered(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text("utf-8")))
    for patch in kustomization.get("patches", []):
        (target,) = (each for each in found if is_target(each, patch["target"]))
        for operation in yaml.safe_load(patch["patch"]):
            apply(target, operation)
    return found


def is_target(resource: Resource, target: dict[str, str]) -> bool:
    return (resource["kind"], resource["metadata"]["name"]) == (target["kind"], target["name"])


def apply(resource: Any, operation: dict[str, Any]) -> None:
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in way:
        resource = resource[int(part) if isinstance(resource, list) else part]
    if operation["op"] == "add" and isinstance(resource, list):
        assert last == "-", "only appending is known here"
        resource.append(operation["value"])
    else:
        assert operation["op"] == "add" or last in resource
        resource[last] = operation["value"]


def by_kubectl(folder: Path) -> list[Resource] | None:
    """The same by kubectl, where it is installed."""
    if shutil.which("kubectl") is None:
        return None
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, check=True)
    return list(yaml.safe_load_all(done.stdout))
