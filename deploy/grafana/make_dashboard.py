"""Prints the Grafana dashboard of recurd: `python deploy/grafana/make_dashboard.py > deploy/grafana/recurd.json`.

A panel is a title, a unit and its expressions by legend; places are counted. A test holds the file to this script and its
expressions to the metrics that are served.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, COLUMNS = 8, 7, 3

#: The variables `job` and `instance` of the dashboard.
HERE = 'job=~"$job",instance=~"$instance"'


class Panel(NamedTuple):
    """One graph; `expressions` by legend."""

    title: str
    unit: str  # as Grafana names it
    expressions: dict[str, str]
    what: str = ""


def rate(metric: str, by: str = "", match: str = "") -> str:
    """Increase a second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{HERE}{match}}}[$__rate_interval]))"


def quantile(share: float, metric: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', 'le')})"


def gauge(metric: str, by: str = "", how: str = "sum") -> str:
    """A gauge over the instances."""
    return f"{how}{f' by ({by})' if by else ''} ({metric}{{{HERE}}})"


ROWS: dict[str, list[Panel]] = {
    "At a glance": [
        Panel("State", "short", {"{{state}}": gauge("recurd_state", "state")}, "Processes in each state."),
        Panel("Checks that fail", "short", {"{{check}}": f"sum by (check) (1 - recurd_check_ok{{{HERE}}})"}),
        Panel("Consumer lag", "s", {"oldest": gauge("recurd_consumer_lag_seconds", how="max")}),
        Panel(
            "Readings", "cps", {"{{outcome}}": rate("recurd_readings_total", "outcome")}, "Each reading is exactly one of these."
        ),
        Panel("Dead letters", "cps", {"{{reason}}": rate("recurd_dead_letters_total", "reason")}),
        Panel(
            "Streams", "short", {"with a row": gauge("recurd_streams_active"), "lost a row": rate("recurd_streams_evicted_total")}
        ),
    ],
    "Time": [
        Panel(
            "Record to visible forecast",
            "s",
            {"p50": quantile(0.5, "recurd_source_latency_seconds"), "p99": quantile(0.99, "recurd_source_latency_seconds")},
        ),
        Panel(
            "Reading's own time to visible forecast",
            "s",
            {"p50": quantile(0.5, "recurd_e2e_latency_seconds"), "p99": quantile(0.99, "recurd_e2e_latency_seconds")},
        ),
        Panel(
            "Time by stage", "percentunit", {"{{stage}}": rate("recurd_stage_seconds_sum", "stage")}, "Share of one core's time."
        ),
        Panel("Rows a step", "short", {"mean": f"{rate('recurd_batch_rows_sum')} / {rate('recurd_batches_total')}"}),
        Panel("Lag by partition", "short", {"{{partition}}": gauge("recurd_consumer_lag_records", "partition")}),
        Panel("The loop's last beat", "s", {"{{instance}}": f"time() - recurd_loop_beat_timestamp_seconds{{{HERE}}}"}),
    ],
    "Transactions and state": [
        Panel("Transactions", "cps", {"{{outcome}}": rate("recurd_transactions_total", "outcome")}),
        Panel(
            "Trouble with transactions",
            "cps",
            {
                "producers replaced, {{reason}}": rate("recurd_producer_reinits_total", "reason"),
                "hanging ones ended": rate("recurd_hanging_transactions_total"),
                "partitions stalled": rate("recurd_partition_stalls_total"),
            },
        ),
        Panel("Transaction open", "s", {"p99": quantile(0.99, "recurd_transaction_open_seconds")}),
        Panel(
            "Partitions",
            "short",
            {"held": gauge("recurd_assigned_partitions"), "restoring": gauge("recurd_restoring_partitions")},
        ),
        Panel("Rebalances", "cps", {"{{kind}}": rate("recurd_rebalances_total", "kind")}),
        Panel(
            "Age of the checkpoint",
            "s",
            {"{{partition}}": f"time() - {gauge('recurd_checkpoint_timestamp_seconds', 'partition', 'max')}"},
        ),
        Panel("Checkpoints", "s", {"p99": quantile(0.99, "recurd_checkpoint_seconds")}, "Time to send one."),
        Panel("Changelog written", "Bps", {"bytes": rate("recurd_checkpoint_bytes_total")}),
        Panel(
            "Restores",
            "s",
            {
                "p99": quantile(0.99, "recurd_restore_seconds"),
                "readings caught up a second": rate("recurd_catch_up_readings_total"),
            },
        ),
    ],
    "Model": [
        Panel(
            "Error against the last value",
            "percentunit",
            {"lead {{lead}}": 'job_lead:recurd_error_to_naive:ratio1h{job=~"$job"}'},
            "Below 1 the model is better.",
        ),
        Panel(
            "Coverage of the outermost interval",
            "percentunit",
            {
                "lead {{lead}}": 'job_lead:recurd_coverage:share1h{job=~"$job"}',
                "promised": gauge("recurd_nominal_coverage_ratio", how="max"),
            },
        ),
        Panel("Version in force", "short", {"{{version}}": gauge("recurd_model_info", "version")}),
        Panel(
            "Age of the weights' last reading",
            "s",
            {"{{instance}}": f"time() - (recurd_model_trained_until_timestamp_seconds{{{HERE}}} > 0)"},
        ),
        Panel("Rows rebuilt for a new version", "cps", {"rows": rate("recurd_rows_rebuilt_total")}),
        Panel(
            "Refused and failed",
            "cps",
            {
                "version refused, {{reason}}": rate("recurd_models_refused_total", "reason"),
                "worker ended": rate("recurd_worker_ends_total"),
                "cycle, {{outcome}}": rate("recurd_retrain_cycles_total", "outcome"),
            },
        ),
    ],
    "Process": [
        Panel("Memory", "bytes", {"resident": gauge("process_resident_memory_bytes"), "rows": gauge("recurd_state_bytes")}),
        Panel("CPU", "percentunit", {"{{instance}}": rate("process_cpu_seconds_total", "instance")}),
        Panel("Up for", "s", {"{{instance}}": f"time() - process_start_time_seconds{{{HERE}}}"}),
    ],
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []}
        )
        y += 1
        for place, panel in enumerate(row):
            panels.append(_graph(panel, WIDTH * (place % COLUMNS), y + HEIGHT * (place // COLUMNS)))
        y += HEIGHT * -(-len(row) // COLUMNS)
    for number, made in enumerate(panels, start=1):
        made["id"] = number
    return {
        "uid": "recurd",
        "title": "recurd",
        "tags": ["recurd"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), _variable("job"), _variable("instance")]},
        "annotations": {"list": [_swaps()]},
        "panels": panels,
    }


def _graph(panel: Panel, x: int, y: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
        for place, (legend, expression) in enumerate(panel.expressions.items())
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.what,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(label: str) -> dict[str, Any]:
    query = f"label_values(recurd_build_info, {label})"
    return {
        "name": label, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2, "multi": True, "includeAll": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _swaps() -> dict[str, Any]:
    """A mark wherever epochs began: a swap of weights, a new arithmetic, a first start."""
    expression = f"increase(recurd_epochs_started_total{{{HERE}}}[1m]) > 0"
    return {
        "name": "epochs",
        "datasource": SOURCE,
        "enable": True,
        "expr": expression,
        "titleFormat": "epoch",
        "iconColor": "purple",
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
