"""Branches in general: convolutions whose frozen weight gets a change from tensors beside it. Knows networks and how a
branch is put on, read and taken off; not what the change is a function of, which each method says.

A method is two small classes: an `AdaptedConv2d` that gives the change from its tensors, and a `ConvAdapter` that
says which convolutions carry one and how each starts. In a state a branch's trained tensors are "<conv>.<its name>".
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fed_lorac.adapters import dense
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.lora_c_conv import full_precision, scaled
from fed_lorac.adapters.plain import copied
from fed_lorac.adapters.strided import StridedConv2d
from fed_lorac.adapters.targets import find_targets
from fed_lorac.errors import FactorError

__all__ = ["AdaptedConv2d", "BranchStart", "ConvAdapter", "inject", "remove_branch"]


@dataclass(frozen=True, eq=False)
class BranchStart:
    """What a convolution's branch begins with: its tensors by name (no "weight" or "bias"), and its settings."""

    trained: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)


class AdaptedConv2d(StridedConv2d):
    """An nn.Conv2d that adds `change` to its frozen weight: y = conv(x, W + change).

    Never constructed: `inject` turns an existing nn.Conv2d into a subclass of this one in place (its parent, hooks and
    parameters do not notice); `remove_branch` turns it back. Trained tensors are parameters, frozen ones buffers out of
    the state_dict, as both ends can make them again; settings are plain attributes.
    """

    branch_trained: tuple[str, ...]
    branch_frozen: tuple[str, ...]
    branch_settings: tuple[str, ...]

    @abstractmethod
    def change(self, own: Mapping[str, Tensor]) -> Tensor:
        """What the weight gains, of the weight's shape or any view of it that is row-major, a function of the layer's
        tensors by name, each with any (cameras') axes in front. Autocast is off."""

    def effective_weight(self, own: Mapping[str, Tensor]) -> Tensor:
        """W + change, (..., out, in, K, K), from the layer's tensors by name with any (cameras') axes in front."""
        with full_precision(self.weight.device.type):
            return own["weight"] + self.change(own).reshape(own["weight"].shape)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution with its change."""
        return self.convolve(input, None)

    def convolve(self, input: Tensor, affine: tuple[Tensor, Tensor] | None) -> Tensor:
        """`forward`, then y * gain + shift where `affine` is (gain, shift), each (out,): a batch norm that is fixed."""
        weight = self.effective_weight(_own(self))
        return self._conv_forward(input, *scaled(weight, self.bias, affine))

    def extra_repr(self) -> str:
        """The convolution's settings, then its branch's."""
        shapes = [f"{name}={tuple(self.get_parameter(name).shape)}" for name in self.branch_trained]
        settings = [f"{name}={getattr(self, name):g}" for name in self.branch_settings]
        return ", ".join([super().extra_repr(), *shapes, *settings])  # type: ignore[no-untyped-call]


def _own(layer: AdaptedConv2d) -> dict[str, Tensor]:
    return {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}


def _branches(model: nn.Module) -> list[AdaptedConv2d]:
    return [layer for layer in model.modules() if isinstance(layer, AdaptedConv2d)]


def inject(conv: nn.Conv2d, kind: type[AdaptedConv2d], start: BranchStart) -> None:
    """Give an nn.Conv2d a branch, in place: same object, same parent, same hooks, another class."""
    like = conv.weight
    conv.__class__ = kind
    layer = cast(AdaptedConv2d, conv)
    for name, tensor in start.trained.items():
        own = tensor.to(device=like.device, dtype=like.dtype, copy=True)
        layer.register_parameter(name, nn.Parameter(own))
    for name, tensor in start.frozen.items():
        layer.register_buffer(name, tensor.to(device=like.device, dtype=like.dtype), persistent=False)
    for name, value in start.settings.items():
        setattr(layer, name, value)
    layer.branch_trained, layer.branch_frozen = tuple(start.trained), tuple(start.frozen)
    layer.branch_settings = tuple(start.settings)


def remove_branch(layer: AdaptedConv2d) -> None:
    """Take the branch off again, dropping its tensors: what is left is the plain nn.Conv2d it was."""
    for name in (*layer.branch_trained, *layer.branch_frozen, *layer.branch_settings):
        delattr(layer, name)
    del layer.branch_trained, layer.branch_frozen, layer.branch_settings
    cast(nn.Module, layer).__class__ = nn.Conv2d


@dataclass(frozen=True, kw_only=True)
class ConvAdapter(Adapter):
    """An adapter of branches; beside them the first convolution's and the classifier's weight are trained as they are.

    A subclass says `kind`, `starts` and, as its states are not changes by themselves, `to_delta`, which makes the same
    starts of the base and of a generator in the state that `attach` got it in.
    """

    kind: ClassVar[type[AdaptedConv2d]]  # what a convolution with a branch becomes
    train_first_conv: bool = True
    train_classifier: bool = True

    @abstractmethod
    def starts(self, model: nn.Module, generator: torch.Generator) -> dict[str, BranchStart]:
        """How each branch of a plain network starts, by the convolution's name, drawn in the network's order."""

    def convolutions(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the convolutions that carry a branch, in the network's order: every one but the first."""
        return find_targets(model, need_classifier=self.train_classifier).branches

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Branches on the convolutions; trained are they and what is trained beside them. FactorError for a layer that
        cannot carry one, with nothing altered."""
        starts = self.starts(model, generator)
        _refuse_taken_names(model, starts)
        dense.attach(model, self._beside(model))
        for name, start in starts.items():
            inject(cast(nn.Conv2d, model.get_submodule(name)), self.kind, start)

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Branches' trained tensors, "<conv>.<name>", and the changes of what is trained beside."""
        plain = torch.contiguous_format
        state = dense.read_state(model) | {
            name: p.detach().to("cpu", torch.float32, copy=True, memory_format=plain)
            for name, p in _trained(model).items()
        }
        return dict(sorted(state.items()))

    @torch.no_grad()
    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Tensors and changes back into a network attached alike; FactorError on a misfit, nothing half loaded."""
        trained = _trained(model)
        _refuse_misfits(state, self.read(model))
        dense.load_state(model, {name: tensor for name, tensor in state.items() if name not in trained})
        for name, p in trained.items():
            p.copy_(state[name])

    def detach(self, model: nn.Module) -> None:
        """Branches off, and what was trained beside them back to where it began."""
        for layer in _branches(model):
            remove_branch(layer)
        dense.detach(model)

    @torch.no_grad()
    def merge(self, model: nn.Module) -> nn.Module:
        """A copy whose weights have their branches' changes in them."""
        merged = copied(model)
        for layer in _branches(merged):
            layer.weight.copy_(layer.effective_weight(_own(layer)))
            remove_branch(layer)
        dense.detach(merged, keep=True)
        return merged

    def _beside(self, model: nn.Module) -> list[str]:
        found = find_targets(model, need_classifier=self.train_classifier)
        names = (
            found.first_conv if self.train_first_conv else None,
            found.classifier if self.train_classifier else None,
        )
        return [f"{name}.weight" for name in names if name is not None]


def _refuse_taken_names(model: nn.Module, starts: Mapping[str, BranchStart]) -> None:
    for name, start in starts.items():
        for own in (*start.trained, *start.frozen, *start.settings):
            if hasattr(model.get_submodule(name), own):
                raise FactorError(
                    f"A branch has a place of its own on its convolution; layer {name!r} has an attribute {own!r} "
                    "already, which the branch would replace. Delete or rename it."
                )


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained tensors of all branches by their names in a state."""
    return {
        f"{name}.{own}": layer.get_parameter(own)
        for name, layer in model.named_modules()
        if isinstance(layer, AdaptedConv2d)
        for own in layer.branch_trained
    }


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
