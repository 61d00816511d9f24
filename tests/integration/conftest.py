"""One real broker for all integration tests, and names that no other test uses. A broker that does not start fails."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from daemon.brokers.dev import DevBroker

#: kafka-python loads its schemas by importlib's old call, and leaves the socket of a refused connection to the collector.
CLIENT_WARNINGS = ("ignore:(read|open)_text is deprecated:DeprecationWarning", "ignore:unclosed <socket:ResourceWarning")

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    for line in CLIENT_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """One node, shared by all tests: none may stop it."""
    with DevBroker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """Make a topic, group or transactional id that no other test uses."""
    return lambda word: f"{word}-{os.getpid()}-{next(_numbers)}"
