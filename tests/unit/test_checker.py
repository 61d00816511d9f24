"""The checker itself: it passes a sound run, and finds every kind of damage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pytest

from daemon import epochs
from daemon.epochs import Epoch
from daemon.letters import encode_letter
from daemon.pipeline import Pipeline
from daemon.records import DeadLetter, Message, Record
from models.chain import Chain
from tests import checker, load
from tests.bad_input import bad_records
from tests.checker import Judgement, Raw, Source
from tests.examples import T0_MS, epoch, record, settings

#: Records in the runs of this module.
RECORDS = 1500
RULES = {"max_gap_s": load.MAX_GAP_S, "max_bytes": load.MAX_BYTES, "max_elements": load.MAX_ELEMENTS}


class Run(NamedTuple):
    """What the topics hold after a run of one partition."""

    records: list[Raw]
    epochs: dict[int, list[checker.Epoch]]
    forecasts: list[Raw]
    dead_letters: list[Raw]

    def judgement(self) -> Judgement:
        return checker.judge(self.records, self.epochs)

    def problems(self) -> list[str]:
        return checker.check_exactly_once(self.judgement(), self.forecasts, self.dead_letters)


def raw(record: Record) -> Raw:
    return Raw(record.partition, record.offset, record.timestamp_ms, record.key, record.value, record.headers)


def topic(messages: Sequence[Message], partition: int = 0) -> list[Raw]:
    return [Raw(partition, offset, -1, *message) for offset, message in enumerate(messages)]


def letters(dead: Sequence[DeadLetter]) -> list[Raw]:
    return topic([encode_letter(letter, max_bytes=2_000_000) for letter in dead])


def run(records: Sequence[Record], chosen: Sequence[Epoch]) -> Run:
    """Run records through the daemon's pipeline with the chain engine, as an uninterrupted daemon would."""
    pipeline = Pipeline(0, chosen, lambda each: Chain(each.to_bytes()))
    outcome = pipeline.process(records)
    in_force = checker.epochs_by_partition(Raw(0, at, -1, each.key(), each.to_bytes()) for at, each in enumerate(chosen))
    return Run([raw(each) for each in records], in_force, topic(outcome.forecasts), letters(outcome.dead_letters))


@pytest.fixture(scope="module")
def sound() -> Run:
    """A run with everything in it: bad input, evictions, gaps, arrays, a smaller cap and thinning from an epoch on."""
    sent = islice((each for each in load.Load(7, partitions=1, streams=24) if each.partition == 0), RECORDS)
    records = [Record("readings", 0, at, each.timestamp_ms, each.key, each.value) for at, each in enumerate(sent)]
    chain = settings(kind="chain", max_streams_per_partition=32, **RULES)
    thinned = settings(kind="chain", max_streams_per_partition=20, emit_every=3, **RULES)
    dead_late = settings(kind="chain", max_streams_per_partition=40, on_late="dead-letter", **RULES)
    chosen = [epoch(chain, 0, "chain"), epoch(thinned, 500, "chain"), epoch(dead_late, 1000, "chain")]
    return run(records, chosen)


def test_a_sound_run_passes(sound: Run) -> None:
    """The pipeline and the checker, which share no code, agree on every reading."""
    assert sound.problems() == []
    assert checker.check_dead_letter_bytes(sound.records, sound.dead_letters) == []


def test_the_load_has_everything(sound: Run) -> None:
    """Every outcome, evictions and fresh starts occur, so that passing means something."""
    judged = sound.judgement()
    assert all(judged.counts[outcome] > 5 for outcome in ("forecast", "dead_letter", "late", "duplicate", "thinned"))
    assert judged.counts["incomplete_start"] > 0
    assert judged.evicted > 50
    assert judged.restarted > 3
    assert judged.counts.total() == judged.readings
    reasons = frozenset().union(*judged.dead_letters.values())
    assert {"late", "duplicate", "future", "syntax", "type", "value", "time", "stream_id", "no_value", "too_large"} <= reasons


Damage = Callable[[list[Raw]], list[Raw]]


def flip_a_byte(forecasts: list[Raw]) -> list[Raw]:
    value = bytearray(forecasts[40].value or b"")
    value[-4] ^= 1  # inside the digest
    return [*forecasts[:40], forecasts[40]._replace(value=bytes(value)), *forecasts[41:]]


def reorder(forecasts: list[Raw]) -> list[Raw]:
    """Change places of two forecasts of one stream."""
    first = 40
    second = next(i for i in range(first + 1, len(forecasts)) if forecasts[i].key == forecasts[first].key)
    swapped = list(forecasts)
    swapped[first], swapped[second] = forecasts[second], forecasts[first]
    return swapped


