"""`--report FILE.html`: what a replay or an audit found, as one page that needs nothing else and can be read on a phone.

Inline SVG and CSS, no script, no network, light or dark as the reader's system is. Draws what `daemon.scoring` collected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from daemon.codec import FIRST_TIME_MS, LAST_TIME_MS, format_time
from daemon.files import written
from daemon.scoring import Fan, Scorer, Series
from models.alarms import QUIET_READINGS, THRESHOLD

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 12, 14, 30
SHOWN_SERIES = 4

Point = tuple[float, float]

_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1c2430;--soft:#5d6878;--line:#d7dde5;--actual:#1c2430;--model:#1667b7;
--naive:#c2570c;--seasonal:#2c7a3f;--band:#1667b7}
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--ink:#e6eaf0;--soft:#9aa6b5;--line:#2d3641;--actual:#e6eaf0;
--model:#6cb2f5;--naive:#f2a05f;--seasonal:#7ac98d;--band:#6cb2f5}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:720px;padding:16px;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.4rem;margin:.2em 0}h2{font-size:1.15rem;margin:2em 0 .3em}
h3{font-size:1rem;margin:1.2em 0 .2em;overflow-wrap:anywhere}
p{margin:.3em 0;color:var(--soft)}
pre{overflow-x:auto;font-size:.8rem;line-height:1.4;border-left:3px solid var(--line);padding-left:.7em}
svg{width:100%;height:auto;display:block}svg text{font:17px system-ui,sans-serif;fill:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.25em .5em;text-align:right;border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}
td.id{text-align:left;overflow-wrap:anywhere}
.axis{stroke:var(--line);stroke-width:1}.actual,.model,.naive,.seasonal{fill:none;stroke-width:2;stroke-linejoin:round}
.actual{stroke:var(--actual)}.model{stroke:var(--model)}.naive{stroke:var(--naive)}
.seasonal{stroke:var(--seasonal);stroke-dasharray:6 4}
.band{fill:var(--band);opacity:.2;stroke:none}.bar{fill:var(--naive)}.mark{stroke:var(--seasonal);stroke-dasharray:3 3}
.even{stroke:var(--soft);stroke-dasharray:4 4;fill:none}.dot{fill:var(--model)}
.key{display:inline-block;width:1.4em;height:.2em;vertical-align:middle;margin:0 .4em 0 .8em}
"""


def write(path: Path, title: str, lines: Sequence[str], scorer: Scorer) -> None:
    """Write the page.

    Raises:
        OperatorError: The file cannot be written.
    """
    with written(path) as file:
        file.write(page(title, lines, scorer).encode())


def page(title: str, lines: Sequence[str], scorer: Scorer) -> str:
    """The page as HTML.

    Args:
        title: What was replayed or audited.
        lines: The summary that the command says.
        scorer: What it saw.
    """
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            f"<pre>{escape(chr(10).join(lines))}</pre>",
            *_errors(scorer),
            *_calibration(scorer),
            *_fans(scorer),
            *_anomalies(scorer),
            *_versions(scorer),
            *_throughput(scorer),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


# -- sections -----------------------------------------------------------------------------------------------------------------


def _errors(scorer: Scorer) -> Iterator[str]:
    rows = scorer.rows()
    yield "<h2>Error per lead</h2>"
    if not rows:
        yield "<p>No forecast came due.</p>"
        return
    yield (
        "<p>Mean absolute error, in units of each stream's own error of the last value at the first lead, averaged over streams. "
        "Lower is better.</p>"
    )
    seasonal = [(row.lead, row.seasonal) for row in rows if not math.isnan(row.seasonal)]
    curves = {"model": [(row.lead, row.model) for row in rows], "naive": [(row.lead, row.naive) for row in rows]}
    curves |= {"seasonal": seasonal} if seasonal else {}
    scale = Scale.of([point for curve in curves.values() for point in curve], zero=True)
    drawn = [_line(scale, curve, name) for name, curve in curves.items()]
    yield _svg("error per lead", scale, drawn, _whole, ("lead", f"{rows[-1].lead}"))
    keys = {"model": "forecast", "naive": "last value", "seasonal": "one season before"}
    yield _legend([(name, keys[name]) for name in curves])
    head = ("lead", "forecasts", "error", "last value", "season before", "to last value", "inside")
    yield _table(
        head,
        (
            (
                str(row.lead),
                f"{row.pairs:,}",
                f"{row.model:.3f}",
                f"{row.naive:.3f}",
                "-" if math.isnan(row.seasonal) else f"{row.seasonal:.3f}",
                f"{row.model / row.naive - 1:+.1%}" if row.naive else "-",
                f"{row.covered:.1%}",
            )
            for row in rows
        ),
    )


