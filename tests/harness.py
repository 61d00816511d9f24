"""Runs the real thing: topics on a real broker, `recurd serve` as processes, load, faults, and what the logs say of them.

Kafka is reached with the client library directly, never through `daemon.brokers`: what the daemon wrote is read by other code
than wrote it. Log lines tell when to strike and, afterwards, what a strike hit.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tests import checker
from tests.checker import Raw
from tests.load import MAX_BYTES, MAX_ELEMENTS, MAX_GAP_S, Load

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python loads its schemas by importlib's old read_text
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import ConfigResource, ConfigResourceType

#: How long anything may take that must happen: a start, a restore, the end of a backlog. Machines may be busy.
PATIENCE_S = 180.0
#: A stopping daemon has this long.
STOP_S = 10.0

READINGS = "readings"


def wait_until(true: Callable[[], object], what: str, timeout_s: float = PATIENCE_S, every_s: float = 0.05) -> None:
    """Return when `true` is; fail with `what` when it does not happen."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(every_s)


# -- topics -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Topics:
    """One group's topics on a broker."""

    bootstrap: str
    group: str
    readings: str
    partitions: int

    @classmethod
    def create(cls, bootstrap: str, group: str, partitions: int, **settings: str) -> Topics:
        """Make the input topic, with settings of it (`__` for the dot); the daemon makes the others. Old records must stay."""
        topics = cls(bootstrap, group, f"{group}.{READINGS}", partitions)
        with topics.admin() as admin:
            given = {key.replace("__", "."): value for key, value in settings.items()}
            configs = {"retention.ms": "-1", "cleanup.policy": "delete", **given}
            admin.create_topics({topics.readings: {"num_partitions": partitions, "replication_factor": -1, "configs": configs}})
            admin.wait_for_topics([topics.readings])
        return topics

    @property
    def settings(self) -> dict[str, Any]:
        """Those by which a command of recurd finds them."""
        return {"kafka.bootstrap_servers": self.bootstrap, "kafka.group_id": self.group, "topics.readings": self.readings}

    def of_group(self, group: str) -> Topics:
        """Another group on the same input."""
        return replace(self, group=group)

    def configure(self, topic: str, **settings: str) -> None:
        """Change settings of a topic, `__` for the dot."""
        given = {key.replace("__", "."): value for key, value in settings.items()}
        with self.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.name(topic), configs=given)])

    @contextlib.contextmanager
    def admin(self) -> Iterator[Any]:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            yield admin
        finally:
            admin.close()

    def name(self, topic: str) -> str:
        return self.readings if topic == READINGS else f"{self.group}.{topic}"

    def read(self, topic: str, isolation: str = "read_committed") -> list[Raw]:
        """Every record of `readings`, `forecasts`, `dead-letters` or `epochs`, a partition's in order."""
        consumer = _consumer(self.bootstrap, isolation)
        try:
            name = self.name(topic)
            places = [TopicPartition(name, number) for number in sorted(consumer.partitions_for_topic(name) or ())]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            found: list[Raw] = []
            deadline_s = time.monotonic() + PATIENCE_S
            while any(consumer.position(place) < ends[place] for place in places):
                assert time.monotonic() < deadline_s, f"{name} could not be read to its end {ends}"
                for records in consumer.poll(timeout_ms=500).values():
                    found += map(_raw, records)
            return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            consumer.close(autocommit=False)

    def ends(self) -> dict[int, int]:
        """End offsets of the input."""
        consumer = _consumer(self.bootstrap, "read_committed")
        try:
            places = [TopicPartition(self.readings, number) for number in range(self.partitions)]
            return {place.partition: end for place, end in consumer.end_offsets(places).items()}
        finally:
            consumer.close(autocommit=False)

    def send(self, records: Iterable[Sequence[Any]], topic: str = READINGS, **client: Any) -> list[int]:
        """Send (partition, key, value, timestamp in ms[, headers]) and wait until the broker has them; their offsets."""
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap, linger_ms=20, metrics_enabled=False, allow_auto_create_topics=False, **client
        )
        name = self.name(topic)
        sent = [
            producer.send(name, value, key, partition=partition, timestamp_ms=timestamp_ms, headers=list(*headers))
            for partition, key, value, timestamp_ms, *headers in records
        ]
        producer.flush(timeout=PATIENCE_S)
        producer.close(timeout=PATIENCE_S)
        return [future.get(timeout=0).offset for future in sent]

    def hanging(self) -> int:
        """Offsets of the forecasts that an open transaction holds back from read-committed readers."""
        held = 0
        for isolation, sign in (("read_uncommitted", 1), ("read_committed", -1)):
            consumer = _consumer(self.bootstrap, isolation)
            try:
                places = [TopicPartition(self.name("forecasts"), number) for number in range(self.partitions)]
                held += sign * sum(consumer.end_offsets(places).values())
            finally:
                consumer.close(autocommit=False)
        return held

    def committed(self) -> dict[int, int]:
        """Committed offsets of the group."""
        with self.admin() as admin:
            found = admin.list_group_offsets(self.group)[self.group]
            return {place.partition: each.offset for place, each in found.items() if place.topic == self.readings}

    def wait_committed(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until all of the input is committed."""
        ends = {number: end for number, end in self.ends().items() if end}
        wait_until(lambda: self.committed().items() >= ends.items(), f"all of {ends} committed", timeout_s, every_s=0.2)


def _consumer(bootstrap: str, isolation: str) -> Any:
    return KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level=isolation,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        metrics_enabled=False,
        reconnect_backoff_max_ms=1000,
    )


def _raw(record: Any) -> Raw:
    headers = tuple((name, value or b"") for name, value in record.headers)
    return Raw(record.partition, record.offset, record.timestamp, record.key, record.value, headers)


class Background:
    """A thread that works until it is told to stop; `running` stops those that a failed test left."""

    living: ClassVar[list[Background]] = []

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()
        Background.living.append(self)

    def _run(self) -> None:
        raise NotImplementedError

    def end(self, timeout_s: float = PATIENCE_S) -> None:
        """Stop and wait."""
        self._stopping.set()
        self._thread.join(timeout_s)
        if self in Background.living:
            Background.living.remove(self)


class Reader(Background):
    """A read-committed reader of the forecasts that runs during the faults, as a user's would."""

    def __init__(self, topics: Topics) -> None:
        self.seen: list[Raw] = []
        self._topics = topics
        super().__init__()

    def _run(self) -> None:
        consumer = _consumer(self._topics.bootstrap, "read_committed")
        try:
            self._follow(consumer, self._topics.name("forecasts"))
        finally:
            consumer.close(autocommit=False)

    def _follow(self, consumer: Any, name: str) -> None:
        while not consumer.partitions_for_topic(name):
            if self._stopping.wait(0.1):
                return
        places = [TopicPartition(name, number) for number in range(self._topics.partitions)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        while not self._stopping.is_set():
            for records in consumer.poll(timeout_ms=200).values():
                self.seen += map(_raw, records)

    def stop(self, count: int) -> list[Raw]:
        """Stop once `count` forecasts were seen, or nothing more comes; what was seen, in the order of reading."""
        deadline_s = time.monotonic() + 15
        while len(self.seen) < count and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(0.3)  # one too many must have its chance
        self.end()
        return self.seen


class Swapper(Background):
    """Puts some model versions in force, one after the other, round and round, a new one every one to three seconds."""

    def __init__(self, topics: Topics, versions: Sequence[str], rng: random.Random) -> None:
        self._topics, self._versions, self._rng = topics, versions, random.Random(rng.random())
        super().__init__()

    def _run(self) -> None:
        for version in itertools.cycle(self._versions):
            if self._stopping.wait(self._rng.uniform(1.0, 3.0)):
                return
            self._topics.send([(0, b"current", version.encode(), None)], topic="models")


class Feeder(Background):
    """Sends a load in uneven bursts, as much as is allowed, until it is stopped."""

    def __init__(self, topics: Topics, load: Load, records_per_s: float, most: int = 10**9) -> None:
        self.sent = 0
        self._topics = topics
        self._load = load
        self._records_per_s = records_per_s
        self._most = most
        self._failure: BaseException | None = None
        super().__init__()

    def _run(self) -> None:
        try:
            self._feed()
        except BaseException as failure:
            self._failure = failure
            raise

    def _feed(self) -> None:
        rng = random.Random(self._load.seed)
        producer = KafkaProducer(
            bootstrap_servers=self._topics.bootstrap,
            linger_ms=5,
            reconnect_backoff_max_ms=1000,
            metrics_enabled=False,
            allow_auto_create_topics=False,
        )
        records = iter(self._load)
        while not self._stopping.is_set():
            pause_s = rng.choice([0.02, 0.1, 0.4])
            for _ in range(min(max(1, int(self._records_per_s * pause_s)), self._most - self.sent)):
                partition, key, value, timestamp_ms = next(records)
                producer.send(self._topics.readings, value, key, partition=partition, timestamp_ms=timestamp_ms)
                self.sent += 1
            self._stopping.wait(pause_s)
        producer.flush(timeout=PATIENCE_S)
        producer.close(timeout=PATIENCE_S)

    def allow(self, records: int) -> None:
        """Let so many more be sent: a run's size should not hang on how fast the machine is."""
        self._most += records

    def join(self) -> None:
        """Wait until all that is allowed is sent."""
        wait_until(lambda: self.sent >= self._most or self._failure, "the load sent")
        self.stop()

    def stop(self) -> None:
        """Send no more; what was sent is acknowledged."""
        self.end()
        assert not self._thread.is_alive(), "the load was not sent in time"
        assert self._failure is None, f"the load failed: {self._failure}"


# -- daemons ------------------------------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """A line of a daemon's log."""

    at_s: float  # monotonic
    name: str
    fields: Mapping[str, Any]


class Life:
    """One process, from start to end."""

    def __init__(self, number: int, process: subprocess.Popen[str], log: Path) -> None:
        self.number = number
        self.process = process
        self.events: list[Event] = []
        self.raw_lines: list[str] = []  # what is no event: tracebacks, warnings of the interpreter
        self.started_s = time.monotonic()
        self._log = log
        self._trigger: Callable[[Event], bool] | None = None
        self._delay_s = 0.0
        self._signal = signal.SIGKILL
        self._signalled = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"log-{number}", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        assert self.process.stderr is not None
        with self._log.open("a") as log:
            for line in self.process.stderr:
                log.write(line)
                log.flush()
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            fields = json.loads(line)
            event = Event(time.monotonic(), fields["event"], fields)
        except (ValueError, KeyError, TypeError):
            self.raw_lines.append(line)
            return
        if self._trigger is not None and self._trigger(event):
            self._trigger = None
            time.sleep(self._delay_s)
            self.signal(self._signal)
            self._signalled.set()
        self.events.append(event)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill_at(self, trigger: Callable[[Event], bool]) -> None:
        """SIGKILL from the thread that reads the log, as soon as a line matches."""
        self._signal = signal.SIGKILL
        self._trigger = trigger

    def freeze_at(self, trigger: Callable[[Event], bool], delay_s: float) -> None:
        """SIGSTOP so long after a line matches; back when it is done."""
        self._signal, self._delay_s = signal.SIGSTOP, delay_s
        self._signalled.clear()
        self._trigger = trigger
        wait_until(self._signalled.is_set, "the line to freeze at", every_s=0.01)
        self._delay_s = 0.0

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone and its log is read."""
        self.signal(signal.SIGKILL)
        self.end()

    def end(self, timeout_s: float = STOP_S) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(timeout_s)
        self._thread.join(STOP_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def running(self) -> bool:
        return self.process.poll() is None

    def named(self, name: str) -> list[Event]:
        return [event for event in list(self.events) if event.name == name]

    def wait_for(self, name: str, count: int = 1, timeout_s: float = PATIENCE_S) -> Event:
        """The count-th event of a name, once it is there."""

        def there() -> bool:
            assert self.running() or len(self.named(name)) >= count, f"ended before {name!r}:\n{self.tail()}"
            return len(self.named(name)) >= count

        wait_until(there, f"event {name!r} number {count}", timeout_s, every_s=0.01)
        return self.named(name)[count - 1]

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self._log.read_text().splitlines()[-lines:])

    def complaints(self) -> list[str]:
        """Warnings and errors of recurd itself, and lines that are no events; the client's own chatter is none."""
        ours = [event for event in list(self.events) if not str(event.fields.get("logger")).startswith("kafka")]
        said = [f"{each.name}: {each.fields}" for each in ours if each.fields.get("level") in ("warning", "error")]
        return said + list(self.raw_lines)

    # what a kill hit

    def in_transaction(self) -> bool:
        """Whether the last transaction had begun to send and was not yet known to be committed."""
        named = [event.name for event in self.events if event.name in ("sending", "committed", "transaction in doubt")]
        return bool(named) and named[-1] == "sending"

    def in_restore(self) -> bool:
        """Whether some partition's changelog was being read."""
        started = Counter(event.fields["partition"] for event in self.named("restore started"))
        done = Counter(event.fields["partition"] for event in self.named("restored"))
        return bool(started - done)

    def catch_up(self) -> int:
        """Records that the first restore of each partition had to catch up, together."""
        first: dict[int, int] = {}
        for event in self.named("restored"):
            first.setdefault(event.fields["partition"], event.fields["catch_up"])
        return sum(first.values())


class Daemon:
    """`recurd serve` under one identity, life after life."""

    def __init__(self, topics: Topics, directory: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.topics = topics
        self.name = name
        self.settings = dict(settings)
        self.lives: list[Life] = []
        self.log = directory / f"{topics.group}-{name}.log"

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def start(self, **changes: Any) -> Life:
        """Start a process; `changes` are settings with `__` for the dot, which stay."""
        assert not self.lives or not self.life.running()
        self.settings |= {key.replace("__", "."): value for key, value in changes.items()}
        command = [sys.executable, "-m", "daemon.cli", *self.arguments()]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment())
        self.lives.append(Life(len(self.lives), process, self.log))
        return self.life

    def arguments(self) -> list[str]:
        """Of the command line."""
        return ["serve", *given({**self._common(), **self.settings})]

    def _common(self) -> dict[str, Any]:
        return {
            **self.topics.settings,
            "http.port": 0,
            "log.format": "json",
            "log.level": "debug",
            "input.max_bytes": MAX_BYTES,
            "input.max_elements": MAX_ELEMENTS,
            "input.max_gap_s": MAX_GAP_S,
        }

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.life.signal(signal.SIGTERM)
        return self.life.end()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT afterwards."""
        self.life.signal(signal.SIGSTOP)
        yield
        self.life.signal(signal.SIGCONT)

    def ready(self, path: str = "/readyz?verbose") -> tuple[int, str]:
        """Status and text of a probe."""
        port = self.life.wait_for("http listening").fields["port"]
        return probe(port, path)

    def wait_ready(self, timeout_s: float = PATIENCE_S) -> None:
        wait_until(lambda: self.ready()[0] == 200, f"{self.name} ready", timeout_s, every_s=0.2)


def probe(port: int, path: str) -> tuple[int, str]:
    """GET on loopback: status and text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def environment() -> dict[str, str]:
    """Ours without settings of recurd; one thread of arithmetic a process, as there are two cores."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECURD_")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def given(settings: Mapping[str, Any]) -> list[str]:
    """Settings on the command line."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


class Command:
    """Commands of recurd under some settings."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = given(settings)

    def __call__(self, *words: str | Path) -> str:
        """What one that succeeds says on standard output."""
        done = recurd(*words, *self._settings)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def line(self, *words: str | Path) -> list[str]:
        """The command line, for one that a test runs by itself."""
        return [sys.executable, "-m", "daemon.cli", *map(str, words), *self._settings]

    def failed(self, *words: str | Path) -> str:
        """What one that ends with 1 says on standard output."""
        done = recurd(*words, *self._settings)
        assert done.returncode == 1, done.stderr
        return done.stdout

    def refused(self, *words: str | Path) -> str:
        """What one that ends with 1 says on standard error."""
        done = recurd(*words, *self._settings)
        assert done.returncode == 1, done.stdout
        return done.stderr


def recurd(*arguments: str | Path, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "daemon.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=timeout_s)


@contextlib.contextmanager
def running(*daemons: Daemon) -> Iterator[None]:
    """Leave no process behind, whatever happens; show the logs where something did."""
    try:
        yield
    except BaseException:
        for daemon in daemons:
            if daemon.lives:
                print(f"--- {daemon.name}, life {daemon.life.number}, settings {daemon.settings}\n{daemon.life.tail(40)}")
        raise
    finally:
        for daemon in daemons:
            for life in daemon.lives:
                life.signal(signal.SIGCONT)
                life.kill()
        for left in list(Background.living):
            left.end(timeout_s=20)


# -- kills --------------------------------------------------------------------------------------------------------------------


@dataclass
class Kills:
    """What was killed, counted from the logs of the dead and of those who came after."""

    dead: list[Life] = field(default_factory=list)
    heirs: list[Sequence[Life]] = field(default_factory=list)  # the lives that took over from each, a list that may grow
    held: list[int] = field(default_factory=list)  # forecasts in the transaction that each left open, as the broker says

    def add(self, dead: Life, heirs: Sequence[Life], held: int) -> None:
        self.dead.append(dead)
        self.heirs.append(heirs)
        self.held.append(held)

    @property
    def total(self) -> int:
        return len(self.dead)

    @property
    def in_transaction(self) -> int:
        return sum(dead.in_transaction() for dead in self.dead)

    @property
    def with_records_held(self) -> int:
        return sum(held > 0 for held in self.held)

    @property
    def in_restore(self) -> int:
        return sum(dead.in_restore() for dead in self.dead)

    @property
    def with_catch_up(self) -> int:
        return sum(any(heir.catch_up() > 0 for heir in heirs) for heirs in self.heirs)

    def enough(self) -> bool:
        """The shares under which kills prove something."""
        share = self.total / 10
        return (
            self.in_restore >= 3
            and self.in_transaction >= share
            and self.with_records_held >= share
            and self.with_catch_up >= 3 * share
        )

    def __str__(self) -> str:
        return (
            f"{self.total} kills: {self.in_transaction} between first send and commit "
            f"({self.with_records_held} with records held back by the open transaction), {self.in_restore} inside a restore, "
            f"{self.with_catch_up} with a non-empty catch-up afterwards"
        )


def chaos_kills(default: int = 10) -> int:
    """How many kills a test must see: RECURD_CHAOS_KILLS."""
    return int(os.environ.get("RECURD_CHAOS_KILLS", default))


def chaos_seed() -> int:
    """RECURD_CHAOS_SEED, or a new one; printed, so that a failure can be run again."""
    seed = int(os.environ.get("RECURD_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"\nRECURD_CHAOS_SEED={seed}")
    return seed


def aborted(committed: Sequence[Raw], uncommitted: Sequence[Raw]) -> int:
    """Forecasts that reached the log and were never committed: proof that transactions were cut off."""
    return len({(r.partition, r.offset) for r in uncommitted} - {(r.partition, r.offset) for r in committed})


# -- the verdict --------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What the topics hold after a run."""

    readings: list[Raw]
    forecasts: list[Raw]
    dead_letters: list[Raw]
    epochs: dict[int, list[checker.Epoch]]
    judgement: checker.Judgement
    aborted: int  # forecasts that were sent and never committed

    def __str__(self) -> str:
        judged = self.judgement
        counts = ", ".join(f"{count} {name}" for name, count in sorted(judged.counts.items()))
        return (
            f"{len(self.readings)} records, {judged.readings} readings: {counts}; {judged.evicted} evictions, "
            f"{judged.restarted} fresh starts after a gap, {sum(map(len, self.epochs.values()))} epochs, "
            f"{self.aborted} forecasts sent in transactions that were aborted"
        )


def collect(topics: Topics) -> Found:
    """Read everything and say what should have come of it. Every daemon must have stopped."""
    readings, forecasts = topics.read(READINGS), topics.read("forecasts")
    epochs = checker.epochs_by_partition(topics.read("epochs"))
    lost = aborted(forecasts, topics.read("forecasts", "read_uncommitted"))
    return Found(readings, forecasts, topics.read("dead-letters"), epochs, checker.judge(readings, epochs), lost)


def assert_exactly_once(topics: Topics, found: Found, seen: Sequence[Raw], directory: Path, weights: Sequence[Path] = ()) -> None:
    """Ledger, digests, dead letters, the reader during the run, and one uninterrupted replay, an audit: all as it must be."""
    print(found)
    sound(checker.check_exactly_once(found.judgement, found.forecasts, found.dead_letters))
    sound(checker.check_dead_letter_bytes(found.readings, found.dead_letters))
    sound(checker.check_reader(seen, found.forecasts))
    sound(checker.check_replay(replay(topics, directory, weights), found.forecasts))
    audited = Command(topics.settings)("audit").splitlines()[-1]
    assert audited.startswith(f"{len(found.forecasts)} forecasts of "), audited
    assert audited.endswith("are equal, byte for byte"), audited


def sound(problems: Sequence[str]) -> None:
    """Fail with what a check has found."""
    assert not problems, "\n".join(problem[:1000] for problem in problems)


def replay(topics: Topics, directory: Path, weights: Sequence[Path] = ()) -> list[tuple[checker.Source, bytes]]:
    """`recurd record` of the input, then `recurd replay` of that file, in one go."""
    recording, out = directory / f"{topics.group}.jsonl.zst", directory / f"{topics.group}.forecasts.jsonl"
    Command(topics.settings)("record", "--out", recording)
    chosen = [word for file in weights for word in ("--weights", file)]
    Command({})("replay", recording, "--out", out, "--with-source", *chosen)
    with out.open("rb") as lines:
        return checker.replayed(lines)