def other_digest(forecasts: list[Raw]) -> list[Raw]:
    """Give a forecast the digest of another."""
    said, other = json.loads(forecasts[40].value or b""), json.loads(forecasts[41].value or b"")
    value = json.dumps(said | {"digest": other["digest"]}).encode()
    return [*forecasts[:40], forecasts[40]._replace(value=value), *forecasts[41:]]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_a_byte, "digest is"),
        (lambda forecasts: forecasts[:40] + forecasts[41:], "is missing"),
        (lambda forecasts: forecasts[:-1], "is missing"),
        (lambda forecasts: [*forecasts, forecasts[40]], "was sent 2 times"),
        (lambda forecasts: [*forecasts, forecasts[40]._replace(headers=(("source", b"0,999999,0"),))], "is extra"),
        (reorder, "reordered"),
        (other_digest, "digest is"),
        (lambda forecasts: [forecasts[0]._replace(key=b"another"), *forecasts[1:]], "key b'another'"),
        (lambda forecasts: [forecasts[0]._replace(partition=1), *forecasts[1:]], "in partition 1"),
        (lambda forecasts: [forecasts[0]._replace(value=b"{"), *forecasts[1:]], "not JSON"),
    ],
    ids=["flipped byte", "missing", "last missing", "doubled", "extra", "reordered", "digest", "key", "partition", "no JSON"],
)
def test_damaged_forecasts_are_found(sound: Run, damage: Damage, told: str) -> None:
    """Any single difference between what was due and what was sent is told."""
    problems = sound._replace(forecasts=damage(sound.forecasts)).problems()
    assert any(told in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda dead: dead[1:], "is missing"),
        (lambda dead: [*dead, dead[0]], "was sent 2 times"),
        (lambda dead: [dead[0]._replace(headers=(*dead[0].headers, ("recurd.error", b"none"))), *dead[1:]], "says none"),
        (lambda dead: [*dead, dead[0]._replace(headers=(*dead[0].headers, ("recurd.offset", b"999999")))], "is extra"),
    ],
    ids=["missing", "doubled", "another reason", "extra"],
)
def test_damaged_dead_letters_are_found(sound: Run, damage: Damage, told: str) -> None:
    """A refused record has one dead letter with a right reason."""
    problems = sound._replace(dead_letters=damage(sound.dead_letters)).problems()
    assert any(told in problem for problem in problems), problems


def test_a_dead_letter_carries_its_record(sound: Run) -> None:
    """Changed bytes in a dead letter are found."""
    damaged = [sound.dead_letters[0]._replace(value=b"cut"), *sound.dead_letters[1:]]
    assert len(checker.check_dead_letter_bytes(sound.records, damaged)) == 1


@pytest.mark.parametrize("lost", [3, 400])
def test_a_lost_state_update_is_found_by_later_digests(sound: Run, lost: int) -> None:
    """A reading that never reached the state shows in every later digest of its stream, though no source is missing."""
    chosen = [epochs.from_bytes(each.raw) for each in sound.epochs[0]]
    pipeline = Pipeline(0, chosen, lambda each: Chain(each.to_bytes()))
    records = [Record("readings", *each[:2], *each[2:5]) for each in sound.records]  # type: ignore[arg-type]
    whole = checker.judge(sound.records, sound.epochs)
    victim = next(due for due in whole.forecasts if due.source.offset >= lost)
    kept = [each for each in records if each.offset != victim.source.offset]
    outcome = pipeline.process(kept)
    sent = {checker.source_of(each): each for each in topic(outcome.forecasts)}
    patched = [sent.get(checker.source_of(each), each) for each in sound.forecasts]
    problems = sound._replace(forecasts=patched).problems()
    assert any("digest is" in problem for problem in problems)


def test_an_epoch_written_otherwise_is_found(sound: Run) -> None:
    """The bytes of the epoch in force are part of every digest."""
    changed = [dataclasses.replace(each, raw=each.raw + b" ") for each in sound.epochs[0]]
    assert sound._replace(epochs={0: changed}).problems()


def test_an_epoch_that_is_missing_is_found(sound: Run) -> None:
    """Without the second epoch its thinning and cap are not in force."""
    assert sound._replace(epochs={0: [sound.epochs[0][0], sound.epochs[0][2]]}).problems()