def _calibration(scorer: Scorer) -> Iterator[str]:
    points = scorer.calibration()
    if not points:
        return
    yield "<h2>Calibration</h2>"
    yield "<p>The share of readings at or below each quantile; on the dashed line it is what the level says.</p>"
    scale = Scale(0, 1, 0, 1)
    even = _line(scale, [(0, 0), (1, 1)], "even")
    dots = [f'<circle class="dot" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="5"/>' for x, y in points]
    yield _svg("calibration", scale, [even, _line(scale, points, "model"), *dots], _share, ("level 0", "1"))
    yield _table(("level", "share"), ((f"{level:g}", f"{share:.3f}") for level, share in points))


def _fans(scorer: Scorer) -> Iterator[str]:
    ranked = scorer.by_ratio()
    if not ranked:
        return
    worst = ranked[:SHOWN_SERIES]
    middle = max(0, len(ranked) // 2 - SHOWN_SERIES // 2)
    typical = [one for one in ranked[middle : middle + SHOWN_SERIES] if one not in worst]
    for title, chosen in (("Worst streams", worst), ("Typical streams", typical)):
        if chosen:
            yield f"<h2>{title}</h2>"
            yield _legend([("actual", "readings"), ("model", "median, in its outermost interval")])
        for series in chosen:
            yield f"<h3>{escape(series.name)}: {series.ratio() - 1:+.1%} to the last value</h3>"
            yield _fan(series)


def _fan(series: Series) -> str:
    trail = [(float(time_ms), value) for time_ms, value in series.drawn or ()]
    fans = [fan for fan in series.fans if trail and fan.origin_ms >= trail[0][0]]
    edges = [point for fan in fans for column in (0, -1) for point in _points(fan, column)]
    scale = Scale.of(trail + edges)
    drawn = []
    for fan in fans:
        drawn.append(_area(scale, _points(fan, -1), _points(fan, 0)))
        drawn.append(_line(scale, _points(fan, fan.levels.index(0.5)), "model"))
    times = (_time(trail[0][0]), _time(scale.x1)) if trail else ("", "")
    return _svg(f"forecasts of {series.name}", scale, [*drawn, _line(scale, trail, "actual")], _number, times)


def _points(fan: Fan, level: int) -> list[Point]:
    """A quantile over time, from the reading that it follows."""
    leads = [(float(fan.origin_ms + (i + 1) * fan.interval_ms), value) for i, value in enumerate(fan.quantiles[level])]
    return [(float(fan.origin_ms), fan.last), *leads]


def _anomalies(scorer: Scorer) -> Iterator[str]:
    found = scorer.anomalies
    if not found.buckets:
        return
    yield "<h2>Anomalies</h2>"
    yield (
        "<p>The highest anomaly score by time: 3 is a reading as far out as one in a thousand. Dashed: a model version began.</p>"
    )
    width_ms = found.bucket_ms
    bars = sorted((bucket * width_ms, score) for bucket, score in found.buckets.items())
    scale = Scale(bars[0][0], bars[-1][0] + width_ms, 0, max(1.0, max(score for _, score in bars)))
    drawn = [
        f'<rect class="bar" x="{scale.x(at):.1f}" y="{scale.y(score):.1f}" '
        f'width="{max(1.5, scale.x(at + width_ms) - scale.x(at) - 0.5):.1f}" height="{scale.y(0) - scale.y(score):.1f}"/>'
        for at, score in bars
    ]
    for start in scorer.starts.values():
        if start.time_ms is not None and scale.x0 < start.time_ms < scale.x1:
            x = scale.x(start.time_ms)
            drawn.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    yield _svg("anomaly scores", scale, drawn, _number, (_time(scale.x0), _time(scale.x1)))
    top = sorted(found.highest, reverse=True)
    yield _table(("score", "stream", "time"), ((f"{score:.2f}", stream, _time(time_ms)) for score, stream, time_ms in top))
    yield (
        f"<p>{found.alarms:,} alarms: one where a stream scores {THRESHOLD:g} or more, then none until {QUIET_READINGS} "
        f"readings in a row have scored less.{' The newest:' if found.alarms else ''}</p>"
    )
    if found.alarms:
        newest = reversed(found.newest_alarms)
        yield _table(
            ("raised", "stream", "score"), ((_time(time_ms), stream, f"{score:.2f}") for time_ms, stream, score in newest)
        )


def _versions(scorer: Scorer) -> Iterator[str]:
    if not scorer.starts:
        return
    yield "<h2>Versions and swaps</h2>"
    starts = sorted(scorer.starts.values())
    yield _table(
        ("partition", "from offset", "version", "at"),
        ((str(one.partition), f"{one.offset:,}", one.version, _time(one.timestamp_ms)) for one in starts[:200]),
    )
    if len(starts) > 200:
        yield f"<p>and {len(starts) - 200} more</p>"


def _throughput(scorer: Scorer) -> Iterator[str]:
    yield "<h2>Throughput</h2>"
    rate = f" ({scorer.readings / scorer.seconds:,.0f} a second)" if scorer.seconds else ""
    yield f"<p>{scorer.readings:,} readings in {scorer.seconds:.1f} s{rate}, this report's own work included.</p>"
    pairs = zip(scorer.rates, scorer.rates[1:], strict=False)
    rates = [(late, (after - before) / (late - early)) for (early, before), (late, after) in pairs if late > early]
    if len(rates) > 1:
        scale = Scale.of(rates, zero=True)
        ends = (f"{rates[0][0]:.1f} s", f"{rates[-1][0]:.1f} s")
        yield _svg("readings per second", scale, [_line(scale, rates, "model")], _whole, ends)


# -- drawing ------------------------------------------------------------------------------------------------------------------


class Scale(NamedTuple):
    """Values to places in a picture."""

    x0: float
    x1: float
    y0: float
    y1: float

    @classmethod
    def of(cls, points: Sequence[Point], zero: bool = False) -> Scale:
        """One that holds all points; from zero up where asked."""
        xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
        low, high = (0.0 if zero else min(ys)), max(ys)
        margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        return cls(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, low if zero else low - margin, high + margin)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - _TOP - _BOTTOM)

    def places(self, points: Iterable[Point]) -> str:
        """For a path's or a polygon's points."""
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)


