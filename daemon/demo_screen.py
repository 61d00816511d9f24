"""What the demo shows while it runs: steps and a live table of the sensors. On a terminal a screen, elsewhere plain lines.

Reads the facts; decides nothing and knows no Kafka.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from daemon.demo_scores import Ledger, SensorScore, mean_ratio, percentile
from daemon.demo_weather import SENSORS, Sensor

PLAIN_WIDTH = 112
PLAIN_EVERY_S = 5.0
REFRESH_PER_S = 4
#: From this width on, the curve of each sensor is shown, and from this one both errors beside their ratio.
CURVE_WIDTH = 104
ERRORS_WIDTH = 92
#: Lines of the screen around steps and rows.
_AROUND = 10
_BAR = 30
_BLOCKS = "▁▂▃▄▅▆▇█"
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@dataclass
class Facts:
    """What is known so far; the demo's wiring writes it."""

    ledger: Ledger
    scores: dict[Sensor, SensorScore]  # in the table's order
    lead: int  # hours ahead, in the table
    interval: str  # between the outermost levels, such as "80%"
    phase: str = ""
    clock: str = ""  # the sensors' time
    speed: float = 0.0  # times real speed
    share: float = 0.0  # of the live part that is over
    waiting: int = 0  # readings on their way
    oldest_s: float = 0.0  # the oldest of them has been for so long
    rate_per_s: float = 0.0  # forecasts
    weights: str = ""
    live_readings: int = 0
    span: str = ""  # of the live readings
    killed_at: str = ""  # the sensors' time
    back_s: float = math.nan  # from the kill to the next forecast

    @property
    def leads(self) -> Sequence[int]:
        """Hours ahead that are scored."""
        return next(iter(self.scores.values())).leads


@dataclass
class Step:
    """One step of the demo."""

    name: str
    what: str
    started_s: float
    seconds: float | None = None  # it took; None while it runs


