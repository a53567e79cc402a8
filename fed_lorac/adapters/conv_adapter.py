"""THE way to adapt convolutions: a branch on each, put on, read, loaded, merged and taken off. Knows networks; not what
a branch computes, which is its layer's (`adapted_conv`).

A method is two small classes: an `AdaptedConv2d` that makes the delta of its tensors, and a `ConvAdapter` that says
what a convolution's branch starts with. In a state a branch's trained tensors are "<conv>.<its name>".
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fed_lorac.adapters import dense
from fed_lorac.adapters.adapted_conv import AdaptedConv2d, Branch, inject, remove_branch
from fed_lorac.adapters.adapter import Adapter, ToDelta
from fed_lorac.adapters.deltas import State
from fed_lorac.adapters.plain import copied
from fed_lorac.adapters.targets import branch_targets, ends_of
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting

__all__ = ["AdaptedConv2d", "Branch", "ConvAdapter", "adapted_layers"]


@dataclass(frozen=True, kw_only=True)
class ConvAdapter(Adapter):
    """Branches on convolutions; the first convolution's and the classifier's weight are trained beside, as they are.

    A subclass says `layer` and `branch`, and `linear` where the delta is linear in what is trained.
    """

    layer: ClassVar[type[AdaptedConv2d]]
    """What a convolution with a branch becomes."""
    state_is_delta = False

    train_first_conv: bool = setting(True, "train, and send, the first convolution's weight as it is")
    train_classifier: bool = setting(True, "train, and send, the classifier's weight as it is")

    @abstractmethod
    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """What the branch of a plain network's convolution `name` starts with: its delta is zero.

        Convolutions come in the network's order, so that equal generators draw equal branches at both ends.
        """

    def convolutions(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the convolutions that carry a branch, in the network's order: every one but the first.

        A method that wants fewer chooses among these. FactorError for a network that an adapter cannot be attached to.
        """
        return branch_targets(model, need_classifier=self.train_classifier)

    def branches(self, model: nn.Module, generator: torch.Generator) -> dict[str, Branch]:
        """Every branch of a plain network at its start, by the convolution's name."""
        fitted = self.fit_to(model)
        return {name: fitted.branch(name, _conv(model, name), generator) for name in fitted.convolutions(model)}

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Branches on the convolutions; trained are they and what is trained beside them. FactorError for a layer that
        cannot carry one, with nothing altered."""
        branches = self.branches(model, generator)
        _refuse_taken_names(model, branches)
        dense.attach(model, ends_of(model, first_conv=self.train_first_conv, classifier=self.train_classifier))
        for name, branch in branches.items():
            inject(_conv(model, name), self.layer, branch)

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Branches' trained tensors, "<conv>.<name>", and the deltas of what is trained beside."""
        plain = torch.contiguous_format
        state = dense.read_state(model) | {
            name: p.detach().to("cpu", torch.float32, copy=True, memory_format=plain)
            for name, p in _trained(model).items()
        }
        return dict(sorted(state.items()))

    @torch.no_grad()
    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Tensors and deltas back into a network attached alike; FactorError on a misfit, nothing half loaded."""
        trained = _trained(model)
        _refuse_misfits(state, self.read(model))
        dense.load_state(model, {name: tensor for name, tensor in state.items() if name not in trained})
        for name, p in trained.items():
            p.copy_(state[name])

    def detach(self, model: nn.Module) -> None:
        """Branches off, and what was trained beside them back to where it began."""
        for layer in adapted_layers(model).values():
            remove_branch(layer)
        dense.detach(model)

    @torch.no_grad()
    def merge(self, model: nn.Module) -> nn.Module:
        """A copy whose weights have their branches' deltas in them."""
        merged = copied(model)
        for layer in adapted_layers(merged).values():
            layer.weight.copy_(layer.effective_weight(layer.own()))
            remove_branch(layer)
        dense.detach(merged, keep=True)
        return merged

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """Each branch's tensors as `AdaptedConv2d.to_delta` says them; what is dense passes.

        FactorError where a state has other tensors of a branch than this adapter, or other shapes.
        """
        branches = self.branches(base, generator)
        return partial(_to_delta, {name: self._apart(_conv(base, name), branch) for name, branch in branches.items()})

    def _apart(self, conv: nn.Conv2d, branch: Branch) -> AdaptedConv2d:
        """The layer that `attach` would make of a convolution, which stays as it is; they share the weight."""
        twin = copy.deepcopy(conv, {id(p): p for p in conv.parameters()})
        inject(twin, self.layer, branch)
        return cast(AdaptedConv2d, twin)


def adapted_layers(model: nn.Module) -> dict[str, AdaptedConv2d]:
    """The convolutions that carry a branch, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, AdaptedConv2d)}


def _conv(model: nn.Module, name: str) -> nn.Conv2d:
    return cast(nn.Conv2d, model.get_submodule(name))


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained tensors of all branches by their names in a state."""
    layers = adapted_layers(model).items()
    return {f"{name}.{own}": layer.get_parameter(own) for name, layer in layers for own in layer.branch_trained}


def _to_delta(layers: Mapping[str, AdaptedConv2d], state: State) -> dict[str, Tensor]:
    trained = {f"{name}.{own}" for name, layer in layers.items() for own in layer.branch_trained}
    delta = {key: tensor for key, tensor in state.items() if key not in trained}
    for name, layer in layers.items():
        came = {own: state[f"{name}.{own}"] for own in layer.branch_trained if f"{name}.{own}" in state}
        _refuse_other_tensors(name, layer, came)
        like = next(iter(came.values()))
        frozen = {own: layer.get_buffer(own).to(like) for own in layer.branch_frozen}
        said = layer.to_delta({"weight": layer.weight, **frozen, **came})
        delta |= {f"{name}.{key}": tensor for key, tensor in said.items()}
    return delta


def _refuse_other_tensors(name: str, layer: AdaptedConv2d, came: State) -> None:
    shapes = {own: tuple(tensor.shape) for own, tensor in came.items()}
    expected = {own: tuple(layer.get_parameter(own).shape) for own in layer.branch_trained}
    if shapes != expected:
        raise FactorError(
            f"A state says a branch by the adapter's own tensors, for {name!r} {expected}; came {shapes or 'none'}. "
            "Was it trained with another method, or other settings?"
        )


def _refuse_taken_names(model: nn.Module, branches: Mapping[str, Branch]) -> None:
    for name, branch in branches.items():
        for own in (*branch.trained, *branch.frozen, *branch.settings):
            if hasattr(model.get_submodule(name), own):
                raise FactorError(
                    f"A branch has a place of its own on its convolution; layer {name!r} has an attribute {own!r} "
                    "already, which the branch would replace. Delete or rename it."
                )


def _refuse_misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    if state.keys() != own.keys():
        missing, strange = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise FactorError(
            f"A state has the adapter's own tensors; missing {missing}, unknown {strange}. Is it another method's?"
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise FactorError(
                f"{name!r} has the shape {tuple(tensor.shape)} in this adapter; came {tuple(state[name].shape)}. "
                "Was it trained with other settings?"
            )
