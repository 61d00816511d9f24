"""Numbers asked of recurd, each measured on the real thing: `python -m benchmarks [NAME ...]`.

Where a broker takes part it is a real Kafka on this machine, and the daemon is `recurd serve` as a process of its own. What is
measured inside one process runs `daemon.pipeline.Pipeline`, as the daemon does. Nothing here judges; targets are only printed.
"""
