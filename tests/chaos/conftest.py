"""A real broker for all fault tests that leave it alone, and one of its own for those that do not."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.brokers.dev import DevBroker
from tests.harness import Topics

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """One node; no test stops it."""
    with DevBroker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[DevBroker]:
    """One node that the test may stop."""
    with DevBroker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def topics(broker: DevBroker) -> Callable[[str, int], Topics]:
    """Make the input topic of a group that no other test uses."""
    return lambda word, partitions: Topics.create(broker.bootstrap, f"{word}-{os.getpid()}-{next(_numbers)}", partitions)
