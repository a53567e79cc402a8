"""Ties: tensors of a network that are one under two names, or lie in the same memory. Knows names and memory; not
adapters or layers' kinds.

A delta of one tied tensor changes the other too, which no state says: a state has each delta under one name.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

__all__ = ["ties"]


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in its storage, in bytes, and whether training moves it: constants may be shared."""

    name: str
    moves: bool
    start: int
    end: int


def ties(model: nn.Module) -> list[tuple[str, str]]:
    """Pairs of names of tensors that overlap in memory, at least one of them a parameter or a running statistic.

    A parameter, or a layer, that is registered twice is tied to itself. Views of one storage that do not overlap are
    not tied.
    """
    places = defaultdict(list)
    for name, tensor, moves in _tensors(model):
        storage, start, end = _memory(tensor)
        places[storage].append(_Place(name, moves, start, end))
    return [
        (a.name, b.name)
        for group in places.values()
        for a, b in combinations(group, 2)
        if (a.moves or b.moves) and a.start < b.end and b.start < a.end
    ]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    yield from ((name, p, True) for name, p in model.named_parameters(remove_duplicate=False))
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module.named_buffers(prefix, recurse=False):
            yield name, buffer, isinstance(module, _NormBase)


def _memory(tensor: Tensor) -> tuple[Hashable, int, int]:
    """Storage, first byte and the byte after the last; a tensor without such memory is told by itself alone."""
    if is_lazy(tensor) or type(tensor.data) is not Tensor or tensor.layout != torch.strided or tensor.is_meta:
        return id(tensor), 0, 1
    size, first = tensor.element_size(), int(tensor.storage_offset())
    last = first + sum((n - 1) * int(step) for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    storage = (tensor.device, tensor.untyped_storage().data_ptr())
    return storage, first * size, (last + 1) * size if tensor.numel() else first * size
