"""The demo's steps, in order: sensors, weights, broker, daemon, history, the live part with its kill, the end.

Wiring only. Every part is what a user would run: `recurd train`, `recurd serve`, a broker on loopback.
"""

from __future__ import annotations

import contextlib
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path

from config import toml
from config.settings import HttpSettings, KafkaSettings, LogSettings, Settings, TopicSettings, parse_time_ms
from daemon import demo_weather
from daemon.brokers import connect
from daemon.brokers.dev import KAFKA_VERSION, DevBroker
from daemon.codec import format_time
from daemon.demo_process import Process
from daemon.demo_scores import RECOVERED_S
from daemon.demo_screen import Screen, Step
from daemon.demo_traffic import Traffic
from daemon.records import Reading

#: The live part ends by then, also on a machine that is busy: it is shorter there.
LIVE_END_S = 97.0
#: Training that is not done by then is given up, and the daemon serves version `naive`.
TRAINING_END_S = 60.0
LIVE_S = 45.0
SHORTEST_LIVE_S = 14.0
#: A step that takes longer has failed.
PATIENCE_S = 60.0
#: Readings before are trained on; the forecasts that follow later ones are scored.
LIVE_FROM = "2013-07-01T00:00:00Z"
#: Readings from here on are published at once, so that the streams are warm.
HISTORY_FROM = "2013-06-01T00:00:00Z"
#: The sensors wait while the daemon is so far behind: this machine cannot keep up with them.
BEHIND_S = 0.35
#: So many readings may gather while the daemon is down.
MOST_WAITING = 4000
#: How long to wait for forecasts between two turns of the sensors.
LOOK_MS = 40
#: Trained within about fifteen seconds on one core. More steps gain nothing on so little data, a longer context hardly anything.
SMALL = {"hidden": 32, "context": 48}
STEPS = 60


