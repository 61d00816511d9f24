"""What the daemon refuses to go on with, each with exit 78 and a sentence that names the remedy; and that the remedy works.

One group is served and killed. Every case copies its topics and offsets under another name, breaks one thing in the copy, serves
it, and where the sentence says so again with `kafka.on_gap = skip`. What ends by itself is served in this process, which spares
the seconds of a start; the exit code of a process is looked at once.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from daemon import cli
from daemon.brokers.dev import DevBroker
from daemon.errors import EXIT_NO_RESTART, EXIT_USAGE
from models import artifacts
from models.arithmetic import seeded_network
from models.layout import ENGINE_VERSION
from tests import checker, examples
from tests.checker import Raw
from tests.harness import READINGS, Daemon, Topics, recurd, replay, running, sound
from tests.load import INTERVAL_MS, T0_MS

STREAMS = 20
#: Offsets of the group that all cases copy: its last checkpoint stands at MARK, its committed offset at COMMITTED.
MARK, COMMITTED, END = 60, 100, 130
SETTINGS = {
    "model.kind": "chain",
    "kafka.instance_id": "a",
    "state.max_streams_per_partition": 50,
    "state.checkpoint_interval_s": 3600,
    "state.checkpoint_readings": 2 * MARK,  # records count, and the readings in them
}
COMPACT = {"cleanup.policy": "compact", "max.message.bytes": str(64 << 20)}
OURS = {"forecasts": {"cleanup.policy": "delete"}, "state": COMPACT, "epochs": {"cleanup.policy": "compact"}}


def row(number: int) -> tuple[int, bytes, bytes, int]:
    """The number-th reading, as it is sent."""
    stream, time_ms = f"pump-{number % STREAMS}", T0_MS + number // STREAMS * INTERVAL_MS
    return 0, stream.encode(), json.dumps({"stream": stream, "time": time_ms, "value": number / 8}).encode(), time_ms


# -- the group that is copied ---------------------------------------------------------------------------------------------------


@dataclass
class Copy:
    """What a group's topics hold; a case changes it before it is written under another name."""

    readings: list[Raw]
    forecasts: list[Raw]
    state: list[Raw]
    epochs: list[Raw]
    committed: tuple[int, str] | None  # offset and metadata
    first: int = 0  # the log begins here

    def changed(self, topic: str, key: bytes, change: Callable[[bytes], bytes | None]) -> Copy:
        """With another newest value of a key."""
        records = getattr(self, topic)
        newest = next(record for record in reversed(records) if record.key == key)
        return replace(self, **{topic: [*records, newest._replace(value=change(newest.value or b""))]})

    def write(self, topics: Topics) -> None:
        """Write it under the names of `topics`, whose input exists and is empty."""
        with topics.admin() as admin:
            made = {
                topics.name(topic): {"num_partitions": 1, "replication_factor": -1, "configs": configs}
                for topic, configs in OURS.items()
            }
            admin.create_topics(made)
            admin.wait_for_topics(list(made))
        for topic in (READINGS, *OURS):
            records: list[Raw] = getattr(self, topic)
            topics.send(((r.partition, r.key, r.value, r.timestamp_ms, r.headers) for r in records), topic)
        with topics.admin() as admin:
            if self.first:
                admin.delete_records({TopicPartition(topics.readings, 0): self.first})
            if self.committed:
                offsets = {TopicPartition(topics.readings, 0): OffsetAndMetadata(*self.committed, -1)}
                admin.alter_group_offsets(topics.group, offsets)


