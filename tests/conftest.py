"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

import pytest

from daemon import logs


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Leave this process's logging as it was, whatever a test configures."""
    root, ours = logging.getLogger(), logging.getLogger(logs.ROOT)
    before = (root.level, ours.level)
    yield
    for handler in [handler for handler in root.handlers if isinstance(handler, logs.Output)]:
        root.removeHandler(handler)
    root.setLevel(before[0])
    ours.setLevel(before[1])
    logging.captureWarnings(False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes in one thread."""
    torch = importlib.import_module("torch")  # takes seconds, which most tests need not wait for
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
