"""The pytest plugin that comes with recurd: `recurd_replay` holds the forecasts of a recording to a golden file.

    def test_pump(recurd_replay):
        recurd_replay("pump.jsonl.zst", weights=["pump.safetensors"])

Paths are relative to the test's file. `pytest --update-golden` writes the golden files. Where the machine computes with the same
arithmetic as the one that wrote the golden file, forecasts are compared byte for byte, else to 1e-5; the summary says which.
Nothing heavy is imported before a test uses the fixture: pytest loads this module in every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

_SHOWN = 10
_SAID = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden`."""
    parser.getgroup("recurd").addoption(
        "--update-golden", action="store_true", help="write the golden files of recurd_replay anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Room for what the summary says."""
    config.stash[_SAID] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How each golden file was compared."""
    lines = terminalreporter.config.stash[_SAID]
    if lines:
        terminalreporter.section("recurd")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def recurd_replay(request: pytest.FixtureRequest, tmp_path: Path) -> Replay:
    """Replays a recording or CSV file and compares the forecasts with a golden file."""
    config = request.config
    return Replay(request.path.parent, tmp_path, bool(config.getoption("--update-golden")), config.stash[_SAID])


class Replay:
    """What the fixture gives: call it."""

    def __init__(self, folder: Path, scratch: Path, update: bool, said: list[str]) -> None:
        self._folder, self._scratch, self._update, self._said = folder, scratch, update, said

    def __call__(
        self,
        data: str | Path,
        golden: str | Path | None = None,
        *,
        weights: Sequence[str | Path] = (),
        settings: Mapping[str, object] | None = None,
    ) -> list[dict[str, Any]]:
        """Replay and compare; the test fails with the first differences, by reading, stream and field.

        Args:
            data: A recording, replayed under its epochs where it carries some, or a CSV file.
            golden: The golden file, compressed where the name ends in `.zst`; default: the data's name with `.golden.jsonl`.
            weights: Weights files, as for `recurd replay`.
            settings: Settings by key, such as `{"model.hidden": 16}`, for data without epochs.

        Returns:
            The forecasts, parsed, in the order of the log within a partition.
        """
        __tracebackhide__ = True
        from config.settings import SettingsError
        from daemon import replay
        from daemon.errors import OperatorError
        from daemon.files import lines

        source = self._folder / data
        kept = self._folder / golden if golden is not None else source.with_name(f"{source.name.split('.')[0]}.golden.jsonl")
        made = _settings(settings or {})
        out = self._scratch / "forecasts.jsonl"
        said: list[str] = []
        try:
            whole = not replay.run(
                made, source, [self._folder / file for file in weights], out, with_source=True, say=said.append
            )
        except (OperatorError, SettingsError) as error:
            pytest.fail(f"{source} cannot be replayed: {error}", pytrace=False)
        if not whole:
            pytest.fail(f"{source} was not replayed whole: {said[-1]}", pytrace=False)
        now = [line for _, line in lines(out)]
        here = _arithmetic(made, source)
        if self._update:
            _write(kept, here, now)
            self._said.append(f"{kept.name}: written, {len(now)} forecasts")
        else:
            self._said.append(f"{kept.name}: {_compare(kept, here, now)}")
        return [json.loads(line)["forecast"] for line in now]


def _settings(given: Mapping[str, object]) -> Any:
    from config.settings import load

    return load(None, {}, [f"{key}={value}" for key, value in given.items()])


def _arithmetic(settings: Any, data: Path) -> dict[str, Any]:
    """What the bytes of a replay here depend on besides data, weights and settings."""
    from daemon import fingerprints
    from daemon.csv_log import is_csv
    from daemon.recording import Recording
    from models.layout import ENGINE_VERSION

    epochs = {} if is_csv(data) else Recording(data).epochs
    engines = [epoch.engine for part in epochs.values() for epoch in part] or [settings.engine()]
    return {"engine_version": ENGINE_VERSION, "fingerprints": sorted({fingerprints.here(engine) for engine in engines})}


def _write(golden: Path, here: dict[str, Any], now: Sequence[bytes]) -> None:
    from daemon.files import written

    with written(golden) as file:
        file.write(json.dumps({"arithmetic": here}).encode() + b"\n")
        for line in now:
            file.write(line + b"\n")


def _compare(golden: Path, here: dict[str, Any], now: Sequence[bytes]) -> str:
    """Fail with the first differences, or say how the forecasts were found equal."""
    __tracebackhide__ = True
    from daemon.comparison import TOLERANCE
    from daemon.files import lines

    if not golden.exists():
        pytest.fail(f"There is no golden file {golden}: write it with --update-golden, and read it.", pytrace=False)
    head, *kept = [line for _, line in lines(golden)] or [b"{}"]
    try:
        written_by = json.loads(head).get("arithmetic")
        before = _by_source(kept)
    except (ValueError, AttributeError):
        pytest.fail(f"{golden} is no golden file, or was cut: write it anew with --update-golden.", pytrace=False)
    same = written_by == here
    how = "byte for byte" if same else f"to {TOLERANCE:g}: the arithmetic is {here}, the golden file's was {written_by}"
    found = list(_differences(before, _by_source(now), None if same else TOLERANCE))
    if found:
        shown = [f"  {line}" for line in found[:_SHOWN]] + ([f"  ... {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])
        title = f"{len(found)} of {max(len(kept), len(now))} forecasts differ from {golden.name} (compared {how}):"
        hint = "If this is meant, write the golden file anew with --update-golden."
        pytest.fail("\n".join([title, *shown, hint]), pytrace=False)
    return f"{len(now)} forecasts equal, compared {how}"


def _differences(before: _Forecasts, after: _Forecasts, tolerance: float | None) -> Iterator[str]:
    """A line for every pair that differs, by the places of the readings; partitions may be interleaved otherwise."""
    from daemon.comparison import difference

    for source in sorted(before.keys() | after.keys()):
        one, other = before.get(source), after.get(source)
        place = "partition {}, offset {}, element {}".format(*source)
        if one is None or other is None:
            stream = json.loads(one or other or b"{}").get("stream")
            yield f"{place}, stream {stream}: {'only in the golden file' if other is None else 'not in the golden file'}"
            continue
        what = difference(one, other, tolerance, names=("golden", "now"))
        if what is not None:
            field = f", {what[0]}" if what[0] else ""
            yield f"{place}, stream {json.loads(other).get('stream')}{field}: {what[1]}"


_Forecasts = dict[tuple[int, ...], bytes]


def _by_source(lines: Sequence[bytes]) -> _Forecasts:
    """The bytes of each forecast by its source."""
    found = {}
    for line in lines:
        source, _, forecast = line.removeprefix(b'{"source":"').partition(b'","forecast":')
        found[tuple(int(part) for part in source.split(b","))] = forecast[:-1]
    return found
