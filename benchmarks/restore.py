"""Time to restore 100,000 streams from a changelog that holds thirty checkpoints of all of them, as compacted as it is."""

from __future__ import annotations

from benchmarks.readings import PARTITIONS, backlog
from benchmarks.report import Measure
from benchmarks.site import Site, site
from models.table import BLOCK_ROWS

STREAMS = 100_000
CHECKPOINTS = 30
MIB = 2**20


def run(scale: float) -> list[Measure]:
    """Fill, checkpoint thirty times, stop, start."""
    streams = max(int(STREAMS * scale), 64 * PARTITIONS)
    with site(state__checkpoint_interval_s=0.5) as here:
        here.start()
        _checkpoint_often(here, streams)
        assert here.daemon.stop() == 0
        changelog = here.broker.directory.glob("data-1/bench.state-*/*.log")
        size = sum(file.stat().st_size for file in changelog)
        life = here.start()
        restored = life.wait_for("restored", PARTITIONS)
        started = life.wait_for("restore started")
        counted = sum(event.fields["streams"] for event in life.named("restored"))
        ready_s = here.look().at_s - life.started_s
        return [
            Measure("streams restored", float(counted), "", at_least=streams),
            Measure("changelog on disk", size / MIB, "MiB"),
            Measure("changelog read to the last partition whole", restored.at_s - started.at_s, "s", at_most=5),
            Measure("process start to ready", ready_s, "s"),
        ]


def _checkpoint_often(here: Site, streams: int) -> None:
    """Change one row of every block and wait until all blocks are in the changelog, thirty times."""
    here.publish(backlog(range(streams), [0]))
    blocks = sum(-(-len(range(partition, streams, PARTITIONS)) // BLOCK_ROWS) for partition in range(PARTITIONS))
    here.wait_for(lambda look: look.forecasts >= streams, "all streams")
    here.topics.wait_committed()
    changed = [stream for stream in range(streams) if stream // PARTITIONS % BLOCK_ROWS == 0]
    assert len(changed) == blocks
    for checkpoint in range(1, CHECKPOINTS + 1):
        written = here.look().metrics["recurd_checkpoint_blocks_total"] + blocks
        here.publish(backlog(changed, [checkpoint]))
        _wait_for_blocks(here, written)


def _wait_for_blocks(here: Site, written: float) -> None:
    here.wait_for(lambda look: look.metrics["recurd_checkpoint_blocks_total"] >= written, f"{written:g} blocks")
