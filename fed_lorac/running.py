"""The running base: a starting base and the updates folded into it. Knows names and tensors; not Flower or cameras.

Both ends of the radio fold `W_{t+1} = W_t + D_t` (METHODS: "Federated algebra"). Their bases are told apart by the
hash of the starting base and the number of the last folded round, never by a hash of folded floats, which may
differ in the last bit between machines.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fed_lorac.errors import FactorError

__all__ = [
    "fingerprint",
    "named_tensors",
    "own_fingerprint",
    "running_fingerprint",
    "shapes_of",
    "whole_fingerprint",
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


def running_fingerprint(base: str, folded_round: int) -> str:
    """The identity of `base` after the update of round `folded_round` (0: none yet) was folded in."""
    return f"{base}@{folded_round}"


def whole_fingerprint(base: str, folded_round: int) -> str:
    """The same for a frame that holds that base itself, not a change of it."""
    return f"{base}=@{folded_round}"


def own_fingerprint(base: str) -> str:
    """The same for a frame that holds what one camera has beside that base, whatever was folded into it."""
    return f"{base}~"
