"""subspace: a network moves in a random subspace of a few dimensions. Knows networks; no cameras, rounds or frames.

Intrinsic dimension (Li et al. 2018, arXiv 1804.08838, equation 2): delta theta = P z, P drawn and frozen, z trained
from zero: one vector of d numbers that moves every layer at once. theta are the weights of all convolutions but the
first and, where asked, of the ends. Each layer has its rows of P (`algebra.subspace`), which both ends draw.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.subspace import draw_signs, spread
from fed_lorac.adapters.branches import Adapted, AdaptedLinear, Layer, layer_named
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.adapters.targets import check_end
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting

__all__ = ["Subspace", "SubspaceConv2d", "SubspaceLinear"]


class _InSubspace(Adapted):
    """A layer that gains gain * P z: z trained, P frozen as its signs, `left` and `right`."""

    gain: float

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """gain * P z, (..., numbers of the weight)."""
        return spread(self.gain * own["z"], own["left"], own["right"], self.weight.numel())


class SubspaceConv2d(_InSubspace, AdaptedConv2d):
    """A convolution in a subspace."""


class SubspaceLinear(_InSubspace, AdaptedLinear):
    """A linear layer in a subspace."""


@dataclass(frozen=True)
class Rows:
    """Whose the rows of P are: layers, in the network's order, and how many numbers their weights have together."""

    layers: tuple[str, ...]
    numbers: int


@dataclass(frozen=True, kw_only=True)
class Subspace(ConvAdapter):
    """A network's update as P z, of which z alone is trained. State: "<the first of the layers>.z" (d,), which stands
    for all of them.

    Layers of fewer than d numbers have a z of that many. Columns of P are of length 1 over all layers. `lr_scale` is
    how much faster than `local.lr` z learns: z counts sqrt(lr_scale) times, so its step in the weights is lr_scale
    times what it would be.
    """

    source = "Intrinsic dimension, arXiv 1804.08838; federated: arXiv 2602.03019"
    found_lr = 0.1
    layer = SubspaceConv2d
    linear = True
    of_ends = (*ConvAdapter.of_ends, "ends_inside")

    dimension: int = setting(256, "dimensions d of the subspace: numbers of all layers together", least=1)
    ends_inside: bool = setting(
        False, "the ends that are trained move in the subspace, with the rest, and are not trained as they are"
    )
    lr_scale: float = setting(10.0, "the learning rate of z: so many times local.lr", above=0)
    rows: Rows | None = field(default=None, compare=False, repr=False)  # once fitted

    @property
    def suggested_lr(self) -> float:
        """As `Adapter`'s: of `local.lr` times `lr_scale`."""
        return self.found_lr * type(self).lr_scale / self.lr_scale

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ends_inside and self.end_rank:
            raise ConfigError(
                "Ends move in the subspace or by a change of low rank; got ends_inside = true with end_rank = "
                f"{self.end_rank}. Set one of them to its default."
            )

    @property
    def formula(self) -> str:
        """z."""
        return "d" if self.ends_inside else "d + ends"

    def fit_to(self, base: nn.Module) -> Self:
        """With the layers that P is over; FactorError where an end cannot move in it."""
        if self.rows is not None:
            return self
        own = super(ConvAdapter, self).fit_to(base)  # of one z, no convolution's branch is too large
        inside = {name.removesuffix(".weight") for name in self._all_ends(base)} if self.ends_inside else set()
        for name in inside:
            check_end(base, name)
        there = {*self.convolutions(base), *inside}
        layers = tuple(name for name, _ in base.named_modules() if name in there)
        numbers = sum(layer_named(base, name).weight.numel() for name in layers)
        return replace(own, rows=Rows(layers, numbers), dense=())

    def ends(self, model: nn.Module) -> list[str]:
        """Names of the ends' weights that are trained as they are."""
        return [] if self.ends_inside else super().ends(model)

    def places(self, model: nn.Module) -> tuple[str, ...]:
        """The layers that P is over, and the ends that change by low rank."""
        there = {*self._rows.layers, *(self.thin or ())}
        return tuple(name for name, _ in model.named_modules() if name in there)

    def kind_of(self, name: str, layer: nn.Module) -> type[Adapted]:
        """By the layer's kind: an end may be a linear one."""
        if name in (self.thin or ()):
            return super().kind_of(name, layer)
        return SubspaceLinear if isinstance(layer, nn.Linear) else self.layer

    def branch(self, name: str, conv: Layer, generator: torch.Generator) -> Branch:
        """A layer's signs drawn and, in the first layer, z = 0, which it lends to the others."""
        first, n = self._rows.layers[0], conv.weight.numel()
        d = min(self.dimension, self._rows.numbers)
        left, right = draw_signs(n, d, generator)
        trained = {"z": torch.zeros(d)} if name == first else {}
        gain = math.sqrt(self.lr_scale * n / self._rows.numbers)
        return Branch(trained, {"left": left, "right": right}, {"gain": gain}, "" if name == first else first)

    @property
    def _rows(self) -> Rows:
        if self.rows is None:
            raise AssertionError("a subspace is of a fitted adapter")
        return self.rows

    def with_frozen_basis(self) -> Self:
        """It is one."""
        return self
