"""THE way to adapt convolutions: a branch on each. Knows networks; not what a branch computes, which each method's
layer says.

A method is two small classes: an `AdaptedConv2d`, whose frozen weight gets a delta from tensors beside it, and a
`ConvAdapter` that says what a branch starts with. In a state a branch's trained tensors are "<conv>.<its name>".
"""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, cast

import torch
from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.branches import Adapted, AdaptedConv2d, Branch, layer_named
from fed_lorac.adapters.ends import Ends
from fed_lorac.adapters.targets import ALL_LAYERS, branch_targets, named_by
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import torch_stream

__all__ = ["AdaptedConv2d", "Branch", "ConvAdapter"]


@dataclass(frozen=True, kw_only=True)
class ConvAdapter(Ends):
    """Branches on convolutions; the first convolution's and the classifier's weight are trained beside, as they are or
    by a change of low rank.

    So is the weight of a grouped convolution whose branch would hold as many numbers as it, or more: depthwise ones, at
    all but the lowest ranks. Convolutions of one group keep their published branches at any rank.

    A subclass says `layer` and `branch`, and `linear` where the delta is linear in what is trained.
    """

    layer: ClassVar[type[AdaptedConv2d]]
    """What a convolution with a branch becomes."""
    state_is_delta = False

    layers: str = setting(
        ALL_LAYERS,
        'which convolutions are adapted: "all" but the first, or names and patterns like "layer1.*, layer2.0.conv?"',
        listed=True,
    )
    dense: tuple[str, ...] | None = field(default=None, compare=False, repr=False)  # convolutions, once fitted

    @abstractmethod
    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """What the branch of a plain network's convolution `name` starts with: its delta is zero.

        Convolutions come in the network's order, so that equal generators draw equal branches at both ends.
        """

    def convolutions(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the convolutions that are adapted, in the network's order: those of `layers`, never the first.

        A method that wants fewer chooses among these. FactorError for a network that an adapter cannot be attached to,
        and where a pattern of `layers` names none of its convolutions.
        """
        apart = self.train_classifier or self.classifier_elsewhere
        return named_by(self.layers, branch_targets(model, need_classifier=apart))

    def fit_to(self, base: nn.Module) -> Self:
        """With the convolutions that are trained as they are, `dense`: a branch would be no smaller. Adapters of lower
        rank that are made of this one (`dataclasses.replace`) keep them, so that cameras of all ranks train the same.
        """
        if self.dense is not None:
            return self
        own = super().fit_to(base)
        convs = {name: cast(nn.Conv2d, layer_named(base, name)) for name in self.convolutions(base)}
        grouped = {name: conv for name, conv in convs.items() if conv.groups > 1}
        fresh = {name: self.branch(name, conv, torch_stream(0, "size")) for name, conv in grouped.items()}
        sizes = {name: sum(t.numel() for t in branch.trained.values()) for name, branch in fresh.items()}
        return replace(own, dense=tuple(n for n, conv in grouped.items() if sizes[n] >= conv.weight.numel()))

    def fit_like(self, largest: Adapter, base: nn.Module) -> Self:
        """As `fit_to`, with the convolutions trained as they are that the adapter of the highest rank trains so."""
        like = cast(ConvAdapter, largest)
        return replace(self, dense=like.dense, thin=like.thin).fit_to(base)

    def places(self, model: nn.Module) -> tuple[str, ...]:
        """Those of them that carry a branch, and the ends that change by low rank, in the network's order."""
        there = {*self.convolutions(model), *super().places(model)} - set(self.dense or ())
        return tuple(name for name, _ in model.named_modules() if name in there)

    def kind_of(self, name: str, layer: nn.Module) -> type[Adapted]:
        """`layer`, but at the ends."""
        return super().kind_of(name, layer) if name in (self.thin or ()) else self.layer

    def trained_beside(self, model: nn.Module) -> list[str]:
        """Names of a plain network's weights that are trained as they are: its ends, where asked, and the grouped
        convolutions that carry no branch; of a fitted adapter."""
        return [*self.ends(model), *(f"{name}.weight" for name in self.dense or ())]
