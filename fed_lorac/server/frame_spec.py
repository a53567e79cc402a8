"""What a server and its cameras agree on before the first round: the base, what a frame up holds and says, and how
numbers go down. Knows networks and adapters; not Flower, rounds or replies."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

import torch
from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import ToDelta, check_delta, is_delta_already
from fed_lorac.models.fingerprints import fingerprint, named_tensors, shapes_of
from fed_lorac.seeds import torch_stream
from fed_lorac.wire.codecs.codecs import Codec
from fed_lorac.wire.frame import TOPK_SHARE, by_name

__all__ = ["DownlinkCodec", "FrameSpec", "Shapes"]

Shapes = Mapping[str, Sequence[int]]
"""Tensor name -> shape."""


@dataclass(frozen=True, eq=False)
class FrameSpec:
    """What frames are over, and what they hold.

    Args:
        base: fingerprint of the starting base, which both ends have.
        shapes: of the base's tensors.
        template: of the tensors in a camera's frame (`Adapter.read` of an adapter that was attached and not trained);
            where cameras differ in rank, the largest.
        scale: what a delta's factor products are multiplied by, alpha / r.
        to_delta: round -> what a state of that round says, as a delta (`Adapter.to_delta`).
        template_of: camera -> its own template, where cameras differ in rank.

    Raises:
        FactorError: the template does not fit the shapes.
    """

    base: str
    shapes: Shapes = field(repr=False)
    template: Shapes = field(repr=False)
    scale: float = 1.0
    to_delta: Callable[[int], ToDelta] = field(default=lambda round: is_delta_already, repr=False)
    template_of: Callable[[int], Shapes] | None = field(default=None, repr=False)
    deltas: Shapes = field(init=False, repr=False)
    """Shapes of the tensors of a delta: what the template's state says."""

    def __post_init__(self) -> None:
        delta = self.to_delta(0)({name: torch.zeros(tuple(shape)) for name, shape in self.template.items()})
        check_delta(delta, self.shapes)
        object.__setattr__(self, "deltas", {name: tensor.shape for name, tensor in delta.items()})

    @classmethod
    def for_model(cls, model: nn.Module, adapter: Adapter, *, seed: int = 0, rotates: bool = False) -> Self:
        """The agreement for a plain network, which is left as it is, and the way that cameras adapt it.

        Cameras attach the adapter by the stream (seed, "adapter", round) where the basis `rotates`, else of round 0.
        """
        start, twin, adapter = copy.deepcopy(model), copy.deepcopy(model), adapter.fit_to(model)
        adapter.attach(twin, torch_stream(seed, "adapter", 0))

        @lru_cache(maxsize=1)
        def to_delta(round: int) -> ToDelta:
            return adapter.to_delta(start, torch_stream(seed, "adapter", round if rotates else 0))

        return cls(
            base=fingerprint(named_tensors(model)),
            shapes=shapes_of(model),
            template={name: tensor.shape for name, tensor in adapter.read(twin).items()},
            scale=adapter.scale,
            to_delta=to_delta,
        )

    @property
    def states_are_deltas(self) -> bool:
        """Whether what cameras send is a delta as it is; else a frozen part that both ends know is put back."""
        return set(self.template) == set(self.deltas)

    def template_for(self, camera: int) -> Shapes:
        """What this camera's frame holds."""
        return self.template if self.template_of is None else self.template_of(camera)

    def kind(self, camera: int) -> int:
        """Equal for cameras of one rank: the number of values in their frames; 0 where all are of one rank."""
        return 0 if self.template_of is None else sum(math.prod(shape) for shape in self.template_of(camera).values())


@dataclass(frozen=True)
class DownlinkCodec:
    """How the numbers of frames down travel: `dtype` is a codec or its name; `topk_share`, what topk sends.

    Raises:
        FrameError: no such dtype.
    """

    dtype: str | Codec = "fp32"
    topk_share: float = TOPK_SHARE

    def __post_init__(self) -> None:
        by_name(self.dtype)
