"""Fingerprints: which network a base is. Knows names and tensors; not updates, Flower or cameras."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fed_lorac.errors import FactorError

__all__ = [
    "fingerprint",
    "named_tensors",
    "shapes_of",
]


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every floating-point parameter and buffer by name: what a change may be added to."""
    return {name: t for name, t in model.state_dict().items() if t.is_floating_point()}


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    """The shapes of `named_tensors`."""
    return {name: t.shape for name, t in named_tensors(model).items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A starting base's identity: 16 hex digits over names, shapes and float32 values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    if not tensors:
        raise FactorError("A base model has at least one tensor; none came. Was the model built?")
    return digest.hexdigest()[:16]