class Screen:
    """Shows facts and steps until the block ends."""

    def __init__(self, console: Console, facts: Facts) -> None:
        self.facts = facts
        self._console = console
        self._steps: list[Step] = []
        self._started_s = self._said_s = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self.render, console=self._console, screen=True, refresh_per_second=REFRESH_PER_S)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def elapsed_s(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._started_s

    def begin(self, name: str, what: str) -> Step:
        """A step starts."""
        step = Step(name, what, time.monotonic())
        self._steps.append(step)
        self.note(f"{name}: {what} ...")
        return step

    def done(self, step: Step, what: str) -> None:
        """A step is over; `what` came of it."""
        step.what, step.seconds = what, time.monotonic() - step.started_s
        self.note(f"{step.name}: {what} ({step.seconds:.1f} s)")

    def note(self, what: str) -> None:
        """Something happened: a plain line at once; the screen shows it in the facts."""
        self._said_s = time.monotonic()
        if self._live is None:
            self._console.print(f"[{self.elapsed_s():5.1f} s] {what}", markup=False, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """Called often; once in a while a plain line says how far it is."""
        if self._live is None and time.monotonic() - self._said_s >= PLAIN_EVERY_S:
            facts, ledger = self.facts, self.facts.ledger
            ratio = mean_ratio(facts.scores.values(), facts.lead)
            self.note(
                f"{facts.phase}  {facts.clock}  {ledger.readings:,} readings, {ledger.forecasts:,} forecasts, "
                f"{facts.waiting:,} waiting, p99 {milliseconds(percentile(ledger.recent, 0.99))}, "
                f"error at +{facts.lead} h {_percent(ratio) or '-'} against naive"
            )

    # -- the screen -------------------------------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The whole screen as it is now."""
        title = Text.assemble(("recurd demo", "bold"), "  weather of three airports, through a real Kafka")
        parts: list[RenderableType] = [_ends(title, f"{self.elapsed_s():.0f} s"), Text()]
        parts += [_step(step) for step in self._steps]
        if any(score.history for score in self.facts.scores.values()):
            rows = max(3, self._console.height - _AROUND - len(self._steps))
            parts += [Text(), table(self.facts, self._console.width - 2, rows), Text(), *_status(self.facts)]
        return Padding(Group(*parts), (0, 1))


def _step(step: Step) -> RenderableType:
    running = step.seconds is None
    seconds = time.monotonic() - step.started_s if step.seconds is None else step.seconds
    mark = (_SPINNER[int(time.monotonic() * 8) % len(_SPINNER)], "yellow") if running else ("✓", "green")
    return _ends(Text.assemble(mark, (f" {step.name:<8} ", "bold"), step.what), f"{seconds:.1f} s")


def _ends(left: Text, right: str) -> RenderableType:
    """A line with something at both ends."""
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", style="dim")
    line.add_row(left, right)
    return line


def _status(facts: Facts) -> list[RenderableType]:
    """Three lines below the table."""
    ledger = facts.ledger
    filled = int(facts.share * _BAR)
    phase = Text(facts.phase, style="bold green" if facts.phase == "live" else "bold yellow")
    errors = [part for lead in facts.leads for part in (f"  +{lead} h ", against(mean_ratio(facts.scores.values(), lead)))]
    latency = f"p50 {milliseconds(percentile(ledger.recent, 0.5))}, p99 {milliseconds(percentile(ledger.recent, 0.99))}"
    return [
        Text.assemble(("━" * filled, "cyan"), ("━" * (_BAR - filled), "grey30"), f"  {facts.clock}  ", phase),
        Text(
            f"{ledger.readings:,} readings, {ledger.forecasts:,} forecasts, {facts.waiting:,} waiting; "
            f"{facts.rate_per_s:,.0f} a second; {latency}"
        ),
        Text.assemble("error against naive", *errors),
    ]


def table(facts: Facts, width: int, most: int = len(SENSORS)) -> Table:
    """The sensors: newest reading, forecast, interval, and how forecasts of this lead have done so far."""
    made = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    made.add_column("sensor", no_wrap=True)
    if width >= CURVE_WIDTH:
        made.add_column("24 h past │ ahead", no_wrap=True)
    errors = ("error", "naive") if width >= ERRORS_WIDTH else ()
    for name in ("reading", f"in {facts.lead} h", f"{facts.interval} interval", *errors, "against", "inside"):
        made.add_column(name, justify="right", no_wrap=True)
    sensors = list(facts.scores)
    shown = sensors if most >= len(sensors) else sensors[: most - 1]
    for sensor in shown:
        made.add_row(*_row(facts, sensor, width))
    if len(shown) < len(sensors):
        made.add_row(Text(f"{len(sensors) - len(shown)} more", style="dim"))
    return made


def _row(facts: Facts, sensor: Sensor, width: int) -> list[RenderableType]:
    score = facts.scores[sensor]
    tally = score.tallies[facts.lead]
    cells: list[RenderableType] = [str(sensor)]
    if width >= CURVE_WIDTH:
        cells.append(_curve(score))
    cells.append(Text.assemble(f"{_number(score.value)} ", (f"{sensor.unit:<3}", "dim")))
    if score.intervals:
        forecast = score.intervals[facts.lead - 1]
        cells += [Text(_number(forecast.median), style="bold"), f"{_number(forecast.low)} to {_number(forecast.high)}"]
    if tally.pairs:
        if width >= ERRORS_WIDTH:
            cells += [_number(total / tally.pairs, 2) for total in (tally.model, tally.naive)]
        cells += [against(tally.ratio), f"{tally.coverage:.0%}"]
    return cells


def _curve(score: SensorScore) -> Text:
    """Every second hour: what was measured, and the medians ahead."""
    past = [value for value in list(score.history)[-24::2] if not math.isnan(value)]
    ahead = [interval.median for interval in score.intervals[1:24:2]]
    low, high = min([*past, *ahead], default=0.0), max([*past, *ahead], default=0.0)

    def bars(values: Sequence[float]) -> str:
        return "".join(_BLOCKS[min(7, int((value - low) / ((high - low) or 1.0) * 8))] for value in values)

    return Text.assemble((f"{bars(past):>12}", "cyan"), ("│", "dim"), (bars(ahead), "magenta"))


def against(ratio: float) -> Text:
    """A ratio of errors as a difference in percent: green where the model is better, red where naive is."""
    return Text(_percent(ratio), style="green" if ratio < 0.995 else "red" if ratio >= 1.005 else "")


def _percent(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{100 * (ratio - 1):+.0f}%"


def _number(value: float, digits: int = 1) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def milliseconds(seconds: float) -> str:
    """For people; a dash where nothing is known."""
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.0f} ms"