def _svg(label: str, scale: Scale, drawn: Iterable[str], number: Callable[[float], str], ends: tuple[str, str]) -> str:
    """A picture with its axes: three lines across with their values, and what the two ends below are."""
    axes = []
    for share in (0.0, 0.5, 1.0):
        value = scale.y0 + share * (scale.y1 - scale.y0)
        y = scale.y(value)
        axes.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        axes.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    below = HEIGHT - 6
    axes.append(f'<text x="{_LEFT}" y="{below}">{escape(ends[0])}</text>')
    axes.append(f'<text x="{WIDTH - _RIGHT}" y="{below}" text-anchor="end">{escape(ends[1])}</text>')
    inner = "".join([*axes, *drawn])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label, quote=True)}">{inner}</svg>'


def _line(scale: Scale, points: Sequence[Point], style: str) -> str:
    return f'<polyline class="{style}" points="{scale.places(points)}"/>'


def _area(scale: Scale, upper: Sequence[Point], lower: Sequence[Point]) -> str:
    return f'<polygon class="band" points="{scale.places([*upper, *reversed(lower)])}"/>'


def _legend(keys: Iterable[tuple[str, str]]) -> str:
    spans = (f'<span class="key" style="background:var(--{name})"></span>{escape(text)}' for name, text in keys)
    return f"<p>{''.join(spans)}</p>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _time(time_ms: float) -> str:
    """To the second, in UTC; a dash where there is none."""
    if time_ms == -1 or not FIRST_TIME_MS <= time_ms <= LAST_TIME_MS:
        return "-"
    return format_time(int(time_ms))[:19].replace("T", " ")


def _number(value: float) -> str:
    return f"{value:.4g}"


def _share(value: float) -> str:
    return f"{value:.0%}"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
