"""A branch on a convolution, or on a linear layer: put on, read, loaded, merged and taken off, whatever it computes.
Knows networks; not which layers carry one, nor why.

In a state a branch's trained tensors are "<conv>.<its name>"; what is trained beside branches is dense
(`deltas.train_dense`).
"""

import copy
from abc import abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from fed_lorac.adapters.deltas import State, delta_like, load_dense, read_dense, stop_dense, train_dense
from fed_lorac.adapters.misfits import refuse_misfits, refuse_other_tensors, refuse_taken_names
from fed_lorac.adapters.own_forward import has_own_forward, with_own_forward
from fed_lorac.adapters.plain import RATES_NOTE, copied
from fed_lorac.adapters.strided import StridedConv2d

__all__ = [
    "Adapted",
    "AdaptedConv2d",
    "AdaptedLinear",
    "Affine",
    "Branch",
    "adapted_layers",
    "apart",
    "attach",
    "deltas_of",
    "detach",
    "full_precision",
    "inject",
    "layer_named",
    "load_state",
    "merged",
    "read_state",
    "remove_branch",
    "scaled",
]

Affine = tuple[Float[Tensor, " out"], Float[Tensor, " out"] | None]
"""Gain and shift of a convolution's output, channel by channel."""

Layer = nn.Conv2d | nn.Linear
"""What a branch may be put on."""


@dataclass(frozen=True, eq=False)
class Branch:
    """What a layer's branch starts with: its tensors by name (not "weight" or "bias"), and its settings.

    Both ends must be able to make the frozen ones again: they are not sent. `lender` is the name of another layer, of
    one that comes before, whose trained tensors are this one's too: a state has them once, as the lender's.
    """

    trained: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, float | str] = field(default_factory=dict)
    lender: str = ""


class Adapted(nn.Module):
    """A layer that adds `delta` to its frozen weight.

    Never constructed: `inject` turns an existing layer into one of a subclass in place (its parent, hooks and
    parameters do not notice); `remove_branch` turns it back. Trained tensors are parameters, frozen ones buffers out of
    the state_dict; settings are plain attributes. `train()` and `eval()` alter no weight.
    """

    unadapted: ClassVar[type[nn.Module]]
    """The class that the layer was of."""
    weight: Tensor
    branch_trained: tuple[str, ...]
    branch_frozen: tuple[str, ...]
    branch_settings: tuple[str, ...]
    lenders: "tuple[Adapted, ...]" = ()
    """The layer whose trained tensors are this one's too, where there is one; a tuple hides it from nn.Module."""

    @abstractmethod
    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """What the weight gains, of the weight's shape or any view of it that is row-major, a function of the layer's
        tensors by name, each with any (cameras') axes in front, and of the weight's shape, never of its values.
        Autocast is off."""

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The delta as a state says it: dense, as "weight". A method of low rank says "A" and "B" instead, with
        B @ A * `Adapter.scale` the delta in a view of `algebra.factors`."""
        return {"weight": delta_like(own["weight"], self.delta(own), type(self))}

    def read_own(self) -> dict[str, Tensor]:
        """What a state has of the branch, by name: its trained tensors, float32, contiguous, on the CPU."""
        plain = torch.contiguous_format
        named = {name: self.get_parameter(name).detach() for name in self.branch_trained}
        return {k: p.to("cpu", torch.float32, copy=True, memory_format=plain) for k, p in named.items()}

    def load_own(self, came: Mapping[str, Tensor]) -> None:
        """The inverse, of tensors of the same shapes."""
        for name in self.branch_trained:
            self.get_parameter(name).copy_(came[name])

    def own(self) -> dict[str, Tensor]:
        """This layer's tensors by name, and what is lent to it."""
        lent = {name: layer.get_parameter(name) for layer in self.lenders for name in layer.branch_trained}
        return lent | {k: t for k, t in (*self._parameters.items(), *self._buffers.items()) if t is not None}

    def effective_weight(self, own: Mapping[str, Tensor]) -> Tensor:
        """W + delta, of the weight's shape, from the layer's tensors by name with any (cameras') axes in front."""
        with full_precision(self.weight.device.type):
            return own["weight"] + delta_like(own["weight"], self.delta(own), type(self))

    def extra_repr(self) -> str:
        """The layer's settings, then its branch's: equal layers are known by them."""
        shapes = [f"{name}={tuple(self.get_parameter(name).shape)}" for name in self.branch_trained]
        settings = ((name, getattr(self, name)) for name in self.branch_settings)
        said = [f"{name}={value}" if isinstance(value, str) else f"{name}={value:g}" for name, value in settings]
        return ", ".join([super().extra_repr(), *shapes, *said])


class AdaptedConv2d(Adapted, StridedConv2d):
    """An nn.Conv2d with a branch: y = conv(x, W + delta)."""

    unadapted: ClassVar[type[nn.Module]] = nn.Conv2d

    def forward(self, input: Tensor) -> Tensor:
        """The convolution with its delta."""
        return self.convolve(input, None)

    def convolve(self, input: Tensor, affine: Affine | None) -> Tensor:
        """`forward`, then y * gain + shift where `affine` is (gain, shift), each (out,): a batch norm that is fixed."""
        return self._conv_forward(input, *scaled(self.effective_weight(self.own()), self.bias, affine))


class AdaptedLinear(Adapted, nn.Linear):
    """An nn.Linear with a branch: y = (W + delta) x + b."""

    unadapted: ClassVar[type[nn.Module]] = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """The linear layer with its delta."""
        return F.linear(input, self.effective_weight(self.own()), self.bias)

    def convolve(self, input: Tensor, affine: Affine | None) -> Tensor:
        """`forward`: no norm is folded into a linear layer."""
        return self.forward(input)


