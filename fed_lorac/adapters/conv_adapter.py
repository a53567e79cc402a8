"""THE way to adapt convolutions: a branch on each, put on, read, loaded, merged and taken off. Knows networks; not what
a branch computes, which each method's layer says.

A method is two small classes: an `AdaptedConv2d`, whose frozen weight gets a delta from tensors beside it, and a
`ConvAdapter` that says what a branch starts with. In a state a branch's trained tensors are "<conv>.<its name>".
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from fed_lorac.adapters import dense
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import State, ToDelta, set_tensors
from fed_lorac.adapters.misfits import refuse_misfits, refuse_other_tensors, refuse_taken_names
from fed_lorac.adapters.plain import copied
from fed_lorac.adapters.strided import StridedConv2d
from fed_lorac.adapters.targets import ALL_LAYERS, branch_targets, ends_of, named_by
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import torch_stream

__all__ = [
    "AdaptedConv2d",
    "Affine",
    "Branch",
    "ConvAdapter",
    "adapted_layers",
    "full_precision",
    "inject",
    "remove_branch",
    "scaled",
]

Affine = tuple[Float[Tensor, " out"], Float[Tensor, " out"] | None]
"""Gain and shift of a convolution's output, channel by channel."""


@dataclass(frozen=True, eq=False)
class Branch:
    """What a convolution's branch starts with: its tensors by name (not "weight" or "bias"), and its settings.

    Both ends must be able to make the frozen ones again: they are not sent.
    """

    trained: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, float | str] = field(default_factory=dict)


class AdaptedConv2d(StridedConv2d):
    """An nn.Conv2d that adds `delta` to its frozen weight: y = conv(x, W + delta).

    Never constructed: `inject` turns an existing nn.Conv2d into a subclass of this one in place (its parent, hooks and
    parameters do not notice); `remove_branch` turns it back. Trained tensors are parameters, frozen ones buffers out of
    the state_dict; settings are plain attributes. `train()` and `eval()` alter no weight.
    """

    branch_trained: tuple[str, ...]
    branch_frozen: tuple[str, ...]
    branch_settings: tuple[str, ...]

    @abstractmethod
    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """What the weight gains, of the weight's shape or any view of it that is row-major, a function of the layer's
        tensors by name, each with any (cameras') axes in front, and of the weight's shape, never of its values.
        Autocast is off."""

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The delta as a state says it: dense, as "weight". A method of low rank says "A" and "B" instead, with
        B @ A * `Adapter.scale` the delta in a view of `algebra.factors`."""
        return {"weight": self.delta(own).reshape(own["weight"].shape)}

    def own(self) -> dict[str, Tensor]:
        """This layer's tensors by name."""
        return {k: t for k, t in (*self._parameters.items(), *self._buffers.items()) if t is not None}

    def effective_weight(self, own: Mapping[str, Tensor]) -> Tensor:
        """W + delta, (..., out, in, K, K), from the layer's tensors by name with any (cameras') axes in front."""
        with full_precision(self.weight.device.type):
            return own["weight"] + self.delta(own).reshape(own["weight"].shape)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution with its delta."""
        return self.convolve(input, None)

    def convolve(self, input: Tensor, affine: Affine | None) -> Tensor:
        """`forward`, then y * gain + shift where `affine` is (gain, shift), each (out,): a batch norm that is fixed."""
        return self._conv_forward(input, *scaled(self.effective_weight(self.own()), self.bias, affine))

    def extra_repr(self) -> str:
        """The convolution's settings, then its branch's: equal layers are known by them."""
        shapes = [f"{name}={tuple(self.get_parameter(name).shape)}" for name in self.branch_trained]
        settings = ((name, getattr(self, name)) for name in self.branch_settings)
        said = [f"{name}={value}" if isinstance(value, str) else f"{name}={value:g}" for name, value in settings]
        return ", ".join([super().extra_repr(), *shapes, *said])  # type: ignore[no-untyped-call]


def inject(conv: nn.Conv2d, kind: type[AdaptedConv2d], branch: Branch) -> None:
    """Give an nn.Conv2d a branch, in place: same object, same parent, same hooks, another class."""
    like = conv.weight
    conv.__class__ = kind
    layer = cast(AdaptedConv2d, conv)
    for name, tensor in branch.trained.items():
        own = tensor.to(device=like.device, dtype=like.dtype, copy=True)
        layer.register_parameter(name, nn.Parameter(own))
    for name, tensor in branch.frozen.items():
        layer.register_buffer(name, tensor.to(device=like.device, dtype=like.dtype), persistent=False)
    for name, value in branch.settings.items():
        setattr(layer, name, value)
    layer.branch_trained, layer.branch_frozen = tuple(branch.trained), tuple(branch.frozen)
    layer.branch_settings = tuple(branch.settings)


def remove_branch(layer: AdaptedConv2d) -> None:
    """Take the branch off again, dropping its tensors: what is left is the plain nn.Conv2d it was."""
    for name in (*layer.branch_trained, *layer.branch_frozen, *layer.branch_settings):
        delattr(layer, name)
    del layer.branch_trained, layer.branch_frozen, layer.branch_settings
    cast(nn.Module, layer).__class__ = nn.Conv2d


def scaled(
    weight: Float[Tensor, "out in k k"], bias: Float[Tensor, " out"] | None, affine: Affine | None
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of `conv(x, weight, bias) * gain + shift`, where `affine` is (gain, shift); None: as they are."""
    if affine is None:
        return weight, bias
    gain, shift = affine
    bias = shift if bias is None else bias * gain if shift is None else bias * gain + shift
    return weight * gain.view(-1, 1, 1, 1), bias