@pytest.fixture(scope="module")
def original(broker: DevBroker, unique: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A group that was killed between two checkpoints."""
    topics = Topics.create(broker.bootstrap, unique("original"), 1)
    daemon = Daemon(topics, tmp_path_factory.mktemp("original"), "a", SETTINGS)
    with running(daemon):
        daemon.start().wait_for("epoch started")
        for first, last in ((0, MARK), (MARK, COMMITTED)):
            topics.send(map(row, range(first, last)))
            topics.wait_committed()
        daemon.life.kill()
        with topics.admin() as admin:
            (found,) = admin.list_group_offsets(topics.group)[topics.group].values()
    topics.send(map(row, range(COMMITTED, END)))
    assert (found.offset, found.metadata) == (COMMITTED, f"recurd1 2 {MARK}")
    rest = {topic: topics.read(topic) for topic in (READINGS, *OURS)}
    return Copy(**rest, committed=(found.offset, found.metadata))


# -- cases ----------------------------------------------------------------------------------------------------------------------

Damage = Callable[[Copy], Copy]


@dataclass(frozen=True)
class Case:
    """A damage, and the words of the sentence that refuses it."""

    damage: Damage
    words: str
    cold_from: int | None = None  # `kafka.on_gap = skip` starts the partition cold from here
    hole: range | None = None  # it goes on with its state, and without these readings
    settings: Mapping[str, Any] | None = None


def flip(data: bytes) -> bytes:
    """One bit of the last row is another."""
    return data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]


def other_arithmetic(copy: Copy) -> Copy:
    return copy.changed("epochs", b"0:0", lambda data: data.replace(b'"fingerprint":"chain"', b'"fingerprint":"elsewhere"'))


SKIP = r'Set kafka\.on_gap = "skip" to '
COLD = SKIP + "start that partition cold from the committed offset, or restore topic state"
STATE = "Restore topic `state` from a copy, or take a new kafka.group_id and start cold"
ARITHMETIC = {"state.on_new_arithmetic": "refuse"}

CASES = {
    "offsets expired": Case(
        lambda copy: replace(copy, committed=None),
        f"has no committed offset, but state or epochs of this group: .*{SKIP}start that partition cold, or take a new kafka",
        cold_from=0,
    ),
    "topic made anew": Case(
        lambda copy: replace(copy, readings=copy.readings[:50]),
        f"committed offset 100 of .* is beyond the end of the log 50: .*{SKIP}go on from 0 with no state, or restore the topic",
        cold_from=0,
    ),
    "records gone": Case(
        lambda copy: replace(copy, first=110),
        f"committed offset 100 of .* is below the low watermark 110: 10 records are gone. {SKIP}go on from 110, or restore",
        hole=range(60, 110),  # those from the checkpoint on are gone too
    ),
    "records of the catch-up gone": Case(
        lambda copy: replace(copy, first=80),
        f"stands at offset 60, below the low watermark 80: 20 records that catch-up needs are gone. {SKIP}go on without them",
        hole=range(60, 80),
    ),
    "mark gone": Case(
        lambda copy: copy.changed("state", b"mark", lambda _: None),
        f"committed offset 100 of .* names checkpoint 2 at offset 60, the changelog holds none. {COLD}",
        cold_from=100,
    ),
    "older mark": Case(
        lambda copy: copy.changed("state", b"mark", lambda data: data.replace(b'"sequence":2', b'"sequence":1')),
        f"names checkpoint 2 at offset 60, the changelog holds checkpoint 1 at offset 60. {COLD}",
    ),
    "state deleted": Case(
        lambda copy: replace(copy, state=[]),
        f"names checkpoint 2 at offset 60, the changelog holds none. {COLD}",
    ),
    "offsets reset": Case(
        lambda copy: replace(copy, committed=(90, "")),
        f"committed offset 90 of .* names no checkpoint: another tool set it, the changelog holds checkpoint 2 .*{COLD}",
        cold_from=90,
    ),
    "another program's commit": Case(
        lambda copy: replace(copy, committed=(100, "consumer-7")),
        "metadata 'consumer-7' is not recurd's: .* Stop it, or give recurd a group of its own with kafka.group_id",
    ),
    "bit flip": Case(lambda copy: copy.changed("state", b"1", flip), f"the checksum of its .* bytes is wrong. {STATE}"),
    "cut block": Case(lambda copy: copy.changed("state", b"0", lambda data: data[:-40]), f"is damaged: .*{STATE}"),
    "cut header": Case(lambda copy: copy.changed("state", b"0", lambda data: data[:11]), f"is damaged: it has 11 bytes. {STATE}"),
    "block gone": Case(
        lambda copy: copy.changed("state", b"1", lambda _: None),
        f"holds 16 streams in 1 blocks where its mark says 20: it was cut or overwritten. {STATE}",
    ),
    "another program's record": Case(
        lambda copy: copy.changed("state", b"0", lambda _: b'{"hello": "there, how are you today?"}'),
        "another program writes to topic `state`. Stop it, or name another topic in topics.state",
    ),
    "newer block": Case(
        lambda copy: copy.changed("state", b"0", lambda data: data[:4] + b"\x09\x00" + data[6:]),
        "has format 9, this recurd reads 1: run the recurd that wrote it",
    ),
    "broken mark": Case(
        lambda copy: copy.changed("state", b"mark", lambda data: data[:-3]),
        "The mark .* cannot be read: .*restore topic `state` from a copy, or take a new kafka.group_id and start cold",
    ),
    "epochs deleted": Case(
        lambda copy: replace(copy, epochs=[]),
        "names an epoch from offset 0 on that the epoch log does not hold: restore topic epochs from a copy, or take a new kafka",
    ),
    "broken epoch": Case(
        lambda copy: copy.changed("epochs", b"0:0", lambda data: data[:-2]),
        "An epoch cannot be read .*: upgrade recurd if a newer one wrote it; otherwise restore topic `epochs` from a copy",
    ),
    "newer epoch": Case(
        lambda copy: copy.changed("epochs", b"0:0", lambda data: data.replace(b'{"cold"', b'{"alien":1,"cold"')),
        "An epoch cannot be read .*alien.*: upgrade recurd if a newer one wrote it",
    ),
    "other arithmetic": Case(
        other_arithmetic,
        f"with fingerprint elsewhere made the last epoch, here it is {ENGINE_VERSION} with chain: "
        '.* set state.on_new_arithmetic = "accept"',
        settings=ARITHMETIC,
    ),
}
GOES_ON = [name for name, case in CASES.items() if case.cold_from is not None or case.hole is not None]


Serve = Callable[[Daemon], str]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], own_logging: None) -> Iterator[Serve]:
    """Serve in this process until it is refused with 78, once and without a traceback: the sentence."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]

    def serve(daemon: Daemon) -> str:
        assert cli.main(daemon.arguments()) == EXIT_NO_RESTART
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        (said,) = [str(line["reason"]) for line in lines if line["event"] == "cannot serve"]
        return said

    yield serve
    for number, handler in handlers:
        signal.signal(number, handler)


def written(case: Case, original: Copy, topics: Topics, directory: Path) -> tuple[Copy, Daemon]:
    """A broken copy, and a daemon for it."""
    copy = case.damage(original)
    copy.write(topics)
    return copy, Daemon(topics, directory, "a", {**SETTINGS, **(case.settings or {})})


@pytest.fixture
def topics(broker: DevBroker, unique: Callable[[str], str]) -> Topics:
    return Topics.create(broker.bootstrap, unique("refused"), 1)


@pytest.mark.broker
@pytest.mark.parametrize("name", [name for name in CASES if name not in GOES_ON])
def test_refused_with_the_remedy(original: Copy, topics: Topics, tmp_path: Path, refusal: Serve, name: str) -> None:
    """Exit 78 and one sentence that says what, where and what to do."""
    _, daemon = written(CASES[name], original, topics, tmp_path)
    said = refusal(daemon)
    assert re.search(CASES[name].words, said), said


def send_rest(topics: Topics, last: int) -> None:
    """Send the readings up to `last` that the topic does not hold, and wait until they are committed."""
    topics.send(map(row, range(topics.ends()[0], last)))
    topics.wait_committed()


def skip(daemon: Daemon, is_killed: bool) -> None:
    """Go on with `skip`; where killed before the next checkpoint is due, go on without `skip`."""
    with running(daemon):
        daemon.start(kafka__on_gap="skip").wait_for("restored")
        send_rest(daemon.topics, END + 20)
        if is_killed:
            daemon.life.kill()
            daemon.start(kafka__on_gap="fail").wait_for("restored")
        send_rest(daemon.topics, END + 40)
        assert daemon.stop() == 0, daemon.life.tail()


def contents(records: Sequence[Raw]) -> list[Raw]:
    """The records but for their offsets: control records take some too."""
    return [record._replace(offset=0) for record in records]


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.parametrize("name", GOES_ON)
def test_goes_on_where_told_to(original: Copy, topics: Topics, tmp_path: Path, refusal: Serve, name: str) -> None:
    """Refused, and after `skip` served on: each forecast as the epochs say, and a replay gives the same bytes."""
    case = CASES[name]
    before, daemon = written(case, original, topics, tmp_path)
    said = refusal(daemon)
    assert re.search(case.words, said), said
    skip(daemon, is_killed=case.hole is not None)
    readings, forecasts = topics.read(READINGS), topics.read("forecasts")
    assert contents(forecasts[: len(before.forecasts)]) == contents(before.forecasts)
    added = forecasts[len(before.forecasts) :]
    epochs = checker.epochs_by_partition(topics.read("epochs"))
    if case.hole is not None:
        assert [bool(epoch.document["cold"]) for epoch in epochs[0]] == [False], "the state is kept"
        first = max(COMMITTED, case.hole.stop)
        known = [record for record in (*before.readings, *readings[END - before.first :]) if record.offset not in case.hole]
        due = [due for due in checker.judge(known, epochs).forecasts if due.source.offset >= first]
        sound(checker.check_exactly_once(checker.Judgement(due), added, []))
        return
    assert [(epoch.first_offset, epoch.document["cold"]) for epoch in epochs[0]][-1] == (case.cold_from, True)
    assert [checker.source_of(record).offset for record in added] == list(range(case.cold_from or 0, END + 40))
    standing = {checker.source_of(record): record for record in forecasts}  # of several for one reading the last
    in_order = [standing[source] for source in sorted(standing)]
    sound(checker.check_exactly_once(checker.judge(readings, epochs), in_order, []))
    sound(checker.check_replay(replay(topics, tmp_path), in_order))


@pytest.mark.broker
def test_other_arithmetic_is_accepted(original: Copy, topics: Topics, tmp_path: Path) -> None:
    """By default an epoch of another arithmetic ends where we go on: a new epoch, a warning, a metric, the state kept."""
    other_arithmetic(original).write(topics)
    daemon = Daemon(topics, tmp_path, "a", SETTINGS)
    with running(daemon):
        daemon.start()
        topics.wait_committed()
        assert "recurd_arithmetic_changes_total 1.0" in daemon.ready("/metrics")[1]
        assert len(daemon.life.named("new arithmetic")) == 1
        assert daemon.stop() == 0
    epochs = checker.epochs_by_partition(topics.read("epochs"))
    assert [(each.first_offset, each.document["fingerprint"], each.document["cold"]) for each in epochs[0]] == [
        (0, "elsewhere", False),
        (COMMITTED, "chain", False),
    ]
    # The rows of the checkpoint were made under the original epoch, those of the catch-up under the other one.
    other = replace(epochs[0][0], document={**epochs[0][0].document, "first_offset": MARK})
    made = {0: [*checker.epochs_by_partition(original.epochs)[0], other, epochs[0][1]]}
    due = [due for due in checker.judge(topics.read(READINGS), made).forecasts if due.source.offset >= COMMITTED]
    added = topics.read("forecasts")[len(original.forecasts) :]
    sound(checker.check_exactly_once(checker.Judgement(due), added, []))


# -- while it runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.broker
def test_records_that_go_while_it_lags(topics: Topics, tmp_path: Path) -> None:
    """Retention that overtakes a running daemon is noticed: it ends and says how many records are gone."""
    daemon = Daemon(topics, tmp_path, "a", SETTINGS)
    with running(daemon):
        daemon.start().wait_for("epoch started")
        topics.send(map(row, range(30)))
        topics.wait_committed()
        with daemon.frozen():
            topics.send(map(row, range(30, 40)))  # a fetch that is under way is answered with these
            topics.send(map(row, range(40, 90)))
            with topics.admin() as admin:
                admin.delete_records({TopicPartition(topics.readings, 0): 70})
        assert daemon.life.end(timeout_s=30) == EXIT_NO_RESTART, daemon.life.tail()
    (event,) = daemon.life.named("cannot serve")
    said = event.fields["reason"]
    assert re.search(f"committed offset [34]0 .* low watermark 70: [34]0 records are gone. {SKIP}go on from 70", said), said


# -- topics, weights, settings --------------------------------------------------------------------------------------------------


def make(topics: Topics, topic: str, partitions: int = 1, **settings: str) -> None:
    """A topic of the daemon's, made by somebody else."""
    configs = {key.replace("__", "."): value for key, value in settings.items()}
    with topics.admin() as admin:
        admin.create_topics({topics.name(topic): {"num_partitions": partitions, "replication_factor": -1, "configs": configs}})
        admin.wait_for_topics([topics.name(topic)])


ALTER = "set it with kafka-configs --alter --entity-type topics --entity-name {} --add-config {}"


@pytest.mark.slow
@pytest.mark.broker
def test_topics_that_cannot_serve(broker: DevBroker, unique: Callable[[str], str], tmp_path: Path, refusal: Serve) -> None:
    """A topic that is missing, compacted, not compacted, too small or of another size is named, with the way to mend it."""
    topics = Topics.create(broker.bootstrap, unique("topics"), 2)

    def refused(**settings: str) -> str:
        given = {key.replace("__", "."): value for key, value in settings.items()}
        return refusal(Daemon(topics, tmp_path, "a", {**SETTINGS, **given}))

    assert "does not exist: create it, or name another with topics.readings" in refused(topics__readings="absent")
    topics.configure(READINGS, cleanup__policy="compact,delete")
    assert "is compacted (cleanup.policy=compact,delete)" in (said := refused())
    assert "Set cleanup.policy=delete on it, or name another with topics.readings" in said
    topics.configure(READINGS, cleanup__policy="delete")

    make(topics, "state", 3, cleanup__policy="compact", max__message__bytes="67108864")
    said = refused()
    assert f"{topics.name('state')!r} has 3 partitions, the input has 2: they must be equal" in said
    assert "Name another topic, or take a new kafka.group_id" in said
    other = topics.name("other-state")
    make(topics, "other-state", 2, cleanup__policy="delete", max__message__bytes="67108864")
    said = refused(topics__state=other)
    assert ALTER.format(other, "cleanup.policy=compact") in said
    topics.configure("other-state", cleanup__policy="compact", max__message__bytes="67108864")
    make(topics, "small-dead-letters", 1, max__message__bytes="1000000")
    small = topics.name("small-dead-letters")
    said = refused(topics__state=other, topics__dead_letters=small)
    assert ALTER.format(small, "max.message.bytes=1114124") in said


@pytest.mark.slow
@pytest.mark.broker
def test_weights_that_cannot_serve(topics: Topics, tmp_path: Path, refusal: Serve) -> None:
    """Weights that are not there, cut, of another shape or named but absent: refused before anything is served."""
    file = tmp_path / "weights.safetensors"
    settings = {"model.kind": "forecaster", "model.hidden": 16, "model.horizon": 8, "model.context": 32, "model.weights": file}
    daemon = Daemon(topics, tmp_path, "a", settings)
    assert f"The weights file {str(file)!r} cannot be read (No such file or directory): check model.weights" in refusal(daemon)
    engine = examples.settings(hidden=24, horizon=8, context=32)
    data = artifacts.dump(seeded_network(engine), artifacts.Manifest.of(engine))
    file.write_bytes(data)
    said = refusal(daemon)
    assert "they were trained for model.hidden = 24 and the settings say 16: set it as they were trained" in said
    file.write_bytes(data[:-100])
    assert "100 bytes are missing at the end: copy it again" in refusal(daemon)
    assert topics.read("models") == []
    topics.send([(0, b"current", b"0123456789abcdef", T0_MS)], "models")
    said = refusal(daemon)
    assert "says that 0123456789abcdef is in force, but does not hold it: publish it again" in said


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("kafka.on_gap=skp", ["kafka.on_gap", "skp", "'fail' or 'skip'"]),
        ("kafka.ongap=skip", ["Unknown setting kafka.ongap: did you mean kafka.on_gap?"]),
        ("model.levels=[0.1, 0.9]", ["model.levels", "contain 0.5"]),
        ("kafka.bootstrap_servers=nowhere", ["kafka.bootstrap_servers", "host:port"]),
    ],
)
def test_settings_mistakes(setting: str, words: Sequence[str]) -> None:
    """A mistake in the settings is one sentence and exit 2, before anything is touched."""
    done = recurd("serve", "--set", setting)
    assert done.returncode == EXIT_USAGE
    assert done.stderr.count("\n") == 1, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
