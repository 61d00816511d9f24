"""The demo's last words: the final table, the quality by lead, and sentences that hide nothing."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.demo_scores import mean_coverage, mean_ratio, percentile
from daemon.demo_screen import Facts, against, milliseconds, table


def show(facts: Facts, elapsed_s: float, console: Console) -> None:
    """Print all of it."""
    console.print()
    console.print(table(facts, console.width))
    console.print()
    console.print(_by_lead(facts))
    console.print()
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, text in _sentences(facts):
        lines.add_row(name, text)
    lines.add_row("took", f"{elapsed_s:.0f} s")
    console.print(lines, highlight=False)


def _by_lead(facts: Facts) -> Table:
    scores = facts.scores.values()
    made = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    made.add_column(f"mean of {len(scores)} sensors")
    for lead in facts.leads:
        made.add_column(f"+{lead} h", justify="right")
    made.add_row(
        "error of the median against naive, the last value", *[against(mean_ratio(scores, lead)) for lead in facts.leads]
    )
    better = [sum(score.tallies[lead].ratio < 1 for score in scores) for lead in facts.leads]
    made.add_row("sensors in which it is smaller", *[f"{count} of {len(scores)}" for count in better])
    made.add_row(f"readings inside the {facts.interval} interval", *[_share(mean_coverage(scores, lead)) for lead in facts.leads])
    return made


def _sentences(facts: Facts) -> list[tuple[str, Text]]:
    return [
        ("readings", _flow(facts)),
        ("exactly once", _exactly_once(facts)),
        ("kill -9", _kill(facts)),
        ("latency", _latency(facts)),
        ("model", _model(facts)),
    ]


def _flow(facts: Facts) -> Text:
    ledger = facts.ledger
    dropped = ledger.readings - ledger.due
    told = f"{ledger.readings:,}, of them {facts.live_readings:,} live ({facts.span}) at {facts.speed:,.0f} times real speed"
    return Text(told + (f"; {dropped} dropped by policy: a stream starts with all of its values" if dropped else ""))


def _exactly_once(facts: Facts) -> Text:
    ledger = facts.ledger
    lost, repeated = ledger.lost(), ledger.repeated()
    if lost or repeated:
        return Text(f"BROKEN: {lost:,} readings without a forecast, {repeated:,} forecasts too many", style="bold red")
    return Text(f"{ledger.forecasts:,} forecasts: every reading has exactly one, through the kill", style="green")


def _kill(facts: Facts) -> Text:
    ledger = facts.ledger
    if not facts.killed_at:
        return Text("none")
    caught_up_s = ledger.recovered_s - ledger.killed_s
    caught_up = f"caught up after {caught_up_s:.1f} s" if math.isfinite(caught_up_s) else "not caught up before the end"
    return Text(
        f"at {facts.killed_at}: first forecast after {facts.back_s:.1f} s, {caught_up}; {ledger.waited:,} readings waited for it"
    )


def _latency(facts: Facts) -> Text:
    steady = facts.ledger.steady
    middle, late = (milliseconds(percentile(steady, share)) for share in (0.5, 0.99))
    return Text(
        f"p50 {middle}, p99 {late} from sending a reading to its committed forecast ({len(steady):,} readings, the outage aside)"
    )


def _model(facts: Facts) -> Text:
    """The verdict on leads beyond the next reading, where the last value is not hard to beat."""
    if facts.weights.startswith("none"):
        return Text(facts.weights, style="yellow")
    ahead = [lead for lead in facts.leads if lead > 1] or list(facts.leads)
    worse = [lead for lead in ahead if not mean_ratio(facts.scores.values(), lead) < 1]
    if worse:
        leads = ", ".join(f"+{lead} h" for lead in worse)
        return Text(f"{facts.weights} does NOT beat naive at {leads}", style="bold red")
    leads = ", ".join(f"+{lead}" for lead in ahead)
    told = f"{facts.weights} beats naive at {leads} h in the mean, on months it was not trained on"
    behind = [str(sensor) for sensor, score in facts.scores.items() if score.tallies[facts.lead].ratio >= 1]
    return Text(told + (f"; at +{facts.lead} h naive is better for {', '.join(behind)}" if behind else ""))


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.0%}"
