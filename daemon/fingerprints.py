"""Whether this machine and version reproduce an epoch's bytes: its fingerprint against the one computed here."""

from __future__ import annotations

from functools import cache

from config.settings import EngineSettings
from daemon.epochs import Epoch
from models import arithmetic, kinds
from models.layout import ENGINE_VERSION


def here(engine: EngineSettings) -> str:
    """The arithmetic fingerprint of this machine for engine settings; the first call for some takes half a second and more.

    Raises:
        UnstableArithmetic: The self-check failed.
    """
    return _checked(engine.model_dump_json()) if kinds.has_weights(engine) else kinds.CHAIN


def reproducible(epoch: Epoch) -> bool:
    """Whether the bytes of an epoch can be computed here again."""
    return (epoch.engine_version, epoch.fingerprint) == (ENGINE_VERSION, here(epoch.engine))


@cache
def _checked(engine: str) -> str:
    return arithmetic.check(EngineSettings.model_validate_json(engine))
