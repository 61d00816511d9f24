"""One real broker for all integration tests, and names that no other test uses. A broker that does not start fails."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from daemon.brokers.dev import DevBroker

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """One node, shared by all tests: none may stop it."""
    with DevBroker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Make a topic, group or transactional id that no other test uses."""
    return lambda word: f"{word}-{os.getpid()}-{next(_numbers)}"
