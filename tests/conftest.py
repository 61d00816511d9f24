"""Fixtures for all tests."""

from __future__ import annotations

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
