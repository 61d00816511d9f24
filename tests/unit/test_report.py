"""The page of a report: one file that needs nothing else, says what the commands say, and looks right in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import image

from config.settings import Settings
from daemon import replay
from daemon.report import page
from daemon.scoring import Scorer, Start
from daemon.weights import longest_season_ms
from models import artifacts
from models.arithmetic import seeded_network
from tests import examples, rules
from tests.unit.test_audit import SETTINGS as AUDITED
from tests.unit.test_audit import audit, sources
from tests.unit.test_scoring import VALUES, regular, scored

SETTINGS = Settings.model_validate({"model": {"hidden": 8, "context": 16, "horizon": 4}})


class Tags(HTMLParser):
    """Opens and closes every tag as it should be, and collects attributes."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.attributes: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def plant(path: Path) -> Path:
    """Three streams of readings, one with a name that HTML would take for its own."""
    rows = [f"{1_700_000_000 + 60 * i},{value},{2 * value},{i % 7}" for i, value in enumerate(VALUES * 3)]
    path.write_text("\n".join(["time,a,<b>&co,c", *rows]))
    return path


def test_replay_writes_a_report(tmp_path: Path) -> None:
    """The page has every section, is sound HTML and asks for nothing; the table is also said."""
    said: list[str] = []
    data = plant(tmp_path / "plant.csv")
    assert replay.run(SETTINGS, data, [], tmp_path / "out", report=tmp_path / "r.html", season_s=600, say=said.append) == 0
    text = (tmp_path / "r.html").read_text()
    tags = Tags(text)
    sections = re.findall("<h2>(.*?)</h2>", text)
    assert sections == ["Error per lead", "Calibration", "Worst streams", "Anomalies", "Versions and swaps", "Throughput"]
    assert re.search(r"<p>540 readings in [\d.]+ s \([\d,]+ a second\), ", text)  # too quick for a curve
    assert tags.count["svg"] >= 6
    assert "&lt;b&gt;&amp;co" in text
    assert "<b>" not in text
    assert not {"src", "href", "srcset", "onload"} & tags.attributes
    assert not {"script", "link", "img", "iframe"} & tags.count.keys()
    assert not re.search(r"https?:|url\(|@import", text)
    assert 'name="viewport"' in text
    assert [line.split()[0] for line in said if line.split()[0] in ("1", "2", "4")] == ["1", "2", "4"]


def test_the_season_of_the_weights_is_the_reports(tmp_path: Path) -> None:
    """Where no season is given, that which the weights name is scored; naive has none."""
    network = seeded_network(SETTINGS.engine())
    network.period_ms = 600_000
    (tmp_path / "weights").write_bytes(artifacts.dump(network, artifacts.Manifest.of(SETTINGS.engine())))
    data, shown, columns = plant(tmp_path / "plant.csv"), [], []
    broken = b"no weights"  # as a version of the topic may be
    assert longest_season_ms([broken, (tmp_path / "weights").read_bytes()]) == 600_000
    for weights in ([tmp_path / "weights"], []):
        said: list[str] = []
        replay.run(SETTINGS, data, weights, tmp_path / "out", report=tmp_path / "r.html", say=said.append)
        shown.append("one season before" in (tmp_path / "r.html").read_text())
        columns.append([line.split()[5] for line in said[0].splitlines()[4:]])  # of the engine's own scores
    assert shown == [True, False]
    assert columns[0][0] == "seasonal"
    assert all(float(number) > 0 for number in columns[0][1:])
    assert columns[1] == ["seasonal", "-", "-", "-"]


def test_audit_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the verdict, both versions of a swap, and the season that the versions name."""
    said: list[str] = []
    monkeypatch.setattr(audit, "longest_season_ms", lambda _versions: 9 * examples.MINUTE_MS)
    code = audit.run(AUDITED, sources(tmp_path), report=tmp_path / "r.html", say=said.append)
    text = (tmp_path / "r.html").read_text()
    Tags(text)
    assert code == 0
    assert "80 forecasts of 6 streams are equal, byte for byte" in text
    assert text.count("<td>naive</td>") == 1
    assert "one season before" in text


def test_nothing_is_a_page_too() -> None:
    """No forecast came due: the page says so."""
    text = page("Nothing", ["0 records"], Scorer())
    Tags(text)
    assert "No forecast came due." in text


def test_values_that_do_not_move_are_drawn() -> None:
    """A constant stream has no height of its own."""
    scorer, _ = scored([examples.record(i, ("a", examples.T0_MS + i * examples.MINUTE_MS, 5.0)) for i in range(60)])
    text = page("Constant", [], scorer)
    Tags(text)
    assert "nan" not in text


def test_anomaly_timeline_marks_versions() -> None:
    """Dashed lines stand where a version began inside of the timeline."""
    scorer, _ = scored(regular())
    later_ms = examples.T0_MS + 45 * examples.MINUTE_MS
    scorer.starts[0, 45] = Start(0, 45, "later", timestamp_ms=later_ms + 10**10, time_ms=later_ms)  # old readings, sent again
    scorer.starts[0, 50] = Start(0, 50, "without a reading", timestamp_ms=later_ms)
    assert page("Marks", [], scorer).count('class="mark"') == 1


def test_alarms_are_listed() -> None:
    """How many there were by the rule, and the newest of them."""
    values = [VALUES[i % 60] for i in range(200)]
    values[150:158] = [500.0, -500.0] * 4
    scorer, _ = scored(regular(values))
    text = page("Alarms", [], scorer)
    Tags(text)
    assert scorer.anomalies.alarms > 0
    assert f"{scorer.anomalies.alarms} alarms: one where a stream scores 2.5 or more" in text
    assert "<th>raised</th>" in text
    assert "<th>raised</th>" not in page("Quiet", [], scored(regular()[:20])[0])


@pytest.mark.slow
def test_page_in_a_real_browser(tmp_path: Path) -> None:
    """At a phone's width nothing is wider than the screen, and all curves are drawn in their colours."""
    data = plant(tmp_path / "plant.csv")
    replay.run(SETTINGS, data, [], tmp_path / "out", report=tmp_path / "r.html", season_s=600)
    probe = "<script>document.title = document.documentElement.scrollWidth + ' ' + innerWidth</script></body>"
    (tmp_path / "probe.html").write_text((tmp_path / "r.html").read_text().replace("</body>", probe))
    dumped = browser(tmp_path, "--dump-dom", (tmp_path / "probe.html").as_uri())
    wide, screen = map(int, re.findall(r"<title>(\d+) (\d+)</title>", dumped)[0])
    assert wide <= screen <= 500
    browser(tmp_path, f"--screenshot={tmp_path / 'shot.png'}", "--hide-scrollbars", (tmp_path / "r.html").as_uri())
    pixels = (image.imread(tmp_path / "shot.png")[:, :, :3] * 255).round().astype(int)
    assert pixels.shape[:2] == (3000, 500)
    if "RECURD_SCREENSHOTS" in os.environ:
        shutil.copy(tmp_path / "shot.png", Path(os.environ["RECURD_SCREENSHOTS"]) / "report.png")
    for colour in ((0x16, 0x67, 0xB7), (0xC2, 0x57, 0x0C), (0x1C, 0x24, 0x30)):  # forecast, last value, readings
        assert (abs(pixels - colour).max(axis=2) < 12).sum() > 200, colour


def browser(folder: Path, *arguments: str) -> str:
    """What a headless Chromium says, with a profile of its own and no network."""
    command = [
        rules.tool("chromium"),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=500,3000",
        "--no-first-run",
    ]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * 127.0.0.1:1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
