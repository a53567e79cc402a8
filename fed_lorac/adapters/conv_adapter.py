"""THE way to adapt convolutions: a branch on each. Knows networks; not what a branch computes, which each method's
layer says.

A method is two small classes: an `AdaptedConv2d`, whose frozen weight gets a delta from tensors beside it, and a
`ConvAdapter` that says what a branch starts with. In a state a branch's trained tensors are "<conv>.<its name>".
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from fed_lorac.adapters import branches
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.branches import (
    Adapted,
    AdaptedConv2d,
    Branch,
    Layer,
    adapted_layers,
    apart,
    attach,
    deltas_of,
    layer_named,
)
from fed_lorac.adapters.deltas import State, ToDelta, restart_dense, set_tensors
from fed_lorac.adapters.ends import Ends
from fed_lorac.adapters.targets import ALL_LAYERS, branch_targets, named_by
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import torch_stream

__all__ = ["AdaptedConv2d", "Branch", "ConvAdapter"]


@dataclass(frozen=True, kw_only=True)
class ConvAdapter(Ends, Adapter):
    """Branches on convolutions; the first convolution's and the classifier's weight are trained beside, as they are.

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
        return named_by(self.layers, branch_targets(model, need_classifier=self.train_classifier))

    def fit_to(self, base: nn.Module) -> Self:
        """With the convolutions that are trained as they are, `dense`: a branch would be no smaller. Adapters of lower
        rank that are made of this one (`dataclasses.replace`) keep them, so that cameras of all ranks train the same.
        """
        if self.dense is not None:
            return self
        convs = {name: cast(nn.Conv2d, layer_named(base, name)) for name in self.convolutions(base)}
        grouped = {name: conv for name, conv in convs.items() if conv.groups > 1}
        fresh = {name: self.branch(name, conv, torch_stream(0, "size")) for name, conv in grouped.items()}
        sizes = {name: sum(t.numel() for t in branch.trained.values()) for name, branch in fresh.items()}
        return replace(self, dense=tuple(n for n, conv in grouped.items() if sizes[n] >= conv.weight.numel()))

    def fit_like(self, largest: Adapter, base: nn.Module) -> Self:
        """As `fit_to`, with the convolutions trained as they are that the adapter of the highest rank trains so."""
        return replace(self, dense=cast(ConvAdapter, largest).dense).fit_to(base)

    def places(self, model: nn.Module) -> tuple[str, ...]:
        """Names of a plain network's layers that carry this adapter's branches, which is fitted, in the network's
        order."""
        return tuple(name for name in self.convolutions(model) if name not in (self.dense or ()))

    def kind_of(self, layer: nn.Module) -> type[Adapted]:
        """What a layer becomes that carries a branch."""
        return self.layer

    def branches(self, model: nn.Module, generator: torch.Generator) -> dict[str, tuple[type[Adapted], Branch]]:
        """Every branch of a plain network at its start, and what its layer becomes, by the layer's name."""
        fitted = self.fit_to(model)
        layers = {name: layer_named(model, name) for name in fitted.places(model)}
        return {n: (fitted.kind_of(layer), fitted._drawn(n, layer, generator)) for n, layer in layers.items()}

    def _drawn(self, name: str, layer: Layer, generator: torch.Generator) -> Branch:
        """A layer's branch at its start."""
        return self.branch(name, cast(nn.Conv2d, layer), generator)

    def trained_beside(self, model: nn.Module) -> list[str]:
        """Names of a plain network's weights that are trained as they are: its ends, where asked, and the grouped
        convolutions that carry no branch; of a fitted adapter."""
        return [*self.ends(model), *(f"{name}.weight" for name in self.dense or ())]

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Branches on the convolutions; trained are they and what is trained beside them. FactorError for a layer that
        cannot carry one, with nothing altered."""
        fitted = self.fit_to(model)
        attach(model, fitted.branches(model, generator), fitted.trained_beside(model))

    @torch.no_grad()
    def restart(self, model: nn.Module, weights: State, generator: torch.Generator) -> None:
        """Other weights, and branches that are drawn again; this adapter is fitted (`fit_to`)."""
        set_tensors(model, weights)
        restart_dense(model)
        self.redraw(adapted_layers(model), generator)

    def redraw(self, layers: Mapping[str, Adapted], generator: torch.Generator) -> None:
        """Give these layers, by name, fresh branches, in place."""
        for name, layer in layers.items():
            branch = self._drawn(name, cast(Layer, layer), generator)
            for own, tensor in (*branch.trained.items(), *branch.frozen.items()):
                getattr(layer, own).copy_(tensor)

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Branches' trained tensors, "<conv>.<name>", and the deltas of what is trained beside."""
        return branches.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Tensors and deltas back into a network attached alike; FactorError on a misfit, nothing half loaded."""
        branches.load_state(model, state)

    def detach(self, model: nn.Module) -> None:
        """Branches off, and what was trained beside them back to where it began."""
        branches.detach(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """A copy whose weights have their branches' deltas in them."""
        return branches.merged(model)

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """Each branch's tensors as `AdaptedConv2d.to_delta` says them; what is dense passes.

        FactorError where a state has other tensors of a branch than this adapter, or other shapes.
        """
        found = self.branches(base, generator)
        layers = {name: apart(layer_named(base, name), kind, branch) for name, (kind, branch) in found.items()}
        return partial(deltas_of, layers, {name: branch.lender for name, (_, branch) in found.items() if branch.lender})
