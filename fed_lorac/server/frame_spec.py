"""What a strategy and its cameras agree on: the base, its shapes, what a frame holds and what that says. Knows networks
and adapters; not Flower, frames or rounds."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from fed_lorac.adapters.adapter import Adapter, ToDelta
from fed_lorac.adapters.deltas import check_state
from fed_lorac.models.fingerprints import fingerprint, named_tensors, shapes_of
from fed_lorac.seeds import torch_stream

__all__ = ["delta_shapes", "terms_of"]

Shapes = Mapping[str, Sequence[int]]


def terms_of(model: nn.Module, adapter: Adapter, seed: int, *, rotates: bool) -> dict[str, Any]:
    """`base`, `shapes`, `template`, `scale` and `to_delta` for a plain network, which is left as it is, and the way
    that cameras adapt it: attached by the stream (seed, "adapter", round) where the basis rotates, else of round 0."""
    start, twin, adapter = copy.deepcopy(model), copy.deepcopy(model), adapter.fit_to(model)
    adapter.attach(twin, torch_stream(seed, "adapter", 0))

    @lru_cache(maxsize=1)
    def to_delta(round: int) -> ToDelta:
        return adapter.to_delta(start, torch_stream(seed, "adapter", round if rotates else 0))

    return {
        "base": fingerprint(named_tensors(model)),
        "shapes": shapes_of(model),
        "template": {name: tensor.shape for name, tensor in adapter.read(twin).items()},
        "scale": adapter.scale,
        "to_delta": to_delta,
    }


def delta_shapes(template: Shapes, to_delta: Callable[[int], ToDelta], shapes: Shapes) -> dict[str, torch.Size]:
    """Name -> shape of the tensors of a state once it is expanded; FactorError where they do not fit the base's."""
    change = to_delta(0)({name: torch.zeros(tuple(shape)) for name, shape in template.items()})
    check_state(change, shapes)
    return {name: tensor.shape for name, tensor in change.items()}