def test_repetitions_are_fine_at_least_once(sound: Run) -> None:
    """A stretch sent again as it was is no fault; sent otherwise, lost, or extra, it is."""
    again = sound.forecasts[:60] + sound.forecasts[30:]
    dead = sound.dead_letters + sound.dead_letters
    judged = sound.judgement()
    assert checker.check_at_least_once(judged, again, dead) == []
    otherwise = [*again[:70], again[70]._replace(value=(again[70].value or b"") + b" "), *again[71:]]
    assert any("repeated otherwise" in problem for problem in checker.check_at_least_once(judged, otherwise, dead))
    assert any("missing" in problem for problem in checker.check_at_least_once(judged, again[1:], dead))


def test_a_replay_is_compared_to_the_byte(sound: Run) -> None:
    """Equal streams pass whatever their interleaving; one byte, one forecast or two places changed are told."""
    lines = [b'{"source":"%s","forecast":%s}\n' % (dict(f.headers)["source"], f.value or b"") for f in sound.forecasts]
    replay = checker.replayed(lines)
    by_stream = sorted(replay, key=lambda each: (json.loads(each[1])["stream"], each[0]))
    assert checker.check_replay(replay, sound.forecasts) == []
    assert checker.check_replay(by_stream, sound.forecasts) == []
    assert len(checker.check_replay(replay, flip_a_byte(sound.forecasts))) == 1
    assert checker.check_replay(replay[1:], sound.forecasts)
    assert checker.check_replay(replay, sound.forecasts[:-1])
    assert checker.check_replay(replay, reorder(sound.forecasts))


def test_a_reader_during_the_run_must_see_the_same(sound: Run) -> None:
    """A reader that saw one forecast twice, none, or in another order is told apart from one afterwards."""
    forecasts = sound.forecasts
    assert checker.check_reader(forecasts, forecasts) == []
    assert checker.check_reader([*forecasts, forecasts[-1]], forecasts)
    assert checker.check_reader(forecasts[:5] + forecasts[6:], forecasts)
    assert checker.check_reader(reorder(forecasts), forecasts)


def test_bad_input_is_refused_for_the_reasons_written_down() -> None:
    """The checker's own reading of records agrees with the list of bad ones that was made by hand."""
    rules = json.loads(settings(**RULES).model_dump_json())["input"]
    wrong = []
    for each in bad_records(3, 1500, max_bytes=load.MAX_BYTES, max_elements=load.MAX_ELEMENTS, time_ms=T0_MS):
        try:
            seen = checker.read(raw(each.record(timestamp_ms=T0_MS)), rules)
            reasons = frozenset({"future"}) if any(reading.time_ms > T0_MS + 3_600_000 for reading in seen) else frozenset()
        except checker.Refused as refused:
            reasons = refused.reasons
        if not reasons & each.reasons:
            wrong.append((each.case, each.value[:80] if each.value else None, each.reasons, reasons))
    assert wrong == []


@pytest.mark.parametrize(
    ("element", "time_ms"),
    [
        ({"time": 1_700_000_000.0005}, 1_700_000_000_000),
        ({"time": 1_700_000_000_123}, 1_700_000_000_123),
        ({"time": "2023-11-14T22:13:20.4996Z"}, 1_700_000_000_500),
        ({"time": "2023-11-15T00:13:20+02:00"}, 1_700_000_000_000),
        ({}, T0_MS + 5),
    ],
)
def test_times_are_read_as_documented(element: dict[str, Any], time_ms: int) -> None:
    """Seconds, milliseconds, RFC 3339 with zones, and the record's own timestamp where there is none."""
    rules = json.loads(settings().model_dump_json())["input"]
    value = json.dumps(element | {"stream": "a", "value": 1}).encode()
    assert checker.read(Raw(0, 0, T0_MS + 5, None, value), rules)[0].time_ms == time_ms


def test_a_digest_by_hand() -> None:
    """The chain's formula, once written out: state, offset, index, time, value, epoch."""
    import hashlib

    chain = settings(kind="chain")
    chosen = epoch(chain, 0, "chain")
    result = run([record(0, ("a", T0_MS, 1.5)), record(1, ("a", T0_MS + 1000, None))], [chosen])
    first = bytes(32) + bytes(16) + T0_MS.to_bytes(8, "little") + bytes.fromhex("000000000000f83f")
    state = hashlib.sha256(first + hashlib.sha256(chosen.to_bytes()).digest()).digest()
    second = state + b"\1" + bytes(15) + (T0_MS + 1000).to_bytes(8, "little") + bytes.fromhex("000000000000f87f")
    state_2 = hashlib.sha256(second + hashlib.sha256(chosen.to_bytes()).digest()).digest()
    assert [json.loads(f.value or b"")["digest"] for f in result.forecasts] == [state.hex(), state_2.hex()]
    assert [due.digest for due in result.judgement().forecasts] == [state.hex(), state_2.hex()]
    assert checker.source_of(result.forecasts[1]) == Source(0, 1, 0)
