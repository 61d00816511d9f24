"""Weights as bytes: safetensors with a manifest, checked on the way in. The version is a hash of the bytes.

A weights file comes from outside, so nothing in it is believed: sizes, names, types, numbers and a digest are checked before a
network is made of it, and nothing in it can run. This room knows bytes; files and topics are `daemon`'s.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, NoReturn

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from config.settings import EngineSettings, NetworkSettings
from models import kinds

#: Larger weights are refused unread.
MAX_BYTES = 256 * 1024 * 1024

#: The one entry of the safetensors metadata: a second one could come in any order, and the bytes with it.
_ENTRY = "recurd"
_MAX_HEADER_BYTES = 4 * 1024 * 1024

Reason = Literal[
    "oversize",  # more bytes than MAX_BYTES
    "foreign",  # not safetensors, or not written by recurd
    "truncated",  # shorter than its header says
    "corrupt",  # bytes were changed
    "architecture",  # a sound network, but not the one of the settings
    "tensors",  # names, shapes or types that the manifest's network does not have
    "non_finite",  # NaN or an infinity among the weights
]


class ArtifactError(Exception):
    """Weights that cannot be used: one sentence with the remedy, and the reason as a word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingFacts(_Facts):
    """Where weights come from. Nothing is computed from it."""

    seed: int = 0
    parent: str | None = Field(None, description="the version training started from")
    first_time_ms: int | None = Field(None, description="time of the first reading trained on")
    last_time_ms: int | None = Field(None, description="time of the last reading trained on")
    steps: int = Field(0, description="optimizer steps")
    scores: dict[str, float] = Field(default_factory=dict, description="hold-out scores by name, in spreads")


class Manifest(_Facts):
    """What an artifact says of itself: the network it holds in full, and where it comes from."""

    network: NetworkSettings
    channels: tuple[str, ...]
    feature_count: int
    feature_version: int
    period_ms: int = Field(0, ge=0, le=10**12, description="the season that rows keep a profile of, ms; 0: none")
    training: TrainingFacts = TrainingFacts()

    @classmethod
    def of(cls, engine: EngineSettings, training: TrainingFacts | None = None) -> Manifest:
        """The manifest of a network of these settings."""
        return cls(
            network=engine.model,
            channels=engine.channels,
            feature_count=kinds.of(engine).inputs(engine),
            feature_version=kinds.of(engine).input_version,
            training=training or TrainingFacts(),
        )