def full_precision(device: str) -> AbstractContextManager[object]:
    """Autocast off: a delta is computed in the precision that its tensors are kept in."""
    return torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()


@dataclass(frozen=True, kw_only=True)
class ConvAdapter(Adapter):
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
    train_first_conv: bool = setting(True, "train, and send, the first convolution's weight as it is")
    train_classifier: bool = setting(True, "train, and send, the classifier's weight as it is")
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
        grouped = {name: conv for name in self.convolutions(base) if (conv := _conv(base, name)).groups > 1}
        branches = {name: self.branch(name, conv, torch_stream(0, "size")) for name, conv in grouped.items()}
        sizes = {name: sum(t.numel() for t in branch.trained.values()) for name, branch in branches.items()}
        return replace(self, dense=tuple(n for n, conv in grouped.items() if sizes[n] >= conv.weight.numel()))

    def branches(self, model: nn.Module, generator: torch.Generator) -> dict[str, Branch]:
        """Every branch of a plain network at its start, by the convolution's name."""
        fitted = self.fit_to(model)
        names = [name for name in fitted.convolutions(model) if name not in (fitted.dense or ())]
        return {name: fitted.branch(name, _conv(model, name), generator) for name in names}

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Branches on the convolutions; trained are they and what is trained beside them. FactorError for a layer that
        cannot carry one, with nothing altered."""
        fitted = self.fit_to(model)
        branches = fitted.branches(model, generator)
        refuse_taken_names(model, {n: (*b.trained, *b.frozen, *b.settings) for n, b in branches.items()})
        ends = ends_of(model, first_conv=self.train_first_conv, classifier=self.train_classifier)
        dense.attach(model, [*ends, *(f"{name}.weight" for name in fitted.dense or ())])
        for name, branch in branches.items():
            inject(_conv(model, name), self.layer, branch)

    @torch.no_grad()
    def restart(self, model: nn.Module, weights: State, generator: torch.Generator) -> None:
        """Other weights, and branches that are drawn again; this adapter is fitted (`fit_to`)."""
        set_tensors(model, weights)
        dense.restart(model)
        for name, layer in adapted_layers(model).items():
            branch = self.branch(name, layer, generator)
            for own, tensor in (*branch.trained.items(), *branch.frozen.items()):
                getattr(layer, own).copy_(tensor)

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
        refuse_misfits(state, self.read(model))
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
        came = {key: state[f"{name}.{key}"] for key in layer.branch_trained if f"{name}.{key}" in state}
        own = {key: layer.get_parameter(key) for key in layer.branch_trained}
        if {key: t.shape for key, t in came.items()} != {key: t.shape for key, t in own.items()}:
            refuse_other_tensors(name, came, own)
        like = next(iter(came.values()))
        frozen = {key: layer.get_buffer(key).to(like) for key in layer.branch_frozen}
        said = layer.to_delta({"weight": layer.weight, **frozen, **came})
        delta |= {f"{name}.{key}": tensor for key, tensor in said.items()}
    return delta
