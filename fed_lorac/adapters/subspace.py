"""subspace: every convolution but the first moves in a random subspace of a few dimensions. Knows networks; no cameras,
rounds or frames.

Intrinsic dimension (Li et al. 2018, arXiv 1804.08838): delta theta = P z, P drawn and frozen, z trained from zero.
Here P is a block for each convolution (`algebra.subspace`), and z has an equal part for each: a small early layer has
as many numbers as a large late one. Both ends draw P.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.subspace import draw_signs, spread
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting

__all__ = ["Subspace", "SubspaceConv2d"]


class SubspaceConv2d(AdaptedConv2d):
    """A convolution that gains gain * P z: z trained, P frozen as its signs, `left` and `right`."""

    gain: float

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """gain * P z, (..., out*in*K*K)."""
        return spread(self.gain * own["z"], own["left"], own["right"], own["weight"].shape[-4:].numel())


@dataclass(frozen=True, kw_only=True)
class Subspace(ConvAdapter):
    """A convolution's update as P z, of which z alone is trained. State: "<conv>.z".

    `lr_scale` is how much faster than `local.lr` z learns: z counts sqrt(lr_scale) times, so its step in the weight is
    lr_scale times what it would be.
    """

    formula = "d + ends"
    source = "Intrinsic dimension, arXiv 1804.08838; federated: arXiv 2602.03019"
    layer = SubspaceConv2d
    linear = True

    dimension: int = setting(256, "dimensions d of the subspace: numbers of all convolutions together", least=1)
    lr_scale: float = setting(1.0, "the learning rate of z: so many times local.lr", above=0)
    parts: Mapping[str, int] | None = field(default=None, compare=False, repr=False)  # of d, once fitted

    def fit_to(self, base: nn.Module) -> Self:
        """With each convolution's part of d, the first ones' one larger where it does not go in evenly; FactorError
        where there are more convolutions than dimensions."""
        if self.parts is not None:
            return self
        names = self.convolutions(base)
        each, rest = divmod(self.dimension, len(names))
        if not each:
            raise FactorError(
                f"Every convolution has at least one dimension of the subspace; came dimension = {self.dimension} for "
                f"{len(names)} convolutions. Raise it, or name fewer in adapter.layers."
            )
        parts = {name: each + (place < rest) for place, name in enumerate(names)}
        return super(Subspace, replace(self, parts=parts)).fit_to(base)

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """The signs drawn, and z = 0."""
        d = min((self.parts or {})[name], conv.weight.numel())
        left, right = draw_signs(conv.weight.numel(), d, generator)
        return Branch({"z": torch.zeros(d)}, {"left": left, "right": right}, {"gain": math.sqrt(self.lr_scale)})

    def with_frozen_basis(self) -> Self:
        """It is one."""
        return self