def inject(plain: Layer, kind: type[Adapted], branch: Branch) -> None:
    """Give a layer a branch, in place: same object, same parent, same hooks, another class."""
    like = plain.weight
    own_forward = with_own_forward(kind, type(plain)) if has_own_forward(plain) else kind  # type: ignore[arg-type]
    cast(nn.Module, plain).__class__ = own_forward
    layer = cast(Adapted, plain)
    for name, tensor in branch.trained.items():
        own = tensor.to(device=like.device, dtype=like.dtype, copy=True)
        layer.register_parameter(name, nn.Parameter(own))
    for name, tensor in branch.frozen.items():
        layer.register_buffer(name, tensor.to(device=like.device, dtype=like.dtype), persistent=False)
    for name, value in branch.settings.items():
        setattr(layer, name, value)
    layer.branch_trained, layer.branch_frozen = tuple(branch.trained), tuple(branch.frozen)
    layer.branch_settings = tuple(branch.settings)


def attach(model: nn.Module, found: Mapping[str, tuple[type[Adapted], Branch]], beside: Collection[str]) -> None:
    """Put branches on a plain network's layers, by name, and train them, the parameters `beside` and no other.
    FactorError, with nothing altered, where a layer has a name already that a branch needs."""
    refuse_taken_names(model, {n: (*b.trained, *b.frozen, *b.settings) for n, (_, b) in found.items()})
    train_dense(model, beside)
    for name, (kind, branch) in found.items():
        inject(layer_named(model, name), kind, branch)
    layers = adapted_layers(model)
    for name, (_, branch) in found.items():
        if branch.lender:
            layers[name].lenders = (layers[branch.lender],)


def remove_branch(layer: Adapted) -> None:
    """Take the branch off again, dropping its tensors: what is left is the layer it was."""
    for name in (*layer.branch_trained, *layer.branch_frozen, *layer.branch_settings):
        delattr(layer, name)
    del layer.branch_trained, layer.branch_frozen, layer.branch_settings
    vars(layer).pop("lenders", None)
    cast(nn.Module, layer).__class__ = layer.unadapted


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


def adapted_layers(model: nn.Module) -> dict[str, Adapted]:
    """The layers that carry a branch, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Adapted)}


def layer_named(model: nn.Module, name: str) -> Layer:
    """The layer of this name."""
    return cast(Layer, model.get_submodule(name))


def apart(plain: Layer, kind: type[Adapted], branch: Branch) -> Adapted:
    """The layer that `inject` would make of one, which stays as it is; they share the weight."""
    twin = copy.deepcopy(plain, {id(p): p for p in plain.parameters()})
    inject(twin, kind, branch)
    return cast(Adapted, twin)


def read_state(model: nn.Module) -> dict[str, Tensor]:
    """All branches' trained tensors, "<conv>.<name>", and the deltas of what is trained beside, sorted by name."""
    own = {f"{name}.{k}": t for name, layer in adapted_layers(model).items() for k, t in layer.read_own().items()}
    return dict(sorted((read_dense(model) | own).items()))


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Tensors and deltas back into a network attached alike; FactorError on a misfit, nothing half loaded."""
    refuse_misfits(state, read_state(model))
    layers = adapted_layers(model)
    own = {name: {k: state[f"{name}.{k}"] for k in layer.branch_trained} for name, layer in layers.items()}
    taken = {f"{name}.{k}" for name, tensors in own.items() for k in tensors}
    load_dense(model, {name: tensor for name, tensor in state.items() if name not in taken})
    for name, layer in layers.items():
        layer.load_own(own[name])


def detach(model: nn.Module) -> None:
    """Branches off, in place, and what was trained beside them back to where it began."""
    for layer in adapted_layers(model).values():
        remove_branch(layer)
    stop_dense(model)
    vars(model).pop(RATES_NOTE, None)


@torch.no_grad()
def merged(model: nn.Module) -> nn.Module:
    """A copy whose weights have their branches' deltas in them."""
    copy_of = copied(model)
    layers = adapted_layers(copy_of).values()
    for layer in layers:
        layer.weight.copy_(layer.effective_weight(layer.own()))
    for layer in layers:  # when no other needs what it lends
        remove_branch(layer)
    stop_dense(copy_of, keep=True)
    vars(copy_of).pop(RATES_NOTE, None)
    return copy_of


def deltas_of(layers: Mapping[str, Adapted], lenders: Mapping[str, str], state: State) -> dict[str, Tensor]:
    """A state as a delta: each branch's tensors as its layer says them; what is dense passes. `lenders`: layers whose
    trained tensors are another's -> that one.

    FactorError where a state has other tensors of a branch than its layer, or other shapes.
    """
    trained = {f"{name}.{own}" for name, layer in layers.items() for own in layer.branch_trained}
    delta = {key: tensor for key, tensor in state.items() if key not in trained}
    for name, layer in layers.items():
        came = _came_for(lenders.get(name, name), layers, state)
        like = next(iter(came.values()))
        frozen = {key: layer.get_buffer(key).to(like) for key in layer.branch_frozen}
        said = layer.to_delta({"weight": layer.weight, **frozen, **came})
        delta |= {f"{name}.{key}": tensor for key, tensor in said.items()}
    return delta


def _came_for(name: str, layers: Mapping[str, Adapted], state: State) -> dict[str, Tensor]:
    """What a state says of the trained tensors of a layer."""
    layer = layers[name]
    came = {key: state[f"{name}.{key}"] for key in layer.branch_trained if f"{name}.{key}" in state}
    own = {key: layer.get_parameter(key) for key in layer.branch_trained}
    if {key: t.shape for key, t in came.items()} != {key: t.shape for key, t in own.items()}:
        refuse_other_tensors(name, came, own)
    return came
