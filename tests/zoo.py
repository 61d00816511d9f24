"""What tests of the arrangements share: small settings for each kind, engines with fixed weights, and torch's own networks."""

from __future__ import annotations

from typing import Any

import torch

from config.settings import EngineSettings
from models.recurrent import Stack
from tests import examples

SMALL = {"hidden": 16, "layers": 2, "horizon": 5}
#: Settings of every kind and of its main variants, by name.
KINDS: dict[str, dict[str, Any]] = {
    "many_to_many": {"kind": "many_to_many", "cell": "elman", **SMALL},
    "many_to_many gru": {"kind": "many_to_many", "cell": "gru", **SMALL},
    "encoder_decoder": {"kind": "encoder_decoder", **SMALL},
    "many_to_one window": {"kind": "many_to_one", "window_readings": 4, **SMALL},
    "many_to_one session": {"kind": "many_to_one", "cell": "gru", "session_gap_s": 120.0, "predicts": "label", **SMALL},
    "many_to_one class": {"kind": "many_to_one", "window_readings": 3, "predicts": "class", "labels": ("a", "b", "c"), **SMALL},
    "one_to_many": {"kind": "one_to_many", "scenarios": 3, **SMALL},
    "smoother": {"kind": "smoother", "lag": 3, **SMALL},
}


def engine(name: str, **changes: Any) -> EngineSettings:
    """Engine settings of a kind."""
    return examples.settings(**{**KINDS[name], **changes})


def as_torch(stack: Stack, bidirectional_with: Stack | None = None) -> torch.nn.Module:
    """torch.nn's network of the same cell and weights; with a second stack of one layer, bidirectional."""
    first = stack.layers[0]
    inputs, hidden = first.weight_in.shape[0], first.hidden
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}[first.cell]
    theirs = kind(inputs, hidden, len(stack.layers), bidirectional=bidirectional_with is not None)
    with torch.no_grad():
        for number, layer in enumerate(stack.layers):
            _copy(theirs, layer, f"l{number}")
        if bidirectional_with is not None:
            _copy(theirs, bidirectional_with.layers[0], "l0_reverse")
    return theirs


def _copy(theirs: torch.nn.Module, layer: Any, ending: str) -> None:
    getattr(theirs, f"weight_ih_{ending}").copy_(layer.weight_in.t())
    getattr(theirs, f"weight_hh_{ending}").copy_(layer.weight_hidden.t())
    getattr(theirs, f"bias_ih_{ending}").copy_(layer.bias)
    getattr(theirs, f"bias_hh_{ending}").copy_(layer.bias_hidden if layer.cell == "gru" else torch.zeros_like(layer.bias))
