"""Artifacts: equal weights are equal bytes, and whatever is wrong with them is refused with its reason."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from config.settings import EngineSettings, InputSettings, NetworkSettings
from models import artifacts
from models.arithmetic import seeded_network
from models.artifacts import ArtifactError, Manifest, TrainingFacts

ENGINE = EngineSettings(model=NetworkSettings(hidden=8, horizon=5, context=16, layers=2))
FACTS = TrainingFacts(seed=3, parent="0123456789abcdef", first_time_ms=1, last_time_ms=2, steps=10, scores={"pinball": 0.25})


def artifact(engine: EngineSettings = ENGINE) -> bytes:
    return artifacts.dump(seeded_network(engine), Manifest.of(engine, FACTS))


DATA = artifact()


def tampered(change: Callable[[dict[str, torch.Tensor]], None]) -> bytes:
    """The artifact with changed tensors, digest made anew: what a faulty writer could produce."""
    tensors = safetensors.torch.load(DATA)
    change(tensors)
    described = Manifest.of(ENGINE, FACTS).model_dump(mode="json")
    entry = {"manifest": described, "sha256": artifacts._digest(described, tensors)}
    return safetensors.torch.save(tensors, {"recurd": json.dumps(entry)})


def refusal(data: bytes, engine: EngineSettings = ENGINE) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        artifacts.load(data, engine)
    return caught.value


def test_weights_and_manifest_come_back() -> None:
    """What is loaded is what was dumped."""
    network, manifest = artifacts.load(DATA, ENGINE)
    expected = seeded_network(ENGINE)
    assert all(map(torch.equal, network.state_dict().values(), expected.state_dict().values()))
    assert list(network.state_dict()) == list(expected.state_dict())
    assert manifest == Manifest.of(ENGINE, FACTS).model_copy(update={"period_ms": expected.period_ms})
    assert network.period_ms == expected.period_ms
    assert not network.training


def test_bytes_are_deterministic_and_name_the_version() -> None:
    """Equal weights and manifest give equal bytes; the version is a hash of the bytes."""
    assert artifact() == DATA
    assert artifacts.version_of(DATA) == hashlib.sha256(DATA).hexdigest()[:16]
    assert artifacts.version_of(artifacts.dump(seeded_network(ENGINE), Manifest.of(ENGINE))) != artifacts.version_of(DATA)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (DATA[:7], "truncated"),
        (DATA[:100], "truncated"),
        (DATA[:-1], "truncated"),
        (DATA[: len(DATA) // 2], "truncated"),
        (pickle.dumps({"weight": [1.0]}), "foreign"),
        (b"PK\x03\x04 a zip of torch.save, or whatever else", "foreign"),
        (b"\x00" * 1000, "foreign"),
        (safetensors.torch.save({"weight": torch.ones(2)}), "foreign"),
        (safetensors.torch.save({"weight": torch.ones(2)}, {"format": "pt"}), "foreign"),
        (safetensors.torch.save({"weight": torch.ones(2)}, {"recurd": "[" * 5000}), "corrupt"),
        (safetensors.torch.save({"weight": torch.ones(2)}, {"recurd": '{"manifest":{},"sha256":""}'}), "corrupt"),
        ((20).to_bytes(8, "little") + b'{"weight":[[[[[[[[[[[', "corrupt"),
        (DATA + b"\x00", "corrupt"),
        (DATA[:-3] + b"\x7f" + DATA[-2:], "corrupt"),
    ],
)
def test_bytes_that_are_no_artifact(data: bytes, reason: str) -> None:
    """Cut, changed and foreign bytes are refused, each with its reason."""
    assert refusal(data).reason == reason


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(place: int, flip: int) -> None:
    """No single changed byte goes unnoticed, and none raises anything but ArtifactError."""
    refusal(DATA[:place] + bytes([DATA[place] ^ flip]) + DATA[place + 1 :])


def test_oversize(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than allowed are refused unread."""
    monkeypatch.setattr(artifacts, "MAX_BYTES", len(DATA) - 1)
    assert refusal(DATA).reason == "oversize"


def _missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["head_bias"]


def _unknown(tensors: dict[str, torch.Tensor]) -> None:
    tensors["more"] = torch.ones(1)


def _reshaped(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head_bias"] = tensors["head_bias"][:-1].clone()


def _retyped(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head_bias"] = tensors["head_bias"].double()


def _broken(tensors: dict[str, torch.Tensor]) -> None:
    tensors["highway"][0, 3, 2] = float("nan")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_missing, "tensors"),
        (_unknown, "tensors"),
        (_reshaped, "tensors"),
        (_retyped, "tensors"),
        (_broken, "non_finite"),
    ],
)
def test_tensors_that_are_not_the_networks(change: Callable[[dict[str, torch.Tensor]], None], reason: str) -> None:
    """Names, shapes, types and numbers are checked, and the sentence names the tensor."""
    error = refusal(tampered(change))
    assert error.reason == reason
    assert "tensor '" in str(error)


@pytest.mark.parametrize(
    ("engine", "named"),
    [
        (EngineSettings(model=ENGINE.model.model_copy(update={"hidden": 16})), "model.hidden = 8 and the settings say 16"),
        (EngineSettings(model=ENGINE.model.model_copy(update={"levels": (0.5,)})), "model.levels"),
        (EngineSettings(input=InputSettings(values={"temp": "temp"}), model=ENGINE.model), 'channels ["value"]'),
    ],
)
def test_a_sound_network_that_is_not_the_settings(engine: EngineSettings, named: str) -> None:
    """The difference is named by its setting, with both values and the remedy."""
    error = refusal(DATA, engine)
    assert error.reason == "architecture"
    assert named in str(error)
    assert "recurd train" in str(error)


def test_settings_that_the_weights_do_not_depend_on() -> None:
    """Limits and output settings may change without new weights."""
    artifacts.load(DATA, ENGINE.model_copy(update={"max_streams_per_partition": 5, "emit_every": 3}))
