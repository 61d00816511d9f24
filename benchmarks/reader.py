"""A process that reads forecasts read committed, from the end on, and notes when each arrived and which time it bears."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, TopicPartition

from benchmarks.readings import PARTITIONS

#: Nothing for this long is the end.
IDLE_S = 20.0

_TIME = b'"time":"'
_TIME_BYTES = len("2026-11-24T10:00:00.000Z")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, required=True, help="forecasts to read at most")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    consumer = KafkaConsumer(
        bootstrap_servers=options.bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        metrics_enabled=False,
        max_poll_records=5000,
    )
    places = [TopicPartition(options.topic, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_end(*places)
    for place in places:
        consumer.position(place)
    print("connected", flush=True)
    arrived_ms, due = read(consumer, options.count)
    consumer.close(autocommit=False)
    due_ms = [datetime.fromisoformat(text.decode()).replace(tzinfo=UTC).timestamp() * 1000 for text in due]
    np.save(options.out, np.array([arrived_ms, due_ms]))


def read(consumer: KafkaConsumer, count: int) -> tuple[list[float], list[bytes]]:
    """Arrival, epoch ms, and the forecast's time as text, of up to `count` forecasts."""
    arrived_ms: list[float] = []
    due: list[bytes] = []
    last_s = time.monotonic()
    while len(due) < count and time.monotonic() - last_s < IDLE_S:
        polled = consumer.poll(timeout_ms=100)
        now_ms = time.time() * 1000
        for records in polled.values():
            last_s = time.monotonic()
            for record in records:
                at = record.value.index(_TIME) + len(_TIME)
                due.append(record.value[at : at + _TIME_BYTES])
            arrived_ms += [now_ms] * len(records)
    return arrived_ms, due


if __name__ == "__main__":
    main()
