"""Audit of recordings: equal to the byte, or the first difference by place, stream and field; damage named by line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from config.settings import Settings
from daemon import audit, fingerprints
from daemon.audit import Exactness, Sources, derivable
from daemon.engines import Engines
from daemon.epochs import Epoch
from daemon.errors import OperatorError
from daemon.pipeline import Pipeline
from daemon.recording import Writer
from daemon.records import Record
from models.layout import ENGINE_VERSION
from tests import examples

SETTINGS = Settings.model_validate({"model": {"hidden": 8, "context": 16, "horizon": 2}})
ENGINE = SETTINGS.engine()
VERSION, WEIGHTS = examples.seeded_weights(ENGINE)
READINGS = [
    examples.record(offset, (f"s{offset % 3}", examples.T0_MS + offset * examples.MINUTE_MS, float(offset % 7)))._replace(
        partition=partition
    )
    for offset in range(40)
    for partition in (0, 1)
]
Edit = Callable[[list[Record]], Sequence[Record]]


def epoch(partition: int, first_offset: int, version: str = VERSION, fingerprint: str | None = None, cold: bool = False) -> Epoch:
    return Epoch(partition, first_offset, version, ENGINE, ENGINE_VERSION, fingerprint or fingerprints.here(ENGINE), cold)


EPOCHS = [epoch(0, 0, "naive"), epoch(0, 20), epoch(1, 0)]


def served(epochs: Sequence[Epoch] = EPOCHS) -> list[Record]:
    """What a daemon sends for the readings."""
    sent: list[Record] = []
    for partition in (0, 1):
        here = Pipeline(partition, [one for one in epochs if one.partition == partition], Engines({VERSION: WEIGHTS}.get))
        readings = [one for one in READINGS if one.partition == partition and one.offset >= here.epochs[0].first_offset]
        for i, message in enumerate(here.process(readings).forecasts):
            sent.append(Record("forecasts", partition, 3 * i, 0, *message))
    return sent


def write(path: Path, records: Sequence[Record], epochs: Sequence[Epoch] = ()) -> Path:
    with Writer(path) as writer:
        for one in epochs:
            writer.write_epoch(one)
        for record in records:
            writer.write(record)
    return path


def sources(path: Path, sent: Sequence[Record] | None = None, epochs: Sequence[Epoch] = EPOCHS) -> Sources:
    models = write(
        path / "models.jsonl", [Record("m", 0, 0, 0, VERSION.encode(), WEIGHTS), Record("m", 0, 1, 0, b"current", b"x")]
    )
    readings = write(path / "readings.jsonl.zst", READINGS, epochs)
    return Sources(readings, write(path / "forecasts.jsonl", served() if sent is None else sent), models)


def audited(given: Sources, **options: bool) -> tuple[int, list[str]]:
    said: list[str] = []
    return audit.run(SETTINGS, given, say=said.append, **options), said


def test_equal(tmp_path: Path) -> None:
    """All forecasts of all streams, across a swap, are equal byte for byte."""
    code, said = audited(sources(tmp_path))
    assert (code, said[-1]) == (0, "80 forecasts of 6 streams are equal, byte for byte")
    assert said[0].startswith("80 records of 2 partitions in ")


def flip(sent: list[Record]) -> list[Record]:
    value = sent[30].value or b""
    at = value.index(b'"0.5":[') + 8
    return [*sent[:30], sent[30]._replace(value=value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]), *sent[31:]]


@pytest.mark.parametrize(
    ("edit", "first", "verdict"),
    [
        (flip, "differs: forecasts[0]@90, stream s0, targets.value.0.5[0]: no JSON any more, ", "1 DIFFERENCES (1 differs); 79 "),
        (
            lambda sent: [*sent[:30], *sent[31:]],
            "missing: readings[0]@30, stream s0: its forecast is missing: forecasts[0]@93 is already that of ",
            "1 DIFFERENCES (1 missing); 79 forecasts",
        ),
        (
            lambda sent: [*sent[:31], sent[30]._replace(offset=91), *sent[31:]],
            "doubled: forecasts[0]@91, stream s0: the forecast of readings[0]@30 was sent before",
            "1 DIFFERENCES (1 doubled); 80 forecasts",
        ),
        (lambda sent: sent[:-1], "missing: readings[1]@39, stream s0: its forecast is missing: no", "1 DIFFERENCES"),
    ],
)  # fmt: skip
def test_one_wrong_forecast_is_found_and_named(tmp_path: Path, edit: Edit, first: str, verdict: str) -> None:
    """A flipped byte, a missing and a doubled forecast: place, stream and field, and exit code 1."""
    code, said = audited(sources(tmp_path, edit(served())))
    assert code == 1
    assert said[0].startswith(first)
    assert said[-1].startswith(verdict)


def test_part_of_the_forecasts(tmp_path: Path) -> None:
    """A recording of a part is compared where it is; a gap inside is still found."""
    sent = served()
    code, said = audited(sources(tmp_path, [*sent[10:30], *sent[50:70]]), part=True)
    assert (code, said[0]) == (0, "40 forecasts are not compared: not committed yet, or outside of what is kept or can be read")
    assert audited(sources(tmp_path, [*sent[10:20], *sent[21:30], *sent[50:70]]), part=True)[0] == 1


def test_cut_recording_is_audited_as_far_as_it_goes(tmp_path: Path) -> None:
    """Damage is named by line with exit code 1; what cannot be derived any more is not called extra."""
    given = sources(tmp_path)
    plain = write(tmp_path / "readings.jsonl", READINGS, EPOCHS)
    plain.write_bytes(plain.read_bytes()[:-10])
    code, said = audited(given._replace(readings=plain))
    assert code == 1
    assert f"{plain}, line 83" in said[0]
    assert said[-1] == "79 forecasts of 6 streams are equal, byte for byte, as far as the recordings can be read"


def test_damage_that_all_partitions_meet_is_said_once_and_ends_each(tmp_path: Path) -> None:
    """Behind a line that is no record nothing is derived, so that no forecast there is called extra."""
    plain = write(tmp_path / "readings.jsonl", READINGS, EPOCHS)
    lines = plain.read_bytes().splitlines(keepends=True)
    plain.write_bytes(b"".join([*lines[:43], b"no record\n", *lines[43:]]))
    code, said = audited(sources(tmp_path)._replace(readings=plain))
    assert code == 1
    assert [f"{plain}, line 44: " in line for line in said] == [True, False, False]
    assert said[-1] == "40 forecasts of 6 streams are equal, byte for byte, as far as the recordings can be read"


def test_forecasts_behind_damage_are_not_missed(tmp_path: Path) -> None:
    """What cannot be read may have been sent; a gap before the damage is still found."""
    given = sources(tmp_path)
    sent = write(tmp_path / "sent.jsonl", [*served()[:10], *served()[11:]])
    whole = sent.read_bytes()
    sent.write_bytes(whole[: whole.index(b"0,30,0")])
    code, said = audited(given._replace(forecasts=sent))
    assert code == 1
    assert said[0].startswith("missing: readings[0]@10, ")
    assert f"{sent}, line 30: " in said[1]
    assert said[2].startswith("50 forecasts are not compared: ")
    assert said[-1].startswith("1 DIFFERENCES (1 missing); 29 forecasts")


def test_other_arithmetic_is_said_and_compared_to_a_tolerance(tmp_path: Path) -> None:
    """From an epoch with another fingerprint on, numbers are compared to 1e-5 and the result says so."""
    epochs = [epoch(0, 0, "naive"), epoch(0, 20, fingerprint="other"), epoch(1, 0)]
    sent = served()
    value = sent[30].value or b""
    start = value.index(b'"0.5":[') + 7
    number = value[start : value.index(b",", start)]
    assert number not in (b"0.0", b"-0.0")
    last = sent[30]._replace(value=value.replace(number, str(float(number) * (1 + 5e-6)).encode(), 1))
    code, said = audited(sources(tmp_path, [*sent[:30], last, *sent[31:]], epochs))
    assert code == 0, said
    assert "fingerprint other, here it is " in said[0]
    assert said[-1] == "80 forecasts of 6 streams are equal, 1 of them to 1e-05 under other arithmetic"
    assert audited(sources(tmp_path, flip(sent), epochs))[0] == 1


def test_exactness_ends_with_other_arithmetic_and_begins_anew_where_it_is_cold() -> None:
    """State is carried on, so that bytes are compared again only after a cold start."""
    exact = Exactness([epoch(0, 0), epoch(0, 10, fingerprint="x"), epoch(0, 20), epoch(0, 30, cold=True)])
    assert [exact.at(offset) for offset in (0, 9, 10, 25, 30, 99)] == [True, True, False, False, True, True]


def test_gone_records_are_refused_unless_a_cold_start_follows() -> None:
    """Where the log begins after the epochs, only what a cold epoch begins can be derived."""
    known = [epoch(0, 0), epoch(0, 20), epoch(0, 30, cold=True)]
    assert derivable("in", known, 0) == known
    assert derivable("in", known, 25) == known[2:]
    with pytest.raises(OperatorError, match=r"Records of in\[0\] before offset 31 are gone, but .* from 0 on"):
        derivable("in", known, 31)


def test_recording_without_epochs_is_refused(tmp_path: Path) -> None:
    """Nothing says what its forecasts depended on."""
    given = sources(tmp_path, epochs=())
    with pytest.raises(OperatorError, match="carries no epochs"):
        audited(given)


def test_weights_that_are_absent_are_refused(tmp_path: Path) -> None:
    """A version that no file and no record gives is named."""
    given = sources(tmp_path)._replace(models=write(tmp_path / "none.jsonl", []))
    with pytest.raises(OperatorError, match=VERSION):
        audited(given)
    (tmp_path / "weights").write_bytes(WEIGHTS)
    assert audited(given._replace(weights=[tmp_path / "weights"]))[0] == 0
