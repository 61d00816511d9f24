"""A process that sends readings at a given rate, paced by a monotonic clock, and says how far it fell behind."""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from benchmarks.readings import PARTITIONS, payload
from daemon.brokers.kafka_python import ClientOptions, KafkaPythonBroker, KafkaPythonProducer

#: Readings gather for this long, as they do in Kafka 4's own producer (`linger.ms`); it counts as latency.
TICK_S = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    producer = KafkaPythonBroker(ClientOptions(options.bootstrap)).producer(None)  # a sixth of the CPU of the client's own
    print("connected", flush=True)
    behind_ms = send(producer, options.topic, options.streams, options.rate, options.seconds)
    producer.flush()
    producer.close()
    print(json.dumps({"p99_ms": float(np.percentile(behind_ms, 99)), "max_ms": float(behind_ms.max())}))


def send(producer: KafkaPythonProducer, topic: str, streams: int, rate: float, seconds: float) -> np.ndarray:
    """Send readings of the streams in turn, each as soon as it is due; how late each was sent, ms."""
    count = int(rate * seconds)
    behind_ms = np.zeros(count)
    started_s, wall_ms = time.monotonic(), time.time() * 1000
    sent = 0
    while sent < count:
        passed_s = time.monotonic() - started_s
        for number in range(sent, min(count, int(passed_s * rate) + 1)):
            due_s = number / rate
            stream, turn = number % streams, number // streams
            value = payload(stream, int(wall_ms + due_s * 1000), 20 + stream % 17 + turn % 5)
            producer.send(topic, stream % PARTITIONS, None, value)
            behind_ms[number] = (time.monotonic() - started_s - due_s) * 1000
            sent += 1
        producer.flush()
        time.sleep(TICK_S)
    return behind_ms


if __name__ == "__main__":
    main()