def version_of(data: bytes) -> str:
    """The model version of an artifact: 16 hex digits of the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def dump(network: Any, manifest: Manifest) -> bytes:
    """The artifact: equal weights and manifest give equal bytes."""
    tensors = {name: weight.detach().contiguous() for name, weight in network.named_parameters()}
    described = manifest.model_copy(update={"period_ms": getattr(network, "period_ms", 0)}).model_dump(mode="json")
    text = json.dumps({"manifest": described, "sha256": _digest(described, tensors)}, sort_keys=True, separators=(",", ":"))
    data: bytes = safetensors.torch.save(tensors, {_ENTRY: text})
    return data


def manifest(data: bytes) -> Manifest:
    """What an artifact says of itself; its weights are not looked at.

    Raises:
        ArtifactError: It cannot be read.
    """
    return _manifest(_entry(data))


def load(data: bytes, expected: EngineSettings) -> tuple[Any, Manifest]:
    """The network in an artifact, ready to serve, and its manifest.

    Args:
        data: Bytes from anywhere.
        expected: The settings it is to serve under.

    Raises:
        ArtifactError: It cannot be used; see `Reason`.
    """
    entry = _entry(data)
    manifest = _manifest(entry)
    _check_architecture(manifest, Manifest.of(expected))
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        _refuse("corrupt", f"its tensors cannot be read ({error}): copy it again from where it was made")
    network = kinds.of(expected).network(expected)
    wanted = dict(network.named_parameters())
    later = [name for name in getattr(network, "later", ()) if name not in tensors]
    _check_tensors(tensors, {name: weight for name, weight in wanted.items() if name not in later})
    if _digest(entry["manifest"], tensors) != entry["sha256"]:
        _refuse("corrupt", "its digest does not match: copy it again from where it was made")
    network.load_state_dict(tensors, strict=not later)
    network.period_ms = manifest.period_ms
    return network.eval(), manifest


def _entry(data: bytes) -> dict[str, Any]:
    """Our entry in the header: {"manifest", "sha256"}. Sizes are checked against the header first."""
    if len(data) > MAX_BYTES:
        _refuse("oversize", f"{len(data)} bytes are more than the {MAX_BYTES} allowed: train a smaller network (model.hidden)")
    length = int.from_bytes(data[:8], "little")
    if len(data) >= 9 and (data[8:9] != b"{" or not 2 <= length <= _MAX_HEADER_BYTES):
        _refuse("foreign", "they are not safetensors: make weights with `recurd train`")
    if len(data) < 9 or len(data) < 8 + length:
        _refuse("truncated", f"{len(data)} bytes are not even the header: copy it again from where it was made")
    try:
        header = json.loads(data[8 : 8 + length])
        end = max(int(value["data_offsets"][1]) for name, value in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        _refuse("corrupt", "the header cannot be read: copy it again from where it was made")
    if len(data) < 8 + length + end:
        _refuse("truncated", f"{8 + length + end - len(data)} bytes are missing at the end: copy it again from where it was made")
    text = (header.get("__metadata__") or {}).get(_ENTRY)
    if text is None:
        _refuse("foreign", "they are safetensors of another program: make weights with `recurd train`")
    return _parsed(text)


def _parsed(text: str) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or set(entry) != {"manifest", "sha256"}:
        _refuse("corrupt", "the manifest cannot be read: copy it again from where it was made")
    return entry


def _manifest(entry: dict[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(entry["manifest"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        _refuse("corrupt", f"the manifest's {where} is not valid ({first['msg']}): use the release of recurd that made it")


def _check_architecture(found: Manifest, wanted: Manifest) -> None:
    """Refuse the first difference that matters, by the name of the setting."""
    for name in NetworkSettings.model_fields:
        has, needs = getattr(found.network, name), getattr(wanted.network, name)
        if has != needs:
            _refuse("architecture", f"they were trained for model.{name} = {_shown(has)} and the settings say {_shown(needs)}")
    if found.channels != wanted.channels:
        _refuse(
            "architecture", f"they were trained for channels {_shown(found.channels)} and the input has {_shown(wanted.channels)}"
        )
    for name in ("feature_version", "feature_count"):
        has, needs = getattr(found, name), getattr(wanted, name)
        if has != needs:
            _refuse("architecture", f"they were trained on {name.replace('_', ' ')} {has} and this release computes {needs}")


def _check_tensors(tensors: dict[str, Tensor], wanted: dict[str, torch.nn.Parameter]) -> None:
    differing = sorted(set(tensors) ^ set(wanted))
    if differing:
        _refuse("tensors", f"tensor {differing[0]!r} is {'unknown' if differing[0] in tensors else 'missing'}: train them again")
    for name, tensor in sorted(tensors.items()):
        if tensor.shape != wanted[name].shape or tensor.dtype != torch.float32:
            has, needs = f"{tensor.dtype} {tuple(tensor.shape)}", f"torch.float32 {tuple(wanted[name].shape)}"
            _refuse("tensors", f"tensor {name!r} is {has} instead of {needs}: train them again")
        if not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            _refuse("non_finite", f"tensor {name!r} has {count} numbers that are not finite: train them again")


def _digest(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the manifest and every tensor's name and bytes: one flipped bit is found."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _shown(value: Any) -> str:
    return json.dumps(value)


def _refuse(reason: Reason, what: str) -> NoReturn:
    if reason == "architecture":
        what += ": set it as they were trained, or train new weights with `recurd train`"
    raise ArtifactError(reason, f"The weights cannot be used: {what}.")
