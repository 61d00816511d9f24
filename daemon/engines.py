"""From an epoch to the engine that computes it: weights by version, one engine per settings and version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon.epochs import Epoch
from daemon.errors import StateError
from models import artifacts, kinds
from models.chain import Chain
from models.engine import Engine
from models.forecaster import NAIVE


class Engines:
    """Makes engines from epochs; `artifact` gives the bytes of a model version, or None."""

    def __init__(self, artifact: Callable[[str], bytes | None]) -> None:
        self._artifact = artifact
        self._made: dict[tuple[str, str], Engine] = {}

    def __call__(self, epoch: Epoch) -> Engine:
        """The engine of an epoch.

        Raises:
            StateError: Its weights are not there.
            ArtifactError: They cannot be used.
        """
        if not kinds.has_weights(epoch.engine):
            return Chain(epoch.to_bytes())
        key = (epoch.model_version, epoch.engine.model_dump_json())
        if key not in self._made:
            self._made[key] = kinds.of(epoch.engine).engine(epoch.engine, self._network(epoch), epoch.model_version)
        return self._made[key]

    def _network(self, epoch: Epoch) -> Any:
        naive = kinds.of(epoch.engine).naive
        if epoch.model_version == NAIVE and naive is not None:
            return naive(epoch.engine)
        data = self._artifact(epoch.model_version)
        if data is None:
            raise StateError(
                f"the weights of model version {epoch.model_version}, which partition {epoch.partition} used from offset "
                f"{epoch.first_offset} on, are not here: give the weights file, or restore the models topic."
            )
        return artifacts.load(data, epoch.engine)[0]
