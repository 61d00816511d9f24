"""docs/quickstart.md, followed to the letter: its settings, its file, its commands, and its topic, on the tests' own broker."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.brokers.dev import DevBroker
from tests.harness import Topics, environment, probe, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "quickstart.md").read_text("utf-8")
READINGS = 400
RECURD = Path(sys.executable).parent / "recurd"


def commands() -> list[list[str]]:
    """The five commands of the page."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def reading(number: int, device: str) -> dict[str, object]:
    value = 60 + 5 * math.sin(number / 8) + len(device)
    return {"device": device, "when": 1_700_000_000_000 + number * 60_000, "celsius": round(value, 2)}


@pytest.mark.broker
@pytest.mark.slow
def test_five_commands(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Weights from a file of one's own, its forecasts offline, and forecasts of one's own topic, with one's own field names."""
    make, train, replay, start, serve = commands()
    assert (make, start[:3]) == (["make", "venv"], [".venv/bin/recurd", "broker", "start"])
    group = unique("plant")
    topics = Topics(broker.bootstrap, group, group, 1)
    with topics.admin() as admin:
        admin.create_topics({group: {"num_partitions": 1, "replication_factor": -1}})
    (settings,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "plant.toml").write_text(settings.replace("127.0.0.1:9092", broker.bootstrap).replace('"plant"', f'"{group}"'))
    lines = [",".join(map(str, reading(n, device).values())) for n in range(READINGS) for device in ("boiler-1", "boiler-2")]
    (tmp_path / "plant.csv").write_text("\n".join(["device,when,celsius", *lines]))

    for command in ([*train, "--steps", "60"], replay):
        subprocess.run([str(RECURD), *command[1:]], cwd=tmp_path, env=environment(), check=True)
    forecasts = [json.loads(line) for line in (tmp_path / "forecasts.jsonl").read_text().splitlines()]
    assert len(forecasts) == 2 * READINGS
    assert {forecast["stream"] for forecast in forecasts} == {"boiler-1", "boiler-2"}

    log = (tmp_path / "log").open("w+")
    words = [str(RECURD), *serve[1:], "--set", "http.port=0", "--set", "log.format=json"]
    daemon = subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=log, stdout=log)
    try:

        def port() -> int:
            found = re.search(r'"event": "http listening".*"port": (\d+)', (tmp_path / "log").read_text())
            return int(found[1]) if found else 0

        wait_until(lambda: port() and probe(port(), "/readyz")[0] == 200, "ready", every_s=0.2)
        topics.send([(0, None, json.dumps(reading(n, "boiler-1")).encode(), None) for n in range(5)])
        wait_until(lambda: len(topics.read("forecasts")) == 5, "forecasts", every_s=0.5)
        sent = json.loads(topics.read("forecasts")[-1].value or b"")
    finally:
        daemon.terminate()
        daemon.wait(20)
        log.close()
    assert (sent["stream"], len(sent["targets"]["value"]["0.5"])) == ("boiler-1", 24)
    assert sent["model_version"] == forecasts[-1]["model_version"] != "naive"