class Demo:
    """The steps, in order."""

    def __init__(self, settings: Settings, directory: Path, stack: contextlib.ExitStack, screen: Screen) -> None:
        self._given = settings
        self._directory = directory
        self._stack = stack
        self._screen = screen
        self._facts = screen.facts
        self._config = directory / "recurd.toml"
        self._restored = False  # the daemon that was started after the kill has its state again

    def run(self, data: Path) -> None:
        """All of it, up to the last forecast."""
        readings = self._weather(data)
        live_from_ms = parse_time_ms(LIVE_FROM)
        first, live = (bisect_left(readings, parse_time_ms(t), key=lambda each: each.time_ms) for t in (HISTORY_FROM, LIVE_FROM))
        self._write(self._settings())
        training = self._start_training(readings[:live])
        bootstrap = self._broker()
        weights = self._finish_training(training)
        settings = self._settings(bootstrap, weights)
        self._write(settings)
        self._traffic = Traffic(settings, connect(settings), self._facts, live_from_ms)
        self._stack.callback(self._traffic.close)
        self._serve(readings[first:live])
        self._live(readings[live:])
        self._drain()

    def _weather(self, data: Path) -> list[Reading]:
        step = self._screen.begin("weather", "reading the sensors' year")
        readings = demo_weather.read(data)
        self._screen.done(step, f"{len(readings):,} hourly readings of {len(self._facts.scores)} sensors at three airports, 2013")
        return readings

    # -- settings and processes -------------------------------------------------------------------------------------------

    def _settings(self, bootstrap: str = "127.0.0.1:9092", weights: Path | None = None) -> Settings:
        """The user's with what the demo decides; nothing is told to a broker while training."""
        given = self._given
        small = {name: value for name, value in SMALL.items() if name not in given.model.model_fields_set}
        return given.model_copy(
            update={
                # Static membership: the daemon takes its dead predecessor's place at once.
                "kafka": KafkaSettings(
                    bootstrap_servers=bootstrap, group_id="recurd-demo", instance_id="demo", max_poll_records=1000
                ),
                "topics": TopicSettings(readings="weather"),
                "input": demo_weather.INPUT,
                "model": given.model.model_copy(update={**small, "weights": weights}),
                "http": HttpSettings(port=0),
                "log": LogSettings(format="json"),
            }
        )

    def _write(self, settings: Settings) -> None:
        self._config.write_text(toml.effective(settings))

    def _process(self, command: str, *arguments: str | Path) -> Process:
        process = Process(self._directory, command, command, *arguments, "--config", self._config)
        self._stack.callback(process.kill)
        return process

    # -- the steps --------------------------------------------------------------------------------------------------------

    def _start_training(self, readings: list[Reading]) -> tuple[Step, Process, Path]:
        step = self._screen.begin("weights", f"training on {len(readings):,} readings before {LIVE_FROM[:10]}")
        data, weights = self._directory / "before.csv", self._directory / "weights.safetensors"
        demo_weather.write_csv(data, readings)
        return step, self._process("train", data, "--out", weights, "--steps", str(STEPS)), weights

    def _broker(self) -> str:
        step = self._screen.begin("broker", f"starting Apache Kafka {KAFKA_VERSION} (fetched the first time)")
        broker = DevBroker(self._directory / "kafka")
        self._stack.callback(broker.stop, kill=True)
        self._screen.done(step, f"Apache Kafka {KAFKA_VERSION} on {broker.bootstrap}")
        return broker.bootstrap

    def _finish_training(self, training: tuple[Step, Process, Path]) -> Path | None:
        step, process, weights = training
        what = step.what
        while process.running():
            for event in process.events():
                if event["event"] == "training":
                    step.what = f"{what}, {event['done']}"
            if self._screen.elapsed_s() > TRAINING_END_S:
                process.kill()
                self._facts.weights = f"none: not trained within {TRAINING_END_S:.0f} s on this machine, version naive serves"
                self._screen.done(step, self._facts.weights)
                return None
            time.sleep(0.1)
        process.check()
        self._facts.weights = f"version {process.summary('weights').split('version ')[-1].split(',')[0]}"
        self._screen.done(
            step,
            f"{self._facts.weights}, {STEPS} steps; hold-out error {_in_parentheses(process.summary('hold-out'))} against naive",
        )
        return weights

    def _serve(self, history: list[Reading]) -> None:
        step = self._screen.begin("daemon", "starting recurd serve with these weights")
        self._facts.phase = "starting"
        self._daemon = self._process("serve")
        self._traffic.send(history)
        self._until(lambda: self._facts.ledger.forecasts > 0, "a first forecast")
        self._screen.done(step, "recurd serve sends forecasts")
        step = self._screen.begin("history", f"{len(history):,} readings since {HISTORY_FROM[:10]} at once, to warm the streams")
        self._facts.phase = "history"
        self._until(lambda: self._facts.waiting == 0, "the forecasts of the history")
        self._screen.done(step, f"{len(history):,} readings since {HISTORY_FROM[:10]}; the streams are warm")

    def _live(self, readings: list[Reading]) -> None:
        """Publish readings as fast as the time allows and the daemon follows; half-way kill it and start it again."""
        facts, screen = self._facts, self._screen
        seconds = max(SHORTEST_LIVE_S, min(LIVE_S, LIVE_END_S - screen.elapsed_s()))
        first_ms, span_ms = readings[0].time_ms, readings[-1].time_ms - readings[0].time_ms
        full_speed = span_ms / (0.98 * seconds)  # sensors' milliseconds a second
        step = screen.begin("live", f"up to {len(readings):,} readings in {seconds:.0f} s; half-way a kill -9 of the daemon")
        facts.phase = "live"
        facts.ledger.live_s = began_s = last_s = time.monotonic()
        sent, clock_ms = 0, float(first_ms)
        while sent < len(readings) and (now_s := time.monotonic()) - began_s < seconds:
            clock_ms += (now_s - last_s) * self._pace(full_speed)
            last_s = now_s
            due = bisect_right(readings, clock_ms, lo=sent, key=lambda each: each.time_ms)
            self._traffic.send(readings[sent:due])
            sent = due
            facts.clock = format_time(round(clock_ms))[:16].replace("T", " ")
            facts.share = (now_s - began_s) / seconds
            if not facts.ledger.recovering:
                facts.speed = (clock_ms - first_ms) / 1000 / max(now_s - began_s, 1.0)
            if not facts.killed_at and facts.share > 0.5:
                self._kill()
            self._look(LOOK_MS)
        facts.share, facts.live_readings = 1.0, sent
        facts.speed = (clock_ms - first_ms) / 1000 / (time.monotonic() - began_s)
        facts.span = f"{LIVE_FROM[:10]} to {facts.clock[:10]}"
        screen.done(step, f"{sent:,} readings, {facts.span}, {facts.speed:,.0f} times real speed")

    def _pace(self, full_speed: float) -> float:
        """How fast the sensors' clock runs: on without the daemon, at half speed while it catches up."""
        facts = self._facts
        if not facts.ledger.recovering:
            return full_speed if facts.oldest_s < BEHIND_S else 0.0
        speed = facts.speed * 1000
        down = math.isnan(facts.back_s)
        return 0.0 if facts.waiting > MOST_WAITING else speed if down else speed / 2

    def _kill(self) -> None:
        """kill -9, and the same command again."""
        facts = self._facts
        self._daemon.kill()
        facts.ledger.killed_s = time.monotonic()
        facts.phase = "killed (kill -9), restarting"
        facts.killed_at = facts.clock
        self._screen.note(f"{facts.clock}  kill -9 of the daemon; starting it again")
        self._daemon = self._process("serve")

    def _drain(self) -> None:
        step = self._screen.begin("end", "waiting for the last forecasts, stopping the daemon")
        self._until(lambda: self._facts.waiting == 0, "the last forecasts")
        self._daemon.stop()
        self._traffic.see_all()
        self._screen.done(step, "the daemon has stopped")

    # -- looking on -------------------------------------------------------------------------------------------------------

    def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        self._look(0)
        while not true():
            if time.monotonic() > deadline_s:
                raise self._daemon.failure(f"did not bring {what} within {PATIENCE_S:.0f} s")
            self._look(LOOK_MS)

    def _look(self, timeout_ms: int) -> None:
        """Take new forecasts and see how the daemon is."""
        facts, ledger = self._facts, self._facts.ledger
        if not self._daemon.running():
            raise self._daemon.failure("ended before it was told to")
        if ledger.recovering:
            self._restored = self._restored or any(event["event"] == "restored" for event in self._daemon.events())
        restored, seen_before = self._restored, ledger.forecasts
        self._traffic.see(timeout_ms)
        now_s = time.monotonic()
        facts.waiting, facts.oldest_s = ledger.waiting(now_s)
        if ledger.recovering and restored and ledger.forecasts > seen_before:
            self._recover(now_s)
        self._screen.tick()

    def _recover(self, now_s: float) -> None:
        """Forecasts of the new daemon were seen."""
        facts, ledger = self._facts, self._facts.ledger
        passed_s = now_s - ledger.killed_s
        if math.isnan(facts.back_s):
            facts.phase, facts.back_s = "restored, catching up", passed_s
            self._screen.note(f"{facts.clock}  restored: first forecast {passed_s:.1f} s after the kill")
        if facts.oldest_s < RECOVERED_S:
            facts.phase, ledger.recovered_s = "live", now_s
            self._screen.note(f"{facts.clock}  caught up {passed_s:.1f} s after the kill")


def _in_parentheses(text: str) -> str:
    return text.partition("(")[2].partition(")")[0]
