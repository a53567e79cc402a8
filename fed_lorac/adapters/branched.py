"""What every adapter of ours does: put branches on some of a network's layers and train some of its parameters as they
are, read both as one state, and take them off again. Knows networks; not which layers, nor what a branch computes."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from fed_lorac.adapters import branches
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.branches import Adapted, Branch, Layer, adapted_layers, apart, deltas_of, layer_named
from fed_lorac.adapters.deltas import State, ToDelta, restart_dense, set_tensors

__all__ = ["BranchAdapter"]


@dataclass(frozen=True)
class BranchAdapter(Adapter):
    """Branches on some layers, none or many, and parameters beside them. A subclass says which."""

    thin: tuple[str, ...] | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Of these layers, the ends that change by a product of low rank (`ends`), once fitted."""

    def places(self, model: nn.Module) -> tuple[str, ...]:
        """Names of a plain network's layers that carry this adapter's branches, which is fitted, in the network's
        order."""
        return ()

    def kind_of(self, name: str, layer: nn.Module) -> type[Adapted]:
        """What a layer becomes that carries a branch."""
        raise NotImplementedError

    def branch(self, name: str, layer: Any, generator: torch.Generator) -> Branch:
        """What a layer's branch starts with: its delta is zero. Layers come in the network's order, so that equal
        generators draw equal branches at both ends."""
        raise NotImplementedError

    def end_branch(self, layer: Layer, generator: torch.Generator) -> Branch:
        """The same for an end that changes by low rank."""
        raise NotImplementedError

    @abstractmethod
    def trained_beside(self, model: nn.Module) -> Collection[str]:
        """Names of a plain network's parameters that are trained as they are; of a fitted adapter. FactorError where it
        has none of them."""

    def branches(self, model: nn.Module, generator: torch.Generator) -> dict[str, tuple[type[Adapted], Branch]]:
        """Every branch of a plain network at its start, and what its layer becomes, by the layer's name."""
        fitted = self.fit_to(model)
        layers = {name: layer_named(model, name) for name in fitted.places(model)}
        return {n: (fitted.kind_of(n, layer), fitted._drawn(n, layer, generator)) for n, layer in layers.items()}

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Branches on the layers; trained are they and what is trained beside them. FactorError for a layer that
        cannot carry one, with nothing altered."""
        fitted = self.fit_to(model)
        branches.attach(model, fitted.branches(model, generator), fitted.trained_beside(model))

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

    def _drawn(self, name: str, layer: Layer, generator: torch.Generator) -> Branch:
        if name in (self.thin or ()):
            return self.end_branch(layer, generator)
        return self.branch(name, layer, generator)

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Branches' trained tensors, "<layer>.<name>", and the deltas of what is trained beside."""
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
        """Each branch's tensors as `Adapted.to_delta` says them; what is dense passes.

        FactorError where a state has other tensors of a branch than this adapter, or other shapes.
        """
        found = self.branches(base, generator)
        layers = {name: apart(layer_named(base, name), kind, branch) for name, (kind, branch) in found.items()}
        return partial(deltas_of, layers, {name: branch.lender for name, (_, branch) in found.items() if branch.lender})
